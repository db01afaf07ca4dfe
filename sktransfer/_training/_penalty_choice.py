"""Choose the penalty, the weights of layers and the temperature of a head, on held-out samples.

How strong the penalty is best differs by a factor of 300 between images and sentences, so it is chosen: by
cross-validated log loss, with a weak pull to a value that serves both, for few samples say little. So is what features
of earlier layers weigh beside the last one's: more on drawings and spectrograms than on photos. What tells classes
apart best is often too sure of itself, so logits are also multiplied by one number, which is chosen with the others
(temperature scaling: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, here on samples that each fold
held out).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import minimize_scalar

from sktransfer._training._feature_scaling import EARLIER
from sktransfer._training._logistic_problem import LogisticProblem

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


def _empty_path() -> dict[str, np.ndarray]:
    return {"C": np.empty(0), "earlier_weight": np.empty(0), "log_loss": np.empty(0)}


@dataclass(frozen=True)
class Choice:
    """Settings of a head beside its weights.

    Parameters
    ----------
    C : float, default=10**1.5
        Inverse strength of the penalty.
    earlier_weight : float, default=0.3
        What features of earlier layers weigh beside the last one's.
    factor : float, default=1.0
        What logits are multiplied by.
    path : dict of str to ndarray of shape (n_tried,)
        What was tried, as in `Solution`.
    """

    C: float = MIDDLE
    earlier_weight: float = EARLIER
    factor: float = 1.0
    path: dict[str, np.ndarray] = field(default_factory=_empty_path)


def choose(problem: Callable[[float], LogisticProblem], widths: Sequence[int]) -> Choice:
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
    Choice
        The best, and all that was tried.
    """
    middle = problem(EARLIER)
    folds = _folds(middle)
    held_out = [fold for fold in range(FOLDS) if (folds == fold).any()]
    if len(middle.classes) == 1 or not held_out or not middle.points.shape[1]:
        return Choice()
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
    return Choice(float(PENALTIES[best[1]]), float(earlier[best[0]]), tried[best][1], path)


def calibrate_whole(problem: LogisticProblem, chosen: Choice) -> tuple[Choice, np.ndarray]:
    """Choose anew what logits are multiplied by, for a penalty that was chosen on a part of the samples.

    The more samples, the surer logits may be. One fold is held out.

    Returns
    -------
    Choice
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


def _folds(problem: LogisticProblem) -> np.ndarray:
    """Return the fold in which each row is held out; -1 is none: a class of one sample stays in all of them."""
    numbers, labels = _dealt(problem.places, problem.labels, problem.samples)
    counts = np.bincount(labels)
    folds = np.empty(problem.samples.max() + 1, dtype=int)
    dealt = np.cumsum(counts[labels] > 1) - 1
    folds[numbers] = np.where(counts[labels] > 1, dealt % FOLDS, -1)
    return folds[problem.samples]


def enough_to_choose(
    places: np.ndarray, strata: np.ndarray, samples: np.ndarray, n_features: int, n_classes: int
) -> np.ndarray:
    """Return rows of as many samples as are enough to choose a penalty, each stratum with its share: bool ndarray."""
    n = len(strata)
    if n * min(n, n_features) * n_classes <= LARGE:
        return np.ones(n, dtype=bool)
    enough = max(n / PART, np.sqrt(LARGE / n_classes), LARGE / (n_features * n_classes))
    numbers, _ = _dealt(places, strata, samples)
    each = round(len(numbers) * min(1.0, enough / n))
    return np.isin(samples, numbers[np.linspace(0, len(numbers) - 1, each).round().astype(int)])
