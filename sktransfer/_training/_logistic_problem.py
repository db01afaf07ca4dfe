"""Logistic regression with an L2 penalty, on many weightings of the same samples at once."""

import warnings
from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning

# Gradient at which the solver stops, for ten classes and fewer. Each of more classes has a smaller share in the loss,
# and so in the gradient: with 1,000 the solver would stop after three steps. To compare penalties, less will do; but
# beyond some samples, what a penalty adds to the mean loss would drown in it.
TOLERANCE, ROUGHLY, ROUGHLY_UP_TO = 1e-5, 1e-3, 500

MOST_STEPS = 1000


class LogisticProblem:
    """Samples to separate, in the space that they span.

    Parameters
    ----------
    points : ndarray of shape (n_samples, n_dimensions)
        Centred.
    back : callable
        Turns coefficients of this space into those of features.
    labels : int ndarray of shape (n_samples,)
        Class indices.
    weights : ndarray of shape (n_samples,)
        Their sum is the number of samples.
    samples : int ndarray of shape (n_samples,)
        What is held out together has one number.
    places : ndarray of shape (n_samples,)
        What orders them, whatever their order here.
    """

    def __init__(
        self,
        points: np.ndarray,
        back: Callable[[np.ndarray], np.ndarray],
        labels: np.ndarray,
        weights: np.ndarray,
        samples: np.ndarray,
        places: np.ndarray,
    ):
        self.points, self._back = points, back
        self.weights, self.samples, self.places = weights, samples, places
        self.classes, self.labels = np.unique(labels, return_inverse=True)

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
                f"The head did not converge in {MOST_STEPS} steps with C={C:.3g}; its last state is used. A "
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
