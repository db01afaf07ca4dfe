"""Recognise the kind of y: one class per sample, several labels, or numbers."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.multiclass import type_of_target

from sktransfer._training.tasks._indicator_matrix import read_indicators
from sktransfer._training.tasks._labels import read_labels
from sktransfer._training.tasks._number_matrix import read_numbers
from sktransfer._training.tasks._weights import check_lengths

KINDS = ("classes", "labels", "numbers")


@dataclass(frozen=True)
class Targets:
    """Targets of samples, ready for a probe.

    Parameters
    ----------
    kind : {"classes", "labels", "numbers"}
        One class per sample, columns of 0 and 1, or numbers.
    values : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        Indices of classes, 0 and 1, or numbers.
    names : ndarray
        Classes; empty of anything else.
    """

    kind: str
    values: np.ndarray
    names: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """Samples of each class, or with each label; of numbers, all of them."""
        if self.kind == "classes":
            return np.bincount(self.values, minlength=len(self.names))
        return self.values.sum(axis=0).astype(int) if self.kind == "labels" else np.array([len(self.values)])

    @property
    def given(self) -> np.ndarray:
        """As they were given: classes by their names."""
        return self.names[self.values] if self.kind == "classes" else self.values

    @property
    def score_name(self) -> str:
        """Name of the score of a probe."""
        return {"classes": "accuracy", "labels": "micro F1", "numbers": "R2"}[self.kind]

    def of(self, rows: np.ndarray) -> "Targets":
        """Return those of some samples."""
        return Targets(self.kind, self.values[rows], self.names)


def read_targets(y: Any, n_samples: int, numbers: bool | None = None) -> Targets:
    """Read y, and say what is wrong with it.

    Parameters
    ----------
    y : array-like
        As the tuned estimators take it.
    n_samples : int
        Rows of X.
    numbers : bool or None, default=None
        Whether y holds numbers to predict; `None` looks: floats that are not whole numbers are.

    Returns
    -------
    Targets
        One for each sample.

    Raises
    ------
    ValueError
        If y has another length than X, one class alone, or holds something else.
    """
    if numbers or (numbers is None and _are_numbers(y)):
        matrix, _ = read_numbers(y)
        targets = Targets("numbers", matrix[:, 0] if matrix.shape[1] == 1 else matrix, np.array([]))
    elif (indicators := read_indicators(y)) is not None:
        targets = Targets("labels", indicators, np.array([]))
    else:
        classes, labels = read_labels(y)
        targets = Targets("classes", labels, classes)
    check_lengths(n_samples, len(targets.values))
    return targets


def _are_numbers(y: Any) -> bool:
    try:
        return not issparse(y) and type_of_target(y).startswith("continuous")
    except (ValueError, TypeError):  # whoever reads labels says what is wrong with them
        return False
