"""Where a network can be cut is found, and is right, for networks of every build."""

import pytest
import torch
from networks import tiny_cnn, tiny_vectors
from torch import nn
from torch.nn import functional as F

from sktransfer.backbones import UntraceableError, load_backbone
from sktransfer.backbones.graphs._traced_graph import NetworkGraph


def names(network: nn.Module, ends_in_classifier: bool | None = None) -> list[str]:
    return [block.name for block in NetworkGraph(network.eval(), ends_in_classifier).blocks]


def check_cuts(network: nn.Module, x: torch.Tensor) -> list[str]:
    """Every cut computes what the whole computes; the names of the blocks."""
    graph = NetworkGraph(network.eval())
    start = graph.end_of_block(0)
    with torch.no_grad():
        expected = network(x.clone())
        ends = [graph.end_of_block(depth) for depth in range(len(graph.blocks) + 1)]
        for end in [*ends, *map(graph.end_of_module, graph.cut_names())]:
            prefix, suffix = graph.between(start, end), graph.between(end)
            assert torch.equal(suffix(prefix(x.clone())), expected)
    in_blocks = [n for block in graph.blocks for n in block.parameter_names]
    assert len(in_blocks) == len(set(in_blocks))
    return [block.name for block in graph.blocks]


# Names, as they stand in other people's code


def test_a_resnet_has_its_stem_and_its_residual_blocks():
    layers = [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]
    assert [block.name for block in load_backbone("resnet18", weights=None).blocks] == ["conv1", *layers]


def test_a_mobilenet_has_its_nineteen_features():
    blocks = load_backbone("mobilenet_v2", weights=None).blocks
    assert [block.name for block in blocks] == [f"features.{i}" for i in range(19)]


def test_a_vision_transformer_has_its_patches_and_its_layers():
    blocks = load_backbone("vit_b_32", weights=None).blocks
    layers = [f"encoder.layers.encoder_layer_{i}" for i in range(12)]
    assert [block.name for block in blocks] == ["conv_proj", *layers]
    assert {"class_token", "encoder.pos_embedding"} <= set(blocks[0].parameter_names)
    assert {"encoder.ln.weight", "encoder.ln.bias"} <= set(blocks[-1].parameter_names)


def test_a_vgg_has_a_block_for_each_layer_with_weights():
    blocks = load_backbone("vgg11_bn", weights=None).blocks
    convolutions = [f"features.{i}" for i in (0, 4, 8, 11, 15, 18, 22, 25)]
    assert [block.name for block in blocks] == [*convolutions, "classifier.0", "classifier.3"]
    assert "features.1.running_mean" in blocks[0].buffer_names


def test_a_normalisation_stays_with_the_layer_that_it_follows():
    blocks = load_backbone("resnet18", weights=None).blocks
    assert blocks[0].parameter_names == ("conv1.weight", "bn1.weight", "bn1.bias")
    assert blocks[0].buffer_names == ("bn1.running_mean", "bn1.running_var", "bn1.num_batches_tracked")


def test_a_tiny_network_has_a_block_for_each_layer_with_weights_and_each_residual_block():
    assert check_cuts(tiny_cnn(), torch.rand(2, 3, 8, 8)) == ["0", "4", "5", "6"]


# Where the features are


def test_features_are_what_enters_a_last_linear_layer():
    graph = NetworkGraph(tiny_cnn().eval())
    features = graph.between(graph.end_of_block(0), graph.end_of_block(4))
    assert features(torch.rand(2, 3, 8, 8)).shape == (2, 16)


def test_features_are_the_output_where_no_linear_layer_is_last():
    assert names(tiny_vectors()) == ["0", "2"]
    graph = NetworkGraph(tiny_vectors().eval())
    x = torch.rand(2, 4)
    assert torch.equal(graph.between(graph.end_of_block(0), graph.end_of_block(2))(x), graph.network(x))


def test_who_knows_that_the_last_layer_classifies_may_say_so():
    network = tiny_vectors()
    assert names(network, ends_in_classifier=True) == ["0"]
    assert names(network, ends_in_classifier=False) == ["0", "2"]


def test_features_may_be_moved_to_an_earlier_cut():
    graph = NetworkGraph(tiny_cnn().eval())
    assert [block.name for block in graph.ending_at(graph.end_of_block(2)).blocks] == ["0", "4"]
    assert len(graph.blocks) == 4, "the graph itself stays as it was"


# Networks of every build


@pytest.mark.parametrize(
    ("layer", "shape"), [(nn.Linear(4, 3), (2, 4)), (nn.Conv2d(3, 2, 1), (2, 3, 5, 5)), (nn.LayerNorm(4), (2, 4))]
)
def test_a_lone_layer_is_one_block(layer: nn.Module, shape: tuple[int, ...]):
    assert len(check_cuts(layer, torch.rand(shape))) == 1
    assert check_cuts(nn.Sequential(layer), torch.rand(shape)) in (["0"], ["network"])


def test_a_network_without_weights_is_one_block():
    assert check_cuts(nn.Sequential(nn.ReLU(), nn.Flatten()), torch.rand(2, 3, 4)) == ["network"]


class TwoBranches(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        self.joint, self.head = nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.joint(torch.cat([self.left(x), self.right(x)], dim=1)))


def test_branches_at_the_root_are_one_block():
    assert check_cuts(TwoBranches(), torch.rand(2, 4))[1:] == ["joint"]
    graph = NetworkGraph(TwoBranches().eval())
    assert set(graph.blocks[0].parameter_names) == {f"{n}.{p}" for n in ("left", "right.0") for p in ("weight", "bias")}


class ShortcutAround(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.c(x + self.b(torch.relu(self.a(x))))


def test_a_shortcut_from_the_input_leaves_no_cut_under_it():
    assert len(check_cuts(ShortcutAround(), torch.rand(2, 4))) == 1


class UsedTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.other, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.relu(self.shared(torch.relu(self.other(torch.relu(self.shared(x)))))))


def test_a_layer_that_is_used_twice_is_in_the_block_that_uses_it_first():
    assert check_cuts(UsedTwice(), torch.rand(2, 4)) == ["shared", "other"]


class Repeated(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        for _ in range(3):
            x = self.inner(x)
        return self.head(x)


def test_a_module_that_is_repeated_is_one_block_and_ends_where_it_ends_last():
    network = Repeated()
    x = torch.randn(2, 4)
    assert check_cuts(network, x) == ["inner"]
    graph = NetworkGraph(network.eval())
    whole = graph.between(graph.end_of_block(0), graph.end_of_module("inner"))
    assert torch.equal(whole(x), network.inner(network.inner(network.inner(x))))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.c(self.b(self.a(x)))


def test_a_tied_weight_is_a_parameter_of_the_first_block_that_uses_it_and_frozen_with_it():
    check_cuts(Tied(), torch.rand(2, 4))
    graph = NetworkGraph(Tied().eval())
    assert [block.parameter_names for block in graph.blocks] == [("a.weight", "a.bias"), ("b.bias",)]
    assert all(block.buffer_names == () for block in graph.blocks)


class OwnParameters(nn.Module):
    """Parameters of the root itself, as class tokens and projections are."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.register_buffer("scale", torch.tensor(2.0))
        self.mix, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        return self.head(self.mix(x * self.scale)[:, 0])


def test_parameters_of_the_network_itself_are_in_the_block_that_uses_them():
    assert check_cuts(OwnParameters(), torch.rand(2, 3, 4)) == ["mix"]
    (block,) = NetworkGraph(OwnParameters().eval()).blocks
    assert set(block.parameter_names) == {"token", "mix.weight", "mix.bias"}
    assert block.buffer_names == ("scale",)


class InPlaceStatements(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.act = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 2), nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.a(x)
        x.relu_()
        x = self.b(x)
        F.relu(x, inplace=True)
        x = x - 0.1
        self.act(x)
        x = self.b(x)
        torch.relu_(x)
        return self.c(x)


def test_statements_that_work_in_place_are_not_lost():
    assert check_cuts(InPlaceStatements(), torch.randn(8, 4)) == ["a", "b"]


class InPlacePart(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        x = self.a(x)
        x[:, 0].zero_()
        return self.b(x)


def test_changing_a_part_in_place_is_refused_rather_than_lost():
    with pytest.raises(UntraceableError, match=r"Got a InPlacePart .*in place.*; expected .*Write"):
        NetworkGraph(InPlacePart().eval())


class InPlaceShortcut(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2), nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.a(x)
        return self.c(x + self.b(self.act(x)))


def test_a_shortcut_that_is_changed_in_place_stays_so():
    check_cuts(InPlaceShortcut(), torch.randn(8, 4))


class StochasticDepth(nn.Module):
    def forward(self, x):
        return x * torch.bernoulli(torch.full((), 0.5)) if self.training else x


def test_modules_without_weights_keep_what_they_do_in_training():
    graph = NetworkGraph(nn.Sequential(nn.Linear(4, 4), StochasticDepth(), nn.Linear(4, 2)).eval())
    part = graph.between(graph.end_of_block(0), graph.end_of_block(1))
    x = torch.rand(2, 4)
    assert len({part.train()(x).sum().item() for _ in range(64)}) == 2
    assert len({part.eval()(x).sum().item() for _ in range(8)}) == 1


def test_parts_hold_the_networks_own_layers_and_no_others():
    network = tiny_cnn().eval()
    graph = NetworkGraph(network)
    prefix = graph.between(graph.end_of_block(0), graph.end_of_block(2))
    suffix = graph.between(graph.end_of_block(2))
    own = {name: id(tensor) for name, tensor in network.named_parameters()}
    assert {name: id(tensor) for part in (prefix, suffix) for name, tensor in part.named_parameters()} == own
    assert {name.split(".")[0] for name, _ in prefix.named_parameters()} == {"0", "1", "4"}


# What cannot be cut


class BranchesOnValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 2)

    def forward(self, x):
        return self.a(x) if x.sum() > 0 else self.a(-x)


class Loops(BranchesOnValues):
    def forward(self, x):
        return torch.stack([self.a(row) for row in x])


class Assigns(BranchesOnValues):
    def forward(self, x):
        x[:, 0] = 0
        return self.a(x)


class TwoArguments(BranchesOnValues):
    def forward(self, x, mask):
        return self.a(x * mask)


class NoArguments(BranchesOnValues):
    def forward(self):
        return self.a.weight


class Pair(BranchesOnValues):
    def forward(self, x):
        return self.a(x), x


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (BranchesOnValues, "forward cannot be traced .*control flow.*; expected .*torch.fx.wrap"),
        (Loops, "forward cannot be traced .*; expected operations that do not depend on the values"),
        (Assigns, "forward cannot be traced .*item assignment.*; expected"),
        (TwoArguments, "forward takes 2 arguments; expected one"),
        (NoArguments, "forward takes 0 arguments; expected one"),
        (Pair, "output is a tuple of values; expected one tensor. Wrap it"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_the_reason(network: type[nn.Module], message: str):
    with pytest.raises(UntraceableError, match=f"Got a .*{message}") as caught:
        NetworkGraph(network().eval())
    assert isinstance(caught.value, ValueError)


class SpareArgument(BranchesOnValues):
    def forward(self, x, targets=None):
        return self.a(x)


def test_an_argument_that_is_not_used_does_no_harm():
    assert check_cuts(SpareArgument(), torch.rand(2, 4)) == ["a"]


@torch.fx.wrap
def keeps_positive(x: torch.Tensor) -> torch.Tensor:
    return x if x.sum() > 0 else -x


class Wrapped(BranchesOnValues):
    def forward(self, x):
        return self.a(keeps_positive(x))


def test_the_advice_for_a_function_that_branches_works():
    for sign in (1, -1):
        check_cuts(Wrapped(), sign * torch.rand(2, 4))


def test_the_names_of_cuts_are_listed_in_the_order_in_which_their_modules_end():
    graph = NetworkGraph(nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2)).eval())
    assert graph.cut_names() == ["0.0", "0", "0.1"]
