"""Layers whose weight is computed in each call are blocks as others are, are frozen with them and trained with them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from sktransfer.backbones import load_backbone
from sktransfer.backbones.graphs._folding import make_ready, scale_convolutions
from sktransfer.backbones.graphs._traced_graph import NetworkGraph


class Standardised(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(x, weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5), self.bias, padding=self.padding)


class LowRank(nn.Module):
    """A linear layer with a correction of low rank, written by hand."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width) / width)
        self.a, self.b = nn.Parameter(torch.randn(2, width)), nn.Parameter(torch.randn(width, 2))

    def forward(self, x):
        return F.linear(x, self.weight + self.b @ self.a)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.5))

    def forward(self, weight):
        return weight * self.factor


class BesideItsNorm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm, self.matrix = nn.LayerNorm(width), nn.Parameter(torch.randn(width, width) / width)

    def forward(self, x):
        return (self.norm(x) @ self.matrix).relu()


class ListOfMatrices(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrices = nn.ParameterList([nn.Parameter(torch.randn(8, 8)) for _ in range(6)])
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        for matrix in self.matrices:
            x = torch.einsum("bi,ij->bj", x, matrix).relu()
        return self.fc(x)


def convolution(index: int) -> nn.Conv2d:
    return nn.Conv2d(8 if index else 3, 8, 3, padding=1, bias=False)


def parametrized(index: int) -> nn.Module:
    layer = Standardised(8 if index else 3, 8, 3, padding=1, bias=False) if index % 2 else convolution(index)
    parametrize.register_parametrization(layer, "weight", Scale())
    return layer


def with_old_weight_norm(index: int) -> nn.Module:
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(convolution(index))


def on_pictures(make) -> nn.Sequential:
    layers = [layer for i in range(6) for layer in (make(i), nn.BatchNorm2d(8), nn.ReLU())]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


PICTURES, VECTORS = torch.randn(3, 3, 8, 8), torch.randn(3, 8)
ON_VECTORS = ("low rank", "matrix beside a norm", "list of matrices")
NETWORKS = {
    "standardised": lambda: on_pictures(lambda i: Standardised(8 if i else 3, 8, 3, padding=1, bias=False)),
    "parametrized": lambda: on_pictures(parametrized),
    "weight norm": lambda: on_pictures(lambda i: parametrizations.weight_norm(convolution(i))),
    "old weight norm": lambda: on_pictures(with_old_weight_norm),
    "spectral norm": lambda: on_pictures(lambda i: parametrizations.spectral_norm(convolution(i))),
    "old spectral norm": lambda: on_pictures(lambda i: nn.utils.spectral_norm(convolution(i))),
    "low rank": lambda: nn.Sequential(*[LowRank(8) for _ in range(6)], nn.Linear(8, 3)),
    "matrix beside a norm": lambda: nn.Sequential(*[BesideItsNorm(8) for _ in range(6)], nn.Linear(8, 3)),
    "list of matrices": ListOfMatrices,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_layer_is_a_block_with_the_parameters_that_its_weight_is_computed_from(name: str):
    torch.manual_seed(0)
    backbone = load_backbone(NETWORKS[name]())
    network = backbone.network
    x = VECTORS if name in ON_VECTORS else PICTURES
    assert len(backbone.blocks) == 6
    named = {name for block in backbone.blocks for name in block.parameter_names}
    head = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)][-1]
    assert named == {name for name, _ in network.named_parameters()} - {f"{head}.weight", f"{head}.bias"}
    with torch.no_grad():
        expected = network(x)
        for depth in range(7):
            prefix, suffix = backbone.split(depth)
            assert torch.equal(suffix(prefix(x)), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_made_ready_to_run_or_to_train_computes_the_same(name: str):
    torch.manual_seed(0)
    graph = NetworkGraph(load_backbone(NETWORKS[name]()).network)
    x = VECTORS if name in ON_VECTORS else PICTURES
    part = graph.between(graph.end_of_block(0), graph.end_of_block(6))
    with torch.no_grad():
        for module in graph.network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-1, 1)
                module.running_var.uniform_(0.5, 2)
        expected = part(x)
        ready = make_ready(part, torch.device("cpu"), False, {})
        assert torch.allclose(ready(x), expected, atol=1e-4)
    trained = scale_convolutions(part.requires_grad_(True))
    value = trained(x)
    assert torch.allclose(value, expected, atol=1e-4)
    value.sum().backward()
    assert all(parameter.grad is not None for parameter in part.parameters())
