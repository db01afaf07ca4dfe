"""A linear head is a convex problem, so it is solved, not trained.

Features are centred and divided by the square root of their standard deviation (Pareto scaling: van den Berg et al.,
"Centering, scaling, and transformations", BMC Genomics 7:142, 2006), then all by one number, so that their mean square
is 1 and the same penalty means the same on every network. That lies halfway between features as they are, where a few
large ones rule, and standardised ones, where many that hardly vary do. The scaling is then folded into the weights.

Weights of samples are relative to each other. They are scaled so that their sum is the number of *different* samples:
multiplying all of them by a number then changes nothing, and a weight of 2 is still the same as giving a sample twice.
"""

from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import nn

# Inverse strength of the L2 penalty, on features of unit mean square: see benchmarks/head.py.
C = 1.0

# Gradient at which the solver stops, for ten classes and fewer. Each of more classes has a smaller share in the loss,
# and so in the gradient: with 1,000 the solver would stop after three steps.
TOLERANCE = 1e-4

# Projections by which samples are told apart, and the difference, for features of unit mean square, up to which two are
# the same sample: the rounding of another batch.
PROJECTIONS = 8
ROUNDING = 1e-5

# Logits of all samples up to which a head is solved: the solver holds several arrays of that size in float64.
SOLVABLE = 2**25

# Values of all features up to which one thread solves.
SMALL = 2**21


class Solution(NamedTuple):
    """A head, float32, from features to logits, and the iterations it took."""

    head: nn.Linear
    n_iter: int


def solve_head(features: np.ndarray, labels: np.ndarray, weights: np.ndarray, n_classes: int) -> Solution:
    """Return the linear head of multinomial logistic regression with an L2 penalty.

    Parameters
    ----------
    features : ndarray of shape (n_samples, n_features)
        What enters the head.
    labels : int ndarray of shape (n_samples,)
        Class indices, each from 0 to `n_classes - 1` at least once.
    weights : ndarray of shape (n_samples,)
        Weight of each sample, of any scale, at least one above 0. One of 2 beside others of 1 is the sample given
        twice.
    n_classes : int
        Number of classes.

    Returns
    -------
    Solution
        The head and the iterations.
    """
    weights = weights / weights.max()  # so that no sum overflows
    counted = weights > 0
    features, labels, weights = features[counted].astype(np.float64), labels[counted], weights[counted]
    mean = np.average(features, axis=0, weights=weights)
    features -= mean
    scale = _pareto_scale(features, weights)
    features /= scale
    weights *= _count_different(features, labels) / weights.sum()
    present = np.unique(labels)
    coefficients = np.zeros((n_classes, features.shape[1]))
    # A class without weight gets a logit so low that its probability is 0, yet finite, so that nothing turns NaN.
    intercept = np.full(n_classes, -1e4)
    intercept[present] = 0.0
    n_iter = 1
    if len(present) > 1:
        # Small products gain nothing from threads, which spin on for a while and keep torch's from the processors.
        with threadpool_limits(1 if features.size <= SMALL else None, user_api="blas"):
            tolerance = TOLERANCE * min(1.0, 10 / len(present))
            solver = LogisticRegression(C=C, tol=tolerance, max_iter=1000)
            solver.fit(features, labels, sample_weight=weights)
        n_iter = int(solver.n_iter_.max())
        # scikit-learn keeps one row of coefficients for two classes: the difference of their logits.
        two = len(present) == 2
        coefficients[present] = np.concatenate([-solver.coef_, solver.coef_]) / 2 if two else solver.coef_
        intercept[present] = np.concatenate([-solver.intercept_, solver.intercept_]) / 2 if two else solver.intercept_
    coefficients /= scale
    head = nn.Linear(features.shape[1], n_classes)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(coefficients))
        head.bias.copy_(torch.from_numpy(intercept - coefficients @ mean))
    return Solution(head, n_iter)


def _pareto_scale(centred: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return what to divide each centred feature by."""
    variance = np.average(centred**2, axis=0, weights=weights)
    overall = variance.mean()
    if overall == 0:  # constant features, of constant images
        return np.ones_like(variance)
    # A feature that hardly varies is not blown up.
    scale = np.sqrt(np.sqrt(np.maximum(variance, 1e-6 * overall)))
    return scale * np.sqrt((variance / scale**2).mean())


def _count_different(features: np.ndarray, labels: np.ndarray) -> int:
    """Count samples, each once however often it was given: those whose projections on random directions differ."""
    directions = np.random.default_rng(0).standard_normal((features.shape[1], PROJECTIONS))
    projections = features @ directions / np.sqrt(features.shape[1])
    order = np.lexsort((projections[:, 0], labels))
    near = (np.abs(np.diff(projections[order], axis=0)) <= ROUNDING).all(axis=1)
    return len(labels) - int(np.count_nonzero(near & (np.diff(labels[order]) == 0)))
