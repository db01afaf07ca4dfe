"""A linear head is a convex problem, so it is solved, not trained: logistic regression with an L2 penalty.

How strong the penalty is best differs by a factor of 300 between images and sentences, so it is chosen: by
cross-validated log loss, with a weak pull to a value that serves both, for few samples say little. So is what features
of earlier layers weigh beside the last one's: more on drawings and spectrograms than on photos. What tells classes
apart best is often too sure of itself, so logits are also multiplied by one number, which is chosen with the others
(temperature scaling: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, here on samples that each fold
held out). Where there are fewer samples than features, these are first rotated into the space that the samples span:
the solution is the same there, and each fold and each penalty costs next to nothing.

Weights of samples are relative to each other. They are scaled so that their sum is the number of *different* samples:
multiplying all of them by a number then changes nothing, and a weight of 2 is still the same as giving a sample twice.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits
from torch import nn

from sktransfer._training._feature_scaling import EARLIER, FeatureScaling, fit_scaling

# Inverse strengths of the penalty that are tried, on features of mean squared norm 1: two per power of ten. The middle
# one is where the pull leads, and is taken where nothing can be chosen.
MIDDLE = 10**1.5
PENALTIES = 10.0 ** (np.arange(-1, 7) / 2)

# What features of earlier layers may weigh.
EARLIER_WEIGHTS = (0.1, EARLIER, 0.9)

# Nats, of all held-out samples together, that a value ten times the middle one, or a tenth, has to win.
PULL = 1.15

# How far the logarithm of what logits are multiplied by strays from 0, as a standard deviation, before samples speak.
STRAY = 0.7

FOLDS = 5

# Samples times features times classes above which a part of the samples, at least a quarter, chooses the penalty.
LARGE, PART = 2**23, 4

# Gradient at which the solver stops, for ten classes and fewer. Each of more classes has a smaller share in the loss,
# and so in the gradient: with 1,000 the solver would stop after three steps. To compare penalties, less will do; but
# beyond some samples, what a penalty adds to the mean loss would drown in it.
TOLERANCE, ROUGHLY, ROUGHLY_UP_TO = 1e-5, 1e-3, 500

MOST_STEPS = 1000

# Projections by which samples are told apart, and the difference, for features of unit mean square, up to which two are
# the same sample: the rounding of another batch.
PROJECTIONS = 8
ROUNDING = 1e-5

# Values of all features up to which one thread solves.
SMALL = 2**21


@dataclass(frozen=True)
class Solution:
    """A head, and how it was found.

    Parameters
    ----------
    head : nn.Sequential
        Scaling and a linear layer, float32, from features to logits.
    n_iter : int
        Iterations of the solver.
    C : float
        Inverse strength of the penalty.
    earlier_weight : float
        What features of earlier layers weigh beside the last one's.
    path : dict of str to ndarray of shape (n_tried,)
        `"C"` and `"earlier_weight"`, what was tried, and `"log_loss"`, the mean log loss of held-out samples with each
        pair; empty arrays where nothing was chosen.
    """

    head: nn.Sequential
    n_iter: int
    C: float
    earlier_weight: float
    path: dict[str, np.ndarray]


def solve_head(
    features: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    n_classes: int,
    widths: Sequence[int] | None = None,
    C: Any = "auto",
    samples: np.ndarray | None = None,
) -> Solution:
    """Return the linear head of multinomial logistic regression with an L2 penalty.

    Parameters
    ----------
    features : ndarray of shape (n_rows, n_features)
        What enters the head.
    labels : int ndarray of shape (n_rows,)
        Class indices, each from 0 to `n_classes - 1` at least once.
    weights : ndarray of shape (n_rows,)
        Weight of each row, of any scale, at least one above 0. One of 2 beside others of 1 is the row given twice.
    n_classes : int
        Number of classes.
    widths : sequence of int or None, default=None
        Number of features of each layer; `None` is one layer.
    C : float or "auto", default="auto"
        Inverse strength of the penalty, on scaled features; `"auto"` chooses it.
    samples : int ndarray of shape (n_rows,) or None, default=None
        Number of the sample of which each row is a view; all views of one are held out together. `None`: each row is a
        sample, those with equal features and label the same one.

    Returns
    -------
    Solution
        The head, and how it was found.
    """
    weights = weights / weights.max()  # so that no sum overflows
    counted = weights > 0
    features, labels, weights = features[counted].astype(np.float64), labels[counted], weights[counted]
    widths = [features.shape[1]] if widths is None else widths
    scaled = _scaled(features, widths, weights, EARLIER)[1]
    places = _projections(scaled)
    if samples is None:
        first, samples = _different(places, labels)
        summed = np.bincount(samples, weights)
    else:
        first, samples = np.arange(len(labels)), np.unique(samples[counted], return_inverse=True)[1]
        summed = weights
    summed = summed * (samples.max() + 1) / summed.sum()
    few = _some(places[first, 0], labels[first], samples[first], features.shape[1])
    is_small = bool(few.all())

    @cache
    def problem(earlier: float, is_whole: bool) -> _Problem:
        rows = first if is_whole else first[few]
        values = scaled if earlier == EARLIER else _scaled(features, widths, weights, earlier)[1]
        own = summed if is_whole else summed[few] * len(np.unique(samples[rows])) / summed[few].sum()
        return _Problem.of(values[rows], labels[rows], own, samples[rows], places[rows, 0])

    # Small products gain nothing from threads, which spin on for a while and keep torch's from the processors.
    with threadpool_limits(1 if scaled.size <= SMALL else None, user_api="blas"):
        start = None
        chosen = _choose(lambda earlier: problem(earlier, is_small), widths) if C == "auto" else _Choice(float(C))
        whole = problem(chosen.earlier_weight, True)
        if not is_small and chosen.path["C"].size:
            chosen, start = _calibrate_whole(whole, chosen)
        coefficients, intercept, n_iter = whole.solve_all(chosen.C, start)
    linear = nn.Linear(features.shape[1], n_classes)
    # A class without weight gets a logit so low that its probability is 0, yet finite, so that nothing turns NaN.
    weight, bias = np.zeros((n_classes, features.shape[1])), np.full(n_classes, -1e4)
    present = np.unique(labels)
    weight[present], bias[present] = coefficients * chosen.factor, intercept * chosen.factor
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
        linear.bias.copy_(torch.from_numpy(bias))
    scaling = _scaled(features, widths, weights, chosen.earlier_weight)[0]
    head = nn.Sequential(scaling.float(), linear)
    return Solution(head, n_iter, chosen.C, chosen.earlier_weight, chosen.path)


def _scaled(
    features: np.ndarray, widths: Sequence[int], weights: np.ndarray, earlier: float
) -> tuple[FeatureScaling, np.ndarray]:
    scaling = fit_scaling(features, widths, weights, earlier)
    with torch.no_grad():
        return scaling, scaling(torch.from_numpy(features)).numpy()


def _empty_path() -> dict[str, np.ndarray]:
    return {"C": np.empty(0), "earlier_weight": np.empty(0), "log_loss": np.empty(0)}


@dataclass(frozen=True)
class _Choice:
    """The inverse strength of the penalty, what earlier layers weigh, what logits are multiplied by; what was tried."""

    C: float
    earlier_weight: float = EARLIER
    factor: float = 1.0
    path: dict[str, np.ndarray] = field(default_factory=_empty_path)


class _Problem:
    """Samples to separate, in the space that they span.

    Parameters
    ----------
    points : ndarray of shape (n_samples, n_dimensions)
        Centred.
    labels : int ndarray of shape (n_samples,)
        Class indices.
    weights : ndarray of shape (n_samples,)
        Their sum is the number of samples.
    places : ndarray of shape (n_samples,)
        What orders them, whatever their order here.
    samples : int ndarray of shape (n_samples,)
        What is held out together has one number.
    back : callable
        Turns coefficients of this space into those of features.
    """

    def __init__(
        self,
        points: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray,
        places: np.ndarray,
        samples: np.ndarray,
        back: Callable[[np.ndarray], np.ndarray],
    ):
        self.points, self.weights, self.samples, self._back = points, weights, samples, back
        self.places = places
        self.classes, self.labels = np.unique(labels, return_inverse=True)

    @classmethod
    def of(
        cls, features: np.ndarray, labels: np.ndarray, weights: np.ndarray, samples: np.ndarray, places: np.ndarray
    ) -> "_Problem":
        if len(features) >= features.shape[1]:
            return cls(features, labels, weights, places, samples, lambda coefficients: coefficients)
        values, vectors = np.linalg.eigh(features @ features.T)
        kept = values > 1e-12 * max(values[-1], np.finfo(float).tiny)
        axes = vectors[:, kept] / np.sqrt(values[kept])
        return cls(
            vectors[:, kept] * np.sqrt(values[kept]),
            labels,
            weights,
            places,
            samples,
            lambda coefficients: (coefficients @ axes.T) @ features,
        )

    def solve(
        self, C: float, weights: np.ndarray, tolerance: float, start: np.ndarray | None = None
    ) -> tuple[np.ndarray, int]:
        """Minimise mean log loss plus `|coefficients|^2 / (2 C sum(weights))`, for several weightings at once.

        With two classes the penalty is twice that, which is what it is on the difference of their logits. One run of
        the solver for all weightings costs little more than a run for one: most products have the points in common.

        Parameters
        ----------
        C : float
            Inverse strength of the penalty.
        weights : ndarray of shape (n_problems, n_samples)
            What each sample counts in each problem.
        tolerance : float
            Gradient at which the solver stops, for ten classes and fewer.
        start : ndarray of shape (n_problems, n_classes, n_dimensions + 1) or None, default=None
            Where it begins; `None` is 0.

        Returns
        -------
        ndarray of shape (n_problems, n_classes, n_dimensions + 1)
            Coefficients, and intercepts in the last column.
        int
            Iterations.
        """
        (n, dimensions), n_classes = self.points.shape, len(self.classes)
        shape = len(weights), n_classes, dimensions + 1
        totals = weights.sum(axis=1)
        shares = (weights / totals[:, None]).T
        strength = ((2.0 if n_classes == 2 else 1.0) / (C * totals))[:, None, None]
        targets, each = np.eye(n_classes)[self.labels][:, None], np.arange(n)

        def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
            coefficients, intercepts = flat.reshape(shape)[..., :-1], flat.reshape(shape)[..., -1]
            logits = self.points @ coefficients.reshape(-1, dimensions).T
            logits = logits.reshape(n, *shape[:2]) + intercepts
            logits -= logits.max(axis=2, keepdims=True)
            true = logits[each, :, self.labels]
            errors = np.exp(logits, out=logits)
            sums = errors.sum(axis=2)
            value = float(((np.log(sums) - true) * shares).sum() + (strength * coefficients**2).sum() / 2)
            errors *= (shares / sums)[..., None]
            errors -= shares[..., None] * targets
            gradient = np.empty(shape)
            gradient[..., :-1] = (errors.reshape(n, -1).T @ self.points).reshape(*shape[:2], dimensions)
            gradient[..., :-1] += strength * coefficients
            gradient[..., -1] = errors.sum(axis=0)
            return value, gradient.ravel()

        found = minimize(
            loss,
            np.zeros(int(np.prod(shape))) if start is None else start.ravel(),
            method="L-BFGS-B",
            jac=True,
            options={"maxiter": MOST_STEPS, "maxls": 50, "ftol": 1e-14, "gtol": tolerance * min(1.0, 10 / n_classes)},
        )
        if found.nit >= MOST_STEPS:
            warnings.warn(
                f"Got no solution of the head in {MOST_STEPS} steps with C={C:.3g}; what was reached is taken. A "
                "smaller head_C converges sooner.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return found.x.reshape(shape), int(found.nit)

    def solve_roughly(self, C: float, weights: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        """Return solutions that are good enough to compare penalties."""
        return self.solve(C, weights, ROUGHLY * min(1.0, ROUGHLY_UP_TO / len(self.points)), start)[0]

    def logits(self, solutions: np.ndarray, rows: np.ndarray, problem_of: np.ndarray) -> np.ndarray:
        """Return logits of some samples, each by one of the solutions: ndarray of shape (n_rows, n_classes)."""
        picked = np.flatnonzero(rows)
        logits = np.empty((len(picked), len(self.classes)))
        for number, solution in enumerate(solutions):
            own = problem_of[picked] == number
            logits[own] = self.points[picked[own]] @ solution[:, :-1].T + solution[:, -1]
        return logits

    def solve_all(self, C: float, start: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, int]:
        """Return coefficients, of features, and intercepts of each class that is present, and iterations."""
        if len(self.classes) == 1 or not self.points.shape[1]:
            n_features = self._back(np.zeros((1, self.points.shape[1]))).shape[1]
            shares = np.bincount(self.labels, self.weights)
            return np.zeros((len(self.classes), n_features)), np.log(shares / shares.sum()), 1
        (solution,), n_iter = self.solve(C, self.weights[None], TOLERANCE, start)
        return self._back(solution[:, :-1]), solution[:, -1], n_iter


def _choose(problem: Callable[[float], _Problem], widths: Sequence[int]) -> _Choice:
    """Choose what serves held-out samples best.

    The middle of both is tried first, and what is beside it; then what is beside the best, for as long as that gets
    better.

    Parameters
    ----------
    problem : callable
        From what features of earlier layers weigh to the problem.
    widths : sequence of int
        Number of features of each layer. With one, nothing is weighed.

    Returns
    -------
    _Choice
        The best, and all that was tried.
    """
    middle = problem(EARLIER)
    folds = _folds(middle)
    held_out = [fold for fold in range(FOLDS) if (folds == fold).any()]
    if len(middle.classes) == 1 or not held_out or not middle.points.shape[1]:
        return _Choice(MIDDLE)
    is_large = middle.points.size * len(middle.classes) > LARGE
    out = folds == np.array(held_out[:1] if is_large else held_out)[:, None]
    rows, fold_of = out.any(axis=0), out.argmax(axis=0)
    share = middle.weights[rows].sum() / middle.weights.sum()  # what is held out stands for all samples
    earlier = np.array(EARLIER_WEIGHTS if len(widths) > 1 and not is_large else [EARLIER])
    solved: dict[int, np.ndarray] = {}
    tried: dict[tuple[int, int], tuple[float, float]] = {}

    def cost(weight: int, penalty: int) -> float:
        if not (0 <= weight < len(earlier) and 0 <= penalty < len(PENALTIES)):
            return np.inf
        if (weight, penalty) not in tried:
            part = problem(float(earlier[weight]))
            solved[weight] = part.solve_roughly(PENALTIES[penalty], ~out * part.weights, solved.get(weight))
            logits = part.logits(solved[weight], rows, fold_of)
            tried[weight, penalty] = _calibrate(logits, part.labels[rows], part.weights[rows] / share)
        return tried[weight, penalty][0] + PULL * np.log10(PENALTIES[penalty] / MIDDLE) ** 2

    best = int(np.argmin(abs(earlier - EARLIER))), int(np.argmin(abs(np.log(PENALTIES / MIDDLE))))
    while True:
        around = [
            (best[0] + weight, best[1] + penalty) for weight, penalty in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))
        ]
        lowest = min(around, key=lambda pair: cost(*pair))
        if lowest == best:
            break
        best = lowest
    order = sorted(tried)
    path = {
        "C": PENALTIES[[penalty for _, penalty in order]],
        "earlier_weight": earlier[[weight for weight, _ in order]],
        "log_loss": np.array([tried[pair][0] for pair in order]) / middle.weights.sum(),
    }
    return _Choice(float(PENALTIES[best[1]]), float(earlier[best[0]]), tried[best][1], path)


def _calibrate_whole(problem: _Problem, chosen: _Choice) -> tuple[_Choice, np.ndarray]:
    """Choose anew what logits are multiplied by, for a penalty that was chosen on a part of the samples.

    The more samples, the surer logits may be. One fold is held out.

    Returns
    -------
    _Choice
        With another factor.
    ndarray of shape (1, n_classes, n_dimensions + 1)
        A solution that is near the one for all samples.
    """
    folds = _folds(problem)
    out = folds == folds.max()
    solution = problem.solve_roughly(chosen.C, (~out * problem.weights)[None])
    logits = problem.logits(solution, out, np.zeros(len(out), dtype=int))
    share = problem.weights[out].sum() / problem.weights.sum()
    _, factor = _calibrate(logits, problem.labels[out], problem.weights[out] / share)
    return replace(chosen, factor=factor), solution


def _calibrate(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return the log loss of all samples, in nats, with logits multiplied by the best number, and that number."""
    logits = logits - logits.max(axis=1, keepdims=True)
    true = logits[np.arange(len(labels)), labels]

    def loss(logarithm: float) -> float:
        factor = np.exp(logarithm)
        return float((np.log(np.exp(factor * logits).sum(axis=1)) - factor * true) @ weights)

    found = minimize_scalar(lambda x: loss(x) + 0.5 * (x / STRAY) ** 2, bounds=(-3, 3), method="bounded")
    return loss(found.x), float(np.exp(found.x))


def _dealt(places: np.ndarray, labels: np.ndarray, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the different numbers in `samples`, class by class, in an order that does not depend on theirs in X.

    Returns
    -------
    ndarray of shape (n_samples,)
        Numbers.
    ndarray of shape (n_samples,)
        Their labels.
    """
    numbers, first = np.unique(samples, return_index=True)
    order = np.lexsort((places[first], labels[first]))
    return numbers[order], labels[first][order]


def _folds(problem: _Problem) -> np.ndarray:
    """Return the fold in which each row is held out; -1 is none: a class of one sample stays in all of them."""
    numbers, labels = _dealt(problem.places, problem.labels, problem.samples)
    counts = np.bincount(labels)
    folds = np.empty(problem.samples.max() + 1, dtype=int)
    dealt = np.cumsum(counts[labels] > 1) - 1
    folds[numbers] = np.where(counts[labels] > 1, dealt % FOLDS, -1)
    return folds[problem.samples]


def _some(places: np.ndarray, labels: np.ndarray, samples: np.ndarray, n_features: int) -> np.ndarray:
    """Return rows of as many samples as are enough to choose a penalty, each class with its share: bool ndarray."""
    n, n_classes = len(labels), len(np.unique(labels))
    if n * min(n, n_features) * n_classes <= LARGE:
        return np.ones(n, dtype=bool)
    enough = max(n / PART, np.sqrt(LARGE / n_classes), LARGE / (n_features * n_classes))
    numbers, _ = _dealt(places, labels, samples)
    each = round(len(numbers) * min(1.0, enough / n))
    return np.isin(samples, numbers[np.linspace(0, len(numbers) - 1, each).round().astype(int)])


def _different(places: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a row of each different sample, and the number of the sample that each row is.

    Rows are the same sample where they have one label and their projections on random directions agree.
    """
    order = np.lexsort((places[:, 0], labels))
    near = (np.abs(np.diff(places[order], axis=0)) <= ROUNDING).all(axis=1)
    new = np.concatenate([[True], ~(near & (np.diff(labels[order]) == 0))])
    samples = np.empty(len(labels), dtype=int)
    samples[order] = np.cumsum(new) - 1
    return order[new], samples


def _projections(features: np.ndarray) -> np.ndarray:
    """Project features on a few random directions, the same each time."""
    directions = np.random.default_rng(0).standard_normal((features.shape[1], PROJECTIONS))
    scale = np.sqrt(np.mean(features**2) * features.shape[1])
    return features @ directions / (scale or 1.0)
