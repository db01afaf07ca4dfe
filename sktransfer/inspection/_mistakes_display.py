"""Show what a classifier gets wrong, and how sure it is: the samples, with label and prediction."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from sktransfer._messages import check_choice
from sktransfer.inputs._rows import Rows
from sktransfer.inspection._drawing import BLACK, RED, axes_for, size_of, wrap
from sktransfer.inspection._estimators import how_it_reads
from sktransfer.inspection._labels import in_words
from sktransfer.inspection._predictions import KINDS, Predictions, predict
from sktransfer.inspection._read_samples import HowToRead, ReadSample, read_samples
from sktransfer.inspection._sample_grid import check_count, draw_samples


class MistakesDisplay:
    """A grid of samples with their true and predicted labels or numbers.

    Create it with :meth:`from_estimator` or :meth:`from_predictions`.

    Parameters
    ----------
    samples : list of ReadSample
        Samples to show, with `row` in X, `kind`, `content`, and the `rate` of a sound.
    y_true, y_pred : ndarray of shape (n_shown,)
        True and predicted labels, or numbers.
    probability : float64 ndarray of shape (n_shown,) or None, default=None
        Probabilities of the predicted labels; `None` for numbers.
    title : str, default=""
        Title of the grid.

    Attributes
    ----------
    sample_indices : int ndarray of shape (n_shown,)
        Rows of X that are shown.
    ax_ : matplotlib.axes.Axes
        Axes that enclose the grid.
    axes_ : object ndarray of shape (n_rows, n_columns)
        Axes of the samples; of shape (0, 0) if there are none.
    figure_ : matplotlib.figure.Figure
        The figure.

    See Also
    --------
    SamplesDisplay : Shows samples with their labels, before anything is fitted.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sktransfer.inspection import MistakesDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> classifier = LogisticRegression(max_iter=5000).fit(X[:500], y[:500])
    >>> display = MistakesDisplay.from_estimator(
    ...     classifier, X[500:], y[500:], n_samples=8, image_shape=(8, 8), pixel_range=(0, 16)
    ... )
    >>> display.axes_.shape
    (2, 4)
    """

    ax_: Any
    axes_: np.ndarray
    figure_: Any

    def __init__(
        self,
        *,
        samples: list[ReadSample],
        y_true: np.ndarray,
        y_pred: np.ndarray,
        probability: np.ndarray | None = None,
        title: str = "",
    ):
        self.samples = samples
        self.y_true = y_true
        self.y_pred = y_pred
        self.probability = probability
        self.title = title
        self.sample_indices = np.array([sample.row for sample in samples], dtype=int)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        kind: str = "mistakes",
        n_samples: int = 12,
        image_shape: Sequence[int] | None = None,
        pixel_range: Any = "auto",
        sampling_rate: int | None = None,
        n_columns: int | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw the samples that a fitted estimator gets most wrong, or is least or most certain about.

        Parameters
        ----------
        estimator : estimator
            A fitted classifier with `predict_proba`, or a fitted regressor; Pipelines and searches too. The prediction
            is the label with the highest probability.
        X : array-like
            Samples that the estimator was not fitted on.
        y : array-like of shape (n_samples,)
            Their labels, or numbers.
        kind : {"mistakes", "uncertain", "best"}, default="mistakes"
            Which samples to show: `"mistakes"` are the wrong predictions with the highest probability, `"uncertain"`
            the predictions with the lowest probability, and `"best"` the right predictions with the highest. For a
            regressor, the largest errors, or with `"best"` the smallest.
        n_samples : int, default=12
            Maximum number of samples.
        image_shape : tuple of int or None, default=None
            How to read flat rows as images: (height, width) or (height, width, channels). Not needed if the first step
            is an estimator of this package, because it knows the shape.
        pixel_range : "auto" or tuple of float, default="auto"
            Values that stand for black and white. Not needed in the same case.
        sampling_rate : int or None, default=None
            Samples per second of sounds that are given as arrays. Not needed in the same case.
        n_columns : int or None, default=None
            Number of columns of the grid. `None` chooses it.
        ax : matplotlib.axes.Axes or None, default=None
            Axes to draw the grid in. `None` creates a figure.

        Returns
        -------
        MistakesDisplay
            The display, drawn. If there are no mistakes, a sentence says so.

        Raises
        ------
        ImportError
            If matplotlib is not installed: `pip install "sktransfer[plot]"`.
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If the estimator has no probabilities, if there are several labels or numbers per sample, or if X cannot be
            drawn.
        """
        how = HowToRead("auto", image_shape, pixel_range, sampling_rate)
        _check(kind, n_samples)
        rows = Rows(X, image_shape)
        predictions = predict(estimator, X, y, len(rows))
        return cls._drawn(rows, predictions, kind, n_samples, how_it_reads(estimator, how), n_columns, ax)

    @classmethod
    def from_predictions(
        cls,
        X: Any,
        y_true: Any,
        y_prob: Any = None,
        *,
        y_pred: Any = None,
        labels: Any = None,
        kind: str = "mistakes",
        n_samples: int = 12,
        image_shape: Sequence[int] | None = None,
        pixel_range: Any = "auto",
        sampling_rate: int | None = None,
        n_columns: int | None = None,
        ax: Any = None,
    ) -> Self:
        """Draw the samples whose predictions are most wrong, or least or most certain.

        With probabilities from cross-validation, `cross_val_predict(..., method="predict_proba")`, each prediction
        comes from an estimator that has not seen the sample.

        Parameters
        ----------
        X : array-like
            Images, texts or sounds, in any form that the estimators take.
        y_true : array-like of shape (n_samples,)
            Their labels, or numbers.
        y_prob : array-like of shape (n_samples, n_labels) or (n_samples,) or None, default=None
            Probabilities of the labels. An array with one dimension has the probabilities of the second of two labels.
        y_pred : array-like of shape (n_samples,) or None, default=None
            Predicted numbers, instead of `y_prob`.
        labels : array-like of shape (n_labels,) or None, default=None
            Labels of the columns of `y_prob`, such as `classes_`. `None` is the sorted labels of `y_true`.
        kind : {"mistakes", "uncertain", "best"}, default="mistakes"
            As in :meth:`from_estimator`.
        n_samples : int, default=12
            Maximum number of samples.
        image_shape : tuple of int or None, default=None
            How to read flat rows as images: (height, width) or (height, width, channels).
        pixel_range : "auto" or tuple of float, default="auto"
            Values that stand for black and white.
        sampling_rate : int or None, default=None
            Samples per second of sounds that are given as arrays.
        n_columns : int or None, default=None
            Number of columns of the grid. `None` chooses it.
        ax : matplotlib.axes.Axes or None, default=None
            Axes to draw the grid in. `None` creates a figure.

        Returns
        -------
        MistakesDisplay
            The display, drawn. If there are no mistakes, a sentence says so.

        Raises
        ------
        ImportError
            If matplotlib is not installed: `pip install "sktransfer[plot]"`.
        ValueError
            If predictions, labels and X do not match, or if X cannot be drawn.
        """
        how = HowToRead("auto", image_shape, pixel_range, sampling_rate)
        _check(kind, n_samples)
        rows = Rows(X, image_shape)
        predictions = Predictions.of(y_true, y_prob, y_pred, labels, len(rows))
        return cls._drawn(rows, predictions, kind, n_samples, how, n_columns, ax)

    @classmethod
    def _drawn(
        cls,
        rows: Rows,
        predictions: Predictions,
        kind: str,
        n_samples: int,
        how: HowToRead,
        n_columns: int | None,
        ax: Any,
    ) -> Self:
        chosen = predictions.choose(kind, n_samples)
        probability = predictions.probability
        display = cls(
            samples=read_samples(rows, chosen.tolist(), how),
            y_true=predictions.y_true[chosen],
            y_pred=predictions.y_pred[chosen],
            probability=None if probability is None else probability[chosen],
            title=predictions.title(kind, len(chosen)),
        )
        return display.plot(ax=ax, n_columns=n_columns)

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
        MistakesDisplay
            The same display.
        """
        if self.samples:
            colours = [RED if wrong else BLACK for wrong in self._are_mistakes()]
            drawn = draw_samples(self.samples, self._captions(), ax, n_columns, self.title, colours)
            self.ax_, self.axes_ = drawn
        else:
            self.ax_, self.axes_ = axes_for(ax, (5, 1)), np.empty((0, 0), dtype=object)
            self.ax_.set_axis_off()
            sentence = wrap(f"{self.title}.", size_of(self.ax_), 11)
            self.ax_.text(0.5, 0.5, sentence, ha="center", va="center", fontsize=11, transform=self.ax_.transAxes)
        self.figure_ = self.ax_.figure
        return self

    def _are_mistakes(self) -> list[bool]:
        """Tell which labels are wrong; of numbers, none is."""
        if self.probability is None:
            return [False] * len(self.samples)
        return np.asarray(self.y_true != self.y_pred).tolist()

    def _captions(self) -> list[str]:
        true, predicted = map(in_words, self.y_true), map(in_words, self.y_pred)
        if self.probability is None:
            return [f"true: {one}\npredicted: {other}" for one, other in zip(true, predicted, strict=True)]
        return [
            f"true: {one}\npredicted: {other}, {_percent(share)}"
            for one, other, share in zip(true, predicted, self.probability, strict=True)
        ]


def _percent(share: float) -> str:
    """Return a probability as a percentage that does not round to certainty."""
    return ">99 %" if 0.99 < share < 1 else f"{100 * share:.0f} %"


def _check(kind: str, n_samples: int) -> None:
    check_choice("kind", kind, KINDS)
    check_count("n_samples", n_samples)
