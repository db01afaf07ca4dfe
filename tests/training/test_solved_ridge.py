"""What a user may rely on when the head for numbers is solved: it is ridge regression, with a penalty chosen well."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import Ridge

from sktransfer._training import _penalty_choice, _solved_ridge
from sktransfer._training._solved_ridge import LEAST_ERROR, MIDDLE, PENALTIES, solve_ridge

RNG = np.random.default_rng(0)
# Some features cross 0 and others do not, at several scales; a few samples, and more of them than features.
FEATURES = (RNG.normal(size=(40, 5)) * [1, 10, 0.1, 3, 1] + [0, 50, 0, 0, 7]).astype(np.float32)
WIDE = RNG.normal(size=(20, 60)).astype(np.float32)
WEIGHTS = RNG.integers(0, 4, 40).astype(float)


def standardised(numbers):
    return (numbers - numbers.mean(axis=0)) / numbers.std(axis=0)


def numbers_of(features, n_outputs=1):
    rng = np.random.default_rng(1)
    signal = standardised(features.astype(float)) @ rng.normal(size=(features.shape[1], n_outputs))
    return standardised(signal + rng.normal(size=signal.shape) * np.linspace(0.5, 5, n_outputs))


def scaled(solution, features):
    with torch.no_grad():
        return solution.head[0](torch.from_numpy(features)).double().numpy()


def predicted(solution, features):
    with torch.no_grad():
        return solution.head(torch.from_numpy(features)).double().numpy()


def as_counted(weights):
    """Weights as the penalty sees them: their sum is the number of samples that have one."""
    return weights * (weights > 0).sum() / weights.sum()


# It is ridge regression


@pytest.mark.parametrize("features", [FEATURES, WIDE], ids=["more samples", "more features"])
@pytest.mark.parametrize("C", [0.01, 3.0, 1e4])
@pytest.mark.parametrize("weighted", [False, True])
def test_coefficients_are_those_of_ridge_on_the_scaled_features(features, C, weighted):
    numbers = numbers_of(features, 2)
    weights = WEIGHTS[: len(features)] if weighted else np.ones(len(features))
    found = solve_ridge(features, numbers, weights, C=C)
    expected = Ridge(alpha=1 / C, solver="svd").fit(scaled(found, features), numbers, as_counted(weights))
    scale = abs(expected.coef_).max()
    np.testing.assert_allclose(found.head[1].weight.numpy(force=True), expected.coef_, atol=2e-4 * scale)
    np.testing.assert_allclose(predicted(found, features), expected.predict(scaled(found, features)), atol=2e-4)
    np.testing.assert_array_equal(found.C, [C, C])
    assert not found.was_chosen


def test_multiplying_all_weights_by_a_number_changes_nothing():
    numbers = numbers_of(FEATURES)
    expected = predicted(solve_ridge(FEATURES, numbers, WEIGHTS), FEATURES)
    for factor in (1e-300, 0.3, 1e300):
        found = predicted(solve_ridge(FEATURES, numbers, WEIGHTS * factor), FEATURES)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber"])
def test_a_weight_is_how_often_a_sample_is_there(loss):
    numbers, times = numbers_of(FEATURES), WEIGHTS.astype(int)
    weighed = solve_ridge(FEATURES, numbers, WEIGHTS, loss=loss)
    repeated = FEATURES.repeat(times, axis=0) * np.float32(1 + 1e-7)  # rounded otherwise, as in another batch
    again = solve_ridge(repeated, numbers.repeat(times, axis=0), np.ones(times.sum()), loss=loss)
    assert again.C == weighed.C
    np.testing.assert_allclose(again.path["squared_error"], weighed.path["squared_error"], rtol=1e-3)
    np.testing.assert_allclose(predicted(again, FEATURES), predicted(weighed, FEATURES), atol=3e-3)
    unweighted = predicted(solve_ridge(FEATURES, numbers, np.ones(40), loss=loss), FEATURES)
    assert abs(unweighted - predicted(weighed, FEATURES)).max() > 0.05


def test_equal_features_with_other_numbers_are_other_samples():
    features, numbers = np.repeat(FEATURES[:20], 2, axis=0), numbers_of(FEATURES)
    path = solve_ridge(features, numbers, np.ones(40)).path
    together = solve_ridge(features, numbers, np.ones(40), samples=np.arange(40)).path
    np.testing.assert_allclose(path["squared_error"], together["squared_error"], rtol=1e-6)


# Its penalty is chosen by samples that are left out


def errors_by_brute_force(solution, features, numbers, weights, samples):
    """Mean squared errors of samples, each predicted without it: ndarray of shape (n_penalties, n_outputs)."""
    x, errors = scaled(solution, features), []
    for C in PENALTIES:
        total = 0.0
        for sample in np.unique(samples):
            out = samples == sample
            model = Ridge(alpha=1 / C, solver="svd").fit(x[~out], numbers[~out], weights[~out])
            total += weights[out] @ (model.predict(x[out]).reshape(numbers[out].shape) - numbers[out]) ** 2
        errors.append(total / weights.sum())
    return np.array(errors)


@pytest.mark.parametrize("features", [FEATURES, WIDE], ids=["more samples", "more features"])
@pytest.mark.parametrize("weighted", [False, True])
def test_errors_are_those_of_a_fit_without_each_sample(features, weighted):
    numbers = numbers_of(features, 2)
    weights = WEIGHTS[: len(features)] if weighted else np.ones(len(features))
    kept = weights > 0
    found = solve_ridge(features, numbers, weights)
    counted, samples = as_counted(weights)[kept], np.arange(kept.sum())
    expected = errors_by_brute_force(found, features[kept], numbers[kept], counted, samples)
    np.testing.assert_allclose(found.path["squared_error"], expected, rtol=2e-3)
    np.testing.assert_array_equal(found.path["C"], PENALTIES)


@pytest.mark.parametrize("features", [FEATURES, WIDE], ids=["more samples", "more features"])
def test_repeated_rows_are_left_out_together(features):
    n, numbers = len(features), numbers_of(features)
    rows = np.concatenate([np.arange(n), np.arange(0, n, 3), np.arange(0, n, 6)])
    found = solve_ridge(features[rows], numbers[rows], np.ones(len(rows)))
    weights = np.full(len(rows), n / len(rows))
    expected = errors_by_brute_force(found, features[rows], numbers[rows], weights, rows)
    np.testing.assert_allclose(found.path["squared_error"], expected.ravel(), rtol=2e-3)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_views_of_one_sample_are_left_out_together(weighted, n_outputs):
    n, numbers = len(FEATURES), numbers_of(FEATURES, n_outputs)
    rng = np.random.default_rng(3)
    views = np.concatenate([FEATURES, FEATURES + rng.normal(size=FEATURES.shape).astype(np.float32)])
    samples, weights = np.tile(np.arange(n), 2), np.tile(WEIGHTS if weighted else np.ones(n), 2)
    found = solve_ridge(views, np.tile(numbers, (2, 1)), weights, samples=samples)
    kept = weights > 0
    counted = weights[kept] * (kept.sum() / 2) / weights.sum()
    expected = errors_by_brute_force(found, views[kept], np.tile(numbers, (2, 1))[kept], counted, samples[kept])
    np.testing.assert_allclose(found.path["squared_error"], expected if n_outputs > 1 else expected.ravel(), rtol=2e-3)
    alone = solve_ridge(views, np.tile(numbers, (2, 1)), weights).path["squared_error"]
    assert abs(alone / found.path["squared_error"] - 1).max() > 0.02


def test_each_output_has_the_penalty_with_its_least_cost():
    features = RNG.normal(size=(60, 30)).astype(np.float32)
    clean = standardised(features @ np.random.default_rng(2).normal(size=30))
    numbers = np.stack([clean, standardised(np.random.default_rng(4).normal(size=60))], axis=1)
    found = solve_ridge(features, numbers, np.ones(60))
    costs = 30 * np.log(np.maximum(found.path["squared_error"], LEAST_ERROR))
    costs += _penalty_choice.PULL * np.log10(PENALTIES / MIDDLE)[:, None] ** 2
    np.testing.assert_array_equal(found.C, PENALTIES[costs.argmin(axis=0)])
    assert found.C[0] > 10 * found.C[1], "what is linear needs less of a penalty than what is noise"
    for output in range(2):
        alone = solve_ridge(features, numbers[:, [output]], np.ones(60))
        assert found.C[output] == alone.C
        np.testing.assert_allclose(predicted(alone, features)[:, 0], predicted(found, features)[:, output], atol=1e-5)


def test_what_earlier_layers_weigh_is_chosen_where_there_are_some():
    rng = np.random.default_rng(5)
    features = rng.normal(size=(60, 20)).astype(np.float32)
    chosen = []
    for used in (slice(0, 10), slice(10, 20)):
        numbers = standardised(features[:, used] @ rng.normal(size=(10, 1)) + rng.normal(size=(60, 1)))
        found = solve_ridge(features, numbers, np.ones(60), widths=[10, 10])
        chosen.append(found.earlier_weight)
        assert set(found.path["earlier_weight"]) == set(_penalty_choice.EARLIER_WEIGHTS)
        assert len(found.path["C"]) == len(found.path["squared_error"]) == 3 * len(PENALTIES)
    assert chosen[0] > chosen[1], "numbers that only the earlier layer knows make it weigh more"


def test_what_earlier_layers_weigh_is_not_chosen_where_that_takes_long(monkeypatch):
    numbers = numbers_of(FEATURES)
    monkeypatch.setattr(_solved_ridge, "LARGE", 40 * 5 - 1)
    found = solve_ridge(FEATURES, numbers, np.ones(40), [2, 3])
    assert set(found.path["earlier_weight"]) == {found.earlier_weight} == {_solved_ridge.EARLIER}
    monkeypatch.setattr(_solved_ridge, "LARGE", 40 * 5)
    assert len(set(solve_ridge(FEATURES, numbers, np.ones(40), [2, 3]).path["earlier_weight"])) == 3


def test_a_single_sample_chooses_nothing():
    found = solve_ridge(FEATURES[[0, 0]], np.zeros((2, 1)), np.ones(2))
    assert not found.was_chosen
    assert found.C == MIDDLE
    np.testing.assert_array_equal(predicted(found, FEATURES[:1]), [[0.0]])


def test_constant_features_predict_the_mean():
    found = solve_ridge(np.ones((6, 3), dtype=np.float32), numbers_of(FEATURES[:6]), np.arange(6.0))
    mean = np.arange(6.0) @ numbers_of(FEATURES[:6]) / 15
    np.testing.assert_allclose(predicted(found, np.ones((1, 3), dtype=np.float32))[0], mean, atol=1e-6)


# Robust losses


def robust(difference, loss):
    if loss == "absolute_error":
        return abs(difference)
    return np.where(abs(difference) <= 1, difference**2 / 2, abs(difference) - 0.5)


@pytest.mark.parametrize("loss", ["absolute_error", "huber"])
@pytest.mark.parametrize("C", [1.0, 100.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_robust_loss_is_minimised(loss, C, weighted):
    numbers = numbers_of(FEATURES, 2)
    numbers[3] += 8
    weights = WEIGHTS if weighted else np.ones(40)
    found = solve_ridge(FEATURES, numbers, weights, C=C, loss=loss)
    x, counted = scaled(found, FEATURES), as_counted(weights)

    def cost(flat, output):
        differences = x @ flat[:-1] + flat[-1] - numbers[:, output]
        return counted @ robust(differences, loss) + flat[:-1] @ flat[:-1] / (2 * C)

    for output in range(2):
        linear = found.head[1]
        own = np.append(linear.weight[output].numpy(force=True), linear.bias[output].item()).astype(float)
        best = own
        for method in ("Powell", "Nelder-Mead"):
            options = {"maxiter": 20000, "maxfev": 20000}
            best = minimize(cost, best, (output,), method=method, options=options).x
        # Without differences of size 0.01, the absolute difference is smooth: that may cost half of it per sample.
        slack = 0.005 * counted.sum() if loss == "absolute_error" else 1e-4
        assert cost(own, output) <= cost(best, output) + slack
    squared = solve_ridge(FEATURES, numbers, weights, C=C)
    if not weighted or WEIGHTS[3]:
        assert abs(predicted(squared, FEATURES) - predicted(found, FEATURES)).max() > 0.1


@pytest.mark.parametrize("loss", ["absolute_error", "huber"])
def test_an_outlier_pulls_less(loss):
    numbers = numbers_of(FEATURES)
    moved = numbers.copy()
    moved[7] += 50

    def pull(loss):
        before, after = (
            predicted(solve_ridge(FEATURES, given, np.ones(40), C=10.0, loss=loss), FEATURES)
            for given in (numbers, moved)
        )
        return np.median(abs(after - before))

    assert pull(loss) < 0.2 * pull("squared_error")


@pytest.mark.parametrize("loss", ["absolute_error", "huber"])
def test_outputs_do_not_know_each_other(loss):
    numbers = numbers_of(FEATURES, 3)
    together = predicted(solve_ridge(FEATURES, numbers, np.ones(40), loss=loss), FEATURES)
    for output in range(3):
        alone = predicted(solve_ridge(FEATURES, numbers[:, [output]], np.ones(40), loss=loss), FEATURES)
        np.testing.assert_allclose(alone[:, 0], together[:, output], atol=1e-5)


def test_robust_losses_of_a_constant_stay_there():
    for loss in ("absolute_error", "huber"):
        found = solve_ridge(FEATURES, np.zeros((40, 1)), np.ones(40), loss=loss)
        np.testing.assert_allclose(predicted(found, FEATURES), 0, atol=1e-6)


def test_one_decomposition_serves_all_penalties(monkeypatch):
    made = []
    decompose = np.linalg.eigh

    def counted(matrix):
        made.append(matrix.shape)
        return decompose(matrix)

    monkeypatch.setattr(_solved_ridge.np.linalg, "eigh", counted)
    solve_ridge(FEATURES, numbers_of(FEATURES, 3), np.ones(40))
    assert len(made) <= 2
