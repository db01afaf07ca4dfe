"""A network is built once a process, however many estimators are unpickled there: and never taken for another."""

import pickle
import sys
import types
from concurrent.futures import ThreadPoolExecutor

import cloudpickle
import numpy as np
import pytest
import torch
from networks import tiny_cnn
from torch import nn

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import _loaded_network
from sktransfer.backbones._loaded_network import forget_networks
from sktransfer.backbones._recipes import recipe_of
from sktransfer.backbones.sources._custom import CustomSource

X = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def built(monkeypatch):
    """Counts networks that are made ready to be shared, built and traced."""
    made, make = [], _loaded_network.LoadedNetwork.__init__

    def count(self, network, source):
        made.append(source.name)
        make(self, network, source)

    monkeypatch.setattr(_loaded_network.LoadedNetwork, "__init__", count)
    forget_networks()
    yield made
    forget_networks()


def named(**parameters):
    return PretrainedFeatureExtractor("squeezenet1_1", weights=None, random_state=0, feature_cache=None, **parameters)


def custom(**parameters):
    return PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=None, **parameters)


def tuned(**parameters):
    return FineTunedClassifier(tiny_cnn, freeze_depth=2, max_epochs=1, random_state=0, feature_cache=None, **parameters)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("make", [named, custom, tuned])
def test_the_second_unpickling_builds_nothing(make, stored, built):
    estimator = make(store_backbone=stored).fit(X, [0, 1, 0, 1])
    expected, text = estimator.transform(X), pickle.dumps(estimator)
    forget_networks()
    np.testing.assert_array_equal(pickle.loads(text).transform(X), expected)
    del estimator, built[:]
    again = [pickle.loads(text) for _ in range(3)]
    for one in again:
        np.testing.assert_array_equal(one.transform(X), expected)
    assert built == []
    assert len({id(one.backbone_.network) for one in again}) == 1


@pytest.mark.parametrize("make", [named, custom])
def test_of_threads_that_unpickle_at_once_one_builds(make, built):
    text = pickle.dumps(make().fit(X))
    forget_networks()
    built.clear()
    with ThreadPoolExecutor(8) as pool:
        several = list(pool.map(pickle.loads, [text] * 16))
    assert len(built) == 1
    assert len({id(one.backbone_.network) for one in several}) == 1


def test_functions_that_are_pickled_by_value_are_told_by_their_code(built):
    def network():
        return tiny_cnn(width=4)

    text = cloudpickle.dumps(PretrainedFeatureExtractor(network, random_state=0, feature_cache=None).fit(X))
    forget_networks()
    built.clear()
    first, second = pickle.loads(text), pickle.loads(text)
    assert first.backbone is not second.backbone
    np.testing.assert_array_equal(first.transform(X), second.transform(X))
    assert len(built) == 1


def test_what_a_pickle_says_of_its_weights_is_not_believed(built):
    """One whose tensors were changed is another network, whatever fingerprint stands beside them."""
    estimator = named().fit(X)
    state = estimator.__getstate__()
    pickle.loads(pickle.dumps(estimator))
    names = [name for name in state["tensors"] if name.endswith(("classifier.1.weight", "squeeze.weight"))]
    changed = {**state, "tensors": dict(state["tensors"])}
    for name in names:
        changed["tensors"][name] = state["tensors"][name] * 2
    other = object.__new__(PretrainedFeatureExtractor)
    other.__setstate__(changed)
    assert other.backbone_.fingerprint != estimator.backbone_.fingerprint
    assert not np.allclose(other.transform(X), estimator.transform(X))


def test_another_seed_layer_or_network_of_the_same_weights_is_not_taken_for_one(built):
    relu, gelu = (_module_with(nn.ReLU), _module_with(nn.GELU))
    first = PretrainedFeatureExtractor(relu.network, random_state=0, feature_cache=None).fit(X)
    expected = first.transform(X)
    text = pickle.dumps(first)
    pickle.loads(text)
    relu.kind = gelu.kind  # the function is the same object, and what it refers to another thing
    found = pickle.loads(text).transform(X)
    relu.kind = nn.ReLU
    assert not np.allclose(found, expected)
    np.testing.assert_array_equal(pickle.loads(text).transform(X), expected)


def _module_with(kind):
    """A module of a person's own whose function looks at a global."""
    name = "a_network_of_ones_own"
    module = sys.modules.get(name) if kind is nn.ReLU else None
    module = module or types.ModuleType(name)
    module.__dict__.update(nn=nn, kind=kind)
    code = "def network():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), kind(), nn.Flatten(1), nn.LazyLinear(5))\n"
    code = code.replace("nn.LazyLinear(5)", "nn.Linear(4 * 30 * 30, 5)")
    exec(code, module.__dict__)
    if kind is nn.ReLU:
        sys.modules[name] = module
    return module


def test_a_class_that_was_run_again_is_not_the_one_of_before(built):
    module = types.ModuleType("a_class_of_ones_own")
    sys.modules[module.__name__] = module
    code = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
    def forward(self, x):
        return self.last(self.first(x).relu().mean((2, 3)))
def network():
    return Net()
"""
    exec(code, module.__dict__)
    text = pickle.dumps(PretrainedFeatureExtractor(module.network, random_state=0, feature_cache=None).fit(X))
    before = pickle.loads(text)
    assert type(before.backbone_.network) is module.Net
    exec(code, module.__dict__)
    after = pickle.loads(text)
    assert type(after.backbone_.network) is module.Net
    exec(code.replace(".relu()", ".sigmoid()"), module.__dict__)
    edited = pickle.loads(text)
    np.testing.assert_array_equal(before.transform(X), after.transform(X))
    assert not np.allclose(before.transform(X), edited.transform(X))
    del sys.modules[module.__name__]


def test_a_network_that_somebody_changed_is_not_handed_out(built):
    text = pickle.dumps(custom().fit(X))
    expected = pickle.loads(text).transform(X)
    changed = pickle.loads(text)
    with torch.no_grad():
        for parameter in changed.backbone_.network.parameters():
            parameter.mul_(2)
    np.testing.assert_array_equal(pickle.loads(text).transform(X), expected)


def test_what_cannot_be_written_down_has_no_recipe():
    def reads_a_file():
        open("x")  # noqa: PTH123, SIM115
        return tiny_cnn()

    assert recipe_of(CustomSource(reads_a_file, None), {}, weights=False) is None
    assert recipe_of(CustomSource(tiny_cnn(), None), {}, weights=False) is None
    assert recipe_of(CustomSource(tiny_cnn, None), {}, weights=False) is not None
    with_path = [recipe_of(CustomSource(tiny_cnn, path), {}, weights=True) for path in ("a.pth", "b.pth")]
    assert with_path[0].digest != with_path[1].digest
