"""Networks of transformers for pictures with all that tuning has: other channels, few parameters, files of weights."""

import warnings

import joblib
import numpy as np
import pytest
import torch
from networks import rest_exhaustive
from pretrained_models import make_picture_model
from safetensors.torch import load_file

import sktransfer
from sktransfer import FineTunedClassifier
from sktransfer.backbones import load_backbone

transformers = pytest.importorskip("transformers")

KINDS = rest_exhaustive(["vit", "convnext", "swin", "dinov2", "resnet"], 2)


@pytest.fixture(params=KINDS)
def backbone(request, tmp_path):
    return make_picture_model(request.param, tmp_path / "model")


def bands(n_channels, telling):
    """Noise of several channels, of which one is darker in the second class."""
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 256, (24, n_channels, 32, 32), dtype=np.uint8), np.arange(24) % 2
    X[y == 1, telling] //= 3
    return X, y


def tuned(backbone, **changed):
    chosen = {"freeze_depth": 0.5, "max_epochs": 2, "lr": 1e-3, "precision": "float32", "random_state": 0}
    return FineTunedClassifier(backbone, **{**chosen, **changed})


def test_a_band_behind_red_green_and_blue_is_seen(backbone, tmp_path):
    X, y = bands(5, telling=4)
    model = tuned(backbone).fit(X, y)
    assert model.score(X, y) == 1
    assert tuned(backbone, max_epochs=1).fit(X[:, :3], y).backbone_.n_own_channels is None
    assert "first layer adapted to 5 channels" in repr(model.backbone_)
    joblib.dump(model, tmp_path / "model.joblib")
    sktransfer.save(model, tmp_path / "model.skt")
    for again in (joblib.load(tmp_path / "model.joblib"), sktransfer.load(tmp_path / "model.skt")):
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_a_network_that_takes_blue_first_is_given_further_channels_behind_red(tmp_path):
    processor = transformers.MobileViTImageProcessor(
        size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}, do_flip_channel_order=True
    )
    name = make_picture_model("convnext", tmp_path / "model", processor)
    three, five = load_backbone(name), load_backbone(name, n_channels=5)
    assert five._traced.entry.reverse
    x = torch.rand(2, 3, *three.preprocessing.crop)
    wide = torch.cat([x, torch.zeros(2, 2, *x.shape[2:])], dim=1)
    first = next(module for module in three.network.modules() if isinstance(module, torch.nn.Conv2d))
    wider = next(module for module in five.network.modules() if isinstance(module, torch.nn.Conv2d))
    seen = [three._traced.entry.arguments(x)["pixel_values"], five._traced.entry.arguments(wide)["pixel_values"]]
    expected = torch.nn.functional.conv2d(seen[0], first.weight, stride=first.stride) * 3 / 5
    torch.testing.assert_close(torch.nn.functional.conv2d(seen[1], wider.weight, stride=wider.stride), expected)


@pytest.mark.parametrize("trainable", ["norm", "bias", "lora"])
def test_few_parameters_learn_and_the_tuned_network_goes_on_in_another_estimator(backbone, trainable, tmp_path):
    X, y = bands(3, telling=1)
    settings = {"lora_rank": 2} if trainable == "lora" else {}
    first = tuned(backbone, trainable=trainable, store_backbone=False, **settings).fit(X, y)
    before, after = load_backbone(backbone).network.state_dict(), tmp_path / "tuned.safetensors"
    first.save_backbone(after)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = tuned(backbone, weights=after, max_epochs=1).fit(X, y)
    changed = {name for name, tensor in load_file(after).items() if not tensor.equal(before[name])}
    assert changed
    assert changed <= set(first.backbone_.learned_names(0.5, trainable))
    second.interpolation_ = 0.0
    np.testing.assert_array_equal(second.transform(X), first.transform(X))
    sktransfer.save(first, tmp_path / "first.skt")
    np.testing.assert_array_equal(sktransfer.load(tmp_path / "first.skt").predict_proba(X), first.predict_proba(X))


def test_what_modules_keep_of_their_parameters_is_forgotten_when_these_have_changed(tmp_path):
    """LeViT's attention keeps its biases between predictions; they change in training, and with `interpolation_`."""
    backbone = make_picture_model("levit", tmp_path / "model")
    X, y = bands(3, telling=1)
    pretrained = load_backbone(backbone)
    model = tuned(backbone, freeze_depth=0, lr=1e-2, strategy="fine_tune").fit(X, y)
    expected = model.predict_proba(X)
    sktransfer.save(model, tmp_path / "model.skt")
    np.testing.assert_array_equal(sktransfer.load(tmp_path / "model.skt").predict_proba(X), expected)
    features = model.transform(X)
    model.interpolation_ = 0.0
    assert not np.array_equal(model.transform(X), features)
    model.save_backbone(tmp_path / "first.safetensors")
    first = load_file(tmp_path / "first.safetensors")
    state = pretrained.network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in first.items() if "running" not in name)
    frozen = tuned(backbone, freeze_depth="all", max_epochs=1).fit(X, y)
    np.testing.assert_allclose(model.transform(X), frozen.transform(X), rtol=1e-4, atol=1e-4)
