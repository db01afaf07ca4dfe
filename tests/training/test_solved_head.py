"""What a user may rely on when the head is solved: weights count relative to each other, as repeated samples do."""

import numpy as np
import pytest
import torch
from networks import tiny_cnn, tiny_vectors

from sktransfer import FineTunedClassifier
from sktransfer._training._solved_head import solve_head

RNG = np.random.default_rng(0)
FEATURES = (RNG.normal(size=(60, 5)) * [1, 10, 0.1, 3, 1] + [0, 50, 0, 0, 7]).astype(np.float32)
LABELS = np.arange(60) % 3
WEIGHTS = RNG.integers(0, 5, 60).astype(float)


def logits(features, labels, weights):
    with torch.no_grad():
        return solve_head(features, labels, weights, 3).head(torch.from_numpy(FEATURES)).numpy()


@pytest.mark.parametrize("factor", [1e-300, 1e-6, 0.3, 1e6, 1e300])
def test_multiplying_all_weights_by_a_number_changes_nothing(factor):
    expected = logits(FEATURES, LABELS, WEIGHTS)
    np.testing.assert_allclose(logits(FEATURES, LABELS, WEIGHTS * factor), expected, rtol=1e-4, atol=1e-4)


def test_weights_far_apart_leave_the_light_samples_out():
    weights = np.where(np.arange(60) < 30, 1e300, 1e-300)
    expected = logits(FEATURES[:30], LABELS[:30], np.ones(30))
    np.testing.assert_allclose(logits(FEATURES, LABELS, weights), expected, rtol=1e-4, atol=1e-4)


def test_a_weight_is_how_often_a_sample_is_there():
    expected = logits(FEATURES, LABELS, WEIGHTS)
    times = WEIGHTS.astype(int)
    repeated = FEATURES.repeat(times, axis=0) * np.float32(1 + 1e-7)  # rounded otherwise, as in another batch
    np.testing.assert_allclose(
        logits(repeated, LABELS.repeat(times), np.ones(times.sum())), expected, rtol=1e-3, atol=1e-3
    )
    there = WEIGHTS > 0
    np.testing.assert_allclose(logits(FEATURES[there], LABELS[there], WEIGHTS[there]), expected, rtol=1e-4, atol=1e-4)


def test_samples_that_are_all_different_count_as_so_many(monkeypatch):
    given = []

    class Watched:
        def __init__(self, **settings):
            pass

        def fit(self, features, labels, sample_weight):
            given.append(sample_weight)
            raise InterruptedError

    monkeypatch.setattr("sktransfer._training._solved_head.LogisticRegression", Watched)
    for weights in (np.ones(60), np.full(60, 7e-9)):
        with pytest.raises(InterruptedError):
            solve_head(FEATURES, LABELS, weights, 3)
    with pytest.raises(InterruptedError):  # the same features under another label are another sample
        solve_head(np.ones((4, 5)) * np.arange(2).repeat(2)[:, None], np.arange(4) % 2, np.ones(4), 2)
    np.testing.assert_array_equal(given[0], np.ones(60))
    np.testing.assert_array_equal(given[1], np.ones(60))
    np.testing.assert_array_equal(given[2], np.ones(4))


@pytest.mark.parametrize("parameters", [{"freeze_depth": "all"}, {"freeze_depth": 0, "max_epochs": 2}])
@pytest.mark.parametrize("factor", [1e6, 1e-300, 1e300])
def test_a_classifier_takes_weights_of_any_scale(parameters, factor, pictures):
    X, y = pictures
    weights = np.linspace(0, 2, len(X))
    classifier = FineTunedClassifier(tiny_cnn, random_state=0, **parameters)
    expected = classifier.fit(X, y, sample_weight=weights).predict_proba(X)
    np.testing.assert_allclose(
        classifier.fit(X, y, sample_weight=weights * factor).predict_proba(X), expected, atol=1e-5
    )
    by_class = FineTunedClassifier(tiny_cnn, random_state=0, **parameters)
    expected = by_class.set_params(class_weight={"leaf": 1, "stone": 3}).fit(X, y).predict_proba(X)
    by_class.set_params(class_weight={"leaf": factor, "stone": 3 * factor})
    found = by_class.fit(X, y, sample_weight=np.full(len(X), factor)).predict_proba(X)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_part_held_out_with_all_the_weight_is_refused():
    X, y = RNG.normal(size=(20, 4)), np.arange(20) % 2
    classifier = FineTunedClassifier(tiny_vectors, early_stopping=True, validation_fraction=0.5, random_state=0)

    def weigh_each_alone():
        for row in range(20):
            classifier.fit(X, y, sample_weight=np.arange(20) == row)

    with pytest.raises(ValueError, match="weights that are 0 for all 10 samples that are left for training"):
        weigh_each_alone()
