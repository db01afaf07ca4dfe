"""The cache is invisible but for the time it saves."""

import copy
import os
import shutil
import time

import numpy as np
import pytest
import torch
from networks import tiny_cnn
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from torch import nn

from sktransfer import (
    FineTunedClassifier,
    PretrainedFeatureExtractor,
    cache_info,
    clear_cache,
    set_cache_limit,
)
from sktransfer._cache._memory_store import COUNTS, MEMORY_LIMIT, PROCESS_CACHE, MemoryStore, activation_keys
from sktransfer._computing import _reuse
from sktransfer.backbones import ImagePreprocessing
from sktransfer.inputs import SoundPreprocessing
from sktransfer.inputs.images import _reader as _images
from sktransfer.inputs.images._pixel_range import PictureScale
from sktransfer.inputs.sounds import _reader as _sounds
from sktransfer.inputs.sounds._decoding import Length


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


@pytest.mark.parametrize("depths", [["all", 3, 1], [3, "all", 2], [2, 1, "all"], [1, 3, "all"]])
@pytest.mark.parametrize("where", ["memory", "folder"])
def test_grid_search_passes_each_image_once_whatever_the_order_of_depths(depths, where, pictures, passed, tmp_path):
    X, y = pictures
    cache = "auto" if where == "memory" else tmp_path
    model = FineTunedClassifier(tiny_cnn, random_state=0, max_epochs=1, feature_cache=cache)
    GridSearchCV(model, {"freeze_depth": depths, "lr": [1e-4, 1e-3]}, cv=3, error_score="raise").fit(X, y)
    assert len(passed) == len(X)


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
        if change == "random state":  # which draws the weights of a network that a function makes
            other = tiny_cnn
            extractor(other, random_state=0).fit_transform(X)
            made = COUNTS.misses
    kept = extractor(other, **parameters).fit_transform(X)
    assert COUNTS.misses >= made + len(X)
    np.testing.assert_array_equal(kept, extractor(other, feature_cache=None, **parameters).fit_transform(X))


@pytest.mark.parametrize("freeze_depth", [1, 2, "all"])
def test_what_is_kept_in_the_middle_of_a_network_is_not_given_for_other_weights(pictures, freeze_depth):
    X, y = pictures
    how = {"freeze_depth": freeze_depth, "max_epochs": 1, "random_state": 0, "precision": "float32"}
    network = tiny_cnn()
    FineTunedClassifier(network, **how).fit(X, y)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other[0].weight *= -1
    found = FineTunedClassifier(other, **how).fit(X, y).transform(X)
    expected = FineTunedClassifier(other, feature_cache=None, **how).fit(X, y).transform(X)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


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
    decode = _images.decode
    monkeypatch.setattr(_images, "decode", lambda *given: decoded.append(given) or decode(*given))
    how = {"freeze_depth": 3, "strategy": "fine_tune", "augment": "light", "random_state": 0}
    FineTunedClassifier(tiny_cnn, max_epochs=3, **how).fit(paths, y)
    assert {value.dtype for value in PROCESS_CACHE._kept.values()} == {np.dtype(np.uint8)}
    assert len(PROCESS_CACHE) == len(paths)
    assert len(decoded) <= len(paths) + 2  # fit looks at the shape of one
    assert cache_info().misses == 4 * len(paths) + 1  # to scale features, in each epoch, and one to measure


def test_a_fixed_number_of_views_passes_the_frozen_part_once(pictures, passed):
    X, y = pictures
    how = {"freeze_depth": 3, "strategy": "fine_tune", "augment": "standard", "augment_views": 3, "random_state": 0}
    first = FineTunedClassifier(tiny_cnn, max_epochs=5, **how).fit(X, y)
    assert len(passed) == 3 * len(X) + 1
    again = FineTunedClassifier(tiny_cnn, max_epochs=2, lr=1e-3, **how).fit(X[::-1], y[::-1])
    assert len(passed) == 3 * len(X) + 2, "another candidate, in another order"
    assert first.net_.module_.head[-1].weight.shape == again.net_.module_.head[-1].weight.shape
    FineTunedClassifier(tiny_cnn, max_epochs=1, **{**how, "augment": "strong"}).fit(X, y)
    assert len(passed) == 6 * len(X) + 3, "another level"
    FineTunedClassifier(tiny_cnn, max_epochs=1, **{**how, "random_state": 1}).fit(X, y)
    assert len(passed) == 9 * len(X) + 4, "another seed, and with it other random weights"


def test_views_differ_from_each_other_and_from_the_image(pictures):
    X, y = pictures
    how = {"freeze_depth": "all", "strategy": "linear_probe", "random_state": 0, "head_epochs": 1}
    seen = {
        kind: {value.tobytes() for value in PROCESS_CACHE._kept.values() if value.ndim == 1}
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
        cache.put([(key, np.full(8, number, dtype=np.float32))])
    cache.get(keys[:1])
    cache.put([(keys[3], np.zeros(8, dtype=np.float32))])
    assert [value is not None for value in cache.get(keys)] == [True, False, True, True]
    assert cache.n_bytes == 96
    cache.put([(b"huge", np.zeros(1000))])
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
    parts = [
        ([b"a"], "b", "c", "d"),
        ([b"x"], "b", "c", "d"),
        ([b"a"], "x", "c", "d"),
        ([b"a"], "b", "x", "d"),
        ([b"a"], "b", "c", "x"),
        ([b"a"], "bc", "", "d"),
        ([b"a"], "", "bc", "d"),
        ([b"a"], "b", "cd", ""),
        ([b"da"], "b", "c", ""),
    ]
    assert len({activation_keys(*part)[0] for part in parts}) == len(parts)
    assert activation_keys([b"a", b"x"], "b", "c", "d") == [activation_keys(*part)[0] for part in parts[:2]]


# Partial prefixes


@pytest.mark.parametrize("where", ["memory", "folder"])
def test_a_deeper_activation_goes_on_from_a_shallower_one(pictures, passed, where, tmp_path):
    X, y = pictures
    how = {"feature_cache": "auto" if where == "memory" else tmp_path, "random_state": 0, "precision": "float32"}
    for depth in (1, 3, "all"):
        FineTunedClassifier(tiny_cnn, freeze_depth=depth, max_epochs=1, **how).fit(X, y)
    assert len(passed) == len(X)
    assert cache_info()[:3] == (3 * len(X), len(X), 2 * len(X))
    features = extractor(feature_cache=how["feature_cache"]).fit_transform(X)
    assert len(passed) == len(X), "the extractor finds what the classifier left"
    clear_cache()
    np.testing.assert_allclose(features, extractor(feature_cache=None).fit_transform(X), rtol=1e-4, atol=1e-5)


def test_a_grid_over_depths_from_the_shallowest_passes_each_image_once(pictures, passed):
    X, y = pictures
    grid = {"freeze_depth": [1, 3, "all"], "lr": [1e-4, 1e-3]}
    search = GridSearchCV(FineTunedClassifier(tiny_cnn, random_state=0, max_epochs=1), grid, cv=3, error_score="raise")
    search.fit(X, y)
    assert len(passed) == len(X)
    search.set_params(param_grid={**grid, "strategy": ["lp_ft", "gradual"]}).fit(X, y)
    assert len(passed) == len(X), "more candidates need no pass at all"


def test_several_layers_go_on_from_what_is_kept(pictures, passed):
    X, y = pictures
    FineTunedClassifier(tiny_cnn, random_state=0, freeze_depth=1, max_epochs=1, precision="float32").fit(X, y)
    several = extractor(layer=[3, 4], pooling="max").fit_transform(X)
    assert len(passed) == len(X)
    np.testing.assert_allclose(
        several, extractor(layer=[3, 4], pooling="max", feature_cache=None).fit_transform(X), rtol=1e-4, atol=1e-5
    )


def test_what_is_kept_of_some_rows_serves_these_and_the_others_are_computed(pictures, passed):
    X, y = pictures
    how = {"random_state": 0, "freeze_depth": 2, "max_epochs": 1, "precision": "float32"}
    FineTunedClassifier(tiny_cnn, layer=None, **how).fit(X[:10], y[:10])
    features = extractor(batch_size=5).fit_transform(X)
    assert len(passed) == len(X)
    np.testing.assert_allclose(
        features, extractor(batch_size=5, feature_cache=None).fit_transform(X), rtol=1e-4, atol=1e-5
    )


def test_large_activations_near_the_input_are_not_gone_on_from(pictures, passed, monkeypatch):
    X, y = pictures
    monkeypatch.setattr(_reuse, "WORTH_READING", 100)
    FineTunedClassifier(tiny_cnn, random_state=0, freeze_depth=1, max_epochs=1).fit(X, y)
    extractor(precision="auto").fit_transform(X)
    assert len(passed) == 2 * len(X)
    assert cache_info().continued == 0


def test_what_leaves_while_it_is_wanted_is_computed_after_all(pictures, monkeypatch):
    X, y = pictures
    expected = extractor(feature_cache=None).fit_transform(X)
    FineTunedClassifier(tiny_cnn, random_state=0, freeze_depth=2, max_epochs=1, precision="float32").fit(X, y)
    monkeypatch.setattr(MemoryStore, "contains", lambda self, keys: [True] * len(keys))
    np.testing.assert_allclose(extractor().fit_transform(X), expected, rtol=1e-4, atol=1e-5)
    monkeypatch.undo()
    fitted = extractor().fit(X)
    found = MemoryStore.get

    def lose(self, keys):
        return [None if key[0] % 2 else value for key, value in zip(keys, found(self, keys), strict=True)]

    monkeypatch.setattr(MemoryStore, "get", lose)
    np.testing.assert_allclose(fitted.transform(X), expected, rtol=1e-4, atol=1e-5)


# Sameness


def test_an_image_that_stands_in_x_more_than_once_is_computed_once(pictures, passed):
    X, _ = pictures
    order = np.random.default_rng(0).integers(0, len(X), 100)
    fitted = extractor(batch_size=7).fit(X[:1])
    before = len(passed)
    features = fitted.transform(X[order])
    assert len(passed) == before + len(set(order.tolist()) - {0})
    np.testing.assert_array_equal(features, fitted.transform(X)[order])


def test_a_search_scores_the_same_with_and_without(pictures):
    X, y = pictures
    grid = {"freeze_depth": ["all", 2], "lr": [1e-3, 1e-2]}
    scores = []
    for feature_cache in ("auto", None):
        classifier = FineTunedClassifier(tiny_cnn, random_state=0, max_epochs=2, feature_cache=feature_cache)
        scores.append(GridSearchCV(classifier, grid, cv=3, error_score="raise").fit(X, y).cv_results_)
    np.testing.assert_allclose(scores[0]["mean_test_score"], scores[1]["mean_test_score"], atol=1e-6)


def test_a_file_that_is_written_to_while_it_is_read_is_not_kept_under_its_old_content(tmp_path, monkeypatch):
    path = tmp_path / "image.png"
    old, new = (np.full((16, 16, 3), value, dtype=np.uint8) for value in (10, 200))
    Image.fromarray(old).save(path)
    fitted = extractor(feature_cache=None).fit([path])
    expected = fitted.transform([path])
    original = _images.decode

    def change_first(image, *arguments):
        Image.fromarray(new).save(path)
        return original(image, *arguments)

    fitted.set_params(feature_cache="auto")
    with monkeypatch.context() as patch:
        patch.setattr(_images, "decode", change_first)
        assert not np.array_equal(fitted.transform([path]), expected)
    Image.fromarray(old).save(path)
    np.testing.assert_array_equal(fitted.transform([path]), expected)


# What is kept, and how much


@pytest.mark.parametrize("kind", ["image", "sound"])
def test_a_file_whose_size_and_date_were_put_back_has_another_stamp(kind, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"1234")
    if kind == "image":
        samples = _images.ImageSamples(
            [str(path)], ImagePreprocessing(crop=(8, 8)), None, PictureScale(None, "auto", False)
        )
    else:
        preprocessing = SoundPreprocessing("Wav2Vec2FeatureExtractor", "{}", "input_values", 1000, 100)
        samples = _sounds.SoundSamples([str(path)], [Length(100, 1000)], preprocessing)
    before, found = samples.stamp(0), path.stat()
    assert samples.stamp(0) == before
    time.sleep(0.05)
    with path.open("r+b") as file:
        file.write(b"5678")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert samples.stamp(0) != before


def test_verbose_says_what_is_kept_and_what_is_not(pictures, capsys):
    X, y = pictures
    how = {"freeze_depth": 1, "max_epochs": 1, "random_state": 0, "verbose": 1}
    FineTunedClassifier(tiny_cnn, **how).fit(X, y)
    assert "of outputs of frozen blocks for training" in capsys.readouterr().out
    FineTunedClassifier(tiny_cnn, **{**how, "freeze_depth": 3}).fit(X, y)
    assert "from cached outputs of an earlier cut" in capsys.readouterr().out
    clear_cache()
    try:
        set_cache_limit(memory=10_000)
        FineTunedClassifier(tiny_cnn, **how).fit(X, y)
        said = capsys.readouterr().out
        assert "blocks are not cached: they need 0.1 MiB, and the limit of the cache is 0.0 MiB" in said
        assert cache_info().n_bytes <= 10_000
    finally:
        set_cache_limit(memory=MEMORY_LIMIT)


def test_a_smaller_limit_lets_go_at_once(pictures):
    X, _ = pictures
    extractor().fit_transform(X)
    try:
        set_cache_limit(memory=5 * 64)
        assert cache_info().n_bytes <= 5 * 64
        assert 0 < cache_info().n_activations <= 5
    finally:
        set_cache_limit(memory=MEMORY_LIMIT)


@pytest.mark.parametrize("limit", [-1, 1.5, "1 GB", True])
def test_a_limit_is_a_number_of_bytes(limit):
    with pytest.raises(ValueError, match="expected a number of bytes"):
        set_cache_limit(memory=limit)


def test_clear_cache_empties_everything(pictures):
    X, _ = pictures
    extractor().fit_transform(X)
    assert min(cache_info().misses, cache_info().n_activations, cache_info().n_bytes, cache_info().n_networks) > 0
    clear_cache()
    assert cache_info() == (0,) * 6


def test_folders_are_emptied_only_when_asked(pictures, tmp_path):
    X, _ = pictures
    extractor(feature_cache=tmp_path).fit_transform(X)
    for folders, misses in ((False, 0), (True, len(X))):
        clear_cache(folders=folders)
        extractor(feature_cache=tmp_path).fit_transform(X)
        assert cache_info().misses == misses


class Drawing(torch.nn.Module):
    """Draws a number in each run, as layers do that may be skipped in training, and changes nothing."""

    def forward(self, x):
        torch.rand(())
        return x


def drawing_cnn():
    return torch.nn.Sequential(Drawing(), *tiny_cnn())


def test_a_network_that_draws_numbers_does_not_change_what_a_fit_draws(pictures):
    """However often it ran, because its activations were found or not."""
    settings = {"freeze_depth": 1, "hidden_layer_sizes": (8,), "dropout": 0.5, "max_epochs": 2, "random_state": 0}
    found = [
        FineTunedClassifier(drawing_cnn, feature_cache=cache, batch_size=size, **settings).fit(*pictures)
        for cache, size in ((None, 24), ("auto", 24), ("auto", 24))
    ]
    for other in found[1:]:
        np.testing.assert_array_equal(other.predict_proba(pictures[0]), found[0].predict_proba(pictures[0]))
