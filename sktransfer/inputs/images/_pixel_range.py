"""Find the values that stand for black and white: given, learned once, or known from the type.

What is learned holds for all later images, so that none is read otherwise for what stands beside it. Arrays, and
pictures of more than 8 bits, follow the same rules; pictures of 8 bits say themselves what white is.
"""

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from sktransfer._process._files import file_stamp
from sktransfer.inputs._base import UnreadableSampleError, each
from sktransfer.inputs._encoded_files import EncodedFile
from sktransfer.inputs.images._decoding import decode, opened_by, row_name
from sktransfer.inputs.images._deep_pictures import deep_file, is_deep
from sktransfer.inputs.images._shapes import USUAL

Range = tuple[float, float]

# Integers that stay below this share of their type are more likely of another scale than a set of dark pictures.
_DARK = 1 / 8
_WHITES = {"bool": 1.0, "uint8": 255.0, "uint16": 65535.0}

# Values of files that were read, by what changes when a file does: a search fits many times.
_FILES_SEEN: dict[object, "Values"] = {}
_MOST_FILES = 2**16


class Values(NamedTuple):
    """Values of an image.

    Parameters
    ----------
    kind : numpy.dtype
        Their type, whatever the order of its bytes.
    low, high : float
        The least and the greatest.
    """

    kind: np.dtype[Any]
    low: float
    high: float

    @classmethod
    def of(cls, array: np.ndarray) -> "Values":
        """Look at an array.

        Parameters
        ----------
        array : ndarray
            Of one value or more.

        Returns
        -------
        Values
            What it holds.
        """
        return cls(array.dtype.newbyteorder("="), float(array.min()), float(array.max()))


def learn_range(values: Sequence[Values], pixel_range: str | Sequence[float], bands: bool = False) -> Range:
    """Learn from images what black and white are, or check them against what a person said.

    Parameters
    ----------
    values : sequence of Values
        Those of all images.
    pixel_range : "auto" or tuple of float
        As the estimators take it.
    bands : bool, default=False
        Whether they are measurements of several bands: of 16 bits, such as reflectances up to 10,000, few are as large
        as their type allows.

    Returns
    -------
    tuple of float
        Black and white.

    Raises
    ------
    ValueError
        If the values are far from what was said, or span more than a float holds.
    """
    low, high = _span(values)
    if not isinstance(pixel_range, str):
        black, white = map(float, pixel_range)
        check_range(values, (black, white), pixel_range)
        return black, white
    kind = np.result_type(*{image.kind for image in values})
    if kind.kind == "b":
        return 0.0, 1.0
    if kind == np.uint8 or (kind == np.uint16 and high > 255 and not (bands and high < 32768)):
        white = float(np.iinfo(kind).max)
        if high < white * _DARK:
            _warn(low, high, f"{kind} is read as 0 to {white:g}, which makes these images almost black")
        return 0.0, white
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    if low >= 0 and 128 <= high <= 255:
        return 0.0, 255.0
    if low >= 0 and 32768 <= high <= 65535:  # 16 bits in a wider type
        return 0.0, 65535.0
    if not math.isfinite(high - low):
        raise ValueError(
            f"Got image values from {low:g} to {high:g}, a range too large for floats; expected 0 to 1 or 0 to 255. "
            "Scale them, and give the values of black and white: pixel_range=(low, high)."
        )
    _warn(low, high, "they are read as black and white")
    return (low, high) if high > low else (low, low + max(1.0, abs(low)))


def range_of_types(values: Sequence[Values], pixel_range: str | Sequence[float]) -> Range:
    """Say what black and white are of images that come after a fit that saw none such, by their types alone.

    Parameters
    ----------
    values, pixel_range : object
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
        return learn_range(values, pixel_range)
    ranges = {_range_of_type(image) for image in values}
    (found,) = ranges if len(ranges) == 1 else (None,)
    if found is None:
        types = ", ".join(sorted({str(image.kind) for image in values}))
        low, high = _span(values)
        raise ValueError(
            f"Got images of {types} with values from {low:g} to {high:g}, which fit did not see; expected "
            "all of uint8, all of uint16, or all within 0 to 1. Scale them, or give the values of black and white: "
            "pixel_range=(low, high)."
        )
    return found


def check_range(values: Sequence[Values], known: Range, pixel_range: str | Sequence[float]) -> None:
    """Raise, or warn, if images are of another scale than what is known.

    Parameters
    ----------
    values : sequence of Values
        Those of all images.
    known : tuple of float
        Black and white.
    pixel_range : "auto" or tuple of float
        Where that is known from.

    Raises
    ------
    ValueError
        If values lie further from it than it is wide.
    """
    (least, most), (low, high) = _span(values), known
    got = (
        f"Got image values from {least:g} to {most:g}; expected about {low:g} to {high:g}, as "
        f"{'in fit' if isinstance(pixel_range, str) else 'pixel_range says'}."
    )
    if least < low - (high - low) or most > high + (high - low):
        raise ValueError(f"{got} Scale them, or give the values of black and white: pixel_range=(low, high).")
    if _looks_black(values, known):
        warnings.warn(f"{got} They become almost black. Scale them.", UserWarning, stacklevel=2)


def _looks_black(values: Sequence[Values], known: Range) -> bool:
    least, most = _span(values)
    return known[1] >= 128 and least >= 0 and 0 < most <= 1


def _warn(low: float, high: float, reading: str) -> None:
    warnings.warn(
        f"Got image values from {low:g} to {high:g}; expected 0 to 1, 0 to 255, or 0 to 65535 of 16 bits. With "
        f"pixel_range='auto' {reading}. Give the values of black and white: pixel_range=(low, high).",
        UserWarning,
        stacklevel=2,
    )


def _span(values: Sequence[Values]) -> Range:
    return min(image.low for image in values), max(image.high for image in values)


def _range_of_type(image: Values) -> Range | None:
    if image.kind.name in _WHITES:
        return 0.0, _WHITES[image.kind.name]
    return (0.0, 1.0) if image.kind.kind == "f" and image.low >= 0 and image.high <= 1 else None


class PictureScale:
    """How the values of pictures of more than 8 bits are read.

    Parameters
    ----------
    known : tuple of float or None
        Black and white, if they are known; else the type of each picture tells.
    pixel_range : "auto" or tuple of float
        Where they are known from. What a person said is about the values in files, whatever these state as white.
    in_fit : bool
        Whether `fit` saw such pictures: else all samples are of 8 bits.
    """

    def __init__(self, known: Range | None, pixel_range: str | Sequence[float], in_fit: bool):
        self.known = known
        self.pixel_range = pixel_range
        self.in_fit = in_fit
        self._warned = False

    @property
    def stored(self) -> Range | None:
        """Black and white where a person says them: then the values are to be those that files hold."""
        return None if isinstance(self.pixel_range, str) else (float(self.pixel_range[0]), float(self.pixel_range[1]))

    @property
    def recipe(self) -> str:
        """What differs where the reading does."""
        return f"{self.known} {self.stored is not None} {self.in_fit}"

    def of(self, pixels: np.ndarray, name: str) -> Range:
        """Say what black and white are of one picture, and check it.

        Parameters
        ----------
        pixels : ndarray
            Its values.
        name : str
            What to call it in messages.

        Returns
        -------
        tuple of float
            Black and white.

        Raises
        ------
        UnreadableSampleError
            If its values are far from what is known, or nothing tells what they mean.
        """
        values = [Values.of(pixels)]
        try:
            if self.known is None:
                return range_of_types(values, "auto")
            if not _looks_black(values, self.known):
                check_range(values, self.known, self.pixel_range)
            elif not self._warned:
                self._warned = True
                check_range(values, self.known, self.pixel_range)
        except ValueError as error:
            raise UnreadableSampleError(f"{error} The picture: {name}.") from error
        return self.known


def learn_pictures(
    images: Iterable[Any], pixel_range: str | Sequence[float], channels: int, tolerant: bool = False
) -> tuple[bool, Range | None]:
    """Learn from pictures of more than 8 bits what black and white are.

    They are decoded for it, but only where a person does not say it, and no more of them than it takes.

    Parameters
    ----------
    images : iterable
        Rows of X: paths, pictures and whatever else.
    pixel_range : "auto" or tuple of float
        As the estimators take it.
    channels : int
        How many the network takes.
    tolerant : bool, default=False
        Whether to pass over what cannot be read.

    Returns
    -------
    bool
        Whether there are such pictures.
    tuple of float or None
        Black and white, if there are.

    Raises
    ------
    UnreadableSampleError
        If one cannot be decoded, and that is not tolerated.
    """
    rows = list(enumerate(images))
    far = any(isinstance(image, EncodedFile) and image.is_far for _, image in rows)
    kinds = each(lambda row: _deep(row[1], row[0]), rows, far)
    deep = [(row, image, kind) for (row, image), kind in zip(rows, kinds, strict=True) if kind is not None]
    if not deep:
        return False, None
    if not isinstance(pixel_range, str):
        return True, (float(pixel_range[0]), float(pixel_range[1]))
    of_16_bits, bands = all(kind == np.uint16 for _, _, kind in deep), channels not in USUAL
    found = []
    for row, image, _ in deep:
        try:
            values = _values(image, row, channels)
        except UnreadableSampleError:
            if not tolerant:
                raise
            continue
        if values is None:  # of 8 bits after all
            continue
        found.append(values)
        if of_16_bits and values.kind == np.uint16 and values.high >= (32768 if bands else 65535 * _DARK):
            return True, (0.0, 65535.0)  # whatever the others hold
    return True, learn_range(found, pixel_range, bands) if found else None


def _deep(image: Any, row: int) -> np.dtype[Any] | None:
    if isinstance(image, str):
        return deep_file(image, lambda: image)
    if isinstance(image, EncodedFile):
        return deep_file(image.path or "", lambda: image.read(row))
    if isinstance(image, Image.Image) and is_deep(image):
        return np.dtype(np.uint16 if image.mode.startswith("I;16") else np.float32)
    return None


def _values(image: Any, row: int, channels: int) -> Values | None:
    stamp: object = file_stamp(image) if isinstance(image, str) else None
    if isinstance(image, EncodedFile):
        stamp = image.digest(row)
    if (stamp, channels) in _FILES_SEEN:
        return _FILES_SEEN[stamp, channels]
    pixels = decode(opened_by(image, row), row_name(image, row), channels)
    if isinstance(pixels, Image.Image) or pixels.dtype == np.uint8:
        return None
    values = Values.of(pixels)
    if stamp is not None:
        if len(_FILES_SEEN) >= _MOST_FILES:
            _FILES_SEEN.clear()
        _FILES_SEEN[stamp, channels] = values
    return values
