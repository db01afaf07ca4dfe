"""A look at the data before anything is fitted: some samples with their labels, as estimators read them."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.utils import check_random_state

from sktransfer.inputs._rows import Rows
from sktransfer.inspection._labels import check_length, choose_rows, describe
from sktransfer.inspection._read_samples import HowToRead, ReadSample, read_samples
from sktransfer.inspection._sample_grid import check_count, draw_samples


class SamplesDisplay:
    """A grid of samples with their labels: pictures, texts or sounds.

    It is recommended to use :meth:`from_data` to make one. Nothing has to be fitted.

    Parameters
    ----------
    samples : list of ReadSample
        What is shown: `row` in X, `kind` ("image", "text", "sound" or "unreadable"), `content`, and the `rate` of a
        sound.
    captions : list of str
        What stands above each.

    Attributes
    ----------
    sample_indices : int ndarray of shape (n_shown,)
        Rows of X that are shown.
    ax_ : matplotlib.axes.Axes
        What bounds the grid.
    axes_ : object ndarray of shape (n_rows, n_columns)
        Axes of the samples.
    figure_ : matplotlib.figure.Figure
        The figure.

    See Also
    --------
    MistakesDisplay : Samples that a classifier is wrong about.

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

        They are chosen at random. With labels, each label is shown as often as the others, in their order; with
        numbers, from the least to the greatest. Pictures are whole and upright, in the colours that a network would be
        given; texts are cut off; sounds are waveforms, each as high as its cell, with its peak beside it (1 is full
        scale).

        Parameters
        ----------
        X : array-like
            As the estimators take it: images, texts or sounds, in any of their forms.
        y : array-like of shape (n_samples,) or (n_samples, n_columns) or None, default=None
            Labels, numbers, or columns of 0 and 1.
        n_samples : int, default=16
            Samples that are shown, at most.
        kind : {"auto", "images", "texts", "sounds"}, default="auto"
            What X holds. `"auto"` looks: strings are paths where they lead to a file or end like one, and else texts.
        image_shape : tuple of int or None, default=None
            (height, width) or (height, width, channels): how to read flat rows.
        pixel_range : "auto" or tuple of float, default="auto"
            Values that stand for black and white, as in the estimators.
        sampling_rate : int or None, default=None
            Samples per second of sounds that are given as arrays.
        display_labels : sequence of str or None, default=None
            Names of the sorted labels, or of the columns of y.
        random_state : int, RandomState instance or None, default=None
            Seeds the choice.
        n_columns : int or None, default=None
            Columns of the grid; `None` chooses.
        ax : matplotlib.axes.Axes or None, default=None
            Bounds the grid; `None` makes a figure.

        Returns
        -------
        SamplesDisplay
            Drawn. A sample that cannot be read is shown as such, with the reason.

        Raises
        ------
        ImportError
            If matplotlib is not installed: `pip install "sktransfer[plot]"`.
        ValueError
            If X holds nothing that can be drawn, none of the chosen samples can be read, or y does not fit X.
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
            Bounds the grid; `None` makes a figure.
        n_columns : int or None, default=None
            Columns of the grid; `None` chooses.

        Returns
        -------
        SamplesDisplay
            The same.
        """
        self.ax_, self.axes_ = draw_samples(self.samples, self.captions, ax, n_columns)
        self.figure_ = self.ax_.figure
        return self
