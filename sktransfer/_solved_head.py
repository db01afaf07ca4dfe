"""A linear head is a convex problem, so it is solved, not trained.

Features are centred and divided by one number, the root mean square of their deviations, so that the same penalty
means the same on every network; the scaling is then folded into the weights.
"""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

# Inverse strength of the L2 penalty, on features of unit mean square: see benchmarks/defaults.py.
C = 1.0


def solve_head(features: np.ndarray, labels: np.ndarray, weights: np.ndarray, n_classes: int) -> tuple[nn.Linear, int]:
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
    head : nn.Linear
        Float32, from features to logits.
    n_iter : int
        Iterations of the solver.
    """
    counted = weights > 0
    features, labels, weights = features[counted].astype(np.float64), labels[counted], weights[counted]
    mean = np.average(features, axis=0, weights=weights)
    features -= mean
    scale = np.sqrt(np.average((features**2).mean(axis=1), weights=weights)) or 1.0
    features /= scale
    present = np.unique(labels)
    coefficients = np.zeros((n_classes, features.shape[1]))
    intercept = np.full(n_classes, -np.inf if len(present) < n_classes else 0.0)
    n_iter = 1
    if len(present) == 1:  # all weight lies on one class
        intercept[present] = 0.0
    else:
        solver = LogisticRegression(C=C, max_iter=1000).fit(features, labels, sample_weight=weights)
        n_iter = int(solver.n_iter_.max())
        if len(present) == 2:
            coefficients[present] = np.concatenate([-solver.coef_, solver.coef_]) / 2
            intercept[present] = np.concatenate([-solver.intercept_, solver.intercept_]) / 2
        else:
            coefficients[present] = solver.coef_
            intercept[present] = solver.intercept_
    coefficients /= scale
    finite = np.isfinite(intercept)
    # A class without weight gets a logit so low that its probability is 0, yet finite, so that nothing turns NaN.
    bias = np.where(finite, intercept - coefficients @ mean, -1e4)
    head = nn.Linear(features.shape[1], n_classes)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(coefficients))
        head.bias.copy_(torch.from_numpy(bias))
    return head, n_iter
