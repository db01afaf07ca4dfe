"""Transfer learning as scikit-learn estimators.

What a program may well never use is imported when it is first asked for.
"""

import typing as _typing

from sktransfer._cache_control import cache_info, clear_cache, set_cache_limit
from sktransfer._feature_extractor import PretrainedFeatureExtractor
from sktransfer._fine_tuned_classifier import FineTunedClassifier
from sktransfer._process import _earlier_modules
from sktransfer._training._suffix_network import restore_suffix

if _typing.TYPE_CHECKING:
    from sktransfer._fine_tuned_regressor import FineTunedRegressor
    from sktransfer._ranking import rank_backbones
    from sktransfer._saved_model import load, save
    from sktransfer._show_versions import show_versions
    from sktransfer._suggesting import suggest_settings
    from sktransfer.inputs.images._folder import load_image_folder

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


def __getattr__(name: str) -> _typing.Any:
    if name == "FineTunedRegressor":
        from sktransfer._fine_tuned_regressor import FineTunedRegressor

        return FineTunedRegressor
    if name == "load":
        from sktransfer._saved_model import load

        return load
    if name == "load_image_folder":
        from sktransfer.inputs.images._folder import load_image_folder

        return load_image_folder
    if name == "rank_backbones":
        from sktransfer._ranking import rank_backbones

        return rank_backbones
    if name == "save":
        from sktransfer._saved_model import save

        return save
    if name == "show_versions":
        from sktransfer._show_versions import show_versions

        return show_versions
    if name == "suggest_settings":
        from sktransfer._suggesting import suggest_settings

        return suggest_settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
