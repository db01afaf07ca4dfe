"""Predict samples, and choose which are worth a look: the worst, the best, or the uncertain."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from sklearn.base import is_classifier, is_regressor
from sklearn.utils.validation import check_is_fitted

from sktransfer._messages import shown
from sktransfer.inspection._estimators import described, steps_of
from sktransfer.inspection._labels import check_length

KINDS = ("mistakes", "uncertain", "best")


@dataclass(frozen=True)
class Predictions:
    """True and predicted labels or numbers of samples.

    Parameters
    ----------
    y_true, y_pred : ndarray of shape (n_samples,)
        Labels, or numbers.
    probability : float64 ndarray of shape (n_samples,) or None
        Of the predicted label; `None` with numbers.
    """

    y_true: np.ndarray
    y_pred: np.ndarray
    probability: np.ndarray | None

    @classmethod
    def of(cls, y_true: Any, y_prob: Any, y_pred: Any, labels: Any, n_samples: int) -> Self:
        """Take the most probable label of each sample, or its predicted number.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            Labels, or numbers.
        y_prob : array-like of shape (n_samples, n_labels) or (n_samples,) or None
            Probabilities of the labels; of one dimension, those of the second of two labels.
        y_pred : array-like of shape (n_samples,) or None
            Predicted numbers, in place of `y_prob`.
        labels : array-like of shape (n_labels,) or None
            What the columns of `y_prob` stand for; `None` is the sorted labels of y_true.
        n_samples : int
            Number of samples of X.

        Returns
        -------
        Predictions
            One for each sample.

        Raises
        ------
        ValueError
            If these do not fit each other, or there are several labels or numbers per sample.
        """
        if (y_prob is None) == (y_pred is None):
            raise ValueError(
                f"Got {'neither y_prob nor y_pred' if y_prob is None else 'both y_prob and y_pred'}; expected y_prob, "
                "the probabilities of labels, or y_pred, predicted numbers."
            )
        truth = check_length("y_true", y_true, n_samples)
        if y_prob is None:
            predicted = check_length("y_pred", y_pred, n_samples)
            return cls(_numbers("y_true", truth), _numbers("y_pred", predicted), None)
        truth, given = _one_column(truth), check_length("y_prob", y_prob, n_samples)
        if given.dtype.kind not in "fiub" or not np.isfinite(given).all() or given.min() < 0 or given.max() > 1.001:
            raise ValueError(
                f"Got y_prob = {shown(given)}; expected probabilities, from 0 to 1, such as predict_proba returns."
            )
        probabilities = np.column_stack([1 - given, given]) if given.ndim == 1 else given
        known = np.unique(truth) if labels is None else np.asarray(labels)
        if known.ndim != 1 or len(known) != probabilities.shape[1]:
            raise ValueError(
                f"Got y_prob of {probabilities.shape[1]} columns for {len(known)} labels: {shown(known.tolist())}; "
                "expected one column for each. Give labels=classifier.classes_."
            )
        if not np.isin(truth, known).any():
            raise ValueError(
                f"Got y_true with labels such as {shown(truth[0])}, but the classifier did not learn any of them; "
                f"expected labels such as {shown(known[:5].tolist())}. Give y as in fit."
            )
        best = probabilities.argmax(axis=1)
        return cls(truth, known[best], probabilities[np.arange(n_samples), best].astype(float))

    @property
    def is_right(self) -> np.ndarray:
        """Whether each prediction is the true label, bool of shape (n_samples,)."""
        return np.asarray(self.y_true == self.y_pred)

    def choose(self, kind: str, n: int) -> np.ndarray:
        """Return the samples to look at.

        Parameters
        ----------
        kind : {"mistakes", "uncertain", "best"}
            The most probable of wrong predictions, the least probable of all, or the most probable of right ones. With
            numbers the largest errors, or the smallest.
        n : int
            How many, at most.

        Returns
        -------
        int ndarray
            Rows, the most telling first.

        Raises
        ------
        ValueError
            If the least certain numbers are asked for.
        """
        if self.probability is None:
            if kind == "uncertain":
                raise ValueError(
                    'Got kind="uncertain" for numbers, which have no probabilities; expected kind="mistakes", the '
                    'largest errors, or kind="best", the smallest.'
                )
            errors = np.abs(self.y_pred - self.y_true)
            return np.argsort(-errors if kind == "mistakes" else errors, kind="stable")[:n]
        if kind == "uncertain":
            return np.argsort(self.probability, kind="stable")[:n]
        order = np.argsort(-self.probability, kind="stable")
        wanted = self.is_right if kind == "best" else ~self.is_right
        return order[wanted[order]][:n]

    def title(self, kind: str, n_shown: int) -> str:
        """Return a sentence that says what is shown.

        Parameters
        ----------
        kind : {"mistakes", "uncertain", "best"}
            As `choose` took it.
        n_shown : int
            How many samples.

        Returns
        -------
        str
            With the number of mistakes; where there is nothing to show, that.
        """
        total = len(self.y_true)
        if self.probability is None:
            return f"{n_shown} of {total} samples: the {'largest' if kind == 'mistakes' else 'smallest'} errors"
        n_wrong = int((~self.is_right).sum())
        if kind == "uncertain":
            return f"{n_shown} of {total} samples: the least certain predictions"
        if kind == "best":
            n_right = total - n_wrong
            return (
                f"{n_shown} of {n_right} right predictions: the most certain"
                if n_right
                else f"No right predictions: all {total} are wrong"
            )
        if not n_wrong:
            return f"No mistakes: all {total} predictions are right"
        which = "all of them" if n_shown == n_wrong else f"the {n_shown} most certain"
        return f"{n_wrong} of {total} predictions are wrong ({100 * n_wrong / total:.1f} %): {which}"


def predict(estimator: Any, X: Any, y: Any, n_samples: int) -> Predictions:
    """Ask a fitted estimator about samples.

    Parameters
    ----------
    estimator : estimator
        A classifier with `predict_proba`, or a regressor.
    X, y : array-like
        Samples, and what is true of them.
    n_samples : int
        Number of samples of X.

    Returns
    -------
    Predictions
        One for each sample.

    Raises
    ------
    NotFittedError
        If it is not fitted.
    ValueError
        If it is neither, or has several labels or numbers per sample.
    """
    check_is_fitted(estimator)
    if is_regressor(estimator):
        return Predictions.of(y, None, estimator.predict(X), None, n_samples)
    name = described(estimator, steps_of(estimator)[-1])
    if not is_classifier(estimator):
        raise ValueError(f"Got {name}; expected a fitted classifier or regressor.")
    if not hasattr(estimator, "predict_proba"):
        advice = (
            "A search needs refit=True."
            if hasattr(estimator, "cv_results_") and not hasattr(estimator, "best_estimator_")
            else "Put CalibratedClassifierCV around it, or set probability=True where it has that parameter."
        )
        raise ValueError(
            f"Got {name}, which has no predict_proba; expected probabilities, to sort mistakes by. {advice}"
        )
    _one_column(check_length("y", y, n_samples))
    probabilities = estimator.predict_proba(X)
    if isinstance(probabilities, list):
        raise ValueError(_SEVERAL.format(len(probabilities)))
    return Predictions.of(y, probabilities, None, estimator.classes_, n_samples)


_SEVERAL = (
    "Got {} columns of labels; expected one label per sample. Draw one column at a time: "
    "MistakesDisplay.from_predictions(X, y[:, 0], probabilities[:, 0])."
)


def _one_column(y: np.ndarray) -> np.ndarray:
    if y.ndim == 2:
        raise ValueError(_SEVERAL.format(y.shape[1]))
    return y


def _numbers(name: str, values: np.ndarray) -> np.ndarray:
    if values.ndim == 2:
        raise ValueError(
            f"Got {name} of {values.shape[1]} columns; expected one number per sample. Draw one column at a time: "
            "MistakesDisplay.from_predictions(X, y[:, 0], y_pred=predicted[:, 0])."
        )
    if values.dtype.kind not in "fiub":
        raise ValueError(
            f"Got {name} of type {values.dtype}; expected numbers. For labels, give their probabilities: "
            "y_prob=classifier.predict_proba(X)."
        )
    return values.astype(float)
