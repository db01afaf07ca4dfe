from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

import sktransfer
from sktransfer import PretrainedFeatureExtractor
from sktransfer.backbones import _loaded_network
from sktransfer.backbones.sources._unfilled import Unfilled


def drawn():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5), nn.Embedding(6, 7), nn.LSTM(2, 3))


def truncated():
    layer = nn.Linear(8, 8)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.trunc_normal_(layer.bias, mean=1.0, std=0.1, a=0.5, b=1.5)  # zero lies outside: it ends all the same
    return layer


def test_no_parameter_is_drawn():
    before = torch.get_rng_state()
    with Unfilled():
        network = drawn()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(isinstance(one, nn.Parameter) and one.requires_grad and one.is_leaf for one in network.parameters())
    layers = (network[0].weight, network[2].bias, network[3].weight, network[4].weight_hh_l0)
    assert not any(bool(one.any()) for one in layers)
    assert bool((network[1].weight == 1).all())  # which is not drawn


def test_what_is_no_parameter_is_drawn():
    with Unfilled():
        buffer = torch.empty(5).normal_()
    assert bool(buffer.any())


@pytest.mark.parametrize("build", [drawn, truncated])
def test_weights_filled_later_are_the_same(build):
    filled = build()
    with Unfilled():
        network = build()
    network.load_state_dict(filled.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), filled.parameters(), strict=True))


def test_a_saved_model_is_loaded_without_drawing_its_network(tmp_path, monkeypatch):
    X = np.random.default_rng(0).integers(0, 256, size=(2, 32, 32, 3), dtype=np.uint8)
    extractor = PretrainedFeatureExtractor("squeezenet1_1", weights=None, feature_cache=None).fit(X)
    expected = extractor.transform(X)
    sktransfer.save(extractor, tmp_path / "model.safetensors")
    monkeypatch.setattr(_loaded_network, "_KEPT", OrderedDict())
    built = []
    monkeypatch.setattr(Unfilled, "__exit__", lambda self, *error: built.append(self) or _leave(self, *error))
    loaded = sktransfer.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(loaded.transform(X), expected)
    assert len(built) == 1


_leave = Unfilled.__exit__
