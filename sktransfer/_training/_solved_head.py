"""A linear head is a convex problem, so it is solved, not trained: logistic regression with an L2 penalty.

Weights of samples are relative to each other. They are scaled so that their sum is the number of *different* samples:
multiplying all of them by a number then changes nothing, and a weight of 2 is still the same as giving a sample twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from sktransfer._training._feature_scaling import EARLIER, FeatureScaling, fit_scaling
from sktransfer._training._logistic_problem import LogisticProblem
from sktransfer._training._penalty_choice import Choice, calibrate_whole, choose, enough_to_choose

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
    few = enough_to_choose(places[first, 0], labels[first], samples[first], features.shape[1])
    is_small = bool(few.all())

    @cache
    def problem(earlier: float, is_whole: bool) -> LogisticProblem:
        rows = first if is_whole else first[few]
        values = scaled if earlier == EARLIER else _scaled(features, widths, weights, earlier)[1]
        own = summed if is_whole else summed[few] * len(np.unique(samples[rows])) / summed[few].sum()
        return LogisticProblem.of(values[rows], labels[rows], own, samples[rows], places[rows, 0])

    # Small products gain nothing from threads, which spin on for a while and keep torch's from the processors.
    with threadpool_limits(1 if scaled.size <= SMALL else None, user_api="blas"):
        start = None
        chosen = choose(lambda earlier: problem(earlier, is_small), widths) if C == "auto" else Choice(float(C))
        whole = problem(chosen.earlier_weight, True)
        if not is_small and chosen.path["C"].size:
            chosen, start = calibrate_whole(whole, chosen)
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
