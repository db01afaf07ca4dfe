"""Turn several labels per sample, as users give them, into an array of 0 and 1."""

from typing import Any

import numpy as np
from scipy.sparse import issparse

from sktransfer._messages import shown
from sktransfer.inputs._refusals import as_array

ADVICE = (
    "Several labels per sample are given as columns of 0 and 1, one for each label; "
    "sklearn.preprocessing.MultiLabelBinarizer makes them of lists of names."
)


def read_indicators(y: Any, name: str = "y") -> np.ndarray | None:
    """Return which labels each sample has, if y says so.

    Parameters
    ----------
    y : array-like or sparse matrix of shape (n_samples, n_labels)
        0 and 1.
    name : str, default="y"
        What it is called.

    Returns
    -------
    int ndarray of shape (n_samples, n_labels) or None
        `None` where y is one column, or none: each sample has one label.

    Raises
    ------
    ValueError
        If there are columns with values other than 0 and 1.
    """
    if issparse(y):
        matrix = y.toarray()
        if not matrix.shape[1]:
            raise ValueError(f"Got {name} of shape {matrix.shape}; expected columns of 0 and 1. {ADVICE}")
    elif isinstance(y, str | bytes | range) or y is None or not _has_rows(y):
        return None
    else:
        matrix = as_array(y, name)
    if matrix.ndim != 2 or not matrix.shape[1] or (matrix.shape[1] == 1 and not issparse(y)):
        return None
    if matrix.dtype.kind in "mM":
        raise ValueError(
            f"Got {name} of type {matrix.dtype} with several columns; expected columns of 0 and 1. {ADVICE}"
        )
    try:
        numbers = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError):
        known = [isinstance(value, int | float) and value in (0, 1) for value in matrix.ravel().tolist()]
        numbers = np.where(np.reshape(known, matrix.shape), 1.0, np.nan)
    strange = np.argwhere(~((numbers == 0) | (numbers == 1)))
    if len(strange):
        row, column = strange[0]
        value = matrix[row : row + 1, column].tolist()[0]
        got = f"Got {name} of shape {matrix.shape} with {name}[{row}, {column}] = {shown(value)}"
        if _continuous(numbers):
            raise ValueError(
                f"{got}; expected labels: {name} should be a 1d array, or columns of 0 and 1. To predict several "
                "numbers per sample, use FineTunedRegressor."
            )
        one = f"{name} should be a 1d array of one label per sample, or columns of 0 and 1"
        raise ValueError(f"{got}; expected labels: {one}. {ADVICE}")
    return numbers.astype(int)


def _has_rows(y: Any) -> bool:
    """Tell whether y is more than a column, without reading it."""
    if isinstance(y, list | tuple):
        first = y[0] if y else None
        return isinstance(first, list | tuple | np.ndarray) and {len(row) for row in y if hasattr(row, "__len__")} == {
            len(first)
        }
    return getattr(y, "ndim", 1) == 2


def _continuous(numbers: np.ndarray) -> bool:
    finite = numbers[np.isfinite(numbers)]
    return bool(len(finite) and (finite != np.floor(finite)).any())
