"""Show some samples with their labels, as estimators read them, before anything is fitted."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.utils import check_random_state

from sktransfer.inputs._rows import Rows
from sktransfer.inspection._labels import check_length, choose_rows, describe
from sktransfer.inspection._read_samples import HowToRead, ReadSample, read_samples
from sktransfer.inspection._sample_grid import check_count, draw_samples


class SamplesDisplay:
    """A grid of samples with their labels: images, texts or sounds.

    Create it with :meth:`from_data`. Nothing needs to be fitted.

    Parameters
    ----------
    samples : list of ReadSample
        Samples to show, with `row` in X, `kind` ("image", "text", "sound" or "unreadable"), `content`, and the `rate`
        of a sound.
    captions : list of str
        Text above each sample.

    Attributes
    ----------
    sample_indices : int ndarray of shape (n_shown,)
        Rows of X that are shown.
    ax_ : matplotlib.axes.Axes
        Axes that enclose the grid.
    axes_ : object ndarray of shape (n_rows, n_columns)
        Axes of the samples.
    figure_ : matplotlib.figure.Figure
        The figure.

    See Also
    --------
    MistakesDisplay : Shows samples that a classifier gets wrong.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktransfer.inspection import SamplesDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> display = SamplesDisplay.from_data(X, y, image_shape=(8, 8), pixel_range=(0, 16), random_state=0)
    >>> display.axes_.shape
    (4, 4)
    """

    ax_: Any
    axes_: np.ndarray
    figure_: Any

    def __init__(self, *, samples: list[ReadSample], captions: list[str]):
        self.samples = samples
        self.captions = captions
        self.sample_indices = np.array([sample.row for sample in samples], dtype=int)

    @classmethod
    def from_data(
        cls,
        X: Any,
        y: Any = None,
        *,
        n_samples: int = 16,
        kind: str = "auto",
        image_shape: Sequence[int] | None = None,
        pixel_range: Any = "auto",
        sampling_rate: int | None = None,
        display_labels: Sequence[str] | None = None,
        random_state: Any = None,
        n_columns: int | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw some samples of X.

        They are chosen at random. With labels, each label is shown equally often, in their order. With numbers, the
        samples are sorted by them. Images are whole and upright, in the colours that a network would see. Long texts
        are cut off. Sounds are waveforms that fill their cell, with the peak next to them (1 is full scale).

        Parameters
        ----------
        X : array-like
            Images, texts or sounds, in any form that the estimators take.
        y : array-like of shape (n_samples,) or (n_samples, n_columns) or None, default=None
            Labels, numbers, or columns of 0 and 1.
        n_samples : int, default=16
            Maximum number of samples.
        kind : {"auto", "images", "texts", "sounds"}, default="auto"
            What X contains. `"auto"` looks at X: strings are paths if they lead to a file or end like a file name, and
            texts otherwise.
        image_shape : tuple of int or None, default=None
            How to read flat rows as images: (height, width) or (height, width, channels).
        pixel_range : "auto" or tuple of float, default="auto"
            Values that stand for black and white, as in the estimators.
        sampling_rate : int or None, default=None
            Samples per second of sounds that are given as arrays.
        display_labels : sequence of str or None, default=None
            Names of the sorted labels, or of the columns of y.
        random_state : int, RandomState instance or None, default=None
            Seed for choosing the samples.
        n_columns : int or None, default=None
            Number of columns of the grid. `None` chooses it.
        ax : matplotlib.axes.Axes or None, default=None
            Axes to draw the grid in. `None` creates a figure.

        Returns
        -------
        SamplesDisplay
            The display, drawn. A sample that cannot be read is shown as such, with the reason.

        Raises
        ------
        ImportError
            If matplotlib is not installed: `pip install "sktransfer[plot]"`.
        ValueError
            If nothing in X can be drawn, if none of the chosen samples can be read, or if y does not match X.
        """
        how = HowToRead(kind, image_shape, pixel_range, sampling_rate)
        check_count("n_samples", n_samples)
        rows = Rows(X, image_shape)
        targets = None if y is None else check_length("y", y, len(rows))
        if display_labels is None and hasattr(y, "columns") and targets is not None and targets.ndim == 2:
            display_labels = [str(column) for column in y.columns]
        chosen = choose_rows(targets, len(rows), n_samples, check_random_state(random_state))
        samples = read_samples(rows, chosen.tolist(), how)
        said = [f"row {row}" for row in chosen]
        if targets is not None:
            said = np.array(describe(targets, display_labels), dtype=object)[chosen].tolist()
        return cls(samples=samples, captions=said).plot(ax=ax, n_columns=n_columns)

    def plot(self, *, ax: Any = None, n_columns: int | None = None) -> Self:
        """Draw the samples.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None, default=None
            Axes to draw the grid in. `None` creates a figure.
        n_columns : int or None, default=None
            Number of columns of the grid. `None` chooses it.

        Returns
        -------
        SamplesDisplay
            The same display.
        """
        self.ax_, self.axes_ = draw_samples(self.samples, self.captions, ax, n_columns)
        self.figure_ = self.ax_.figure
        return self
