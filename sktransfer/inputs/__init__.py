"""What a sample is. Each modality is one file; this one chooses among them by looking at X."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import issparse

from sktransfer.inputs._augmentation import Augmentation, augment_batch, make_augmentation
from sktransfer.inputs._base import Reader, Samples, SamplesOf, TolerantSamples, load_batch, load_batches
from sktransfer.inputs._image_folder import load_image_folder
from sktransfer.inputs._image_preprocessing import ImagePreprocessing
from sktransfer.inputs._images import ImageReader, check_image_shape, unwrap
from sktransfer.inputs._vectors import VectorReader

__all__ = [
    "Augmentation",
    "ImagePreprocessing",
    "Reader",
    "Samples",
    "SamplesOf",
    "TolerantSamples",
    "augment_batch",
    "check_image_shape",
    "is_table",
    "load_batch",
    "load_batches",
    "load_image_folder",
    "make_augmentation",
    "make_reader",
    "modality",
    "restore_reader",
]


def modality(X: Any, image_shape: Any = None) -> str:
    """Tell by its look what X holds.

    Parameters
    ----------
    X : array-like
        What was given to `fit`.
    image_shape : tuple of int or None, default=None
        Whether rows of numbers are flat images.

    Returns
    -------
    {"images", "vectors"}
        What the samples are.

    Raises
    ------
    ValueError
        If X is one sample instead of several, or none.
    """
    if isinstance(X, str | os.PathLike | Image.Image):
        raise ValueError(f"Got X={X!r}; expected several samples: put a single path or picture into a list.")
    if issparse(X):
        return "vectors"
    rows = unwrap(X)
    if isinstance(rows, np.ndarray) and rows.ndim == 0:
        raise ValueError(
            f"Got X of type {type(X).__name__}; expected several samples: an array, a list, a Series or a DataFrame."
        )
    if len(rows) == 0:
        raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required: X is empty.")
    if isinstance(rows, list) or rows.ndim >= 3:
        return "images"
    return "images" if rows.ndim == 2 and image_shape is not None else "vectors"


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


def make_reader(kind: str, preprocessing: ImagePreprocessing, image_shape: Any, pixel_range: Any) -> Reader:
    """Return a reader that has learned nothing yet.

    Parameters
    ----------
    kind : {"images", "vectors"}
        What `modality` said.
    preprocessing : ImagePreprocessing
        What the network wants of an image.
    image_shape, pixel_range : object
        As the estimators take them.

    Returns
    -------
    Reader
        Of that kind.
    """
    if kind == "images":
        return ImageReader(preprocessing, image_shape, pixel_range)
    return VectorReader()


def restore_reader(kind: str, record: Mapping[str, Any]) -> Reader:
    """Build a reader again from its record.

    Parameters
    ----------
    kind : {"images", "vectors"}
        Its kind.
    record : mapping
        What its `record` was.

    Returns
    -------
    Reader
        That has learned the same.
    """
    return ImageReader.from_record(record) if kind == "images" else VectorReader()
