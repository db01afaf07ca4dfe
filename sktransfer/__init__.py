"""Transfer learning as scikit-learn estimators."""

from sktransfer._cache_control import cache_info, clear_cache, set_cache_limit
from sktransfer._feature_extractor import PretrainedFeatureExtractor
from sktransfer._fine_tuned_classifier import FineTunedClassifier
from sktransfer._fine_tuned_regressor import FineTunedRegressor
from sktransfer._process import _earlier_modules
from sktransfer._process._versions import show_versions
from sktransfer._ranking import rank_backbones
from sktransfer._saved_model import load, save
from sktransfer._suggesting import suggest_settings
from sktransfer._training._suffix_network import restore_suffix
from sktransfer.inputs import load_image_folder

__version__ = "0.1.0"

_earlier_modules.install()

__all__ = [
    "FineTunedClassifier",
    "FineTunedRegressor",
    "PretrainedFeatureExtractor",
    "__version__",
    "cache_info",
    "clear_cache",
    "load",
    "load_image_folder",
    "rank_backbones",
    "restore_suffix",
    "save",
    "set_cache_limit",
    "show_versions",
    "suggest_settings",
]
