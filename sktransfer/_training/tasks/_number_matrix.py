"""Turn numbers to predict, as users give them, into an array of float64."""

from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
from scipy.sparse import issparse

from sktransfer._messages import shown
from sktransfer.inputs._containers import is_missing
from sktransfer.inputs._refusals import as_array, check_form

_WANTED = (
    "one number per sample, or several: an array, list, Series or DataFrame of shape (n_samples,) or (n_samples, "
    "n_outputs)"
)


def read_numbers(y: Any, name: str = "y") -> tuple[np.ndarray, bool]:
    """Return the numbers in y.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        Finite numbers.
    name : str, default="y"
        What it is called.

    Returns
    -------
    float64 ndarray of shape (n_samples, n_outputs)
        Its values.
    bool
        Whether it has one number per sample, without a column axis.

    Raises
    ------
    ValueError
        If y holds anything else.
    """
    if y is None:
        raise ValueError("This regressor requires y to be passed, but the target y is None.")
    if isinstance(y, str | bytes):
        raise ValueError(f"Got {name}={shown(y)}; expected {_WANTED}.")
    if issparse(y):
        raise ValueError(f"Got {name} as a sparse matrix; expected {_WANTED}. Give {name}.toarray().")
    if not isinstance(y, range):
        check_form(y, name, _WANTED)
    try:
        given = np.asarray(y) if isinstance(y, list | tuple | range) else y
    except ValueError as error:
        raise ValueError(f"Got {name} whose rows are of different lengths; expected {_WANTED}.") from error
    given = as_array(given, name)
    if given.ndim not in (1, 2) or (given.ndim == 2 and not given.shape[1]):
        raise ValueError(f"Got {name} of shape {given.shape}; expected {_WANTED}.")
    values = _as_float(given, name)
    strange = np.argwhere(~np.isfinite(values))
    if len(strange):
        place = ", ".join(map(str, strange[0]))
        value = values[tuple(strange[0])]
        what = "NaN" if np.isnan(value) else "infinity"
        more = f" ({len(strange)} are NaN or infinite.)" if len(strange) > 1 else ""
        raise ValueError(
            f"Input {name} contains {what}: got {name}[{place}] = {value}; expected a finite number for each sample. "
            f"Leave out rows without one.{more}"
        )
    return values.reshape(len(values), -1), values.ndim == 1


def _as_float(given: np.ndarray, name: str) -> np.ndarray:
    if given.dtype.kind in "biuf":
        return np.asarray(given, dtype=np.float64)
    if given.dtype.kind in "mM":
        raise ValueError(
            f"Got {name} of type {given.dtype}; expected {_WANTED}. Give times as numbers, such as days since "
            "the first."
        )
    for place, value in zip(np.ndindex(given.shape), given.ravel().tolist(), strict=True):
        got = f"{name}[{', '.join(map(str, place))}] = {shown(value)}"
        if is_missing(value):
            raise ValueError(
                f"Input {name} contains NaN: got {got}; expected a finite number for each sample. Leave out rows "
                "without one."
            )
        if not isinstance(value, Real | Decimal):
            raise ValueError(
                f"Got {got} of type {type(value).__name__}; expected {_WANTED}. To predict classes, use "
                "FineTunedClassifier."
            )
    try:
        return np.asarray(given, dtype=np.float64)
    except OverflowError as error:
        raise ValueError(
            f"Input {name} contains a number that float64 cannot hold; expected {_WANTED}. Give {name} in a larger "
            "unit."
        ) from error
