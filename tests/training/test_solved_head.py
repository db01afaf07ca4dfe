"""What a user may rely on when the head is solved: the penalty is chosen, and weights count as repeated samples do."""

import numpy as np
import pytest
import torch
from networks import tiny_cnn, tiny_vectors
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from sktransfer import FineTunedClassifier
from sktransfer._training import _logistic_problem, _penalty_choice
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

    def watched(problem, C, weights, *others):
        given.append(weights[0])
        raise InterruptedError

    monkeypatch.setattr(_logistic_problem.LogisticProblem, "solve", watched)
    for weights in (np.ones(60), np.full(60, 7e-9)):
        with pytest.raises(InterruptedError):
            solve_head(FEATURES, LABELS, weights, 3, C=1.0)
    with pytest.raises(InterruptedError):  # the same features under another label are another sample
        solve_head(np.ones((4, 5)) * np.arange(2).repeat(2)[:, None], np.arange(4) % 2, np.ones(4), 2, C=1.0)
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

    with pytest.raises(ValueError, match="weights of 0 for all 10 samples that are left for training"):
        weigh_each_alone()


def separable(n, n_classes, n_features=40, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    features = rng.normal(size=(n_classes, n_features))[labels] + noise * rng.normal(size=(n, n_features))
    return features.astype(np.float32), labels


def loss(solution, features, labels):
    with torch.no_grad():
        logits = solution.head(torch.from_numpy(features)).double()
    return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)))


@pytest.mark.parametrize("noise", [0.5, 3.0, 8.0])
def test_the_chosen_penalty_serves_samples_that_were_not_there(noise):
    features, labels = separable(2000, 4, noise=noise)
    chosen = solve_head(features[:120], labels[:120], np.ones(120), 4)
    others = [solve_head(features[:120], labels[:120], np.ones(120), 4, C=C) for C in (0.3, 3.0, 30.0, 300.0)]
    losses = [loss(other, features[120:], labels[120:]) for other in others]
    assert loss(chosen, features[120:], labels[120:]) < min(losses) + 0.05
    assert loss(chosen, features[120:], labels[120:]) < np.median(losses)
    assert chosen.C in chosen.path["C"]
    assert (np.diff(chosen.path["C"]) > 0).all()
    assert chosen.path["log_loss"].shape == chosen.path["C"].shape


def layers(useful, n=120, seed=0):
    """Return features of two layers; only the layers named in `useful` tell the classes apart."""
    rng, labels = np.random.default_rng(seed), np.arange(n) % 3
    parts = {
        name: (rng.normal(size=(3, width))[labels] * (name in useful) + 1.5 * rng.normal(size=(n, width)))
        for name, width in (("earlier", 100), ("last", 30))
    }
    return np.hstack(list(parts.values())).astype(np.float32), labels


@pytest.mark.parametrize(("useful", "weight"), [({"last"}, 0.1), ({"earlier"}, 0.9)])
def test_earlier_layers_weigh_what_serves_samples_that_were_not_there(useful, weight):
    features, labels = layers(useful, 600)
    solution = solve_head(features[:120], labels[:120], np.ones(120), 3, [100, 30])
    assert solution.earlier_weight == weight
    scaling = solution.head[0]
    with torch.no_grad():
        norms = [(part**2).sum(1).mean() for part in scaling(torch.from_numpy(features[:120])).split([100, 30], dim=1)]
    assert float(norms[0] / norms[1]) == pytest.approx(weight**2, rel=1e-3)
    fixed = solve_head(features[:120], labels[:120], np.ones(120), 3, [100, 30], C=solution.C)
    assert fixed.earlier_weight == 0.3
    assert loss(solution, features[120:], labels[120:]) < loss(fixed, features[120:], labels[120:])
    assert set(solution.path["earlier_weight"]) >= {0.3, weight}
    assert {len(column) for column in solution.path.values()} == {len(solution.path["C"])}


@pytest.mark.parametrize("n_views", [1, 3])
def test_a_part_of_many_samples_chooses_the_penalty(monkeypatch, n_views):
    seen, solve = [], _logistic_problem.LogisticProblem.solve

    def watched(problem, C, weights, *given):
        seen.append((problem, weights))
        return solve(problem, C, weights, *given)

    features, labels = layers({"earlier"}, 900)
    views = np.concatenate([features[:600] + 0.01 * number for number in range(n_views)])
    given = (views, np.tile(labels[:600], n_views), np.ones(600 * n_views), 3, [100, 30])
    samples = None if n_views == 1 else np.tile(np.arange(600), n_views)
    whole = solve_head(*given, samples=samples)
    monkeypatch.setattr(_penalty_choice, "LARGE", 1000)
    monkeypatch.setattr(_logistic_problem.LogisticProblem, "solve", watched)
    solution = solve_head(*given, samples=samples)
    assert set(solution.path["earlier_weight"]) == {solution.earlier_weight} == {0.3}
    assert len(solution.path["C"]) >= 3
    *tried, (problem, held_out), (same, of_all) = seen
    assert problem is same
    assert of_all.sum() == pytest.approx(600)
    assert len(set(problem.samples[held_out[0] == 0])) == 120
    for part, weights in tried:
        assert len(part.points) == 150 * n_views
        assert np.bincount(part.labels).tolist() == [50 * n_views] * 3
        assert len(set(part.samples)) == 150
        assert len(set(part.samples[weights[0] == 0])) == 30
    assert loss(solution, features[600:], labels[600:]) < loss(whole, features[600:], labels[600:]) + 0.1


def test_harder_classes_get_a_stronger_penalty_or_less_certain_logits():
    sure, unsure = (solve_head(*separable(120, 3, noise=noise), np.ones(120), 3) for noise in (0.3, 6.0))
    size = [float(solution.head[1].weight.norm()) for solution in (sure, unsure)]
    assert size[0] > size[1]


@pytest.mark.parametrize("widths", [[40], [15, 25]])
def test_the_order_of_samples_does_not_matter(widths):
    features, labels = separable(60, 3, noise=3.0)
    order = RNG.permutation(60)
    one, other = (
        solve_head(features, labels, np.ones(60), 3, widths),
        solve_head(features[order], labels[order], np.ones(60), 3, widths),
    )
    assert (one.C, one.earlier_weight) == (other.C, other.earlier_weight)
    torch.testing.assert_close(one.head[1].weight, other.head[1].weight, rtol=1e-5, atol=1e-6)


def test_few_features_and_many_give_the_same_in_any_rotation():
    """Where there are fewer samples than features, the problem is solved in the space that samples span."""
    features, labels = separable(30, 3, n_features=29)
    widened = np.hstack([features, np.zeros((30, 40), dtype=np.float32)])
    narrow, wide = (
        solve_head(features, labels, np.ones(30), 3, C=5.0),
        solve_head(widened, labels, np.ones(30), 3, C=5.0),
    )
    with torch.no_grad():
        logits = narrow.head(torch.from_numpy(features)), wide.head(torch.from_numpy(widened))
    torch.testing.assert_close(*logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("counts", [(2, 2), (1, 5), (1, 1, 9), (2, 3, 40)])
def test_classes_of_one_or_two_samples_are_learned(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    features = (np.eye(len(counts))[labels] * 5 + RNG.normal(size=(len(labels), len(counts)))).astype(np.float32)
    solution = solve_head(features, labels, np.ones(len(labels)), len(counts))
    assert len(solution.path["C"])
    with torch.no_grad():
        assert (solution.head(torch.from_numpy(features)).argmax(1).numpy() == labels).mean() > 0.8


def test_one_sample_of_each_class_is_solved_with_the_middle_penalty():
    solution = solve_head(np.eye(3, dtype=np.float32), np.arange(3), np.ones(3), 3)
    assert not len(solution.path["C"])
    assert solution.head(torch.eye(3)).argmax(1).tolist() == [0, 1, 2]


def test_a_fit_with_one_sample_of_a_class_tells_where_it_was_called(pictures):
    X, y = pictures
    with pytest.warns(UserWarning, match=r'Got head_C="auto" and one sample of each class; .* is used') as caught:
        FineTunedClassifier(tiny_cnn, random_state=0).fit(X[:2], y[:2])
    assert caught[0].filename == __file__


def test_views_of_a_sample_that_is_held_out_are_not_trained_on(monkeypatch):
    features, labels = separable(30, 3, noise=2.0)
    views, samples = np.concatenate([features + number for number in range(4)]), np.tile(np.arange(30), 4)
    seen, solve = [], _logistic_problem.LogisticProblem.solve

    def watched(problem, C, weights, *given):
        seen.append((problem, weights))
        return solve(problem, C, weights, *given)

    monkeypatch.setattr(_logistic_problem.LogisticProblem, "solve", watched)
    solve_head(views, np.tile(labels, 4), np.ones(120), 3, samples=samples)
    *tried, (problem, of_all) = seen
    assert len(tried) >= 3
    assert of_all.sum() == pytest.approx(30)
    for _, weights in tried:
        assert len(weights) == 5
        for known in weights > 0:
            assert not set(problem.samples[known]) & set(problem.samples[~known])
            assert len(set(problem.samples[~known])) == 6


@pytest.mark.parametrize("n_classes", [2, 3, 7])
def test_it_is_the_logistic_regression_of_scikit_learn(n_classes):
    features, labels = separable(90, n_classes, noise=2.0)
    weights = RNG.uniform(0.5, 2, 90)
    head = solve_head(features, labels, weights, n_classes, C=20.0).head
    with torch.no_grad():
        scaled = head[0](torch.from_numpy(features)).numpy()
        found = head(torch.from_numpy(features)).softmax(1).numpy()
    theirs = LogisticRegression(C=20.0, tol=1e-8, max_iter=1000).fit(scaled, labels, weights * 90 / weights.sum())
    np.testing.assert_allclose(found, theirs.predict_proba(scaled), atol=2e-3)


def test_a_solution_that_is_not_reached_is_told(monkeypatch):
    monkeypatch.setattr(_logistic_problem, "MOST_STEPS", 3)
    features, labels = separable(60, 3)
    with pytest.warns(ConvergenceWarning, match="head did not converge in 3 steps with C=1e"):
        solve_head(features, labels, np.ones(60), 3, C=1e3)


@pytest.mark.parametrize("features", [np.zeros((12, 5)), np.full((12, 5), 1e30), np.ones((12, 5)) * 1e-30])
def test_constant_features_give_the_share_of_each_class(features):
    labels = np.array([0] * 8 + [1] * 4)
    solution = solve_head(features.astype(np.float32), labels, np.ones(12), 2)
    with torch.no_grad():
        found = solution.head(torch.from_numpy(features.astype(np.float32))).softmax(1).numpy()
    assert np.isfinite(found).all()
    assert (found.argmax(1) == 0).all()


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e6, 1e18])
def test_the_scale_of_features_does_not_matter(scale):
    features, labels = separable(60, 3)
    expected = solve_head(features, labels, np.ones(60), 3).head(torch.from_numpy(features))
    scaled = (features * np.float64(scale)).astype(np.float32)
    found = solve_head(scaled, labels, np.ones(60), 3).head(torch.from_numpy(scaled))
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.exhaustive
def test_a_thousand_classes_are_told_apart():
    features, labels = separable(4000, 1000, n_features=64, noise=0.3)
    solution = solve_head(features, labels, np.ones(4000), 1000)
    with torch.no_grad():
        assert (solution.head(torch.from_numpy(features)).argmax(1).numpy() == labels).mean() > 0.95
