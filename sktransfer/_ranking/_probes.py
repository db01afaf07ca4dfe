"""Probes that judge features: small estimators that scikit-learn's scorers accept, fitted per fold.

`"logistic"` is the head that this package solves on frozen features, which chooses its penalty inside the fold by
samples that it holds out there: logistic regression, or ridge regression for numbers. `"knn"` asks the nearest samples
by the angle between features.
"""

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

PROBES = ("logistic", "knn")

# Neighbours that are asked.
NEIGHBOURS = 5


def make_probe(probe: str, task: str, n_samples: int) -> Any:
    """Return an estimator that is not fitted.

    Parameters
    ----------
    probe : {"logistic", "knn"}
        As `rank_backbones` takes it.
    task : {"classes", "labels", "numbers"}
        What is to be predicted.
    n_samples : int
        Samples that it will be fitted on.

    Returns
    -------
    estimator
        With `fit(X, y, samples)`, `predict` and `score`; `samples` says what belongs together, or is `None`.
    """
    if probe == "knn":
        return _neighbours(task, min(NEIGHBOURS, n_samples))
    return {"classes": ClassProbe, "labels": LabelProbe, "numbers": NumberProbe}[task]()


class _SolvedProbe(BaseEstimator):
    """A linear head on features, solved."""

    def _outputs(self, X: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.head_(torch.from_numpy(np.ascontiguousarray(X, dtype=np.float32))).double().numpy()


class ClassProbe(ClassifierMixin, _SolvedProbe):
    """Multinomial logistic regression."""

    def fit(self, X: np.ndarray, y: np.ndarray, samples: np.ndarray | None = None) -> "ClassProbe":
        """Solve it; samples of one group are held out together where the penalty is chosen."""
        from sktransfer._training._solved_head import solve_head  # which brings scipy's optimizers in

        self.classes_, labels = np.unique(y, return_inverse=True)
        self.head_ = solve_head(X, labels, np.ones(len(y)), len(self.classes_), samples=samples).head
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return probabilities of shape (n_samples, n_classes)."""
        from scipy.special import softmax

        return softmax(self._outputs(X), axis=1)

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the most probable classes."""
        return self.classes_[self._outputs(X).argmax(axis=1)]


class LabelProbe(ClassifierMixin, _SolvedProbe):
    """One logistic regression for each label."""

    def fit(self, X: np.ndarray, y: np.ndarray, samples: np.ndarray | None = None) -> "LabelProbe":
        """Solve them; samples of one group are held out together where penalties are chosen."""
        from sktransfer._training._solved_head import solve_label_heads

        self.classes_ = [np.array([0, 1])] * y.shape[1]  # as scikit-learn's own say it, so that scorers know labels
        self.head_ = solve_label_heads(X, y, np.ones(len(y)), np.ones(y.shape), samples=samples).head
        return self

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Return the probability of each label, of shape (n_samples, n_labels)."""
        from scipy.special import expit

        return expit(self._outputs(X))

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return 1 for labels that are more probable than not."""
        return (self._outputs(X) > 0).astype(int)


class NumberProbe(RegressorMixin, _SolvedProbe):
    """Ridge regression."""

    def fit(self, X: np.ndarray, y: np.ndarray, samples: np.ndarray | None = None) -> "NumberProbe":
        """Solve it; the penalty is chosen by samples that are left out one at a time, whatever their groups."""
        from sktransfer._training._solved_ridge import solve_ridge

        numbers = y.reshape(len(y), -1)
        self._is_flat = y.ndim == 1
        self.mean_, deviation = numbers.mean(axis=0), numbers.std(axis=0)
        self.scale_ = np.where(deviation > 0, deviation, 1.0)
        self.head_ = solve_ridge(X, (numbers - self.mean_) / self.scale_, np.ones(len(y))).head
        return self

    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return numbers in the units of y."""
        numbers = self._outputs(X) * self.scale_ + self.mean_
        return numbers.ravel() if self._is_flat else numbers


def _neighbours(task: str, n_neighbors: int) -> Any:
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer

    kind = KNeighborsRegressor if task == "numbers" else KNeighborsClassifier
    return make_pipeline(Normalizer(), kind(n_neighbors, weights="distance"))


def score_fold(
    features: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray | None,
    fold: tuple[np.ndarray, np.ndarray],
    probe: str,
    task: str,
    scorer: Any,
) -> float:
    """Fit a probe on one fold's training part and score it on the other.

    Parameters
    ----------
    features : float32 ndarray of shape (n_samples, n_features)
        Of all samples.
    y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        What is to be predicted.
    groups : int ndarray of shape (n_samples,) or None
        Samples that belong together.
    fold : tuple of ndarray
        Rows to train on, and to test on.
    probe, task : str
        As in `make_probe`.
    scorer : callable
        As scikit-learn's `check_scoring` returns it.

    Returns
    -------
    float
        Higher is better.
    """
    train, test = fold
    model = make_probe(probe, task, len(train))
    if probe == "knn":
        model.fit(features[train], y[train])
    else:
        model.fit(features[train], y[train], None if groups is None else groups[train])
    return float(scorer(model, features[test], y[test]))
