"""Find the axis of an array that holds the channels, and their number.

Networks of 1 or 3 channels take grey, colours, and colours with transparency; others take what they were made for, or
what their first layer is adapted to.
"""

import warnings
from collections.abc import Sequence
from numbers import Integral

import numpy as np
import torch

from sktransfer._messages import shown

# The most channels of an image.
MOST_CHANNELS = 64

# What grey, colours, and colours with transparency have: networks of 1 or 3 channels take all of them.
USUAL = (1, 3, 4)

# What says how many channels images have to have.
NETWORK, PARAMETER, FIT = "the network takes", "n_channels, or the first image, says", "in fit"


def check_n_channels(n_channels: object) -> int:
    """Raise if this is not a number of channels.

    Parameters
    ----------
    n_channels : object
        As a person gave it, or as a file holds it.

    Returns
    -------
    int
        The same.

    Raises
    ------
    ValueError
        If it is not.
    """
    whole = isinstance(n_channels, Integral) and not isinstance(n_channels, bool)
    if not whole or not 1 <= int(n_channels) <= MOST_CHANNELS:  # type: ignore[call-overload]
        raise ValueError(
            f"Got n_channels={shown(n_channels)}; expected a whole number from 1 to {MOST_CHANNELS}, the channels of "
            "each image."
        )
    return int(n_channels)  # type: ignore[call-overload]


def check_image_shape(image_shape: Sequence[int]) -> tuple[int, ...]:
    """Raise if this is not the shape of an image.

    Parameters
    ----------
    image_shape : sequence of int
        As the estimators take it.

    Returns
    -------
    tuple of int
        (height, width) or (height, width, channels).

    Raises
    ------
    ValueError
        If it is not.
    """
    shape = tuple(image_shape)
    whole = all(isinstance(side, Integral) and side > 0 for side in shape)
    if not whole or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] > MOST_CHANNELS):
        raise ValueError(
            f"Got image_shape={shown(shape)}; expected (height, width) or (height, width, channels) with 1 to "
            f"{MOST_CHANNELS} channels."
        )
    return shape


def shape_rows(X: np.ndarray, image_shape: Sequence[int] | None, channels: int) -> np.ndarray:
    """Read flat rows as images.

    Parameters
    ----------
    X : ndarray of shape (n, n_values)
        Rows.
    image_shape : sequence of int or None
        As the estimators take it.
    channels : int
        How many the network takes.

    Returns
    -------
    ndarray of shape (n, height, width, channels)
        Images.

    Raises
    ------
    ValueError
        If the shape is not known, does not fit the rows, or has other channels than the network takes.
    """
    if image_shape is None:
        raise ValueError(
            f"Got flat rows of {X.shape[1]} values; expected images. Say how to read the rows: "
            "image_shape=(height, width) or (height, width, channels)."
        )
    shape = check_image_shape(image_shape)
    if X.shape[1] != np.prod(shape):
        raise ValueError(
            f"Got rows of {X.shape[1]} values that do not fit image_shape={shape}, which needs {np.prod(shape)}. "
            "Correct image_shape, or the rows."
        )
    images = channels_last(X.reshape(len(X), *(shape if len(shape) == 3 else (*shape, 1))), channels)
    if images is None or images.shape[1:3] != shape[:2]:
        raise ValueError(f"Got image_shape={shape}; expected {wanted_channels(channels)}.")
    return images


def channels_last(X: np.ndarray, channels: int) -> np.ndarray | None:
    """Find the channels of images, and make them the last axis, without a copy.

    Parameters
    ----------
    X : ndarray of shape (n, height, width), (n, height, width, channels) or (n, channels, height, width)
        Where both the last and the second axis may be channels, it is the second only where that alone has as many
        as the network takes.
    channels : int
        How many the network takes.

    Returns
    -------
    ndarray of shape (n, height, width, channels) or None
        `None` where X is none of them.
    """
    taken = _taken(channels)
    if 0 in X.shape:
        return None
    if X.ndim == 3:
        return X[..., None] if 1 in taken else None
    if X.ndim != 4:
        return None
    if X.shape[-1] in taken and not (X.shape[1] == channels != X.shape[-1]):
        return X
    return X.transpose(0, 2, 3, 1) if X.shape[1] in taken else None


def wanted_channels(channels: int, why: str = NETWORK) -> str:
    """Say which counts of channels arrays may have.

    Parameters
    ----------
    channels : int
        How many the network takes.
    why : str, default="the network takes"
        What says so.

    Returns
    -------
    str
        For messages.
    """
    if channels in (1, 3):
        return "1, 3 or 4 channels"
    return f"{channels} channels, as {why}"


def _taken(channels: int) -> tuple[int, ...]:
    return USUAL if channels in (1, 3) else (channels,)


def wanted_shapes(channels: int, why: str, rows: str = "") -> str:
    """Say which shapes arrays may have, and what to do about others.

    Parameters
    ----------
    channels : int
        How many the network takes.
    why : str
        What says so.
    rows : str, default=""
        What stands in front of the sides of one image: "n, ", or nothing.

    Returns
    -------
    str
        The end of a message.
    """
    grey = f"({rows}height, width), " if channels in (1, 3) else ""
    advice = "Move the axes, or leave channels out" if why == NETWORK else f"Give images of {channels}, or fit again"
    return (
        f"{grey}({rows}height, width, channels) or ({rows}channels, height, width), with "
        f"{wanted_channels(channels, why)}. {advice}."
    )


def warn_of_transparency(arrays: list[np.ndarray], channels: int) -> None:
    """Warn, once, if a fourth channel of arrays is to be dropped.

    Parameters
    ----------
    arrays : list of ndarray of shape (..., channels)
        All of them.
    channels : int
        How many the network takes.
    """
    if channels in (1, 3) and any(array.shape[-1] == 4 for array in arrays):
        warnings.warn(
            f"Got arrays of 4 channels, but the network takes {channels}: the fourth is treated as transparency and "
            "dropped. If it is something else, such as near infrared, set n_channels=4, or use a network whose first "
            "layer takes 4 channels. If it is transparency, remove it: X[..., :3].",
            UserWarning,
            stacklevel=2,
        )


def to_channels(image: torch.Tensor, channels: int) -> torch.Tensor:
    """Turn a float image into the channels that a network takes.

    Parameters
    ----------
    image : float Tensor of shape (1, 3, 4 or channels, height, width)
        Grey, colours, colours with transparency, or what the network takes.
    channels : int
        How many the network takes.

    Returns
    -------
    float Tensor of shape (channels, height, width)
        Transparency that is not asked for is dropped.
    """
    from torchvision.transforms.functional import rgb_to_grayscale

    if image.shape[0] == channels:
        return image
    if channels == 1:
        return rgb_to_grayscale(image[:3])
    return image.expand(3, -1, -1).contiguous() if image.shape[0] == 1 else image[:3]
