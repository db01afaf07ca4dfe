"""What a forward reads of its input's shape, type or device does not keep a network from being cut, at any size."""

import copy
import warnings

import numpy as np
import pytest
import torch
from networks import rest_exhaustive, tiny_cnn
from torch import nn
from torch.nn import functional as F

from sktransfer import FineTunedClassifier
from sktransfer.backbones import load_backbone
from sktransfer.backbones.graphs._traced_graph import NetworkGraph


class Early(nn.Module):
    """Six convolutions; what is read at the start is used at the end."""

    sizes = ((3, 16, 16), (3, 24, 40))

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            *[nn.Sequential(nn.Conv2d(8 if i else 3, 8, 3, padding=1), nn.ReLU()) for i in range(6)]
        )
        self.fc = nn.Linear(8, 3)


class Size(Early):
    def forward(self, x):
        n = x.size(0)
        return self.fc(self.layers(x).mean((2, 3)).view(n, -1))


class UnpackedShape(Early):
    def forward(self, x):
        n, _, h, w = x.shape
        x = self.layers(x).flatten(2).sum(2) / (h * w)
        return self.fc(x.view(n, -1))


class ReadAtTheEnd(Early):
    def forward(self, x):
        return self.fc(self.layers(x).mean((2, 3)).view(x.shape[0], -1))


class KindAndDevice(Early):
    def forward(self, x):
        kind, device, axes = x.dtype, x.device, x.ndim
        return self.fc(self.layers(x).mean((2, 3)).to(device).to(kind) * axes)


class LikeTheInput(Early):
    def forward(self, x):
        y = self.layers(x).type_as(x) + torch.ones_like(x).mean(1, keepdim=True) + x.new_zeros(x.shape[0], 1, 1, 1)
        return self.fc(y.to(x).mean((2, 3)))


class ResizedToTheInput(Early):
    def forward(self, x):
        size = x.shape[-2:]
        return self.fc(F.interpolate(F.max_pool2d(self.layers(x), 2), size=size).mean((2, 3)))


class Grid(Early):
    def forward(self, x):
        _, _, h, w = x.size()
        grid = torch.arange(h, device=x.device)[:, None] * torch.arange(w, device=x.device, dtype=x.dtype)
        return self.fc((self.layers(x) + grid).mean((2, 3)))


class Dictionary(Early):
    def forward(self, x):
        values = {"n": x.shape[0], "x": x}
        for layer in self.layers:
            values = {**values, "x": layer(values["x"])}
        return self.fc(values["x"].mean((2, 3)).view(values["n"], -1))


class Tokens(nn.Module):
    sizes = ((10, 12), (17, 12))

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(12, 12) for _ in range(6)])
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        n, length, width = x.shape
        for layer in self.layers:
            x = layer(x).relu()
        return self.fc(x.reshape(n, length, width).mean(1) + length)


class FlatPictures(nn.Module):
    sizes = ((784,),)

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(4 if i else 1, 4, 3, padding=1) for i in range(6)])
        self.fc = nn.Linear(4 * 14 * 14, 3)

    def forward(self, x):
        n = x.size(0)
        x = x.view(n, 1, 28, 28)
        for layer in self.layers:
            x = layer(x).relu()
        return self.fc(F.max_pool2d(x, 2).view(n, -1))


class Recurrent(nn.Module):
    """A layer of it returns a tuple, at which nothing is cut."""

    sizes = ((10, 12), (17, 12))

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.LSTM(12, 12, batch_first=True) for _ in range(6)])
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        n = x.size(0)
        for layer in self.layers:
            x, _ = layer(x)
        return self.fc(x[:, -1].reshape(n, -1))


@torch.fx.wrap
def turned_up(x: torch.Tensor) -> torch.Tensor:
    return x if x.sum() > 0 else -x


class BranchesOnValues(Early):
    def forward(self, x):
        n = x.size(0)
        return self.fc(self.layers(turned_up(x)).mean((2, 3)).view(n, -1))


def check_every_cut(network: nn.Module, sizes: tuple[tuple[int, ...], ...]) -> NetworkGraph:
    """Each cut gives one row per sample, and the rest goes on from it to the bits of the whole."""
    graph = NetworkGraph(network.eval())
    for shape in sizes:
        for n in (1, 2, 5):
            x = torch.randn(n, *shape)
            with torch.no_grad():
                expected = network(x)
                for cut in graph._cut_points:
                    activation = graph.between(graph.end_of_block(0), cut)(x)
                    assert activation.is_floating_point()
                    assert len(activation) == n
                    assert torch.equal(graph.between(cut)(activation), expected), (cut, shape, n)
    return graph


@pytest.mark.parametrize(
    "kind",
    rest_exhaustive(
        [
            Size,
            UnpackedShape,
            ReadAtTheEnd,
            KindAndDevice,
            LikeTheInput,
            ResizedToTheInput,
            Grid,
            Dictionary,
            Tokens,
            FlatPictures,
            Recurrent,
            BranchesOnValues,
        ],
        Size,
        ReadAtTheEnd,
        Grid,
        Tokens,
        BranchesOnValues,
    ),
)
def test_a_size_that_is_read_early_keeps_no_layer_from_being_a_block_of_its_own(kind: type[nn.Module]):
    torch.manual_seed(0)
    graph = check_every_cut(kind(), kind.sizes)
    assert [block.name for block in graph.blocks] == [f"layers.{i}" for i in range(6)]


def test_the_examples_that_are_run_to_learn_sizes_draw_no_random_numbers():
    torch.manual_seed(0)
    network = Size().eval()
    before = torch.get_rng_state()
    NetworkGraph(network)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_frozen_half_stays_as_it_is_and_the_other_half_learns():
    torch.manual_seed(0)
    network = UnpackedShape()
    X = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    model = FineTunedClassifier(
        copy.deepcopy(network), freeze_depth=0.5, strategy="fine_tune", max_epochs=2, lr=1e-2, device="cpu"
    ).fit(X, [0, 1] * 6)
    tuned = dict(model.net_.module_.tail.named_parameters())
    assert {name.split(".")[1] for name in tuned if name.startswith("layers")} == {"3", "4", "5"}
    before = dict(network.named_parameters())
    assert all(not torch.equal(tensor, before[name]) for name, tensor in tuned.items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.backbone_.network.named_parameters())
    assert model.predict_proba(X[:5]).shape == (5, 2)


class Attentive(nn.Module):
    """A convolution on tokens needs to know how many of them make a row."""

    def __init__(self):
        super().__init__()
        self.mix, self.conv = nn.Linear(8, 8), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x, h, w):
        n, _, c = x.shape
        return x + self.mix(x) + self.conv(x.transpose(1, 2).reshape(n, c, h, w)).flatten(2).transpose(1, 2)


class OnTokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.blocks = nn.ModuleList([Attentive() for _ in range(4)])
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        _, _, height, width = x.shape
        x = self.patches(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x, height // 8, width // 8)
        return self.head(x.mean(1))


def test_sides_are_worked_out_from_tokens_for_square_pictures_and_others_are_refused_rather_than_wrong():
    torch.manual_seed(0)
    graph = check_every_cut(OnTokens(), ((3, 32, 32), (3, 48, 48), (3, 50, 50)))
    assert len(graph.blocks) == 5
    prefix = graph.between(graph.end_of_block(0), graph.end_of_block(2))
    for shape in ((3, 16, 64), (3, 24, 32)):  # as many tokens as a square has, and not
        with pytest.raises(ValueError, match=r"Got samples of a shape .* cannot be cut at .*Use square pictures"):
            prefix(torch.rand(2, *shape))


class Frames(nn.Module):
    """The convolutions see frames, of which a sample has several."""

    def __init__(self):
        super().__init__()
        self.cnn = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)])
        self.a, self.b, self.fc = nn.Linear(3, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        n, t, c, h, w = x.shape
        x = self.cnn(x.view(n * t, c, h, w)).mean((2, 3)).view(n, t, -1)
        return self.fc(self.b(self.a(x).mean(1)))


def test_nothing_is_cut_where_rows_are_not_samples():
    graph = check_every_cut(Frames(), ((4, 3, 8, 8), (6, 3, 16, 16)))
    assert [block.name for block in graph.blocks] == ["cnn", "a", "b"]


class Folded(Frames):
    def forward(self, x):
        x = self.cnn(x.reshape(-1, 3, 8, 8)).mean((2, 3))
        return self.fc(self.b(self.a(x.reshape(-1, 4, 3)).mean(1)))


def test_nothing_is_cut_where_rows_are_not_samples_and_no_size_is_read():
    graph = check_every_cut(Folded(), ((4, 3, 8, 8),))
    assert [block.name for block in graph.blocks] == ["cnn", "a", "b"]


class Spectral(Early):
    def forward(self, x):
        h, w = x.shape[-2:]
        for layer in self.layers:
            x = torch.fft.irfft2(torch.fft.rfft2(layer(x)) * 0.9, s=(h, w))
        return self.fc(x.mean((2, 3)))


def test_nothing_is_cut_at_complex_numbers_which_are_not_kept():
    assert len(check_every_cut(Spectral(), Spectral.sizes).blocks) == 6


def test_a_type_that_is_read_early_is_not_taken_from_what_autocast_has_lowered():
    graph = NetworkGraph(KindAndDevice().eval())
    x, cut = torch.rand(2, 3, 8, 8), graph.end_of_block(3)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        lowered = graph.between(graph.end_of_block(0), cut)(x)
        assert lowered.dtype == torch.bfloat16
        kept, direct = (graph.between(cut, graph._features)(value) for value in (lowered.float(), lowered))
    assert kept.dtype == direct.dtype == torch.float32


# What is said


class TwoStreams(nn.Module):
    """Two tensors are alive throughout."""

    def __init__(self):
        super().__init__()
        self.left, self.right = (nn.ModuleList([nn.Linear(4, 4) for _ in range(6)]) for _ in range(2))
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        left, right = x, x
        for one, other in zip(self.left, self.right, strict=True):
            left, right = one(left) + right, other(right)
        return self.fc(torch.cat([left, right], 1))


def test_a_deep_network_that_can_hardly_be_cut_is_said_to_be_so_once():
    class Deep(TwoStreams):
        pass

    with pytest.warns(UserWarning, match=r"Got a Deep whose 13 layers with weights make 1 block; expected") as said:
        load_backbone(Deep())
    assert len(str(said[0].message)) < 600
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_backbone(Deep())


@pytest.mark.filterwarnings("error")
def test_nothing_is_said_of_small_networks_and_of_those_with_blocks():
    for network in (tiny_cnn(), Size(), nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))):
        load_backbone(network)
