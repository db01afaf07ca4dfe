"""Probes at every block: what one pass gives, what is marked, and what is refused."""

import sys

import numpy as np
import pytest
from networks import tiny_cnn, tiny_vectors
from pretrained_models import make_sound_model, make_sounds, make_text_model, make_texts
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor, cache_info, clear_cache
from sktransfer.inspection import DepthDisplay, _linear_probes


def classifier(**parameters):
    return FineTunedClassifier(tiny_cnn, random_state=0, **parameters)


def two_layers_per_block():
    """Two blocks, each of which a cut may part between convolution and BatchNorm."""
    blocks = [nn.Sequential(nn.Conv2d(n, 4, 3), nn.BatchNorm2d(4), nn.ReLU()) for n in (3, 4)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


@pytest.fixture(autouse=True)
def _empty_cache():
    clear_cache()


def legend_of(display):
    return [text.get_text() for text in display.ax_.get_legend().get_texts()]


def test_each_picture_passes_the_network_once_for_all_blocks(pictures, monkeypatch):
    seen, forward = [], nn.Conv2d.forward

    def counted(self, x):
        if self.in_channels == 3:
            seen.append(len(x))
        return forward(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", counted)
    X, y = pictures
    display = DepthDisplay.from_estimator(classifier(), X, y)
    assert sum(seen) == len(X)
    assert display.scores.shape == (4, 5)
    again = DepthDisplay.from_estimator(classifier(), X, y)
    assert sum(seen) == len(X)
    np.testing.assert_array_equal(again.scores, display.scores)


@pytest.mark.parametrize("kind", ["bert", "wav2vec2"])
def test_texts_and_sounds_pass_once_as_well(kind, tmp_path):
    if kind == "bert":
        name, (X, y), more = make_text_model("bert", tmp_path), make_texts(), {}
    else:
        name, (X, y), more = make_sound_model(kind, tmp_path), make_sounds(), {"sampling_rate": 1000}
    before = cache_info().misses
    estimator = PretrainedFeatureExtractor(name, **more)
    display = DepthDisplay.from_estimator(estimator, X, y, cv=3)
    assert cache_info().misses - before == len(X)
    assert len(display.block_names) == len(estimator.fit(X).backbone_.blocks)


def test_scores_are_those_of_features_of_each_block(pictures):
    X, y = pictures
    display = DepthDisplay.from_estimator(classifier(), X, y)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    for name, scores in zip(display.block_names, display.scores, strict=True):
        features = PretrainedFeatureExtractor(tiny_cnn, layer=name).fit_transform(X)
        np.testing.assert_allclose(scores, cross_val_score(probe, features, y), atol=0.21)  # one sample may round over
        assert abs(scores.mean() - cross_val_score(probe, features, y).mean()) < 0.05


def test_a_table_in_a_file_gives_the_same(pictures, monkeypatch):
    X, y = pictures
    expected = DepthDisplay.from_estimator(classifier(), X, y).scores
    kinds = []

    def noted(shape, opened, make=_linear_probes._make_table):
        kinds.append(type(table := make(shape, opened)))
        return table

    monkeypatch.setattr(_linear_probes, "IN_MEMORY", 0)
    monkeypatch.setattr(_linear_probes, "_make_table", noted)
    np.testing.assert_array_equal(DepthDisplay.from_estimator(classifier(), X, y).scores, expected)
    assert kinds == [np.memmap]


def test_a_fitted_estimator_shows_all_blocks_of_the_pretrained_network(pictures):
    X, y = pictures
    how = {"layer": [2], "freeze_depth": 1, "max_epochs": 1}
    before = DepthDisplay.from_estimator(classifier(**how), X, y)
    after = DepthDisplay.from_estimator(classifier(**how).fit(X, y), X, y)
    assert len(before.block_names) == 4
    assert before.block_names == after.block_names
    np.testing.assert_array_equal(before.scores, after.scores)
    assert (before.depth, before.layers) == (after.depth, after.layers) == (1.0, [2])


@pytest.mark.parametrize(
    ("parameters", "depth"),
    [({"freeze_depth": 2}, 2), ({"freeze_depth": 0.75}, 3), ({"freeze_depth": 0}, 0), ({}, 4)],
)
def test_the_chosen_depth_is_marked(pictures, parameters, depth):
    display = DepthDisplay.from_estimator(classifier(**parameters), *pictures)
    assert display.depth == depth
    (line,) = [line for line in display.ax_.lines if "frozen" in str(line.get_label())]
    assert set(line.get_xdata()) == {depth + 0.5}


def test_a_cut_inside_a_block_counts_half(pictures):
    X, y = pictures
    display = DepthDisplay.from_estimator(FineTunedClassifier(two_layers_per_block, freeze_depth="0.0"), X, y, cv=3)
    assert (display.block_names, display.depth) == (["0", "1"], 0.5)


def test_each_block_has_its_mean_its_spread_and_its_name():
    scores = np.array([[0.5, 0.7], [0.9, 0.7], [0.4, 0.4]])
    display = DepthDisplay(["early", "middle", "late"], scores, "accuracy", layers=[1, 3]).plot()
    means, best, chosen = display.ax_.lines
    np.testing.assert_allclose(means.get_xydata(), [(1, 0.6), (2, 0.8), (3, 0.4)])
    np.testing.assert_allclose(best.get_xydata(), [(2, 0.8)])
    np.testing.assert_allclose(chosen.get_xydata(), [(1, 0.6), (3, 0.4)])
    (band,) = display.ax_.collections
    corners = {(x, round(y, 6)) for x, y in band.get_paths()[0].vertices.tolist()}
    assert corners == {(1, 0.5), (1, 0.7), (2, 0.7), (2, 0.9), (3, 0.4)}
    names = {text.get_position()[0]: text.get_text() for text in display.ax_.get_xticklabels()}
    assert names == {1: "early", 2: "middle", 3: "late"}
    assert display.best_block == "middle"
    assert "best: middle" in legend_of(display)


def test_a_linear_probe_keeps_all_frozen_whatever_the_depth(pictures):
    estimator = classifier(strategy="linear_probe", freeze_depth=1)
    assert DepthDisplay.from_estimator(estimator, *pictures).depth == 4


def test_an_extractor_has_its_layers_marked_and_no_depth(pictures):
    display = DepthDisplay.from_estimator(PretrainedFeatureExtractor(tiny_cnn, layer=[3, 1]), *pictures)
    assert display.depth is None
    assert display.layers == [1, 3]
    assert "features used by the estimator" in legend_of(display)


def test_pipelines_and_searches_show_the_network_in_them(pictures):
    X, y = pictures
    pipeline = make_pipeline(PretrainedFeatureExtractor(tiny_cnn, random_state=0), LogisticRegression())
    expected = DepthDisplay.from_estimator(pipeline, X, y).scores
    search = GridSearchCV(pipeline, {"logisticregression__C": [1, 2]}, cv=2)
    np.testing.assert_array_equal(DepthDisplay.from_estimator(search, X, y).scores, expected)
    np.testing.assert_array_equal(DepthDisplay.from_estimator(search.fit(X, y), X, y).scores, expected)


def test_numbers_are_probed_by_ridge_regression(pictures):
    X, _ = pictures
    y = X.mean(axis=(1, 2))[:, :2].astype(float)
    for target in (y, y[:, 0]):
        display = DepthDisplay.from_estimator(FineTunedRegressor(tiny_cnn, random_state=0), X, target, cv=3)
        assert display.score_name == "R2"
        assert display.scores.mean(axis=1).max() > 0.5
        assert display.chance < 0.1


def test_whole_numbers_are_numbers_for_a_regressor_and_classes_for_a_classifier(pictures):
    X, _ = pictures
    y = np.arange(24) % 2
    regressor = FineTunedRegressor(tiny_cnn, random_state=0)
    assert DepthDisplay.from_estimator(regressor, X, y, cv=3).score_name == "R2"
    assert DepthDisplay.from_estimator(classifier(), X, y, cv=3).score_name == "accuracy"


def test_several_labels_are_probed_one_by_one(pictures):
    X, y = pictures
    labels = np.column_stack([y == "leaf", X[:, 0, 0, 0] > 60]).astype(int)
    display = DepthDisplay.from_estimator(classifier(), X, labels, cv=3)
    assert display.score_name == "F1 over all labels"
    assert display.scores.mean(axis=1).max() > 0.6


def test_a_probe_scoring_groups_and_axes_of_ones_own(pictures):
    from matplotlib import pyplot

    X, y = pictures
    _, ax = pyplot.subplots()
    display = DepthDisplay.from_estimator(
        classifier(), X, y, probe=KNeighborsClassifier(1), scoring="roc_auc", cv=GroupKFold(3),
        groups=np.repeat(np.arange(6), 4), ax=ax,
    )  # fmt: skip
    assert display.ax_ is ax
    assert ax.get_ylabel() == "roc auc"
    assert display.scores.shape == (4, 3)
    assert display.chance == 0.5


def test_vectors_are_probed_too():
    X = np.random.default_rng(0).normal(size=(40, 4))
    estimator = FineTunedClassifier(tiny_vectors, random_state=0)
    display = DepthDisplay.from_estimator(estimator, X, np.where(X[:, 0] > 0, "up", "down"))
    assert display.scores.shape == (2, 5)


def test_names_of_many_blocks_are_thinned_out():
    display = DepthDisplay([f"block{number}" for number in range(100)], np.zeros((100, 3)), "accuracy").plot()
    assert len(display.ax_.get_xticklabels()) <= 24


def test_wrong_y_and_estimators_get_a_sentence_before_anything_runs(pictures, monkeypatch):
    X, y = pictures
    before = cache_info().misses
    with pytest.raises(ValueError, match="only one class"):
        DepthDisplay.from_estimator(classifier(), X, np.zeros(24))
    with pytest.raises(ValueError, match="expected a class with at least one sample per fold"):
        DepthDisplay.from_estimator(classifier(), X, y, cv=20)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        DepthDisplay.from_estimator(classifier(), X, y[:20])
    with pytest.raises(ValueError, match=r"Got y of shape \(24, 2\) .*expected labels"):
        DepthDisplay.from_estimator(classifier(), X, np.column_stack([np.arange(24), np.arange(24)]))
    with pytest.raises(ValueError, match="Got LogisticRegression; expected PretrainedFeatureExtractor"):
        DepthDisplay.from_estimator(LogisticRegression(), X, y)
    with pytest.raises(ValueError, match=r"Got Pipeline with StandardScaler in it; .*first step"):
        DepthDisplay.from_estimator(make_pipeline(StandardScaler(), classifier()), X, y)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"sktransfer\[plot\]"):
        DepthDisplay.from_estimator(classifier(), X, y)
    assert cache_info().misses == before
