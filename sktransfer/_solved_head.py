"""A linear head is a convex problem, so it is solved, not trained.

Features are centred and divided by one number, the root mean square of their deviations, so that the same penalty
means the same on every network; the scaling is then folded into the weights.
"""

from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

# Inverse strength of the L2 penalty, on features of unit mean square: see benchmarks/defaults.py.
C = 1.0


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
        Weight of each sample; one of 2 counts as two samples.
    n_classes : int
        Number of classes.

    Returns
    -------
    Solution
        The head and the iterations.
    """
    counted = weights > 0
    features, labels, weights = features[counted].astype(np.float64), labels[counted], weights[counted]
    mean = np.average(features, axis=0, weights=weights)
    features -= mean
    scale = np.sqrt(np.average((features**2).mean(axis=1), weights=weights)) or 1.0
    features /= scale
    present = np.unique(labels)
    coefficients = np.zeros((n_classes, features.shape[1]))
    # A class without weight gets a logit so low that its probability is 0, yet finite, so that nothing turns NaN.
    intercept = np.full(n_classes, -1e4)
    intercept[present] = 0.0
    n_iter = 1
    if len(present) > 1:
        solver = LogisticRegression(C=C, max_iter=1000).fit(features, labels, sample_weight=weights)
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
