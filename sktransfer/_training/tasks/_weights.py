"""Turn sample weights, as users give them, into numbers, and compare lengths."""

from numbers import Number
from typing import Any

import numpy as np
from sklearn.utils import check_array


def read_weights(sample_weight: Any, n_samples: int) -> np.ndarray:
    """Return the weight of each sample, with 1 as the largest.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,), float or None
        As `fit` takes it.
    n_samples : int
        How many samples there are.

    Returns
    -------
    float64 ndarray of shape (n_samples,)
        Not negative; all 0 if all that were given are.

    Raises
    ------
    ValueError
        If a weight is negative, NaN or infinite, or there is not one for each sample.
    """
    if sample_weight is None:
        return np.ones(n_samples)
    if isinstance(sample_weight, Number):
        sample_weight = np.full(n_samples, sample_weight)
    weights = check_array(sample_weight, dtype=np.float64, ensure_2d=False, copy=True, input_name="sample_weight")
    if weights.shape != (n_samples,):
        raise ValueError(
            f"Got sample_weight.shape={weights.shape}; expected one weight for each of {n_samples} samples."
        )
    if (weights < 0).any():
        raise ValueError(f"Got negative sample_weight={weights.min():g}; expected weights of at least 0.")
    return np.asarray(weights / (weights.max() or 1.0))


def refuse_no_weight(weights: np.ndarray, with_what: str = "") -> None:
    """Raise if nothing has a weight.

    Parameters
    ----------
    weights : ndarray
        Of samples.
    with_what : str, default=""
        Another reason beside the weights of samples, to follow the word.

    Raises
    ------
    ValueError
        If all are 0.
    """
    if not weights.any():
        raise ValueError(
            f"Got sample weights{with_what} that are all zero, so their sum is 0; expected at least one positive "
            "weight."
        )


def check_lengths(n_samples: int | None, n_targets: int, X: str = "X", y: str = "y") -> None:
    """Raise unless each sample has a target.

    Parameters
    ----------
    n_samples : int or None
        Samples in X, where that is known.
    n_targets : int
        Rows of y.
    X, y : str, default="X" and "y"
        What they are called.

    Raises
    ------
    ValueError
        If there are more or fewer.
    """
    if n_samples is not None and n_samples != n_targets:
        raise ValueError(
            f"Got inconsistent numbers of samples: {n_samples} in {X} and {n_targets} in {y}; expected as many in {y} "
            f"as in {X}."
        )
