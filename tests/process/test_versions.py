"""What is kept in a folder is not given to a library of another version that may compute something else."""

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer._cache._memory_store import activation_keys
from sktransfer._process import _versions
from sktransfer.backbones import ImagePreprocessing, load_backbone
from sktransfer.inputs import SoundPreprocessing
from sktransfer.inputs._texts import TextSamples
from sktransfer.inputs.images._pixel_range import PictureScale
from sktransfer.inputs.images._reader import ImageSamples
from sktransfer.inputs.sounds._decoding import Length
from sktransfer.inputs.sounds._reader import SoundSamples


def image_recipe():
    return ImageSamples(
        np.zeros((1, 8, 8, 3), np.uint8),
        ImagePreprocessing(crop=(8, 8)),
        (0.0, 255.0),
        PictureScale(None, "auto", False),
    ).recipe


def sound_recipe():
    preprocessing = SoundPreprocessing("Wav2Vec2FeatureExtractor", "{}", "input_values", 1000, 100)
    return SoundSamples([np.zeros((100, 1), np.float32)], [Length(100, 1000)], preprocessing).recipe


def text_recipe():
    return TextSamples([[1, 2]]).recipe


def torch_key():
    return activation_keys([b"a"], "b", "c", "d")


def identity():
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
    return load_backbone(network)._loaded.graph.describe().text


@pytest.fixture
def installed(monkeypatch):
    """Pretend that a library has another version."""

    def pretend(library, version):
        actual = _versions.version_of
        monkeypatch.setattr(_versions, "version_of", lambda one: version if one == library else actual(one))
        _versions.version.cache_clear()
        _code_editions().cache_clear()

    yield pretend
    monkeypatch.undo()
    _versions.version.cache_clear()
    _code_editions().cache_clear()


def _code_editions():
    from sktransfer.backbones import _code

    return _code._edition


@pytest.mark.parametrize(
    ("library", "made"),
    [
        ("torch", torch_key), ("torch", identity), ("pillow", image_recipe), ("torchvision", image_recipe),
        ("soxr", sound_recipe), ("soundfile", sound_recipe), ("transformers", sound_recipe),
        ("tokenizers", text_recipe),
    ],
)  # fmt: skip
def test_minor_versions_are_a_part_of_keys_and_patches_are_not(library, made, installed):
    keys = []
    for version in ("7.1.0", "7.1.2+cpu", "7.2.0", "8.1.0"):
        installed(library, version)
        keys.append(made())
    assert keys[0] == keys[1]
    assert len({str(key) for key in keys}) == 3


def test_a_library_that_is_not_installed_has_no_version():
    assert _versions.versions("no-such-library-at-all") == "no-such-library-at-all "
