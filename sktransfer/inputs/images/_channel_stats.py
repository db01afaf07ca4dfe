"""Mean and deviation of each channel: the network's own, learned in `fit`, or given.

What is learned depends on the images of `fit`, so folds of a search differ in it; what is given does not.
"""

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np

from sktransfer._messages import shown

# Images that are looked at where each has to be decoded for it.
MOST_DECODED = 256

# The least deviation, as a part of the span from black to white; a channel of less is taken for one that never changes.
_LEAST = 1e-6


def check_stats(channel_stats: Any) -> None:
    """Raise if these are not means and deviations of channels.

    Parameters
    ----------
    channel_stats : "auto" or sequence of two sequences of float
        As the estimators take it.

    Raises
    ------
    ValueError
        If they are not.
    """
    if isinstance(channel_stats, str):
        return
    try:
        means, deviations = (list(values) for values in channel_stats)
        whole = all(isinstance(value, Real) and math.isfinite(value) for value in (*means, *deviations))
    except (TypeError, ValueError, OverflowError):
        whole, means, deviations = False, [], []
    if not whole or not means or len(means) != len(deviations) or min(deviations) <= 0:
        raise ValueError(
            f'Got channel_stats={shown(channel_stats)}; expected "auto" or (means, deviations), each with a number per '
            "channel, in the units of X, and deviations above 0."
        )


def given_stats(
    channel_stats: Sequence[Sequence[float]], channels: int, span: tuple[float, float]
) -> dict[str, tuple[float, ...]]:
    """Return mean and deviation of values between 0 and 1, from those that a person gave in the units of X.

    Parameters
    ----------
    channel_stats : sequence of two sequences of float
        Means and deviations.
    channels : int
        How many there have to be.
    span : tuple of float
        Black and white, in the units of X.

    Returns
    -------
    dict
        `"mean"` and `"std"`, a tuple of float each.

    Raises
    ------
    ValueError
        If there are not as many, or a deviation is nothing beside the span.
    """
    means, deviations = channel_stats
    if len(means) != channels:
        raise ValueError(
            f"Got channel_stats of {len(means)} channels for images of {channels}; expected a mean and a deviation per "
            f"channel. Give {channels} of each."
        )
    low, high = span
    if min(deviations) < _LEAST * (high - low):
        raise ValueError(
            f"Got channel_stats with a deviation of {min(deviations):g} for values from {low:g} to {high:g}; expected "
            "at least a millionth of this span. Give means and deviations in the units of X, or give the values of "
            "black and white: pixel_range=(low, high)."
        )
    return {
        "mean": tuple((float(mean) - low) / (high - low) for mean in means),
        "std": tuple(float(deviation) / (high - low) for deviation in deviations),
    }


def learned_stats(
    images: Iterable[np.ndarray], mean: Sequence[float], std: Sequence[float], n_known: int, channels: int
) -> dict[str, tuple[float, ...]]:
    """Learn mean and deviation of the channels that a network does not know.

    Parameters
    ----------
    images : iterable of float ndarray of shape (height, width, channels)
        Values between 0 and 1, of any sizes.
    mean, std : sequence of float
        Of the network; one value stands for all channels.
    n_known : int
        How many of its channels, the first, the network knows.
    channels : int
        How many there are.

    Returns
    -------
    dict
        `"mean"` and `"std"`, a tuple of float each, rounded to six digits: the others depend on how X lies in memory.
        A channel that is the same everywhere has the deviation 1.
    """
    n_values, total, squares = 0, np.zeros(channels - n_known), np.zeros(channels - n_known)
    for image in images:
        values = image[..., n_known:].reshape(-1, channels - n_known).astype(np.float64)
        n_values += len(values)
        total += values.sum(axis=0)
        squares += (values * values).sum(axis=0)
    means = total / max(n_values, 1)
    deviations = np.sqrt((squares / max(n_values, 1) - means**2).clip(0.0))
    deviations[deviations < _LEAST] = 1.0

    def join(known: Sequence[float], found: np.ndarray) -> tuple[float, ...]:
        own = list(known) * n_known if len(known) == 1 else list(known)
        return (*own[:n_known], *(float(f"{value:.6g}") for value in found))

    return {"mean": join(mean, means), "std": join(std, deviations)}
