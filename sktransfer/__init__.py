"""Transfer learning as scikit-learn estimators."""

from sktransfer._feature_extractor import PretrainedFeatureExtractor
from sktransfer._fine_tuned_classifier import FineTunedClassifier
from sktransfer.inputs import load_image_folder

__all__ = ["FineTunedClassifier", "PretrainedFeatureExtractor", "load_image_folder"]
