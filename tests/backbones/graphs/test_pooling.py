"""From maps and tokens to one vector a sample."""

import pytest
import torch
from torch import nn
from torchvision.ops import Permute

from sktransfer.backbones import load_backbone
from sktransfer.backbones.graphs._pooling import POOLINGS, pool


@pytest.mark.parametrize("pooling", POOLINGS)
def test_vectors_are_returned_as_they_are(pooling: str):
    x = torch.rand(3, 5)
    assert torch.equal(pool(x, pooling), x)


@pytest.mark.parametrize("pooling", ["avg", "mean"])
def test_the_average_of_a_map_is_taken_over_its_positions(pooling: str):
    x = torch.rand(2, 3, 4, 5)
    assert torch.equal(pool(x, pooling), x.mean((2, 3)))


def test_the_maximum_of_a_map_is_taken_over_its_positions():
    x = torch.rand(2, 3, 4, 5)
    assert torch.equal(pool(x, "max"), x.flatten(2).max(2).values)


def test_flatten_keeps_every_value_in_order():
    x = torch.rand(2, 3, 4, 5)
    assert torch.equal(pool(x, "flatten"), x.reshape(2, 60))
    assert pool(torch.rand(2, 7, 5), "flatten").shape == (2, 35)


def test_tokens_give_their_first_their_average_or_their_maximum():
    x = torch.rand(2, 7, 5)
    assert torch.equal(pool(x, "cls"), x[:, 0])
    assert torch.equal(pool(x, "avg"), x.mean(1))
    assert torch.equal(pool(x, "mean"), x.mean(1))
    assert torch.equal(pool(x, "max"), x.max(1).values)


def test_sequences_and_volumes_of_more_axes_are_pooled_too():
    x = torch.rand(2, 3, 4, 5, 6)
    assert torch.equal(pool(x, "avg"), x.mean((2, 3, 4)))


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (2, 3, 4, 4, 4)])
def test_a_map_has_no_class_token(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r'Got pooling="cls" for activations of shape \(3, 4.*expected tokens'):
        pool(torch.rand(shape), "cls")


@pytest.mark.parametrize("x", [torch.rand(2, 8, 8, 8), torch.rand(2, 4, 8, 8), torch.rand(2, 8, 1, 1)])
def test_square_maps_with_channels_first_are_not_taken_for_channels_last(x: torch.Tensor):
    assert torch.equal(pool(x, "avg"), x.mean((2, 3)))


@pytest.mark.parametrize("name", ["swin_t", "swin_v2_t"])
def test_swins_maps_with_channels_last_are_pooled_over_height_and_width(name: str):
    backbone = load_backbone(name, weights=None)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for layer, width in (("features.1.0", 96), ("features.5.5", 384)):
            maps = backbone.split(layer)[0](x)
            assert maps.shape[1] == maps.shape[2]
            assert maps.shape[3] == width
            maps = maps.movedim(3, 1)
            assert torch.equal(backbone.feature_part(layer, "avg").network()(x), maps.mean((2, 3)))
            assert torch.equal(backbone.feature_part(layer, "max").network()(x), maps.amax((2, 3)))


def test_a_vision_transformers_class_token_is_its_first():
    backbone = load_backbone("vit_b_32", weights=None)
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        tokens = backbone.split(6)[0](x)
        assert tokens.shape == (1, 50, 768)
        assert torch.equal(backbone.feature_part(6, "cls").network()(x), tokens[:, 0])


@pytest.mark.parametrize("size", [(16, 24), (24, 16), (16, 16), (8, 16)])
def test_maps_of_any_sides_are_pooled_over_their_positions(size: tuple[int, int]):
    first = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 1), nn.Tanh())
    last = nn.Sequential(nn.Conv2d(3, 16, 1), Permute([0, 2, 3, 1]), nn.Linear(16, 8), nn.GELU())
    back = nn.Sequential(nn.Conv2d(3, 8, 1), Permute([0, 2, 3, 1]), nn.LayerNorm(8), Permute([0, 3, 1, 2]), nn.ReLU())
    x = torch.rand(2, 3, *size)
    for network, axes in ((first, (2, 3)), (last, (1, 2)), (back, (2, 3))):
        network.eval()
        backbone = load_backbone(network)
        with torch.no_grad():
            assert torch.equal(backbone.feature_part(None, "avg").network()(x), network(x).mean(axes))
        assert backbone.features_have_channels_last == (axes == (1, 2))


@pytest.mark.exhaustive
def test_layout_is_known_for_every_block_of_torchvisions_families():
    for name in ("swin_t", "convnext_tiny", "maxvit_t", "resnet18", "densenet121", "squeezenet1_1"):
        backbone = load_backbone(name, weights=None)
        shapes = [row.output_shape for row in backbone.summary().rows]
        for number, shape in enumerate(shapes, start=1):
            if len(shape) == 3 and shape[0] != shape[1]:
                assert backbone.feature_part(number).network().channels_last is False, (name, number)
            elif len(shape) == 3 and shape[1] != shape[2]:
                assert backbone.feature_part(number).network().channels_last is True, (name, number)
