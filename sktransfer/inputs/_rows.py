"""Look at X once: its rows, and what is known about them before and after the network is loaded.

The same object is asked whichever way X goes on, so that nothing is unwrapped twice.
"""

import os
import re
from typing import Any

import numpy as np
from scipy.sparse import issparse

from sktransfer.inputs._containers import as_rows, columns_are_mixed, unwrap

# How names of pictures end.
_PICTURES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".ppm", ".pgm",
    ".dcm",
)  # fmt: skip


def _name_in(text: str) -> str:
    """Return the part of an address that names a file. Return anything that is not an address as it is."""
    scheme, colon, rest = text.partition("://")
    return re.split(r"::|[?#]", rest)[0] if colon and scheme.isalnum() else text


class Rows:
    """The rows of X.

    Parameters
    ----------
    X : array-like
        What was given to `fit`, or to a method after it.
    image_shape : tuple of int or None, default=None
        Whether rows of numbers are flat images.
    least : int, default=1
        The fewest rows that there may be.

    Attributes
    ----------
    given : ndarray, list, table or sparse matrix
        As scikit-learn checks them: columns have their names still.
    values : ndarray, list or sparse matrix
        A list of samples, where some stand alone or all are missing, or an array of anything else.

    Raises
    ------
    ValueError
        If X is one sample instead of several, none, or nothing of the kind: a data set of torch, a generator, a dict.
    """

    def __init__(self, X: Any, image_shape: Any = None, least: int = 1):
        self.given = as_rows(X)
        self.values: Any = self.given if issparse(self.given) else unwrap(self.given)
        self._flat_images = image_shape is not None
        if isinstance(self.values, np.ndarray) and self.values.ndim == 0:
            raise ValueError(
                f"Got X of type {type(X).__name__}; expected several samples: an array, a list, a Series or a "
                "DataFrame."
            )
        if len(self) < least:
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required: X is empty.")

    def __len__(self) -> int:
        return len(self.values) if isinstance(self.values, list) else int(self.values.shape[0])

    @property
    def _n_sides(self) -> int:
        return 0 if isinstance(self.values, list) else self.values.ndim

    @property
    def may_be_one_picture(self) -> bool:
        """Whether X may be a single picture, which only a reader can tell."""
        return self._n_sides == 3

    @property
    def have_columns(self) -> bool:
        """Whether X has columns, named or not."""
        return len(getattr(self.given, "shape", ())) == 2

    @property
    def are_numbers(self) -> bool:
        """Whether X is an array of numbers, with columns that have no names."""
        numbers = isinstance(self.given, np.ndarray) and self.given.dtype.kind not in "OUST"
        return numbers and self._n_sides == 2

    def tower(self) -> str | None:
        """Tell, by their look, whether rows are pictures or texts.

        Strings stand for pictures where each ends like a file of one, or is the path of a file that is there.

        Returns
        -------
        {"image", "text", None}
            `None` where some strings are such and others not, and where all are addresses of anything.
        """
        if issparse(self.values) or self._n_sides > 2:
            return "image"
        flat = self.values if isinstance(self.values, list) else self.values.ravel().tolist()
        strings = [one for one in flat if isinstance(one, str)]
        if not strings:
            return "image"
        endings = [_name_in(one).lower().endswith(_PICTURES) for one in strings]
        if all(picture or os.path.isfile(one) for picture, one in zip(endings, strings, strict=True)):
            return "image"
        addresses = all("://" in one and not any(map(str.isspace, one)) for one in strings)
        return "text" if not any(endings) and not addresses and len(strings) == len(flat) else None

    def kind(self, takes: str = "images") -> str:
        """Tell what X holds: by its look, and where that leaves it open by what the network takes.

        Rows of numbers are vectors, unless they are known to be flat images or the network takes sounds. Everything
        else, strings above all, is whatever the network takes.

        Parameters
        ----------
        takes : {"images", "texts", "sounds"}, default="images"
            What the network takes, if it does not take vectors.

        Returns
        -------
        {"images", "texts", "sounds", "vectors"}
            What the samples are.

        Raises
        ------
        ValueError
            If X is one row, or a table of several columns that are not all numbers.
        """
        if issparse(self.values):
            return "vectors"
        if self._n_sides == 2 and columns_are_mixed(self.values):
            raise ValueError(
                f"Got X of {self.values.shape[1]} columns that are not all numbers; expected one column of paths or "
                "texts, or only numbers. Give one column to each estimator, with scikit-learn's ColumnTransformer."
            )
        if self._n_sides == 1 and takes != "sounds":
            raise ValueError(
                f"Expected 2D array, got 1D array instead: X of shape {self.values.shape} and type "
                f"{self.values.dtype}. Reshape your data with X.reshape(-1, 1) if it is one column, or with "
                "X.reshape(1, -1) if it is one row; put a single sound into a list: [X]."
            )
        if self._n_sides == 2 and not (self._flat_images and takes == "images"):
            return "sounds" if takes == "sounds" else "vectors"
        return "vectors" if self._n_sides == 1 else takes
