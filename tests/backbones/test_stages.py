"""What a head sees of a network besides its features: the ends of its stages, by where maps change their size."""

import numpy as np
import pytest
import torch
from networks import rest_exhaustive, tiny_cnn, tiny_vectors
from pretrained_models import make_text_model
from torch import nn

from sktransfer.backbones import load_backbone
from sktransfer.backbones._stages import STAGES, stage_ends
from sktransfer.backbones.graphs._pooling import pool

STAGES_OF = {
    "mobilenet_v2": ("features.3", "features.6", "features.13", "features.17", None),
    "resnet18": ("layer1.1", "layer2.1", "layer3.1", "layer4.0", None),
    "squeezenet1_1": ("features.3", "features.6", "features.11", None),
    "vgg11": ("features.0", "features.6", "features.11", "features.16", None),
    "densenet121": (*(f"features.{end}" for end in ("denseblock1", "denseblock2", "denseblock3", "transition3")), None),
    "convnext_tiny": ("features.1.2", "features.3.2", "features.5.8", "features.7.1", None),
    "swin_t": ("features.1.1", "features.3.1", "features.5.5", "features.7.0", None),
}


@pytest.mark.parametrize("name", rest_exhaustive(STAGES_OF, "mobilenet_v2", "resnet18", "squeezenet1_1"))
def test_a_stage_ends_where_the_map_changes_its_size(name):
    assert load_backbone(name, weights=None).layers("stages") == STAGES_OF[name]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(8, 8)] * 3 + [(4, 4)] * 2 + [()], [2, 4]),
        ([(64, 64), (32, 32), (16, 16), (8, 8), (4, 4), (2, 2), ()], [2, 3, 4, 5]),
        ([(8, 8)] * 5, [0, 1, 2, 3]),
        ([()] * 13, [4, 6, 8, 10]),
        ([()] * 7, [2, 3, 4, 5]),
        ([()] * 2, [0]),
        ([()], []),
        ([], []),
    ],
)
def test_where_no_map_changes_its_size_blocks_are_spread_evenly(sizes, expected):
    assert stage_ends(sizes) == expected
    assert len(stage_ends(sizes)) <= STAGES


def test_stages_of_a_network_are_found_whatever_it_takes(tmp_path):
    vectors = load_backbone(tiny_vectors, weights=None, n_features=7).layers("stages")
    assert vectors == ("0", None)
    text = load_backbone(make_text_model("bert", tmp_path))
    assert set(text.layers("stages")[:-1]) <= {block.name for block in text.blocks[:-1]}
    assert text.layers("stages")[-1] is None


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_stages_are_what_each_layer_alone_gives(pooling):
    backbone = load_backbone(tiny_cnn(), weights=None)
    x = torch.rand(2, 3, 16, 20)
    layers = backbone.layers("stages", pooling)
    assert len(layers) == 4
    alone = [backbone.feature_part(layer, pooling).network()(x) for layer in layers]
    assert torch.equal(backbone.feature_part(list(layers), pooling).network()(x), torch.cat(alone, dim=1))


def test_flat_maps_of_stages_would_be_too_large():
    assert load_backbone(tiny_cnn(), weights=None).layers("stages", "flatten") == (None,)


class Named(nn.Module):
    """A network with a module that is itself called "stages"."""

    def __init__(self):
        super().__init__()
        self.stages = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2))
        self.last = nn.Conv2d(6, 5, 1)

    def forward(self, x):
        return self.last(self.stages(x).relu_())


def test_a_module_called_stages_is_meant_in_a_list():
    backbone = load_backbone(Named(), weights=None)
    x = torch.rand(2, 3, 12, 12)
    expected = pool(backbone.network.stages(x), "avg")
    np.testing.assert_array_equal(backbone.feature_part(["stages"]).network()(x), expected)
    # What follows works in place, and does not reach what was taken.
    np.testing.assert_array_equal(backbone.feature_part(["stages", None]).network()(x)[:, :6], expected)
