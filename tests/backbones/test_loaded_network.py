"""One process holds one copy of a network, and what was made ready of it computes the same."""

import gc
import os
import threading

import numpy as np
import pytest
import torch
from networks import tiny_cnn
from safetensors.torch import save
from sklearn.base import clone
from torch import nn

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, cache_info, clear_cache
from sktransfer.backbones import load_backbone
from sktransfer.backbones._frozen_part import FrozenPart
from sktransfer.backbones._loaded_network import NETWORKS_KEPT
from sktransfer.backbones.graphs._folding import make_ready, scale_convolutions

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_kept():
    clear_cache()
    yield
    clear_cache()


def lively(network):
    """Give BatchNorm statistics and scales that are not those it starts with."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.3, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(module.bias, -0.2, 0.2, generator=generator)
    return network


def count_alive(kind):
    gc.collect()
    return sum(type(thing) is kind for thing in gc.get_objects())


class Marked(nn.Conv2d):
    """A layer to count."""


def marked_network():
    torch.manual_seed(0)
    return nn.Sequential(Marked(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize("backbone", ["squeezenet1_1", tiny_cnn, tiny_cnn()], ids=["name", "function", "module"])
def test_clones_share_one_network(backbone, pictures):
    X, y = pictures
    classifier = FineTunedClassifier(backbone, weights=None, random_state=0)
    fitted = [clone(classifier).fit(X, y) for _ in range(3)]
    fitted.append(PretrainedFeatureExtractor(backbone, weights=None, random_state=0).fit(X))
    assert len({id(estimator.backbone_.network) for estimator in fitted}) == 1
    assert cache_info().n_networks == 1


def test_many_fits_leave_one_network(pictures):
    X, y = pictures
    fitted = [FineTunedClassifier(marked_network, random_state=0).fit(X, y) for _ in range(5)]
    assert count_alive(Marked) == 1
    del fitted
    clear_cache()
    assert count_alive(Marked) == 0


def test_other_weights_are_another_network(pictures):
    X, _ = pictures
    first, second = (
        PretrainedFeatureExtractor("squeezenet1_1", weights=None, random_state=seed).fit(X) for seed in (0, 1)
    )
    assert first.backbone_.network is not second.backbone_.network
    assert cache_info().n_networks == 2


def test_only_so_many_networks_stay(pictures):
    X, _ = pictures
    for seed in range(NETWORKS_KEPT + 2):
        PretrainedFeatureExtractor(tiny_cnn, random_state=seed).fit(X[:2])
    assert cache_info().n_networks == NETWORKS_KEPT


def test_a_network_that_somebody_changed_is_not_handed_on(pictures):
    X, _ = pictures
    first = PretrainedFeatureExtractor(tiny_cnn, random_state=0).fit(X)
    expected = first.transform(X)
    with torch.no_grad():
        first.backbone_.network[0].weight.mul_(2.0)
    second = PretrainedFeatureExtractor(tiny_cnn, random_state=0).fit(X)
    assert second.backbone_.network is not first.backbone_.network
    np.testing.assert_array_equal(second.transform(X), expected)
    assert not np.allclose(first.transform(X), expected), "neither are activations that it no longer computes"


def test_weights_of_a_file_are_loaded_again_once_the_file_changed(tmp_path):
    path = tmp_path / "weights.pth"
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(load_backbone("squeezenet1_1", weights=None, seed=seed).network.state_dict(), path)
        loaded = load_backbone("squeezenet1_1", weights=path)
        assert loaded.fingerprint == load_backbone("squeezenet1_1", weights=None, seed=seed).fingerprint
        assert load_backbone("squeezenet1_1", weights=path).network is loaded.network


@pytest.mark.parametrize("name", ["squeezenet1_1", "timm:mobilenetv3_small_050"])
def test_weights_are_loaded_again_where_only_the_time_of_the_change_shows_it(name, tmp_path):
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="timm is not installed")
    path = tmp_path / "weights.safetensors"
    for seed in (0, 1):
        before = path.stat() if seed else None
        state = load_backbone(name, weights=None, seed=seed).network.state_dict()
        content = save({name: tensor.contiguous() for name, tensor in state.items()})
        with path.open("r+b" if seed else "wb") as file:
            file.write(content)
        if before is not None:
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            assert (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size)
        loaded = load_backbone(name, weights=path)
        assert loaded.fingerprint == load_backbone(name, weights=None, seed=seed).fingerprint


def test_two_threads_load_one_network():
    loaded = []
    threads = [
        threading.Thread(target=lambda: loaded.append(load_backbone("squeezenet1_1", weights=None).network))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 4
    assert len({id(network) for network in loaded}) == 1


# What was made ready


@pytest.mark.parametrize("depth", ["0", "1", 2, "4", "all"])
def test_a_ready_part_computes_the_same_with_fewer_layers(depth):
    backbone = load_backbone(lively(tiny_cnn()))
    x = torch.rand(3, 3, 16, 16)
    part = backbone.split(depth)[0]
    ready = make_ready(part, CPU, False, {})
    torch.testing.assert_close(ready(x), part(x), rtol=1e-5, atol=1e-5)
    shared = {tensor.data_ptr() for tensor in part.state_dict().values()}
    assert not shared & {tensor.data_ptr() for tensor in ready.state_dict().values()}
    norms = [sum(isinstance(module, nn.BatchNorm2d) for module in each.modules()) for each in (part, ready)]
    assert norms[1] < norms[0] or norms[0] == 0


def test_a_convolution_that_is_used_twice_or_read_elsewhere_keeps_its_batch_norm():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.other = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x):
            y = self.conv(x)
            return self.norm(y) + y + self.other(self.conv(y))

    backbone = load_backbone(lively(Twice()))
    x = torch.rand(2, 3, 8, 8)
    part = backbone.split("all")[0]
    torch.testing.assert_close(make_ready(part, CPU, False, {})(x), part(x))
    torch.testing.assert_close(scale_convolutions(part)(x), part(x))


def test_weights_for_bfloat16_are_cast_once_and_norms_stay():
    backbone = load_backbone("convnext_tiny", weights=None)
    ready = make_ready(backbone.split("all")[0], CPU, True, {})
    kinds = {type(module).__name__: {p.dtype for p in module.parameters()} for module in ready.modules()}
    assert kinds["Conv2d"] == kinds["Linear"] == {torch.bfloat16}
    norms = {name: kind for name, kind in kinds.items() if "Norm" in name}
    assert all(kind == {torch.float32} for kind in norms.values())


def test_parts_of_one_network_share_what_is_ready():
    backbone = load_backbone(tiny_cnn, seed=0)
    shallow, deep = (backbone.feature_part(layer).ready(CPU, False) for layer in (3, None))
    common = {p.data_ptr() for p in shallow.parameters()} & {p.data_ptr() for p in deep.parameters()}
    assert len(common) == len(list(shallow.parameters()))


def test_scaled_convolutions_have_the_same_values_gradients_and_names():
    backbone = load_backbone(lively(tiny_cnn()))
    x = torch.rand(4, 3, 16, 16)
    plain, scaled = backbone.tail(0, train_bn=True), backbone.tail(0, train_bn=False)
    torch.testing.assert_close(scaled(x), plain(x), rtol=1e-5, atol=1e-5)
    for part in (plain, scaled):
        part.requires_grad_(True)
        part(x).square().sum().backward()
    expected = {name: parameter.grad for name, parameter in plain.named_parameters()}
    for name, parameter in scaled.named_parameters():
        torch.testing.assert_close(parameter.grad, expected.pop(name), rtol=1e-4, atol=1e-4)
    assert not expected


def test_reflected_borders_are_left_as_they_are():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(4), nn.ReLU())
    backbone = load_backbone(lively(network))
    x = torch.rand(2, 3, 8, 8)
    expected = backbone.network(x)
    torch.testing.assert_close(backbone.tail(0)(x), expected)
    torch.testing.assert_close(backbone.feature_part(None, "flatten").ready(CPU, False)(x), expected.flatten(1))


def test_a_part_goes_on_from_each_cut_that_it_passes():
    backbone = load_backbone(lively(tiny_cnn()))
    x = torch.rand(2, 3, 16, 16)
    for part in (backbone.feature_part(), backbone.feature_part([2, 4], "max"), backbone.feature_part(3)):
        expected = part.network()(x)
        earlier = part.parts_before()
        assert len(earlier) >= 4
        identities = {before.identity for before in earlier}
        assert len(identities) == len(earlier)
        assert part.identity not in identities
        for before in earlier:
            assert isinstance(before, FrozenPart)
            widths = [vector.shape[1] for vector in before.network().run(x)[0]]
            torch.testing.assert_close(
                part.behind(before, widths).network()(before.network()(x)),
                expected,
            )


def test_clear_cache_lets_go_of_what_is_ready_of_every_network_that_an_estimator_holds():
    X = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    held = []
    for seed in range(NETWORKS_KEPT + 2):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        held.append(PretrainedFeatureExtractor(network, feature_cache=None, pixel_range=(0, 255)).fit(X))
    assert cache_info().n_networks == NETWORKS_KEPT
    alive = count_alive(nn.Conv2d)
    assert alive >= 3 * len(held), "given, held, and ready to run"
    clear_cache()
    assert count_alive(nn.Conv2d) == alive - len(held)
