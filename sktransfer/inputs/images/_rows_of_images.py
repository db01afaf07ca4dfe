"""Check the rows of X as images before anything is read: paths, files, images and arrays."""

from typing import Any

import numpy as np
from PIL import Image
from sklearn.utils import check_array

from sktransfer._messages import shown
from sktransfer.inputs._base import UnreadableSampleError
from sktransfer.inputs._containers import stands_alone
from sktransfer.inputs._encoded_files import is_cell
from sktransfer.inputs._files_of_rows import FilesOfRows, without_missing_files
from sktransfer.inputs._refusals import as_array
from sktransfer.inputs.images._shapes import NETWORK, channels_last, wanted_shapes


def check_list(images: list[Any], tolerant: bool, channels: int, why: str = NETWORK) -> list[Any]:
    """Check the rows of a list; where that is tolerated, errors stand in for those that hold no image.

    Parameters
    ----------
    images : list
        Paths, files, pictures and arrays.
    tolerant : bool
        Whether that is tolerated.
    channels : int
        How many the network takes.
    why : str, default="the network takes"
        What says so.

    Returns
    -------
    list
        Paths as str, other files, pictures as they are, arrays of shape (height, width, channels).

    Raises
    ------
    ValueError
        If a row holds no image.
    FileNotFoundError
        If paths lead to no file.
    """
    check, files = _row_or_error if tolerant else _check_row, FilesOfRows()
    return without_missing_files(
        [check(image, row, channels, why, files) for row, image in enumerate(images)], "an image", tolerant
    )


def _row_or_error(image: Any, row: int, channels: int, why: str, files: FilesOfRows) -> Any:
    try:
        return _check_row(image, row, channels, why, files)
    except ValueError as error:
        return UnreadableSampleError(str(error))


def finite_or_errors(images: np.ndarray) -> "np.ndarray | list[Any]":
    """Let errors stand in for images that hold NaN or infinity, if there are any.

    Parameters
    ----------
    images : ndarray of shape (n, height, width, channels)
        Images.

    Returns
    -------
    ndarray or list
        The same, or a list with errors among its images.
    """
    finite = [images.dtype.kind != "f" or bool(np.isfinite(image).all()) for image in images]
    if all(finite):
        return images
    message = "Got X[{}], which contains NaN or infinity; expected numbers. Correct it, or leave its row out."
    return [
        image if good else UnreadableSampleError(message.format(row))
        for row, (image, good) in enumerate(zip(images, finite, strict=True))
    ]


def _check_row(image: Any, row: int, channels: int, why: str, files: FilesOfRows) -> Any:
    """Return a path as str, another file as such, a picture as it is, an array as (height, width, channels)."""
    if isinstance(image, Image.Image):
        return image
    if (file := files.of(image, f"X[{row}]")) is not None:
        return file
    if not stands_alone(image) or is_cell(image):
        raise ValueError(
            f"Got X[{row}] = {shown(image)}; expected a path, a PIL image or an array of shape (height, width) "
            "or (height, width, channels), or a file as bytes. Leave out rows without an image."
        )
    image = as_array(image, f"X[{row}]")
    array = check_array(image, dtype="numeric", allow_nd=True, ensure_2d=False, input_name=f"X[{row}]")
    images = channels_last(array[None], channels)
    if images is None:
        raise ValueError(f"Got X[{row}] of shape {array.shape}; expected {wanted_shapes(channels, why)}")
    return images[0]
