"""A pass leaves something on its way, so that a search over depths passes each sample once in whatever order."""

import numpy as np
import pytest
import torch
from networks import rest_exhaustive, tiny_cnn
from pretrained_models import make_text_model, make_texts
from sklearn.model_selection import GridSearchCV
from torch import nn

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, cache_info, clear_cache, set_cache_limit
from sktransfer._cache._disk_store import DiskStore
from sktransfer._cache._memory_store import MEMORY_LIMIT, PROCESS_CACHE
from sktransfer._computing._frozen_pass import collect


@pytest.fixture(autouse=True)
def empty_cache():
    clear_cache()
    yield
    clear_cache()
    set_cache_limit(memory=MEMORY_LIMIT)


def narrowing_cnn():
    """A network whose first blocks work in place on what enters them."""
    layers = []
    for width in (8, 16, 24):
        layers += [nn.ReLU(inplace=True), nn.LazyConv2d(width, 3, stride=2, padding=1), nn.BatchNorm2d(width)]
    network = nn.Sequential(nn.Conv2d(3, 4, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 2))
    network(torch.zeros(2, 3, 20, 24))
    return network


@pytest.mark.parametrize("order", rest_exhaustive([["all", 3, 1], [2, "all", 1], [3, 2, "all"]], ["all", 3, 1]))
@pytest.mark.parametrize("kind", ["pictures", "pictures in place", "texts"])
def test_a_search_over_depths_in_any_order_passes_each_sample_once(kind, order, pictures, tmp_path):
    X, y = make_texts() if kind == "texts" else pictures
    if kind == "texts":
        pytest.importorskip("transformers")
        backbone = make_text_model("bert", tmp_path)
        X = list(X)
    else:
        backbone = tiny_cnn if kind == "pictures" else narrowing_cnn
    model = FineTunedClassifier(backbone, random_state=0, max_epochs=1, batch_size=4)
    GridSearchCV(model, {"freeze_depth": order}, cv=3, error_score="raise").fit(X, y)
    assert cache_info().misses == len({str(x) for x in X})
    assert cache_info().continued > 0


@pytest.mark.parametrize("depth", [2, 3, "all"])
@pytest.mark.parametrize("layer", ["stages", None])
def test_a_pass_that_stops_on_its_way_has_the_bits_of_one_that_does_not(depth, layer, pictures):
    X, y = pictures
    how = {"random_state": 0, "max_epochs": 1, "layer": layer, "precision": "float32", "freeze_depth": depth}
    for network in (tiny_cnn, narrowing_cnn):
        found = []
        for cache in ("auto", None):
            fitted = FineTunedClassifier(network, feature_cache=cache, **how).fit(X, y)
            module = fitted.net_.module_
            part = fitted.backbone_.frozen_part(module.freeze_depth, module.pooling, module.layers)
            assert fitted.backbone_.stops(part, 2**20)
            found.append(collect(fitted._way_through(part, fitted._read(X), fitted.backbone_)))
        np.testing.assert_array_equal(*found)


def test_what_is_left_on_the_way_is_what_a_pass_to_there_gives(pictures):
    X, y = pictures
    how = {"random_state": 0, "max_epochs": 1, "precision": "float32", "layer": None, "batch_size": 8}
    FineTunedClassifier(narrowing_cnn, freeze_depth="all", **how).fit(X, y)
    left = {value.tobytes() for value in PROCESS_CACHE._kept.values()}
    clear_cache()
    fitted = FineTunedClassifier(narrowing_cnn, freeze_depth=1, **how).fit(X, y)
    part = fitted.backbone_.frozen_part(1, "avg")
    direct = collect(fitted.set_params(feature_cache=None)._way_through(part, fitted._read(X)))
    assert {value.tobytes() for value in direct} <= left


def test_what_does_not_fit_into_a_quarter_of_the_limit_is_not_left(pictures):
    X, y = pictures
    how = {"random_state": 0, "max_epochs": 1, "layer": None}
    for limit, more in ((4_000_000, True), (4_000, False)):
        clear_cache()
        set_cache_limit(memory=limit)
        FineTunedClassifier(tiny_cnn, freeze_depth="all", **how).fit(X, y)
        assert cache_info().misses == len(X)
        assert (cache_info().n_activations > len(X)) == more
        assert cache_info().n_bytes <= limit // 4 + len(X) * 16 * 4
    FineTunedClassifier(tiny_cnn, freeze_depth=3, **how).fit(X, y)
    assert cache_info().misses >= 2 * len(X), "computed from the images, as there is nothing to go on from"


def test_an_extractor_leaves_nothing_on_its_way(pictures):
    PretrainedFeatureExtractor(tiny_cnn, random_state=0).fit_transform(pictures[0])
    assert cache_info().n_activations == len(pictures[0])


def test_a_disk_is_left_less_than_memory_for_it_is_slower(tmp_path):
    from sktransfer.backbones import load_backbone

    backbone = load_backbone("resnet18", weights=None)
    part = backbone.frozen_part("all", "avg")
    memory, disk = (
        [stop.end.name for stop in backbone.stops(part, largest)]
        for largest in (PROCESS_CACHE.largest_stop, DiskStore(tmp_path, 2**20).largest_stop)
    )
    assert memory[0] == "maxpool"
    assert disk[0].startswith("layer2")
    assert backbone.stops(part, 0) == ()


@pytest.mark.parametrize("cache", ["auto", "folder"])
@pytest.mark.parametrize("known", ["first", "last", "others"])
def test_samples_that_an_earlier_cut_left_stand_beside_samples_that_are_new(known, cache, pictures, tmp_path):
    """Some go on from there, and stop nowhere; others pass from the input, and stop on their way."""
    X, y = pictures
    half = len(X) // 2
    seen = {"first": slice(None, half), "last": slice(half, None), "others": np.arange(len(X)) % 3 > 0}[known]
    how = {"random_state": 0, "max_epochs": 1, "batch_size": 2, "precision": "float32"}
    how["feature_cache"] = "auto" if cache == "auto" else tmp_path
    FineTunedClassifier(tiny_cnn, freeze_depth=1, **how).fit(X[seen], y[seen])
    before = cache_info()
    found = FineTunedClassifier(tiny_cnn, freeze_depth=3, **how).fit(X, y).predict_proba(X)
    n_new = len({x.tobytes() for x in X}) - len({x.tobytes() for x in X[seen]})
    assert cache_info().misses - before.misses == n_new
    assert cache_info().continued > before.continued
    expected = FineTunedClassifier(tiny_cnn, freeze_depth=3, **how | {"feature_cache": None}).fit(X, y)
    np.testing.assert_allclose(found, expected.predict_proba(X), atol=1e-5)
