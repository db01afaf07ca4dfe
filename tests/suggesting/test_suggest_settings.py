"""Suggested settings: they follow the table, an estimator takes them, and each has a reason."""

import os
import time

import numpy as np
import pytest
import torch
from torch import nn

from sktransfer import (
    FineTunedClassifier,
    FineTunedRegressor,
    PretrainedFeatureExtractor,
    cache_info,
    suggest_settings,
)
from sktransfer._similarity._domain_gap import BlockGap, DomainGap
from sktransfer._similarity._probes import Score
from sktransfer._suggesting import _measuring
from sktransfer._suggesting._choice import Situation, choose
from sktransfer._suggesting._suggestion import in_words
from sktransfer.backbones import load_backbone


def measured(gap, first=0.8, last=0.8, baseline=0.5):
    blocks = (
        BlockGap(1, "early", gap, Score(first, 0.01), Score(0.4, 0.01)),
        BlockGap(2, "late", gap, Score(last, 0.01), Score(0.4, 0.01)),
    )
    return DomainGap("network", "its own", 100, blocks, Score(baseline, 0.01), "pixels + PCA", "accuracy")


NEAR, FAR = measured(0.15), measured(0.6)


@pytest.mark.parametrize(
    ("per_class", "gap", "depth"),
    [
        (5, NEAR, "all"),
        (5, FAR, "all"),
        (29, FAR, "all"),
        (36, FAR, 0),
        (60, measured(0.6, first=0.94, last=0.94), "all"),
        (500, measured(0.6, first=0.94, last=0.94), 0),
        (60, NEAR, "all"),
        (60, FAR, 0),
        (60, measured(0.15, first=0.9, last=0.6), 0),
        (60, measured(0.15, baseline=0.95), 0),
        (60, measured(float("nan")), "all"),
        (500, NEAR, 0.75),
        (500, FAR, 0),
    ],
)
def test_the_table_of_size_and_similarity_is_followed(per_class, gap, depth):
    chosen = choose(Situation("classes", (per_class, per_class, 2 * per_class), gap))
    assert chosen["freeze_depth"][0] == depth
    assert chosen["strategy"][0] == ("linear_probe" if depth == "all" else "lp_ft")
    assert ("lr" in chosen) == ("max_epochs" in chosen) == (depth != "all")
    assert all(why for _, why in chosen.values())
    assert f"{per_class} samples per class" in chosen["freeze_depth"][1]


def test_reasons_say_what_was_measured():
    assert "the data is far (gap 0.60)" in choose(Situation("classes", (60, 60), FAR))["freeze_depth"][1]
    worse = choose(Situation("classes", (60, 60), measured(0.1, first=0.9, last=0.6)))["freeze_depth"][1]
    assert "earlier block (early)" in worse
    negative = choose(Situation("classes", (60, 60), measured(0.1, baseline=0.95)))["freeze_depth"][1]
    assert "has better features than pixels + PCA" in negative
    assert "earlier blocks" in choose(Situation("classes", (5, 5), FAR))["layer"][1]


def test_uneven_classes_are_weighed():
    assert "class_weight" not in choose(Situation("classes", (50, 20), NEAR))
    value, why = choose(Situation("classes", (80, 20), NEAR))["class_weight"]
    assert value == "balanced"
    assert "4 times" in why
    assert "class_weight" not in choose(Situation("labels", (80, 2), NEAR))
    assert "class_weight" not in choose(Situation("numbers", (80,), NEAR))


def test_ten_numbers_count_like_one_sample_per_class():
    assert choose(Situation("numbers", (290,), FAR))["freeze_depth"][0] == "all"
    assert choose(Situation("numbers", (310,), FAR))["freeze_depth"][0] == 0


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(8, 3),
        ).eval()  # fmt: skip


def test_the_classifier_takes_what_is_suggested(network, pictures):
    X, y = pictures
    suggestion = suggest_settings(X, y, network)
    assert isinstance(suggestion, dict)
    assert suggestion.estimator == "FineTunedClassifier"
    assert set(suggestion.reasons) == set(suggestion)
    assert suggestion["freeze_depth"] == "all"
    model = FineTunedClassifier(**suggestion, random_state=0).fit(X, y)
    assert model.score(X, y) > 0.5
    assert suggestion.gap.n_samples == len(X)
    text = repr(suggestion)
    assert "parameter" in text
    assert "12 samples per class (2 classes) are few" in text
    assert "on this machine" in text
    assert max(map(len, text.splitlines())) < 160
    assert "<table>" in suggestion._repr_html_()


def test_the_same_data_gives_the_same_settings(network, pictures):
    X, y = pictures
    one, two = suggest_settings(X, y, network), suggest_settings(list(X), y.tolist(), network)
    assert dict(one) == dict(two)
    assert one.reasons == two.reasons
    assert repr(one.gap) == repr(two.gap)


def test_what_is_measured_and_counted_is_what_chooses(network, pictures, monkeypatch):
    X, y = np.concatenate([pictures[0]] * 3), np.tile(pictures[1], 3)
    monkeypatch.setattr(_measuring, "expected_seconds", lambda kind, settings, X, targets: 12.0 * len(targets.values))
    for found, depth in ((NEAR, "all"), (FAR, 0)):
        monkeypatch.setattr(_measuring, "measure_read", lambda *args, found=found: found)
        suggestion = suggest_settings(X, y, network)
        assert suggestion["freeze_depth"] == depth
        assert suggestion.gap is found
        assert suggestion.seconds == 12 * 72
        assert "about 14 minutes" in repr(suggestion)


def test_a_timed_fit_finds_nothing_in_the_cache(network, pictures):
    X, y = pictures
    targets = _measuring.read_targets(y, len(X))
    FineTunedClassifier(network, random_state=0).fit(X, y)
    before = cache_info()
    _measuring.expected_seconds(FineTunedClassifier, {"backbone": network, "random_state": 0}, X, targets)
    after = cache_info()
    assert (after.hits, after.continued) == (before.hits, before.continued)
    assert after.n_activations == before.n_activations


def test_numbers_and_several_labels(network, pictures):
    X = pictures[0]
    numbers = suggest_settings(X, np.linspace(0, 1, len(X)), network)
    assert numbers.estimator == "FineTunedRegressor"
    FineTunedRegressor(**numbers).fit(X, np.linspace(0, 1, len(X)))
    whole = suggest_settings(X, np.arange(len(X)), FineTunedRegressor(network, loss="huber"))
    assert whole.estimator == "FineTunedRegressor"
    labels = np.random.default_rng(0).integers(0, 2, (len(X), 3))
    assert FineTunedClassifier(**suggest_settings(X, labels, network)).fit(X, labels).predict(X).shape == labels.shape


def test_settings_of_an_estimator_are_kept(network, pictures):
    X, y = pictures
    flat, shape = X.reshape(len(X), -1), X.shape[1:]
    given = FineTunedClassifier(network, image_shape=shape, freeze_depth=0, batch_size=8, random_state=3)
    suggestion = suggest_settings(flat, y, given)
    assert suggestion["backbone"] is network
    assert suggestion["image_shape"] == shape
    assert suggestion["batch_size"] == 8
    assert suggestion["random_state"] == 3
    assert suggestion["freeze_depth"] == "all"
    assert set(suggestion) <= set(given.get_params())
    extractor = PretrainedFeatureExtractor("squeezenet1_1", weights=None, random_state=0, layer=3)
    assert suggest_settings(X, y, extractor)["weights"] is None
    loaded = suggest_settings(X, y, load_backbone("squeezenet1_1", weights=None))
    assert loaded["backbone"] == "squeezenet1_1"
    assert loaded["weights"] is None


def test_a_class_of_one_sample_is_no_reason_to_stop(network, pictures):
    X, y = pictures
    y = np.append(y[:-1], "lone")
    suggestion = suggest_settings(X, y, network)
    assert suggestion.gap.best_block is None
    assert suggestion["class_weight"] == "balanced"


def test_seconds_are_those_of_each_sample_and_of_each_step(network, pictures, monkeypatch):
    X, y = np.concatenate([pictures[0]] * 20), np.tile(pictures[1], 20)
    settings = {"backbone": network, "freeze_depth": 0, "batch_size": 10, "max_epochs": 7}
    targets = _measuring.read_targets(y, len(X))
    asked = []

    def timed(model, X, targets, rows):
        asked.append(len(rows))
        return 1.0 + 0.1 * len(rows), [5.0, 0.5 * -(-len(rows) // 10)]

    monkeypatch.setattr(_measuring, "_timed", timed)
    found = _measuring.expected_seconds(FineTunedClassifier, settings, X, targets)
    assert found == pytest.approx(1.0 + 0.1 * 480 + 7 * 48 * 0.5)
    assert asked == [5, 5, 20]


def test_seconds_in_words():
    assert in_words(0.2) == "less than a second"
    assert in_words(42.3) == "about 42 seconds"
    assert in_words(300) == "about 5 minutes"
    assert in_words(9000) == "about 2.5 hours"


@pytest.mark.exhaustive
@pytest.mark.parametrize("depth", ["all", 0])
def test_seconds_are_within_a_factor_of_3_where_the_machine_is_free(network, pictures, depth):
    if not hasattr(os, "getloadavg") or os.getloadavg()[0] > 0.7 * (os.cpu_count() or 1):
        pytest.skip("other programs want the processors")
    X, y = np.concatenate([pictures[0]] * 40), np.tile(pictures[1], 40)
    settings = {"backbone": network, "freeze_depth": depth, "feature_cache": None, "random_state": 0}
    ratios = []
    for _ in range(3):
        expected = _measuring.expected_seconds(FineTunedClassifier, settings, X, _measuring.read_targets(y, len(X)))
        started = time.perf_counter()
        FineTunedClassifier(**settings).fit(X, y)
        ratios.append(expected / (time.perf_counter() - started))
    assert 1 / 3 < sorted(ratios)[1] < 3, ratios


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": ["leaf"] * 24}, "only one class"),
        ({"y": ["leaf", "stone"]}, "inconsistent numbers of samples"),
        ({"y": None}, "y=None"),
        ({"backbone": 3}, "Got 3 of type int as a backbone"),
        ({"backbone": "resnet1"}, "resnet18"),
        ({"max_samples": 0}, "max_samples=0"),
    ],
)
def test_bad_input_is_a_sentence(network, pictures, change, message):
    given = {"X": pictures[0], "y": pictures[1], "backbone": network} | change
    with pytest.raises(ValueError, match=message):
        suggest_settings(**given)


@pytest.mark.parametrize("y", [None, ["leaf"] * 24, ["leaf", "stone"], [[0, 1], [1, 2]] * 12], ids=str)
@pytest.mark.parametrize("kind", [str, FineTunedClassifier])
def test_y_is_refused_before_a_network_is_loaded(pictures, kind, y, monkeypatch):
    monkeypatch.setattr("sktransfer._backbone_estimator.load_backbone", lambda *args, **how: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=r"y=None|only one class: 'leaf'|24 in X and 2 in y|y\[1, 1\] = 2"):
        suggest_settings(pictures[0], y, kind("resnet18"))
