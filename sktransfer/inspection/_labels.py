"""Write labels as captions, and choose samples to show so that each class is seen."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sktransfer.inputs._containers import is_missing


def check_length(name: str, values: Any, n_samples: int) -> np.ndarray:
    """Return what is given for each sample as an array.

    Parameters
    ----------
    name : str
        What to call it in messages.
    values : array-like
        A row for each sample.
    n_samples : int
        How many there are.

    Returns
    -------
    ndarray of shape (n_samples,) or (n_samples, n_columns)
        The same values.

    Raises
    ------
    ValueError
        If there are more or fewer.
    """
    array = np.asarray(values.toarray() if hasattr(values, "toarray") else values)
    array = array.ravel() if array.ndim == 2 and array.shape[1] == 1 else array
    if array.ndim not in (1, 2) or len(array) != n_samples:
        raise ValueError(
            f"Got {name} of shape {array.shape} for X of {n_samples} samples; expected one value, or one row, per "
            "sample, in the same order."
        )
    return array


def are_numbers(y: np.ndarray) -> bool:
    """Tell whether y holds numbers to be predicted, not labels.

    Parameters
    ----------
    y : ndarray of shape (n_samples,) or (n_samples, n_columns)
        Of any type.

    Returns
    -------
    bool
        Whether they are floats with a fraction.
    """
    return y.dtype.kind == "f" and bool(np.any(y[np.isfinite(y)] % 1))


def describe(y: np.ndarray, names: Sequence[str] | None) -> list[str]:
    """Say what y says of each sample.

    Parameters
    ----------
    y : ndarray of shape (n_samples,) or (n_samples, n_columns)
        Labels, numbers, or columns of 0 and 1 for several labels.
    names : sequence of str or None
        Of the sorted labels, or of the columns.

    Returns
    -------
    list of str
        One for each sample.

    Raises
    ------
    ValueError
        If there are not as many names as labels or columns.
    """
    if y.ndim == 2:
        if names is None:
            names = [str(column) for column in range(y.shape[1])]
        _check_names(names, y.shape[1], "columns")
        if np.isin(y, (0, 1)).all():
            return [", ".join(str(names[int(column)]) for column in np.flatnonzero(row)) or "none" for row in y]
        return [", ".join(map(in_words, row)) for row in y]
    if names is None:
        return [in_words(value) for value in y]
    labels = np.unique(y)
    _check_names(names, len(labels), "labels")
    return [str(names[place]) for place in np.searchsorted(labels, y)]


def in_words(value: Any) -> str:
    """Return one label or number as it stands in a caption.

    Parameters
    ----------
    value : object
        One of y.

    Returns
    -------
    str
        Numbers with four digits; a question mark for a label that is missing.
    """
    if is_missing(value):
        return "?"
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def choose_rows(y: np.ndarray | None, n_samples: int, n: int, random: np.random.RandomState) -> np.ndarray:
    """Choose samples at random: of labels each as often as the others, of numbers from all of their span.

    Parameters
    ----------
    y : ndarray of shape (n_samples,) or (n_samples, n_columns) or None
        What is known of them.
    n_samples : int
        How many there are.
    n : int
        How many are wanted, at most.
    random : RandomState
        What draws.

    Returns
    -------
    int ndarray of shape (n,)
        In the order of labels or numbers; without them, in that of X.
    """
    mixed = random.permutation(n_samples)
    if y is None or y.ndim == 2:
        return np.sort(mixed[:n])
    if are_numbers(y):
        return mixed[:n][np.argsort(y[mixed[:n]], kind="stable")]
    labels = np.array([in_words(value) for value in y]) if y.dtype.kind in "Of" else y  # None has no order
    _, groups = np.unique(labels, return_inverse=True)
    # The first of each label, then the second of each, and so on.
    turns = np.zeros(n_samples, dtype=int)
    for group in range(groups.max() + 1):
        members = mixed[groups[mixed] == group]
        turns[members] = np.arange(len(members))
    few = mixed[np.argsort(turns[mixed], kind="stable")][:n]
    return few[np.lexsort((few, groups[few]))]


def _check_names(names: Sequence[str], expected: int, what: str) -> None:
    if len(names) != expected:
        raise ValueError(
            f"Got display_labels of {len(names)} names for {expected} {what}; expected one for each, in the same order."
        )
