"""Which values of an array stand for black and white: said by a person, learned once, or told by the type alone.

What is learned holds for all later arrays, so that no image is read otherwise for what stands beside it.
"""

import math
import warnings
from collections.abc import Sequence

import numpy as np

Range = tuple[float, float]

# Integers that stay below this share of their type are more likely of another scale than a set of dark pictures.
_DARK = 1 / 8
_WHITES = {"bool": 1.0, "uint8": 255.0, "uint16": 65535.0}


def learn_range(arrays: list[np.ndarray], pixel_range: str | Sequence[float]) -> Range:
    """Learn from arrays what black and white are, or check them against what a person said.

    Parameters
    ----------
    arrays : list of ndarray
        All of them.
    pixel_range : "auto" or tuple of float
        As the estimators take it.

    Returns
    -------
    tuple of float
        Black and white.

    Raises
    ------
    ValueError
        If the values are far from what was said, or span more than a float holds.
    """
    low, high = _span(arrays)
    if not isinstance(pixel_range, str):
        black, white = map(float, pixel_range)
        check_range(arrays, (black, white), pixel_range)
        return black, white
    kind = np.result_type(*{array.dtype for array in arrays})
    if kind.kind == "b":
        return 0.0, 1.0
    if kind == np.uint8 or (kind == np.uint16 and high > 255):
        white = float(np.iinfo(kind).max)
        if high < white * _DARK:
            _warn(low, high, f"{kind} is read as 0 to {white:g}, which makes these images almost black")
        return 0.0, white
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    if low >= 0 and 128 <= high <= 255:
        return 0.0, 255.0
    if not math.isfinite(high - low):
        raise ValueError(
            f"Got image values from {low:g} to {high:g}, a span that no float holds; expected 0 to 1 or 0 to 255. "
            "Scale them so, and say what black and white are: pixel_range=(low, high)."
        )
    _warn(low, high, "they are read as black and white")
    return (low, high) if high > low else (low, low + max(1.0, abs(low)))


def range_of_types(arrays: list[np.ndarray], pixel_range: str | Sequence[float]) -> Range:
    """Say what black and white are of arrays that come after a fit that saw none, by their types alone.

    Parameters
    ----------
    arrays, pixel_range : object
        As in `learn_range`.

    Returns
    -------
    tuple of float
        Black and white.

    Raises
    ------
    ValueError
        If the types do not tell, or tell different things.
    """
    if not isinstance(pixel_range, str):
        return learn_range(arrays, pixel_range)
    ranges = {_range_of_type(array) for array in arrays}
    (found,) = ranges if len(ranges) == 1 else (None,)
    if found is None:
        types = ", ".join(sorted({str(array.dtype) for array in arrays}))
        low, high = _span(arrays)
        raise ValueError(
            f"Got arrays of {types} with values from {low:g} to {high:g}, after a fit that saw none; expected all of "
            "uint8, all of uint16, or all within 0 to 1. Scale them so, or say what black and white are: "
            "pixel_range=(low, high)."
        )
    return found


def check_range(arrays: list[np.ndarray], known: Range, pixel_range: str | Sequence[float]) -> None:
    """Raise, or warn, if arrays are of another scale than what is known.

    Parameters
    ----------
    arrays : list of ndarray
        All of them.
    known : tuple of float
        Black and white.
    pixel_range : "auto" or tuple of float
        Where that is known from.

    Raises
    ------
    ValueError
        If values lie further from it than it is wide.
    """
    (least, most), (low, high) = _span(arrays), known
    got = (
        f"Got image values from {least:g} to {most:g}; expected about {low:g} to {high:g}, as "
        f"{'in fit' if isinstance(pixel_range, str) else 'pixel_range says'}."
    )
    if least < low - (high - low) or most > high + (high - low):
        raise ValueError(f"{got} Scale them so, or say what black and white are: pixel_range=(low, high).")
    if high >= 128 and least >= 0 and 0 < most <= 1:
        warnings.warn(f"{got} They become almost black: scale them so.", UserWarning, stacklevel=2)


def _warn(low: float, high: float, reading: str) -> None:
    warnings.warn(
        f"Got image values from {low:g} to {high:g}; expected 0 to 1, 0 to 255, or 0 to 65535 of 16 bits. With "
        f"pixel_range='auto' {reading}. Say what black and white are: pixel_range=(low, high).",
        UserWarning,
        stacklevel=2,
    )


def _span(arrays: list[np.ndarray]) -> Range:
    return min(float(array.min()) for array in arrays), max(float(array.max()) for array in arrays)


def _range_of_type(array: np.ndarray) -> Range | None:
    if array.dtype.name in _WHITES:
        return 0.0, _WHITES[array.dtype.name]
    low, high = _span([array])
    return (0.0, 1.0) if array.dtype.kind == "f" and low >= 0 and high <= 1 else None
