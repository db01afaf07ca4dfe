"""Copies are one group, whatever their order and form; different samples are not."""

import io
import shutil

import numpy as np
import pytest
from networks import tiny_cnn
from PIL import Image
from sklearn.model_selection import GroupKFold

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, cache_info, clear_cache
from sktransfer.inspection import _duplicates as duplicates
from sktransfer.inspection import duplicate_groups


@pytest.fixture(autouse=True)
def _empty_cache():
    clear_cache()
    yield
    clear_cache()


def wide_cnn():
    """Different samples have features that differ, whatever its random weights."""
    return tiny_cnn(width=64)


def test_texts():
    assert duplicate_groups(["a", "b", "a", "c", "b"]).tolist() == [0, 1, 0, 2, 1]
    assert duplicate_groups(np.array(["a", "A", "a "], dtype=object)).tolist() == [0, 1, 2], "exact alone"


def test_files_are_known_by_their_bytes(paths, tmp_path):
    copy = tmp_path / "copy.png"
    shutil.copy(paths[3], copy)
    X = [*paths[:5], str(copy), copy, copy.read_bytes(), io.BytesIO(copy.read_bytes())]
    assert duplicate_groups(X).tolist() == [0, 1, 2, 3, 4, 3, 3, 3, 3]


def test_arrays_and_pictures_are_known_by_their_pixels(pictures):
    X = pictures[0][[0, 1, 0, 2]]
    assert duplicate_groups(X).tolist() == [0, 1, 0, 2]
    assert duplicate_groups([*X, Image.fromarray(X[1])]).tolist() == [0, 1, 0, 2, 1]


def test_vectors_sounds_and_missing_samples():
    rows = np.array([[1.0, 2.0], [1.0, 3.0], [1.0, 2.0]])
    assert duplicate_groups(rows).tolist() == [0, 1, 0]
    sounds = [np.zeros(5), np.zeros(6), {"array": np.zeros(5), "sampling_rate": 8000}, np.zeros(5)]
    assert duplicate_groups(sounds).tolist() == [0, 1, 2, 0]
    assert duplicate_groups(["a", None, "a", None]).tolist() == [0, 1, 0, 2], "nothing is no copy of nothing"


@pytest.mark.parametrize("given", [wide_cnn, wide_cnn(), PretrainedFeatureExtractor(wide_cnn, random_state=0)])
def test_with_a_network_similar_samples_are_copies_too(pictures, given):
    X = pictures[0].astype(int)
    near = np.clip(X[:2] + 1, 0, 255)
    copied = np.concatenate([X[:2], near, 255 - X[:1]]).astype(np.uint8)
    assert duplicate_groups(copied).tolist() == [0, 1, 2, 3, 4]
    groups = duplicate_groups(copied, backbone=given, threshold=0.9998)
    assert groups[0] == groups[2]
    assert groups[1] == groups[3]
    assert groups[4] not in groups[:4]
    if isinstance(given, PretrainedFeatureExtractor):
        assert "backbone_" not in vars(given)


def test_fitted_estimators_are_used_as_they_are(pictures):
    X, y = pictures
    model = FineTunedClassifier(tiny_cnn, random_state=0).fit(X, y)
    passed = cache_info().misses
    assert len(set(duplicate_groups(X, backbone=model, threshold=1.0))) == len(X)
    assert cache_info().misses == passed


def chained(features, threshold):
    """Return groups as sets, by asking all pairs."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    near = unit @ unit.T >= threshold
    for _ in range(len(features)):
        near = near @ near
    return {tuple(np.flatnonzero(row)) for row in near}


@pytest.mark.parametrize("block", [1, 3, 512])
@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.99])
def test_groups_are_chains_of_similar_samples(monkeypatch, block, threshold):
    monkeypatch.setattr(duplicates, "BLOCK", block)
    features = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    groups = duplicates._joined(features, threshold)
    assert {tuple(np.flatnonzero(groups == group)) for group in set(groups)} == chained(features, threshold)


def test_samples_without_features_are_like_no_other():
    features = np.array([[1.0, 0], [np.nan, 0], [0, 0], [0, 0], [np.nan, 0], [2.0, 0]])
    assert len(set(duplicates._joined(features, 0.5))) == 5


def test_groups_keep_copies_together_in_folds(pictures):
    X = np.concatenate([pictures[0][:6], pictures[0][:6]])
    groups = duplicate_groups(X)
    for train, test in GroupKFold(3).split(X, groups=groups):
        assert not set(groups[train]) & set(groups[test])


@pytest.mark.parametrize("threshold", [0, 1.1, "high", True, np.nan])
def test_a_threshold_is_a_cosine(threshold):
    with pytest.raises(ValueError, match=r"Got threshold=.*; expected a cosine similarity above 0 and at most 1\."):
        duplicate_groups(["a"], threshold=threshold)


def test_files_that_are_missing_are_named(paths):
    with pytest.raises(FileNotFoundError, match="Got 1 of 2 paths"):
        duplicate_groups([paths[0], "no_such.png"])


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="X is empty"):
        duplicate_groups([])
