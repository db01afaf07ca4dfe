"""What a user may rely on when a network is given other channels than it was pretrained with."""

import copy
import pickle

import pytest
import torch
from networks import ResidualBlock, rest_exhaustive, tiny_cnn
from torch import nn

from sktransfer.backbones import ImagePreprocessing, load_backbone
from sktransfer.backbones._first_layer import adapted, filters_for

COUNTS = (1, 2, 4, 5, 13, 64)


def image(channels=3, side=16, n=2):
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0))


def wide(network, n_channels, channels=3):
    return adapted(network, image(channels, n=1), n_channels)


# The filters


@pytest.mark.parametrize("n_channels", COUNTS)
def test_filters_are_those_of_timm(n_channels):
    manipulate = pytest.importorskip("timm.models")
    weight = torch.randn(8, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(filters_for(weight, n_channels), manipulate.adapt_input_conv(n_channels, weight.clone()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_filters_keep_their_type(dtype):
    assert filters_for(torch.ones(2, 3, 1, 1, dtype=dtype), 13).dtype == dtype


TIMM = ("resnet18", "convnext_atto", "vit_tiny_patch16_224", "tf_efficientnet_lite0", "nfnet_l0", "levit_128s")


@pytest.mark.parametrize("n_channels", rest_exhaustive([1, 5, 13], 5))
@pytest.mark.parametrize("name", rest_exhaustive(TIMM, "resnet18"))
def test_networks_of_timm_are_those_that_timm_makes_for_so_many_channels(name, n_channels):
    timm = pytest.importorskip("timm")
    plain = load_backbone(f"timm:{name}", None)
    overlay = {"state_dict": dict(plain.network.state_dict()), "num_classes": 0, "label_offset": 0}
    theirs = timm.create_model(
        name, pretrained=True, in_chans=n_channels, num_classes=0, pretrained_cfg_overlay=overlay
    ).state_dict()
    ours = load_backbone(f"timm:{name}", None, n_channels=n_channels).network.state_dict()
    assert all(torch.equal(theirs[key], tensor) for key, tensor in ours.items())


VISION = (
    "squeezenet1_1", "resnet18", "convnext_tiny", "vit_b_32", "swin_t", "mobilenet_v3_small", "efficientnet_b0",
    "densenet121", "vgg11", "regnet_y_400mf", "maxvit_t", "googlenet", "inception_v3", "alexnet", "mnasnet0_5",
)  # fmt: skip


@pytest.mark.parametrize("name", rest_exhaustive(VISION, "squeezenet1_1"))
def test_a_network_of_torchvision_takes_other_channels_and_shares_all_but_its_first_filters(name):
    plain, other = load_backbone(name, None), load_backbone(name, None, n_channels=13)
    size = other.preprocessing.crop
    with torch.no_grad():
        assert torch.isfinite(other.network(torch.rand(1, 13, *size))).all()
    own = [tensor.data_ptr() for tensor in plain.network.parameters()]
    changed = [name for name, tensor in other.network.named_parameters() if tensor.data_ptr() not in own]
    assert len(changed) == 1
    assert next(iter(other.blocks)).name == next(iter(plain.blocks)).name
    assert len(other.blocks) == len(plain.blocks)


def test_three_equal_channels_repeated_are_seen_as_they_were():
    """Six channels of half the weight each, twice the same colours: what leaves the first layer is the same."""
    network = tiny_cnn().eval()
    x = image()
    with torch.no_grad():
        torch.testing.assert_close(wide(network, 6)(torch.cat([x, x], dim=1)), network(x))
        grey = image(1)
        torch.testing.assert_close(wide(network, 1)(grey), network(grey.expand(-1, 3, -1, -1)))


def test_a_network_of_one_or_four_channels_is_adapted_too():
    x = image(1)
    with torch.no_grad():
        one = tiny_cnn(in_channels=1).eval()
        torch.testing.assert_close(wide(one, 3, 1)(x.expand(-1, 3, -1, -1)), one(x))
        assert wide(tiny_cnn(in_channels=4), 13, 4)(image(13)).shape == (2, 5)


# The network as it was


def test_three_channels_leave_a_network_untouched():
    network = tiny_cnn()
    assert wide(network, 3) is network
    plain = load_backbone("squeezenet1_1", None)
    assert load_backbone("squeezenet1_1", None, n_channels=3).network is plain.network
    assert load_backbone("squeezenet1_1", None, n_channels=3).fingerprint == plain.fingerprint


def test_a_network_that_is_adapted_stays_as_it_was_itself():
    network = tiny_cnn().train()
    network[1].momentum = 0.5
    before = copy.deepcopy(network.state_dict())
    other = wide(network, 5)
    assert network[0].in_channels == 3
    assert other[0].in_channels == 5
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_networks_of_different_channels_have_identities_of_their_own_and_one_copy_each():
    three, four, five = (load_backbone("squeezenet1_1", None, n_channels=count) for count in (3, 4, 5))
    assert len({three.fingerprint, four.fingerprint, five.fingerprint}) == 3
    assert load_backbone("squeezenet1_1", None, n_channels=5).network is five.network
    assert three.with_channels(5).network is five.network
    assert four.with_channels(5).network is five.network


@pytest.mark.parametrize(
    "make", [lambda: "squeezenet1_1", lambda: tiny_cnn, tiny_cnn], ids=["name", "function", "module"]
)
@pytest.mark.parametrize("stored", [True, False])
def test_an_adapted_network_comes_back_from_its_record(make, stored):
    made = make()
    backbone = load_backbone(made, None if made == "squeezenet1_1" else "DEFAULT", n_channels=13)
    record, tensors = backbone.to_record(stored)
    from sktransfer.backbones import restore_backbone

    again = restore_backbone(record, tensors, backbone.custom)
    assert again.fingerprint == backbone.fingerprint
    assert again.preprocessing.channels == 13
    assert again.n_own_channels == 3
    assert pickle.loads(pickle.dumps(backbone)).fingerprint == backbone.fingerprint


def test_the_summary_says_that_the_first_layer_was_adapted():
    assert "first layer adapted to 13 channels" in str(load_backbone(tiny_cnn, n_channels=13).summary())
    assert "adapted" not in str(load_backbone(tiny_cnn).summary())
    assert "adapted" not in str(load_backbone(tiny_cnn, n_channels=3).summary())


def test_weights_in_a_file_may_be_of_the_network_or_of_the_adapted_one(tmp_path):
    five = load_backbone("squeezenet1_1", None, n_channels=5)
    for name, network in (("three", load_backbone("squeezenet1_1", None)), ("five", five)):
        torch.save(network.network.state_dict(), tmp_path / name)
    for name in ("three", "five"):
        assert load_backbone("squeezenet1_1", tmp_path / name, n_channels=5).fingerprint == five.fingerprint
    with pytest.raises(ValueError, match="do not match the backbone"):
        load_backbone("squeezenet1_1", tmp_path / "five", n_channels=4)


# Which layer it is


class Late(nn.Module):
    """The first convolution is listed last."""

    def __init__(self):
        super().__init__()
        self.second, self.first = nn.Conv2d(8, 8, 3), nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.second(self.first(x)).mean((2, 3))


class TwoStems(Late):
    def forward(self, x):
        return (self.first(x) + self.other(x)).mean((2, 3))

    def __init__(self):
        super().__init__()
        self.other = nn.Conv2d(3, 8, 3)


class Scaling(Late):
    """It pads, converts and scales the image before the convolution."""

    def forward(self, x):
        x = nn.functional.pad(x.to(torch.float32), (0, 1, 0, 1))
        return self.second(self.first(2 * (x - 0.5) / 0.25)).mean((2, 3))


class Counting(nn.Module):
    """It compares the channels of a batch with its configuration, as networks of transformers do."""

    def __init__(self):
        super().__init__()
        self.num_channels = 3
        self.first = nn.Conv2d(3, 8, 3)
        self.config = type("Config", (), {})()
        self.config.num_channels = 3

    def forward(self, x):
        if x.shape[1] != self.num_channels or x.shape[1] != self.config.num_channels:
            raise ValueError("other channels")
        return self.first(x).mean((2, 3))


@pytest.mark.parametrize("kind", [Late, TwoStems, Scaling, Counting])
def test_the_layer_that_takes_the_image_is_found(kind):
    network = kind()
    other = wide(network, 7)
    with torch.no_grad():
        assert other(image(7)).shape == (2, 8)
        assert network(image(3)).shape == (2, 8)
    assert other.first.in_channels == 7


def test_a_network_that_fits_another_size_alone_is_adapted():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 6, 2))
    with torch.no_grad():
        assert wide(network, 5)(image(5, side=8)).shape == (2, 2)


class Sliced(Late):
    """As Inception and GoogLeNet do with their own weights."""

    def forward(self, x):
        return self.first(torch.cat([x[:, :1] * 0.5, x[:, 1:]], dim=1)).mean((2, 3))


class Normalised(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.first = nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.first(self.norm(x)).mean((2, 3))


class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, groups=3)

    def forward(self, x):
        return self.first(x).mean((2, 3))


class Added(Late):
    def forward(self, x):
        return self.first(x).mean((2, 3)) + x.mean((1, 2, 3))[:, None]


@pytest.mark.parametrize("kind", [Sliced, Normalised, Depthwise, Added, nn.Flatten])
def test_a_network_that_does_something_else_with_the_image_is_refused_with_the_reason(kind):
    with pytest.raises(ValueError, match=r"^Got images of 13 channels for .* whose first layer takes 3 and cannot be"):
        load_backbone(nn.Sequential(kind(), nn.Identity()), n_channels=13)


@pytest.mark.parametrize("n_channels", [0, 65, -1, True, 3.0, "3"])
def test_a_number_of_channels_that_is_none_is_refused(n_channels):
    with pytest.raises(ValueError, match=r"Got n_channels=.*; expected a whole number from 1 to 64"):
        load_backbone(tiny_cnn, n_channels=n_channels)


# What the images are normalised by


@pytest.mark.parametrize(
    ("n_channels", "mean"),
    [(1, (0.4,)), (2, (0.2, 0.4)), (3, (0.2, 0.4, 0.6)), (5, (0.2, 0.4, 0.6, 0.4, 0.4))],
)
def test_the_first_channels_keep_the_mean_of_the_network(n_channels, mean):
    network = nn.Sequential(ResidualBlock(3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential(nn.Conv2d(3, 3, 1), *network)
    network.preprocessing = ImagePreprocessing(crop=(8, 8), mean=(0.2, 0.4, 0.6), std=(0.5,))
    found = load_backbone(network, n_channels=n_channels).preprocessing
    assert found.mean == pytest.approx(mean)
    assert found.std == (0.5,)
