"""Networks that a person brings: they are copied, cut and read like any other, and never changed."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import tiny_cnn, tiny_grey_cnn, tiny_vectors
from torch import nn
from torchvision.models import resnet18

from sktransfer import FineTunedClassifier
from sktransfer.backbones import ImagePreprocessing, load_backbone


def states_equal(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# The module stays its owner's


def test_loading_leaves_the_module_as_it_was():
    network = tiny_cnn().train()
    network[0].weight.requires_grad_(False)
    before = copy.deepcopy(network)
    backbone = load_backbone(network)
    backbone.split("all")[0](torch.rand(2, 3, 8, 8))
    backbone.summary()
    assert states_equal(network, before)
    assert all(module.training for module in network.modules())
    assert [p.requires_grad for p in network.parameters()] == [p.requires_grad for p in before.parameters()]
    assert network.__dict__.keys() == before.__dict__.keys()


def test_the_backbone_is_frozen_and_in_eval_mode():
    backbone = load_backbone(tiny_cnn().train())
    assert not any(module.training for module in backbone.network.modules())
    assert not any(parameter.requires_grad for parameter in backbone.network.parameters())


def test_training_the_module_later_does_not_change_the_backbone():
    network = tiny_cnn()
    backbone = load_backbone(network)
    before = backbone.fingerprint
    x = torch.rand(4, 3, 8, 8)
    expected = backbone.network(x)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    network.train()(x).square().sum().backward()
    optimizer.step()
    assert not states_equal(network, backbone.network)
    assert backbone.fingerprint == before
    assert torch.equal(backbone.network(x), expected)


def test_rebuilding_the_module_later_does_not_change_the_backbone_or_its_pickle():
    network = tiny_cnn()
    backbone = load_backbone(network)
    before = backbone.fingerprint
    network[11] = nn.Linear(16, 2)
    nn.init.zeros_(network[0].weight)
    for again in (backbone, copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone))):
        assert again.fingerprint == before
        assert again.network(torch.rand(1, 3, 8, 8)).shape == (1, 5)


@pytest.mark.parametrize("store_weights", [True, False])
def test_a_pickle_holds_a_module_once(store_weights: bool):
    network = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 2))
    classifier = FineTunedClassifier(network, store_backbone=store_weights).fit(np.eye(4, 300), list("abab"))
    written = pickle.dumps(classifier.set_params(backbone="resnet18"))  # the parameter would be a second one
    assert 300 * 300 * 4 < len(written) < 1.2 * 300 * 300 * 4
    assert states_equal(pickle.loads(written).backbone_.network, network)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_module_on_a_gpu_stays_there_and_its_backbone_is_on_the_cpu():
    network = tiny_cnn().cuda()
    backbone = load_backbone(network)
    assert {parameter.device.type for parameter in network.parameters()} == {"cuda"}
    assert {parameter.device.type for parameter in backbone.network.parameters()} == {"cpu"}
    again = pickle.loads(pickle.dumps(backbone))
    assert {parameter.device.type for parameter in again.network.parameters()} == {"cpu"}


class Elsewhere(nn.Linear):
    """Writes down that it came to the CPU."""

    came = False

    def cpu(self):
        self.came = True
        return super().cpu()


def network_on_a_gpu(n_features):
    return Elsewhere(n_features, 2)


def test_a_function_may_return_a_module_on_a_gpu():
    assert load_backbone(network_on_a_gpu, weights=None, n_features=3).network.came


# Functions that return a module


def test_a_function_is_given_the_width_of_the_samples_where_it_takes_it():
    backbone = load_backbone(tiny_vectors, n_features=7)
    assert backbone.network[0].in_features == 7
    assert load_backbone(tiny_vectors).network[0].in_features == 4
    assert load_backbone(tiny_grey_cnn, n_features=7).network[0].in_channels == 1


def test_a_function_draws_weights_by_the_seed_and_leaves_torchs_generator_alone():
    before = torch.get_rng_state()
    first, again, other = (load_backbone(tiny_vectors, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.fingerprint == again.fingerprint != other.fingerprint


KEPT = tiny_vectors()


def the_same_each_time() -> nn.Module:
    return KEPT


def test_a_function_may_return_the_same_module_each_time():
    first, second = load_backbone(the_same_each_time), load_backbone(the_same_each_time)
    assert first.network is second.network
    assert first.network is not KEPT
    assert KEPT[0].weight.requires_grad
    assert KEPT.training


def test_a_class_is_a_function_too():
    assert load_backbone(nn.Identity).name == "Identity"


def returns_a_list() -> list[int]:
    return [1]


def test_a_function_that_returns_no_module_is_refused():
    with pytest.raises(ValueError, match=r"Got a backbone function that returns a list; expected a torch.nn.Module"):
        load_backbone(returns_a_list)


@pytest.mark.parametrize("backbone", [3, None, ["resnet18"]])
def test_what_is_neither_name_nor_module_nor_function_is_refused(backbone):
    with pytest.raises(ValueError, match=r"Got backbone=.*; expected a name, a torch\.nn.Module, or a function"):
        load_backbone(backbone)


# Names and weights


def test_it_is_named_after_its_class_or_its_function():
    assert load_backbone(tiny_cnn()).name == "Sequential"
    assert load_backbone(tiny_cnn).name == "tiny_cnn"
    assert load_backbone(tiny_cnn).weights_name == "its own"


@pytest.mark.parametrize("weights", ["DEFAULT", None])
def test_it_keeps_the_weights_that_it_comes_with(weights: str | None):
    network = tiny_cnn()
    assert states_equal(load_backbone(network, weights=weights).network, network)


@pytest.mark.parametrize("as_function", [False, True])
def test_weights_may_come_from_a_file(as_function: bool, tmp_path: Path):
    trained, fresh = tiny_cnn(), tiny_cnn()
    before = copy.deepcopy(fresh)
    torch.save(trained.state_dict(), tmp_path / "trained.pth")
    backbone = load_backbone(tiny_cnn if as_function else fresh, weights=tmp_path / "trained.pth")
    assert states_equal(backbone.network, trained)
    assert states_equal(fresh, before)
    assert backbone.weights_name == str(tmp_path / "trained.pth")
    (tmp_path / "trained.pth").unlink()
    assert states_equal(pickle.loads(pickle.dumps(backbone)).network, trained)


def test_weights_of_another_network_are_refused(tmp_path: Path):
    torch.save(tiny_vectors().state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"do not match the backbone Sequential: .*missing keys .*other shapes"):
        load_backbone(tiny_cnn(), weights=tmp_path / "other.pth")


# What it wants of an image


def test_a_network_may_carry_its_own_preprocessing():
    network = tiny_cnn()
    network.preprocessing = ImagePreprocessing(resize=40, crop=(32, 32), mean=(0.5,), std=(0.2,))
    assert load_backbone(network).preprocessing == network.preprocessing


def test_any_other_attribute_of_that_name_is_not_taken_for_it():
    network = tiny_cnn()
    network.preprocessing = "standard"
    assert load_backbone(network).preprocessing == ImagePreprocessing()


def test_the_first_convolution_tells_whether_images_are_grey():
    assert load_backbone(tiny_grey_cnn).preprocessing.channels == 1
    assert load_backbone(tiny_cnn).preprocessing.channels == 3
    assert load_backbone(tiny_vectors).preprocessing.channels == 3


def test_a_torchvision_network_that_one_brings_is_shown_images_as_torchvision_does():
    preprocessing = load_backbone(resnet18()).preprocessing
    assert (preprocessing.resize, preprocessing.crop) == (256, (224, 224))
    assert preprocessing.mean == (0.485, 0.456, 0.406)
    assert preprocessing.std == (0.229, 0.224, 0.225)


def test_a_torchvision_network_that_one_brings_has_the_blocks_of_the_one_by_name():
    assert load_backbone(resnet18()).blocks == load_backbone("resnet18", weights=None).blocks
