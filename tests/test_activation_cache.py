"""The cache is invisible but for the time it saves."""

import copy
import shutil

import numpy as np
import pytest
import torch
from networks import tiny_cnn
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from torch import nn

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, cache_info, clear_cache
from sktransfer._activation_cache import COUNTS, PROCESS_CACHE, MemoryStore, activation_key
from sktransfer.inputs import _images


@pytest.fixture(autouse=True)
def empty_cache():
    clear_cache()
    yield
    clear_cache()


@pytest.fixture
def passed(monkeypatch):
    """Samples that went through the first layer of any network."""
    seen = []
    original = nn.Conv2d.forward

    def count(self, x):
        if self.in_channels == 3:
            seen.extend([0] * len(x))
        return original(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", count)
    return seen


def extractor(network=tiny_cnn, **parameters):
    return PretrainedFeatureExtractor(network, **{"random_state": 0, "precision": "float32", **parameters})


def test_cross_validation_passes_each_image_once(pictures, passed):
    X, y = pictures
    cross_val_score(make_pipeline(extractor(), LogisticRegression()), X, y, cv=5, error_score="raise")
    assert len(passed) == len(X)


def test_grid_search_passes_each_image_once_for_each_depth(pictures, passed):
    X, y = pictures
    grid = {"freeze_depth": ["all", 3], "lr": [1e-4, 1e-3], "head_lr": [1e-3, 1e-2]}
    GridSearchCV(FineTunedClassifier(tiny_cnn, random_state=0, max_epochs=1), grid, cv=3, error_score="raise").fit(X, y)
    assert len(passed) == 2 * len(X)


def test_same_results_with_and_without(pictures):
    X, y = pictures

    def classifier(**parameters):
        return FineTunedClassifier(tiny_cnn, freeze_depth=2, max_epochs=2, random_state=0, **parameters)

    for make in (extractor, classifier):
        kept, anew = make().fit(X, y), make(feature_cache=None).fit(X, y)
        np.testing.assert_array_equal(kept.transform(X), anew.transform(X))
        np.testing.assert_allclose(kept.transform(X[::-1]), anew.transform(X[::-1]), rtol=1e-4, atol=1e-5)


def test_order_folds_and_moved_files_hit(pictures, paths, tmp_path, passed):
    fitted = extractor().fit(paths)
    expected = fitted.transform(paths)
    before = len(passed)
    order = np.random.default_rng(0).permutation(len(paths))
    np.testing.assert_array_equal(fitted.transform(paths[order]), expected[order])
    moved = [shutil.copy(path, tmp_path / f"moved{number}.png") for number, path in enumerate(paths[:5])]
    np.testing.assert_array_equal(fitted.transform(moved), expected[:5])
    np.testing.assert_array_equal(extractor().fit_transform(paths), expected)
    assert len(passed) == before


def test_part_of_x_that_is_new_is_computed_and_joined_in_order(pictures, passed):
    X, _ = pictures
    fitted = extractor(batch_size=5).fit(X)
    expected = extractor(batch_size=5, feature_cache=None).fit(X).transform(X)
    fitted.transform(X[::3])
    before = cache_info()
    np.testing.assert_allclose(fitted.transform(X), expected, rtol=1e-4, atol=1e-6)
    known = len({*range(5), *range(0, len(X), 3)})  # fit looked at the first batch
    assert cache_info().misses == before.misses + len(X) - known
    assert cache_info().hits == before.hits + known


def changed_pixel(X):
    X = X.copy()
    X[:, 0, 0, 0] ^= 1
    return X


@pytest.mark.parametrize(
    "change",
    [
        "pixel",
        "weights",
        "buffer",
        "layer",
        "pooling",
        "precision",
        "range",
        "random state",
        "activation function",
        "constant",
    ],
)
def test_whatever_changes_the_result_misses(pictures, change):
    X, _ = pictures
    torch.manual_seed(0)
    network = tiny_cnn()
    extractor(network).fit_transform(X)
    made = COUNTS.misses
    other = copy.deepcopy(network)
    parameters = {}
    if change == "pixel":
        X = changed_pixel(X)
    elif change == "weights":
        with torch.no_grad():
            other[4].conv1.weight[0, 0, 0, 0] += 1e-3
    elif change == "buffer":
        with torch.no_grad():
            other[4].bn1.running_mean[0] += 1e-3
    elif change == "activation function":
        other[2] = nn.ELU()
    elif change == "constant":
        other[2] = nn.LeakyReLU(0.3)
    else:
        parameters = {
            "layer": {"layer": 2},
            "pooling": {"pooling": "max"},
            "precision": {"precision": "bfloat16"},
            "range": {"pixel_range": (0, 128)},
            "random state": {"random_state": 1},
        }[change]
        if change == "pooling":
            parameters["layer"] = 2
            extractor(network, layer=2).fit_transform(X)
            made = COUNTS.misses
    if change == "random state":
        return
    kept = extractor(other, **parameters).fit_transform(X)
    assert COUNTS.misses >= made + len(X)
    np.testing.assert_array_equal(kept, extractor(other, feature_cache=None, **parameters).fit_transform(X))


def test_changed_file_under_the_same_path_misses(tmp_path):
    path = tmp_path / "image.png"
    fitted = None
    features = []
    for value in (10, 200):
        Image.fromarray(np.full((16, 16, 3), value, dtype=np.uint8)).save(path)
        fitted = fitted or extractor().fit([path])
        features.append(fitted.transform([path]))
    assert not np.array_equal(*features)


def test_of_augmented_images_the_decoded_ones_are_kept_and_no_activations(pictures, paths, monkeypatch):
    _, y = pictures
    decoded = []
    monkeypatch.setattr("sktransfer.inputs._images.decode", lambda *a, f=_images.decode: decoded.append(a) or f(*a))
    how = {"freeze_depth": 3, "strategy": "fine_tune", "augment": "light", "random_state": 0}
    FineTunedClassifier(tiny_cnn, max_epochs=3, **how).fit(paths, y)
    assert {value.dtype for value in PROCESS_CACHE._kept.values()} == {np.dtype(np.uint8)}
    assert len(PROCESS_CACHE) == len(paths)
    assert len(decoded) <= len(paths) + 2  # fit looks at the shape of one
    assert cache_info().misses == 3 * len(paths) + 1  # each epoch, and one to measure


def test_a_fixed_number_of_views_passes_the_frozen_part_once(pictures, passed):
    X, y = pictures
    how = {"freeze_depth": 3, "strategy": "fine_tune", "augment": "standard", "augment_views": 3, "random_state": 0}
    first = FineTunedClassifier(tiny_cnn, max_epochs=5, **how).fit(X, y)
    assert len(passed) == 3 * len(X) + 1
    again = FineTunedClassifier(tiny_cnn, max_epochs=2, lr=1e-3, **how).fit(X[::-1], y[::-1])
    assert len(passed) == 3 * len(X) + 2, "another candidate, in another order"
    assert first.net_.module_.head[0].weight.shape == again.net_.module_.head[0].weight.shape
    FineTunedClassifier(tiny_cnn, max_epochs=1, **{**how, "augment": "strong"}).fit(X, y)
    assert len(passed) == 6 * len(X) + 3, "another level"
    FineTunedClassifier(tiny_cnn, max_epochs=1, **{**how, "random_state": 1}).fit(X, y)
    assert len(passed) == 9 * len(X) + 4, "another seed, and with it other random weights"


def test_views_differ_from_each_other_and_from_the_image(pictures):
    X, y = pictures
    how = {"freeze_depth": "all", "strategy": "linear_probe", "random_state": 0, "head_epochs": 1}
    seen = {
        kind: {value.tobytes() for value in PROCESS_CACHE._kept.values() if value.dtype == np.float32}
        for kind, more in {"plain": {}, "views": {"augment": "standard", "augment_views": 4}}.items()
        if clear_cache() is None and FineTunedClassifier(tiny_cnn, **how, **more).fit(X, y)
    }
    assert len(seen["plain"]) == len(X)
    assert len(seen["views"]) == 4 * len(X)
    assert not seen["plain"] & seen["views"]


def test_least_recently_used_leaves_first():
    cache = MemoryStore(limit=100)
    keys = [bytes([number]) for number in range(4)]
    for number, key in enumerate(keys[:3]):
        cache.keep([(key, np.full(8, number, dtype=np.float32))])
    cache.find(keys[:1])
    cache.keep([(keys[3], np.zeros(8, dtype=np.float32))])
    assert [value is not None for value in cache.find(keys)] == [True, False, True, True]
    assert cache.n_bytes == 96
    cache.keep([(b"huge", np.zeros(1000))])
    assert len(cache) == 3


def test_what_would_not_fit_is_not_kept_at_all(pictures, monkeypatch):
    X, _ = pictures
    monkeypatch.setattr(PROCESS_CACHE, "limit", 24 * 16 * 4 - 1)
    extractor().fit_transform(X)
    assert len(PROCESS_CACHE) <= 1


def test_kept_activations_cannot_be_changed_from_outside(pictures):
    X, _ = pictures
    fitted = extractor().fit(X)
    first = fitted.transform(X)
    expected = first.copy()
    first[:] = 0
    np.testing.assert_array_equal(fitted.transform(X), expected)


def test_key_depends_on_each_of_its_parts_and_on_where_one_ends():
    keys = {
        activation_key(b"a", "b", "c", "d"),
        activation_key(b"x", "b", "c", "d"),
        activation_key(b"a", "x", "c", "d"),
        activation_key(b"a", "b", "x", "d"),
        activation_key(b"a", "b", "c", "x"),
        activation_key(b"ab", "", "c", "d"),
    }
    assert len(keys) == 6
