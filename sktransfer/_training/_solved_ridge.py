"""Solve the linear head for numbers: ridge regression with one decomposition for all penalties and outputs.

The penalty of each output is chosen by its squared error on samples that are left out one at a time, which the same
decomposition gives without solving again (Allen, "The relationship between variable selection and data augmentation and
a method for prediction", Technometrics 16:125, 1974); views of one sample are left out together.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn

from sktransfer._training._different_samples import DifferentSamples, Solution
from sktransfer._training._feature_scaling import EARLIER
from sktransfer._training._penalty_choice import EARLIER_WEIGHTS, PULL

# Inverse strengths of the penalty that are tried, on features of mean squared norm 1 and numbers of standard deviation
# 1: two per power of ten. The middle one is where the pull leads: few samples tell little of numbers, and a prediction
# near the mean is the safe one.
PENALTIES = 10.0 ** (np.arange(-6, 9) / 2)
MIDDLE = 1.0

# Samples times dimensions of their space above which what earlier layers weigh is not chosen: each choice would be a
# decomposition of many seconds.
LARGE = 2**23

# The least squared error that counts: numbers that are known exactly.
LEAST_ERROR = 1e-12

# Difference from which on a robust loss grows like the difference, in standard deviations.
DELTAS = {"huber": 1.0, "absolute_error": 1e-2}


def solve_ridge(
    features: np.ndarray,
    numbers: np.ndarray,
    weights: np.ndarray,
    widths: Sequence[int] | None = None,
    C: Any = "auto",
    samples: np.ndarray | None = None,
    loss: str = "squared_error",
) -> Solution:
    """Return the linear head of ridge regression.

    It minimises the sum of `weight * loss(number - prediction)` plus `|coefficients|^2 / (2 C)`, where the loss is half
    the squared difference, Huber's, or the absolute difference; C is that of the squared one in each case.

    Parameters
    ----------
    features : ndarray of shape (n_rows, n_features)
        What enters it.
    numbers : float64 ndarray of shape (n_rows, n_outputs)
        With mean 0 and standard deviation 1.
    weights : ndarray of shape (n_rows,)
        Weight of each row, of any scale, at least one above 0. One of 2 beside others of 1 is the row given twice.
    widths : sequence of int or None, default=None
        Number of features of each layer; `None` is one layer.
    C : float or "auto", default="auto"
        Inverse strength of the penalty, on scaled features; `"auto"` chooses one for each output.
    samples : int ndarray of shape (n_rows,) or None, default=None
        Number of the sample that each row is a view of. `None`: each row is a sample, and rows with equal features and
        numbers are the same one.
    loss : {"squared_error", "absolute_error", "huber"}, default="squared_error"
        What is minimised.

    Returns
    -------
    Solution
        The head; with several outputs, its penalties are an array of shape (n_outputs,).
    """
    same = np.unique(numbers, axis=0, return_inverse=True)[1].ravel()
    known = DifferentSamples(features, same, weights, widths, samples)
    targets, own = numbers[known.counted][known.first], known.summed(weights)
    n_outputs = targets.shape[1]
    with known.threads():
        ridge, chosen = None, np.full(n_outputs, MIDDLE)
        path: dict[str, list[Any]] = {"C": [], "earlier_weight": [], "squared_error": []}
        if C != "auto":
            chosen = np.full(n_outputs, float(C))
        elif known.samples.max() > 0:
            least = np.inf
            is_large = len(targets) * min(len(targets), features.shape[1]) > LARGE
            for weight in EARLIER_WEIGHTS if len(known.widths) > 1 and not is_large else (EARLIER,):
                tried = _Ridge(known, weight, targets, own)
                errors = tried.errors_left_out(known.samples)
                costs = 0.5 * own.sum() * np.log(np.maximum(errors, LEAST_ERROR))
                costs += PULL * np.log10(PENALTIES / MIDDLE)[:, None] ** 2
                path["C"] += list(PENALTIES)
                path["earlier_weight"] += [weight] * len(PENALTIES)
                path["squared_error"] += list(errors)
                if costs.min(axis=0).sum() < least:
                    least, ridge, chosen = costs.min(axis=0).sum(), tried, PENALTIES[costs.argmin(axis=0)]
        ridge = ridge or _Ridge(known, EARLIER, targets, own)
        coefficients, intercepts, n_iter = ridge.solve(chosen)
        if loss != "squared_error":
            coefficients, intercepts, n_iter = ridge.solve_robustly(chosen, DELTAS[loss], coefficients, intercepts)
        rotated_back = ridge.back(coefficients)
    linear = nn.Linear(features.shape[1], n_outputs)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(rotated_back))
        linear.bias.copy_(torch.from_numpy(intercepts))
    scaling, _ = known.scaled(ridge.earlier)
    shown = {name: np.array(values) for name, values in path.items()}
    if n_outputs == 1:
        shown["squared_error"] = shown["squared_error"].ravel()
    penalty = float(chosen[0]) if n_outputs == 1 else chosen
    return Solution(nn.Sequential(scaling.float(), linear), n_iter, penalty, ridge.earlier, shown)


class _Ridge:
    """Ridge regression of several outputs on the same samples.

    Parameters
    ----------
    known : DifferentSamples
        The samples.
    earlier : float
        What features of earlier layers weigh.
    targets : ndarray of shape (n, n_outputs)
        What is to be predicted.
    weights : ndarray of shape (n,)
        Of samples.
    """

    def __init__(self, known: DifferentSamples, earlier: float, targets: np.ndarray, weights: np.ndarray):
        self.earlier = earlier
        points, self.back = known.span(earlier, np.ones(len(weights), dtype=bool))
        self.weights, self._roots = weights, np.sqrt(weights)[:, None]
        self._shares = weights / weights.sum()
        self._center, self._mean = self._shares @ points, self._shares @ targets
        self._points, self._targets = points - self._center, targets - self._mean
        rooted = self._roots * self._points
        values, vectors = np.linalg.eigh(rooted.T @ rooted)
        kept = values > 1e-12 * max(values.max(initial=0.0), np.finfo(float).tiny)
        self._values, self._vectors = values[kept], vectors[:, kept]
        self._axes = rooted @ self._vectors / np.sqrt(self._values)  # orthonormal columns
        self._along = self._axes.T @ (self._roots * self._targets)

    def _fractions(self, C: np.ndarray) -> np.ndarray:
        """Return what is left of each direction with each penalty: ndarray of shape (n_directions, n_penalties)."""
        return self._values[:, None] / (self._values[:, None] + 1 / np.asarray(C))

    def errors_left_out(self, samples: np.ndarray) -> np.ndarray:
        """Return the mean squared error of samples that are left out: ndarray of shape (n_penalties, n_outputs)."""
        groups = _views(samples)
        errors = np.empty((len(PENALTIES), self._targets.shape[1]))
        for number, fractions in enumerate(self._fractions(PENALTIES).T):
            residuals = self._roots * self._targets - self._axes @ (fractions[:, None] * self._along)
            if groups.shape[1] > 1:
                axes, roots = self._axes[groups], self._roots[groups]
                hats = (axes * fractions) @ np.swapaxes(axes, 1, 2)
                hats += roots @ np.swapaxes(roots, 1, 2) / self.weights.sum()
                residuals = np.linalg.solve(np.eye(groups.shape[1]) - hats, residuals[groups])
                residuals = residuals.reshape(len(samples), -1)
            else:
                leverages = np.square(self._axes) @ fractions + self._shares
                residuals /= np.maximum(1 - leverages, 1e-12)[:, None]
            errors[number] = np.square(residuals).sum(axis=0) / self.weights.sum()
        return errors

    def solve(self, C: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
        """Return coefficients, of shape (n_outputs, n_dimensions), intercepts, and the number of iterations, 1."""
        shrunk = self._fractions(C) / np.sqrt(self._values)[:, None] * self._along
        coefficients = (self._vectors @ shrunk).T
        return coefficients, self._mean - coefficients @ self._center, 1

    def solve_robustly(
        self, C: np.ndarray, delta: float, coefficients: np.ndarray, intercepts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Minimise Huber's loss, divided by delta if that is below 1, for one output after another.

        Each starts from its solution of the squared loss.
        """
        scale = min(delta, 1.0)
        starts = np.hstack([coefficients, (intercepts + coefficients @ self._center - self._mean)[:, None]])
        options = {"maxiter": 1000, "maxls": 50, "ftol": 1e-14, "gtol": 1e-6}
        solved, n_iter = np.empty_like(starts), 0
        for output, start in enumerate(starts):
            targets, strength = self._targets[:, output], 1 / C[output]

            def loss(inside: np.ndarray, targets: Any = targets, strength: Any = strength) -> tuple[float, np.ndarray]:
                differences = self._points @ inside[:-1] + inside[-1] - targets
                size = np.abs(differences)
                losses = np.where(size <= delta, differences**2 / 2, delta * (size - delta / 2)) / scale
                slopes = self.weights * np.clip(differences, -delta, delta) / scale
                gradient = np.append(slopes @ self._points + strength * inside[:-1], slopes.sum())
                value = self.weights @ losses + strength * (inside[:-1] @ inside[:-1]) / 2
                return float(value) / len(size), gradient / len(size)

            found = minimize(loss, start, method="L-BFGS-B", jac=True, options=options)
            solved[output], n_iter = found.x, n_iter + int(found.nit)
        return solved[:, :-1], solved[:, -1] + self._mean - solved[:, :-1] @ self._center, n_iter


def _views(samples: np.ndarray) -> np.ndarray:
    """Return the rows of each sample, with the same number for all: int ndarray of shape (n_samples, n_views)."""
    return np.argsort(samples, kind="stable").reshape(samples.max() + 1, -1)
