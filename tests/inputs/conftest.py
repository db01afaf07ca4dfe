"""Undamaged pictures, and estimators fitted on them."""

import numpy as np
import pytest
from picture_corpus import make_pixels, small_cnn
from PIL import Image

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Five undamaged files to fit on."""
    folder = tmp_path_factory.mktemp("good")
    files = [folder / f"{number}.png" for number in range(5)]
    for number, file in enumerate(files):
        Image.fromarray(make_pixels(100 + number)).save(file)
    return files


@pytest.fixture
def tolerant(good):
    return PretrainedFeatureExtractor(
        small_cnn, on_bad_sample="nan", random_state=0, precision="float32", feature_cache=None
    ).fit(good)


@pytest.fixture(scope="module")
def fitted(good):
    labels = np.arange(len(good)) % 2
    return [
        PretrainedFeatureExtractor(small_cnn, random_state=0).fit(good),
        FineTunedClassifier(small_cnn, random_state=0).fit(good, labels),
    ]
