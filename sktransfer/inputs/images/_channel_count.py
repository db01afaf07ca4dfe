"""Count the channels of the images in `fit`, to adapt a network to them.

Every network for images takes grey, colours and colours with transparency, so only other numbers of channels are
reported. No axis is guessed: if a shape could be read in two ways, the user has to say which.
"""

import os
import warnings
from collections.abc import Sequence
from typing import Any

from PIL import Image

from sktransfer.inputs._encoded_files import EncodedFile, can_seek, is_file, is_open
from sktransfer.inputs._files_of_rows import FilesOfRows
from sktransfer.inputs.images._decoding import header_of, row_name
from sktransfer.inputs.images._shapes import MOST_CHANNELS, USUAL
from sktransfer.inputs.images._tiff_header import TiffHeader

# Files that are looked at, of a list of files, until one tells.
_LOOKED_AT = 8


def channels_of(X: Any, channels: int, image_shape: Sequence[int] | None = None) -> int:
    """Tell how many channels a network has to take for some images.

    Parameters
    ----------
    X : ndarray or list
        Images as the reader takes them: an array, flat rows, or a list of arrays, pictures and files.
    channels : int
        How many the network takes.
    image_shape : sequence of int or None, default=None
        How flat rows are read.

    Returns
    -------
    int
        Those of the images, if the network takes pictures and they are none; else those that it takes.

    Raises
    ------
    ValueError
        If a shape does not tell which axis holds the channels.
    """
    if channels not in (1, 3):  # a network that was made for others
        return channels
    if isinstance(X, list):
        return _of_list(X, channels) or channels
    if X.ndim == 2:
        found = image_shape[2] if image_shape is not None and len(image_shape) == 3 else None
        return channels if found is None or found in USUAL else int(found)
    return _of_shape(X.shape[1:], "X", X.shape, channels) or channels


def _of_list(rows: list[Any], channels: int) -> int | None:
    """Tell it by the first array of a list, else by its first files."""
    for row, image in enumerate(rows):
        shape = () if _is_encoded(image) else tuple(getattr(image, "shape", ()))
        if len(shape) in (2, 3):
            return _of_shape(shape, f"X[{row}]", shape, channels)
    files = FilesOfRows()
    for row, image in enumerate(rows[:_LOOKED_AT]):
        file = _at_hand(image, files)
        if file is not None and (header := header_of(file, row)) is not None:
            return _of_header(header, file, row)
    return None


def _at_hand(image: Any, files: FilesOfRows) -> "str | EncodedFile | None":
    """Return the file of a row, where it can be looked at: what cannot seek is read but once, and a pipe keeps waiting.

    Those who have files that are far say n_channels, as it takes its time to fetch them.
    """
    if isinstance(image, Image.Image):
        return None
    try:
        if is_open(image) and not can_seek(image):
            return None
        file = files.of(image, "X")
    except ValueError:  # said when it is read
        return None
    if isinstance(file, str):
        return file if os.path.isfile(file) else None
    return None if file is None or file.is_far else file


def _of_header(header: TiffHeader, file: "str | EncodedFile", row: int) -> int | None:
    if header.has_transparency and header.n_samples <= 4:
        return None
    if header.drops and (header.are_colours or header.n_samples == 2):
        _warn(f"{row_name(file, row)}, a TIFF of {header.n_samples} bands", "the last is dropped", header.n_samples)
    elif header.n_samples == 1 and 1 < header.n_pages <= MOST_CHANNELS:
        _warn(f"{row_name(file, row)}, a TIFF of {header.n_pages} pages", "only the first is read", header.n_pages)
    elif 1 < header.n_samples <= 4 and header.n_pages > 1 and not header.drops:
        many = f"{header.n_pages} or more" if header.n_pages > MOST_CHANNELS else header.n_pages
        warnings.warn(
            f"Got {row_name(file, row)}, a TIFF of {many} pages of colours; expected one page: only the first is read. "
            "If the others are samples too, save each page as a file; if not, say n_channels=3, which stops this "
            "warning.",
            UserWarning,
            stacklevel=2,
        )
    elif header.n_samples not in USUAL or header.drops:
        return header.n_samples
    return None


def _warn(got: str, what: str, count: int) -> None:
    warnings.warn(
        f"Got {got}; expected grey or colours: {what}. If all of them are channels, set n_channels={count}. If not, "
        "set n_channels=3, which stops this warning.",
        UserWarning,
        stacklevel=2,
    )


def _is_encoded(image: Any) -> bool:
    return isinstance(image, Image.Image | EncodedFile) or is_file(image)


def _of_shape(sides: tuple[int, ...], name: str, shape: tuple[int, ...], channels: int) -> int | None:
    """Tell channels by the shape of one image; `None` for those of pictures, and where there are none."""
    if len(sides) != 3 or 0 in sides:
        return None
    readings = [(sides[0], sides[1:]), (sides[2], sides[:2])]
    usual = [reading for reading in readings if reading[0] in USUAL]
    if usual:
        # A line of a network for grey has one channel; to others, a patch of 3 x 3 x 13 is not a picture 3 high.
        plain = len(usual) == 2 or usual[0][0] == channels == 1
        if plain or _is_square(usual[0]) or not all(_is_square(one) for one in readings if one not in usual):
            return None
        raise _unclear(sides, name, shape)
    possible = [reading for reading in readings if 2 <= reading[0] <= MOST_CHANNELS]
    if not possible:
        raise ValueError(
            f"Got {name} of shape {shape}; expected images with 1 to {MOST_CHANNELS} channels, on the first or last "
            "axis. Move the axes, or leave channels out."
        )
    few = [count for count, around in possible if 2 * count <= min(around)]
    if len(possible) == 1:
        # What is read as other channels than it has is as long as they are many, such as patches of 9 x 9 x 200.
        ((count, _),) = possible
        if few or _stretch(possible[0]) <= min(_stretch(one) for one in readings if one not in possible):
            return count
        raise _unclear(sides, name, shape)
    for counts in ([reading[0] for reading in possible if _is_square(reading)], few):
        if len(counts) == 1:
            return counts[0]
    raise _unclear(sides, name, shape)


def _stretch(reading: tuple[int, tuple[int, ...]]) -> float:
    """Return how many times as long as wide an image would be."""
    return max(reading[1]) / min(reading[1])


def _is_square(reading: tuple[int, tuple[int, ...]]) -> bool:
    return _stretch(reading) == 1


def _unclear(sides: tuple[int, ...], name: str, shape: tuple[int, ...]) -> ValueError:
    return ValueError(
        f"Got {name} of shape {shape}, which does not tell whether it has {sides[0]} or {sides[2]} channels; expected "
        f"(height, width, channels) or (channels, height, width), with at most {MOST_CHANNELS} channels. Give "
        "n_channels=..."
    )
