"""X as a list of samples that stand alone, or as an array: what can be said before anyone knows what they are."""

import os
from typing import Any

import numpy as np
from PIL import Image


def stands_alone(row: Any) -> bool:
    """Tell whether a row is a sample by itself: a path, a text, a picture or an array with two sides.

    Parameters
    ----------
    row : object
        One of X.

    Returns
    -------
    bool
        Whether it is.
    """
    return isinstance(row, str | bytes | os.PathLike | Image.Image) or getattr(row, "ndim", 0) >= 2


def unwrap(X: Any) -> "np.ndarray | list[Any]":
    """Turn rows that stand alone into a list, and everything else into an array.

    Parameters
    ----------
    X : array-like
        Array, list, Series or table.

    Returns
    -------
    ndarray or list
        A list of objects, some of which stand alone, or an array of anything else.
    """
    if isinstance(X, list | tuple) and (any(map(stands_alone, X)) or _differ(X)):
        return list(X)
    X = np.asarray(X)
    if X.dtype.kind in "OUST" and (
        X.ndim == 1 or (X.ndim == 2 and X.shape[1] == 1 and any(map(stands_alone, X[:, 0])))
    ):
        return list(X.ravel())
    return X


def _differ(X: "list[Any] | tuple[Any, ...]") -> bool:
    """Tell whether rows are arrays of different lengths, of which no array can be made."""
    return all(hasattr(row, "shape") for row in X) and len({tuple(row.shape) for row in X}) > 1


def is_table(X: Any) -> bool:
    """Tell whether X has columns, named or not.

    Parameters
    ----------
    X : array-like
        Anything.

    Returns
    -------
    bool
        Whether its shape has two sides.
    """
    if isinstance(X, list | tuple):
        rows = unwrap(X)
        return isinstance(rows, np.ndarray) and rows.ndim == 2
    return len(getattr(X, "shape", ())) == 2
