"""Read X as a list of samples or as an array, before it is known what they are.

No look at X loops over values in Python: an hour of sound has 57,600,000 of them.
"""

from numbers import Number
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.sparse import issparse

from sktransfer.inputs._encoded_files import is_file
from sktransfer.inputs._refusals import as_array, check_form, check_rows


def stands_alone(row: Any) -> bool:
    """Tell whether a row is a sample by itself: a text, a file, a picture or an array with two sides.

    Parameters
    ----------
    row : object
        One of X.

    Returns
    -------
    bool
        Whether it is.
    """
    return isinstance(row, Image.Image) or (getattr(row, "ndim", 0) or 0) >= 2 or is_file(row)


def is_empty(X: Any) -> bool:
    """Tell whether X has no rows, as an empty part of a large table has; nothing is converted for it.

    Parameters
    ----------
    X : object
        Anything.

    Returns
    -------
    bool
        Whether it is a list, an array or a table of none.
    """
    shape = getattr(X, "shape", None)
    return len(X) == 0 if isinstance(X, list | tuple) else isinstance(shape, tuple) and shape[:1] == (0,)


def is_missing(value: Any) -> bool:
    """Tell whether a value stands for nothing: None, NaN, pandas' NA or NaT.

    Parameters
    ----------
    value : object
        Anything.

    Returns
    -------
    bool
        Whether it does.
    """
    if value is None:
        return True
    if hasattr(value, "__len__"):
        return False
    try:
        return bool(value != value)
    except TypeError:  # NA is neither equal to itself nor not
        return True
    except (ValueError, RuntimeError):
        return False


def as_rows(X: Any) -> Any:
    """Refuse what holds no samples, and turn lists and tensors into what can be sliced; tables stay as they are.

    Parameters
    ----------
    X : array-like
        Array, list, Series or table.

    Returns
    -------
    ndarray, list or table
        A list where rows stand alone or differ in shape.

    Raises
    ------
    ValueError
        If X is nothing like that, its type is none of numbers, strings or objects, or lists in it differ in length.
    """
    check_form(X)
    if issparse(X) or hasattr(X, "columns"):
        return X
    if not isinstance(X, list | tuple):
        return as_array(X, "X")
    check_rows(X)
    kinds = set(map(type, X))
    if not all(issubclass(kind, Number) for kind in kinds):
        if any(map(stands_alone, X)) or _differ(X):
            return list(X)
        if any(issubclass(kind, torch.Tensor | np.ma.MaskedArray) for kind in kinds):
            X, whole = _of_arrays(X)
            if not whole:
                return X
    try:
        found = np.asarray(X)
    except (ValueError, TypeError) as error:
        if any(is_missing(row) or (getattr(row, "ndim", 0) or 0) >= 1 for row in X):  # each is judged by itself
            return list(X)
        raise ValueError(
            f"Got X as a list with rows of different lengths ({_lengths(X)}); expected rows of the same length, or a "
            "list of paths, texts, images or arrays. Sounds: X=[numpy.asarray(row) for row in X]."
        ) from error
    return as_array(found, "X")


def unwrap(X: Any) -> "np.ndarray | list[Any]":
    """Turn rows that stand alone into a list, and everything else into an array.

    Parameters
    ----------
    X : array-like
        Array, list, Series or table.

    Returns
    -------
    ndarray or list
        A list of objects, where some stand alone or all are missing, or an array of anything else.

    Raises
    ------
    ValueError
        As from `as_rows`, and of dates.
    """
    X = as_rows(X)
    if isinstance(X, list):
        return X
    X = as_array(X, "X")
    if X.ndim == 1 or (X.ndim == 2 and X.shape[1] == 1):
        column = X.ravel()
        objects = X.dtype.kind in "OUST"
        if objects and (X.ndim == 1 or any(stands_alone(row) or getattr(row, "ndim", 0) for row in column)):
            return list(column)
        if _all_missing(column):
            return column.tolist() if X.dtype.kind == "f" else list(column)
    if X.dtype.kind in "mM":
        raise ValueError(
            f"Got X of type {X.dtype}; expected numbers, or samples: pictures, texts, sounds or their paths. Turn "
            "dates into numbers first."
        )
    return X


def columns_are_mixed(rows: np.ndarray) -> bool:
    """Tell whether a table holds paths, texts or dates beside, or instead of, numbers, by its first row.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_columns)
        Of any type.

    Returns
    -------
    bool
        Whether it does.
    """
    if rows.dtype.kind not in "OUST":
        return False
    kinds = {kind for kind in set(map(type, rows[0])) if not issubclass(kind, Number)}
    dates = any(kind.__module__.partition(".")[0] == "datetime" or hasattr(kind, "isoformat") for kind in kinds)
    return dates or (bool(kinds) and any(map(stands_alone, rows[0])))


def _all_missing(column: np.ndarray) -> bool:
    if not len(column) or not is_missing(column[0]):
        return False
    if column.dtype.kind == "f":
        return bool(np.isnan(column).all())
    return all(map(is_missing, column))


def _of_arrays(X: "list[Any] | tuple[Any, ...]") -> tuple[list[Any], bool]:
    """Turn rows that are tensors or masked arrays into arrays; tell whether that was possible for all."""
    rows, errors = list(X), []
    for number, row in enumerate(rows):
        if isinstance(row, torch.Tensor | np.ma.MaskedArray):
            try:
                rows[number] = as_array(row, f"X[{number}]")
            except ValueError as error:
                errors.append(error)
    if len(errors) == len(rows):
        raise errors[0]
    return rows, not errors


def _differ(X: "list[Any] | tuple[Any, ...]") -> bool:
    """Tell whether rows are arrays of different lengths, which cannot be joined into one array."""
    return all(hasattr(row, "shape") for row in X) and len({tuple(row.shape) for row in X}) > 1


def _lengths(X: "list[Any] | tuple[Any, ...]") -> str:
    lengths = [len(row) if hasattr(row, "__len__") else "a number" for row in X]
    other = next((row for row, length in enumerate(lengths) if length != lengths[0]), None)
    return "within a row" if other is None else f"row 0: {lengths[0]}, row {other}: {lengths[other]}"
