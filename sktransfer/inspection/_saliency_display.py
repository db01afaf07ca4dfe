"""Show which part of a sample decides: where hiding it lowers the probability of the class."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import is_classifier
from sklearn.utils.validation import check_is_fitted

from sktransfer._messages import closest, shortened
from sktransfer.inspection._drawing import import_pyplot
from sktransfer.inspection._estimators import network_within
from sktransfer.inspection._occlusion import hide_parts, probabilities, spread_drops

# Samples that are drawn at once.
MOST_SAMPLES = 16


class SaliencyDisplay:
    """How much the probability of a class drops when each part of a sample is hidden.

    Create it with :meth:`from_estimator`.

    Parameters
    ----------
    kind : {"images", "texts", "sounds"}
        Kind of the samples.
    samples : sequence
        Images of shape (height, width, channels), lists of words, or waveforms of shape (n_values,).
    drops : sequence of ndarray
        Drop of the probability for each pixel, word or value of a waveform. It is negative where the probability rises.
    targets : sequence
        Class of each sample whose probability is measured.
    probabilities : ndarray of shape (n_samples,)
        Probability of that class with nothing hidden.
    rate : int or None, default=None
        Values per second of waveforms.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        Axes, one per sample.
    figure_ : matplotlib Figure
        Figure that contains the axes.

    See Also
    --------
    sktransfer.inspection.torch_module : Gives gradients, for maps such as those of Grad-CAM.

    References
    ----------
    Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014.

    Examples
    --------
    >>> from sktransfer.inspection import SaliencyDisplay
    >>> words, drops = ["a", "dull", "film"], np.array([0.0, 0.6, 0.1])
    >>> display = SaliencyDisplay("texts", [words], [drops], ["negative"], np.array([0.9]))
    >>> display.samples[0][int(display.drops[0].argmax())]
    'dull'
    """

    axes_: Any
    figure_: Any

    def __init__(
        self,
        kind: str,
        samples: Sequence[Any],
        drops: Sequence[np.ndarray],
        targets: Sequence[Any],
        probabilities: np.ndarray,
        *,
        rate: int | None = None,
    ):
        self.kind = kind
        self.samples = list(samples)
        self.drops = [np.asarray(drop) for drop in drops]
        self.targets = list(targets)
        self.probabilities = np.asarray(probabilities)
        self.rate = rate

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        *,
        target: Any = None,
        patch: float = 0.2,
        step: float = 0.5,
        ax: Any = None,
    ) -> Self:
        """Hide one part of a sample after another, and draw how much the probability of a class drops.

        In images, a sliding square is filled with the mean colour of the image. In texts, one word at a time is left
        out. In sounds, a sliding window is silenced. With the defaults, an image of 224 x 224 passes the network 82
        times, a sound 10 times, and a text once per word.

        Parameters
        ----------
        estimator : estimator
            A fitted FineTunedClassifier; a fitted pipeline of PretrainedFeatureExtractor and a classifier with
            `predict_proba`; or a search over either.
        X : array-like
            At most 16 samples, as `predict` takes them.
        target : object, default=None
            Label from `classes_` whose probability is measured. `None` is the predicted label of each sample. If
            samples have several labels, you must give the index of a column of y.
        patch : float, default=0.2
            Side of the square as a fraction of the shorter side of the image; length of the window as a fraction of the
            sound.
        step : float, default=0.5
            Distance from one position to the next, as a fraction of the square or window.
        ax : matplotlib Axes, sequence of Axes or None, default=None
            Axes to draw on, one per sample. `None` creates a figure.

        Returns
        -------
        SaliencyDisplay
            The display, drawn.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If the estimator is not a classifier, or gives no probabilities; if the target is not one of its classes; or
            if X holds rows of numbers, a text of one word, or more than 16 samples.
        ImportError
            If matplotlib is not installed: `pip install "sktransfer[plot]"`.
        """
        import_pyplot()  # said before the network runs
        for name, share in (("patch", patch), ("step", step)):
            if isinstance(share, bool) or not isinstance(share, int | float | np.number) or not 0 < share <= 1:
                raise ValueError(f"Got {name}={share!r}; expected a share above 0, up to 1.")
        holder, behind = network_within(estimator)
        last = behind[-1] if behind else holder
        if not is_classifier(last) or not hasattr(last, "predict_proba"):
            raise ValueError(_why_not(last))
        check_is_fitted(holder, "backbone_")
        check_is_fitted(last)
        classes = last.classes_
        column = None if target is None else _column_of(target, classes)
        if column is None and (isinstance(classes, list) or getattr(last, "_several", False)):
            raise ValueError(
                "Got target=None for a classifier that gives several labels per sample; expected one label. Set "
                "target to the number of its column in y, counted from 0."
            )
        if hasattr(X, "__len__") and len(X) > MOST_SAMPLES:
            raise ValueError(
                f"Got X of {len(X)} samples; expected at most {MOST_SAMPLES} samples, because each one passes the "
                f"network many times. Choose some, such as X[:{MOST_SAMPLES}]."
            )
        hidden, variants = hide_parts(holder, X, float(patch), float(step))
        found = probabilities(holder, behind, variants)
        drops, targets, chances, start = [], [], [], 0
        for one in hidden:
            whole, *others = found[start : start + 1 + len(one.parts)]
            start += 1 + len(one.parts)
            chosen = int(whole.argmax()) if column is None else column
            drops.append(spread_drops(one, whole[chosen] - np.array(others)[:, chosen]))
            targets.append(classes[chosen])
            chances.append(whole[chosen])
        samples = [one.shown for one in hidden]
        display = cls(holder._reader.kind, samples, drops, targets, np.array(chances), rate=hidden[0].rate)
        return display.plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw each sample with its drops: maps over images, shaded words, or areas over a waveform.

        The colours of each sample span its own drops, or 0.02 if these are smaller.

        Parameters
        ----------
        ax : matplotlib Axes, sequence of Axes or None, default=None
            Axes to draw on, one per sample. `None` creates a figure.

        Returns
        -------
        SaliencyDisplay
            The same display.

        Raises
        ------
        ValueError
            If the number of axes is not the number of samples.
        """
        from sktransfer.inspection._saliency_drawing import draw_pictures, draw_sounds, draw_texts, make_axes

        pyplot = import_pyplot()
        axes = make_axes(pyplot, self.kind, self.samples) if ax is None else np.atleast_1d(np.asarray(ax)).ravel()
        if len(axes) != len(self.samples):
            raise ValueError(f"Got {len(axes)} axes for {len(self.samples)} samples; expected one for each.")
        titles = [
            f"{shortened(str(target), 30)}: {chance:.0%}, drops by up to {drop.max():.2f}"
            for target, chance, drop in zip(self.targets, self.probabilities, self.drops, strict=True)
        ]
        if self.kind == "images":
            draw_pictures(axes, self.samples, self.drops, titles)
        elif self.kind == "texts":
            draw_texts(axes, self.samples, self.drops, titles)
        else:
            draw_sounds(axes, self.samples, self.drops, titles, self.rate)
        self.axes_, self.figure_ = axes, axes[0].figure
        return self


def _column_of(target: Any, classes: Any) -> int:
    names = list(range(len(classes))) if isinstance(classes, list) else list(classes)
    truth = bool, np.bool_
    for column, name in enumerate(names):
        if isinstance(name, truth) == isinstance(target, truth) and name == target:
            return column
    raise ValueError(f"Got target={target!r}; expected a class: {closest(str(target), map(str, names))}")


def _why_not(last: Any) -> str:
    name = type(last).__name__
    if is_classifier(last):
        return (
            f"Got {name}, which gives no probabilities; expected a classifier with predict_proba, such as "
            "LogisticRegression or FineTunedClassifier."
        )
    if hasattr(last, "predict"):
        return (
            f"Got {name}, which does not predict classes; expected a classifier, because the display shows how far "
            "the probability of a class drops. Give a FineTunedClassifier."
        )
    return (
        f"Got {name}, which predicts nothing; expected a classifier. Give a FineTunedClassifier, or "
        "make_pipeline(PretrainedFeatureExtractor(...), LogisticRegression())."
    )
