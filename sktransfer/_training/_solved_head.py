"""Solve a linear head instead of training it: logistic regression with an L2 penalty is a convex problem.

With several labels per sample it is one such problem for each label, on features that are scaled and rotated once.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from sktransfer._training._different_samples import DifferentSamples, Solution
from sktransfer._training._feature_scaling import FeatureScaling
from sktransfer._training._logistic_problem import LogisticProblem
from sktransfer._training._penalty_choice import Choice, calibrate_whole, choose, enough_to_choose

# The logit of a class without weight: so low that its probability is 0, yet finite, so that nothing turns NaN.
NEVER = -1e4


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
        Number of the sample that each row is a view of. All views of a sample are held out together. `None`: each row
        is a sample, and rows with equal features and label are the same one.

    Returns
    -------
    Solution
        The head, and how it was found.
    """
    known = DifferentSamples(features, labels, weights, widths, samples)
    solver = _Solver(known, known.labels, n_classes)
    with known.threads():
        chosen, coefficients, intercept, n_iter, present = solver.solve(known.labels, known.summed(weights), C)
    weight, bias = np.zeros((n_classes, features.shape[1])), np.full(n_classes, NEVER)
    weight[present], bias[present] = coefficients, intercept
    scaling, _ = known.scaled(chosen.earlier_weight)
    return Solution(_head(scaling, weight, bias), n_iter, chosen.C, chosen.earlier_weight, chosen.path)


def solve_label_heads(
    features: np.ndarray,
    indicators: np.ndarray,
    weights: np.ndarray,
    label_weights: np.ndarray,
    widths: Sequence[int] | None = None,
    C: Any = "auto",
    samples: np.ndarray | None = None,
) -> Solution:
    """Return the linear heads of one logistic regression a label, as one head.

    Parameters
    ----------
    features : ndarray of shape (n_rows, n_features)
        What enters it.
    indicators : int ndarray of shape (n_rows, n_labels)
        0 and 1.
    weights : ndarray of shape (n_rows,)
        Weight of each row, by which features are scaled.
    label_weights : ndarray of shape (n_rows, n_labels)
        What each row counts for each label.
    widths, C, samples : object
        As in `solve_head`. With `"auto"`, each label has its own penalty.

    Returns
    -------
    Solution
        The head; its penalties and weights of earlier layers are arrays of shape (n_labels,), and its path is a list.
    """
    combinations = np.unique(indicators, axis=0, return_inverse=True)[1].ravel()
    known = DifferentSamples(features, combinations, weights, widths, samples)
    targets, n_labels = indicators[known.counted][known.first], indicators.shape[1]
    solver = _Solver(known, _rarest(targets), 2)
    scaling, _ = known.scaled()
    weight, bias, choices, iterations = np.zeros((n_labels, features.shape[1])), np.empty(n_labels), [], 0
    with known.threads():
        for label in range(n_labels):
            summed = known.summed(label_weights[:, label])
            chosen, coefficients, intercept, n_iter, present = solver.solve(targets[:, label], summed, C)
            if len(present) == 2:
                own, _ = known.scaled(chosen.earlier_weight)
                weight[label] = (coefficients[1] - coefficients[0]) * own.columns() / scaling.columns()
                bias[label] = intercept[1] - intercept[0]
            else:
                # As a rate is estimated where nothing was seen: by Jeffreys' prior.
                bias[label] = (1 if present[0] else -1) * np.log(2 * summed.sum() + 1)
            choices.append(chosen)
            iterations += n_iter
    return Solution(
        _head(scaling, weight, bias),
        iterations,
        np.array([chosen.C for chosen in choices]),
        np.array([chosen.earlier_weight for chosen in choices]),
        [chosen.path for chosen in choices],
    )


class _Solver:
    """Solves for one target after another on the same samples.

    Parameters
    ----------
    known : DifferentSamples
        The samples.
    strata : int ndarray of shape (n_different,)
        What a part of the samples, which chooses a penalty where there are many, has its share of.
    n_classes : int
        Classes of a target.
    """

    def __init__(self, known: DifferentSamples, strata: np.ndarray, n_classes: int):
        self.known = known
        self.few = enough_to_choose(known.places, strata, known.samples, known.features.shape[1], n_classes)

    def solve(
        self, labels: np.ndarray, weights: np.ndarray, C: Any
    ) -> tuple[Choice, np.ndarray, np.ndarray, int, np.ndarray]:
        """Return what was chosen, coefficients, intercepts, iterations, and the labels that they are of."""
        known, few, start = self.known, self.few, None
        is_small = bool(few.all())

        def problem(earlier: float, rows: np.ndarray) -> LogisticProblem:
            own = weights[rows] * len(np.unique(known.samples[rows])) / weights[rows].sum()
            numbers = known.samples[rows], known.places[rows]
            return LogisticProblem(*known.span(earlier, rows), labels[rows], own, *numbers)

        whole = np.ones(len(few), dtype=bool)
        if C == "auto" and weights[few].any():
            chosen = choose(lambda earlier: problem(earlier, whole if is_small else few), known.widths)
        else:
            chosen = Choice() if C == "auto" else Choice(float(C))
        task = problem(chosen.earlier_weight, whole)
        if not is_small and chosen.path["C"].size:
            chosen, start = calibrate_whole(task, chosen)
        coefficients, intercept, n_iter = task.solve_all(chosen.C, start)
        return chosen, coefficients * chosen.factor, intercept * chosen.factor, n_iter, np.unique(labels)


def _rarest(targets: np.ndarray) -> np.ndarray:
    """Return the label of each sample that fewest others have; of those without any, the number of labels."""
    order = np.argsort(targets.sum(axis=0), kind="stable")
    has = targets[:, order].astype(bool)
    return np.where(has.any(axis=1), order[has.argmax(axis=1)], targets.shape[1])


def _head(scaling: FeatureScaling, weight: np.ndarray, bias: np.ndarray) -> nn.Sequential:
    linear = nn.Linear(weight.shape[1], len(weight))
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
        linear.bias.copy_(torch.from_numpy(bias))
    return nn.Sequential(scaling.float(), linear)
