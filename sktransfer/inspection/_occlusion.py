"""Predict with parts of a sample hidden: a patch of an image, a word, or a stretch of sound.

Zeiler and Fergus, "Visualizing and understanding convolutional networks", ECCV 2014. It takes no gradients, so any
network will do. Samples are hidden as the network sees them, resized and cropped; none of that enters the cache.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import make_pipeline

from sktransfer._backbone_estimator import BackboneEstimator
from sktransfer._fine_tuned_estimator import FineTunedEstimator
from sktransfer._training._prediction import extract
from sktransfer.inputs._base import Samples, SamplesOf
from sktransfer.inputs._rows import Rows
from sktransfer.inputs.images._reader import ImageSamples
from sktransfer.inputs.sounds._reader import SoundSamples


@dataclass(frozen=True)
class Hidden:
    """One sample, and the parts of it that are hidden one after another.

    Parameters
    ----------
    shown : ndarray or list of str
        What a person is shown: the picture as the network sees it, uint8 or float of shape (height, width, channels);
        the words of a text; or a waveform, float32 of shape (n_values,).
    parts : list of slice, or of tuple of slice
        Where each part lies in it: rows and columns, the number of a word, or values.
    rate : int or None, default=None
        Values per second of a waveform.
    """

    shown: Any
    parts: list[Any] = field(default_factory=list)
    rate: int | None = None


class _Variants(SamplesOf):
    """Samples with a part hidden, several of each; nothing of them is kept.

    Parameters
    ----------
    samples : Samples
        Those that they are made of.
    rows : sequence of int
        Of which sample each is.
    load : callable
        Loads one of them by its number.
    """

    def __init__(self, samples: Samples, rows: Sequence[int], load: Callable[[int], torch.Tensor]):
        super().__init__(samples)
        self._rows, self._load = rows, load

    def __len__(self) -> int:
        return len(self._rows)

    def load(self, index: int) -> torch.Tensor:
        return self._load(index)

    def size(self, index: int) -> int:
        return super().size(self._rows[index])

    def size_in_all(self) -> int:
        return sum(map(self.size, range(len(self))))

    def stamp(self, index: int) -> object:
        return None

    @property
    def recipe(self) -> None:
        return None


def hide_parts(holder: BackboneEstimator, X: Any, size: float, step: float) -> tuple[list[Hidden], Samples]:
    """Say which parts of samples are hidden, and return all that is to be classified.

    Parameters
    ----------
    holder : BackboneEstimator
        A fitted one, which reads X.
    X : array-like
        Pictures, texts or sounds.
    size : float
        Side of a patch as a share of the picture's shorter side, or length of a stretch as a share of the sound.
    step : float
        From one patch or stretch to the next, as a share of its size.

    Returns
    -------
    hidden : list of Hidden
        One for each sample.
    variants : Samples
        Each sample as it is, followed by one with each of its parts hidden.

    Raises
    ------
    ValueError
        If samples are rows of numbers, or a text has one word.
    """
    samples = holder._read(X)
    if isinstance(samples, ImageSamples):
        return _pictures(samples, size, step)
    if isinstance(samples, SoundSamples):
        return _sounds(samples, size, step)
    if samples.kind == "texts":
        return _texts(holder, X)
    raise ValueError(
        "Got X with rows of numbers; expected pictures, texts or sounds, because a part of each sample is hidden. For "
        "columns of numbers, use sklearn.inspection.permutation_importance."
    )


def probabilities(holder: BackboneEstimator, behind: list[Any], samples: Samples) -> np.ndarray:
    """Classify samples that were read.

    Parameters
    ----------
    holder : BackboneEstimator
        A fitted one with a network.
    behind : list of estimator
        The steps that follow it.
    samples : Samples
        From `hide_parts`.

    Returns
    -------
    float64 ndarray of shape (n_samples, n_classes)
        Probability of each class, or of each label.
    """
    if isinstance(holder, FineTunedEstimator):
        outputs = holder._compute_samples(samples, features=bool(behind))
        if not behind:
            kind, _ = holder._meaning(vars(holder))
            return kind.results(torch.from_numpy(outputs).double()).numpy()
    else:
        outputs, _ = extract(holder._way_through(holder._part(), samples), tolerant=False)
    return np.asarray(make_pipeline(*behind).predict_proba(outputs))


def _pictures(samples: ImageSamples, size: float, step: float) -> tuple[list[Hidden], Samples]:
    loaded = [samples.load(row) for row in range(len(samples))]
    hidden = []
    for picture in loaded:
        height, width = picture.shape[-2:]
        side = max(1, round(size * min(height, width)))
        patches = [(down, across) for down in _places(height, side, step) for across in _places(width, side, step)]
        hidden.append(Hidden(picture.movedim(0, -1).numpy(), patches))
    order = _order(hidden)

    def load(index: int) -> torch.Tensor:
        row, number = order[index]
        if number is None:
            return loaded[row]
        picture = loaded[row].clone()
        mean = loaded[row].float().mean(dim=(1, 2))
        mean = mean if picture.is_floating_point() else mean.round()
        picture[(slice(None), *hidden[row].parts[number])] = mean.to(picture.dtype).view(-1, 1, 1)
        return picture

    return hidden, _Variants(samples, [row for row, _ in order], load)


def _sounds(samples: SoundSamples, size: float, step: float) -> tuple[list[Hidden], Samples]:
    hidden = []
    for row in range(len(samples)):
        waveform = samples.waveform(row)
        length = max(1, round(size * len(waveform)))
        hidden.append(Hidden(waveform, _places(len(waveform), length, step), samples.rate))
    order = _order(hidden)

    def load(index: int) -> torch.Tensor:
        row, number = order[index]
        waveform = hidden[row].shown
        if number is not None:
            waveform = waveform.copy()
            waveform[hidden[row].parts[number]] = 0
        return samples.windows(row, waveform)

    return hidden, _Variants(samples, [row for row, _ in order], load)


def _texts(holder: BackboneEstimator, X: Any) -> tuple[list[Hidden], Samples]:
    texts = [text.decode() if isinstance(text, bytes) else str(text) for text in Rows(X).values]
    hidden = [Hidden(words, list(range(len(words)))) for words in map(str.split, texts)]
    for row, text in enumerate(hidden):
        if len(text.parts) < 2:
            raise ValueError(
                f"Got X[{row}] = {texts[row][:80]!r}, a text of {len(text.parts)} word(s); expected at least two "
                "words, separated by spaces, because each word is left out in turn. Leave this row out."
            )
    order = _order(hidden)
    variants = [
        texts[row] if number is None else " ".join(word for n, word in enumerate(hidden[row].shown) if n != number)
        for row, number in order
    ]
    read = holder._read(variants)
    return hidden, _Variants(read, range(len(read)), read.load)


def _order(hidden: list[Hidden]) -> list[tuple[int, int | None]]:
    """Return the row of each variant, and the part that is hidden or `None`."""
    return [(row, number) for row, one in enumerate(hidden) for number in (None, *range(len(one.parts)))]


def _places(length: int, size: int, step: float) -> list[slice]:
    """Return stretches of one size that overlap, and cover a length from its beginning to its end."""
    count = 1 + int(np.ceil((length - size) / max(1.0, step * size)))
    starts = np.linspace(0, length - size, count).round().astype(int)
    return [slice(int(start), int(start) + size) for start in dict.fromkeys(starts)]


def spread_drops(hidden: Hidden, drops: np.ndarray) -> np.ndarray:
    """Return how far hiding each pixel, word or value lets the probability drop: the mean over parts that hold it.

    Parameters
    ----------
    hidden : Hidden
        A sample.
    drops : ndarray of shape (n_parts,)
        By how much the probability is lower where each part is hidden.

    Returns
    -------
    float64 ndarray of shape (height, width), (n_words,) or (n_values,)
        For each place of the sample.
    """
    shape = np.shape(hidden.shown)[:2]
    total, count = np.zeros(shape), np.zeros(shape)
    for part, drop in zip(hidden.parts, drops, strict=True):
        total[part] += drop
        count[part] += 1
    return total / count
