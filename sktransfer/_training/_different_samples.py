"""Samples without repetitions, with features as a head sees them. Solving a head begins with them.

Weights of samples are relative to each other. They are scaled so that their sum is the number of *different* samples:
multiplying all of them by a number then changes nothing, and a weight of 2 is still the same as giving a sample twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from sktransfer._training._feature_scaling import EARLIER, FeatureScaling, fit_scaling

# Projections by which samples are told apart, and the difference, for features of unit mean square, up to which two are
# the same sample: the rounding of another batch.
PROJECTIONS = 8
ROUNDING = 1e-5

# Values of all features up to which one thread solves.
SMALL = 2**21


@dataclass(frozen=True)
class Solution:
    """A head, and how it was found.

    Parameters
    ----------
    head : nn.Sequential
        Scaling and a linear layer, float32, from features to outputs.
    n_iter : int
        Iterations of the solver.
    C : float or ndarray of shape (n_outputs,)
        Inverse strength of the penalty, of all outputs or of each.
    earlier_weight : float or ndarray of shape (n_outputs,)
        What features of earlier layers weigh beside the last one's.
    path : dict of str to ndarray, or list of these
        `"C"` and `"earlier_weight"`, what was tried, and the mean loss of held-out samples with each pair; empty arrays
        where nothing was chosen. A list has one for each output.
    """

    head: nn.Sequential
    n_iter: int
    C: Any
    earlier_weight: Any
    path: Any

    @property
    def was_chosen(self) -> bool:
        """Whether samples that were held out chose something."""
        paths = self.path if isinstance(self.path, list) else [self.path]
        return any(len(path["C"]) for path in paths)


class DifferentSamples:
    """Rows that count, without repetitions.

    Parameters
    ----------
    features : ndarray of shape (n_rows, n_features)
        What enters the head.
    labels : int ndarray of shape (n_rows,)
        What tells rows of equal features apart.
    weights : ndarray of shape (n_rows,)
        Weight of each row, of any scale, at least one above 0.
    widths : sequence of int or None
        Number of features of each layer; `None` is one layer.
    samples : int ndarray of shape (n_rows,) or None
        Number of the sample that each row is a view of. `None`: rows with equal features and label are the same
        sample.

    Attributes
    ----------
    counted : bool ndarray of shape (n_rows,)
        Rows with a weight.
    first : int ndarray of shape (n_different,)
        Which of these rows stand for the others.
    labels : int ndarray of shape (n_different,)
        Theirs.
    samples : int ndarray of shape (n_different,)
        What is held out together has one number.
    places : ndarray of shape (n_different,)
        What orders them, whatever their order here.
    """

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray,
        widths: Sequence[int] | None,
        samples: np.ndarray | None,
    ):
        weights = weights / weights.max()  # so that no sum overflows
        self.counted = weights > 0
        self.features, self._weights = features[self.counted].astype(np.float64), weights[self.counted]
        self.widths = [features.shape[1]] if widths is None else list(widths)
        self._scalings: dict[float, tuple[FeatureScaling, np.ndarray]] = {}
        self._spans: dict[tuple[float, bytes], tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]] = {}
        places = _projections(self.scaled()[1])
        if samples is None:
            self.first, self._samples = _different(places, labels[self.counted])
            self.samples = np.arange(len(self.first))
        else:
            self.first, self._samples = np.arange(len(places)), np.arange(len(places))
            self.samples = np.unique(samples[self.counted], return_inverse=True)[1]
        self.labels, self.places = labels[self.counted][self.first], places[self.first, 0]

    def scaled(self, earlier: float = EARLIER) -> tuple[FeatureScaling, np.ndarray]:
        """Return a scaling of features in which those of earlier layers weigh so much, and what it makes of them."""
        if earlier not in self._scalings:
            scaling = fit_scaling(self.features, self.widths, self._weights, earlier)
            with torch.no_grad():
                self._scalings[earlier] = scaling, scaling(torch.from_numpy(self.features)).numpy()
        return self._scalings[earlier]

    def summed(self, weights: np.ndarray) -> np.ndarray:
        """Return the weights of different samples, whose sum is their number, from those of all rows.

        Where all are 0, they are taken for 1.
        """
        weights = weights[self.counted]
        summed = np.bincount(self._samples, weights / weights.max() if weights.any() else None)
        return summed * (self.samples.max() + 1) / summed.sum()

    def span(self, earlier: float, rows: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """Return some samples in the space that they span, where that is the smaller one, and the way back.

        Parameters
        ----------
        earlier : float
            What features of earlier layers weigh.
        rows : bool ndarray of shape (n_different,)
            Which samples.

        Returns
        -------
        ndarray of shape (n, n_dimensions)
            Their places in it.
        callable
            Turns coefficients of this space into those of scaled features.
        """
        key = earlier, rows.tobytes()
        if key not in self._spans:
            self._spans[key] = rotated(self.scaled(earlier)[1][self.first[rows]])
        return self._spans[key]

    def threads(self) -> Any:
        """Limit threads while something small is solved.

        Small products gain nothing from threads, which spin on for a while and keep torch's from the processors.
        """
        return threadpool_limits(1 if self.features.size <= SMALL else None, user_api="blas")


def rotated(features: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Rotate samples into the space that they span, where they are fewer than features.

    A penalised solution is the same there, and each penalty costs next to nothing.

    Parameters
    ----------
    features : ndarray of shape (n_samples, n_features)
        Centred.

    Returns
    -------
    ndarray of shape (n_samples, n_dimensions)
        Their places in it.
    callable
        Turns coefficients of this space, of shape (..., n_dimensions), into those of features.
    """
    if len(features) >= features.shape[1]:
        return features, lambda coefficients: coefficients
    values, vectors = np.linalg.eigh(features @ features.T)
    kept = values > 1e-12 * max(values[-1], np.finfo(float).tiny)
    axes = vectors[:, kept] / np.sqrt(values[kept])
    return vectors[:, kept] * np.sqrt(values[kept]), lambda coefficients: (coefficients @ axes.T) @ features


def _different(places: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a row of each different sample, and the number of the sample that each row is.

    Rows are the same sample where they have one label and their projections on random directions agree.
    """
    order = np.lexsort((places[:, 0], labels))
    near = (np.abs(np.diff(places[order], axis=0)) <= ROUNDING).all(axis=1)
    new = np.concatenate([[True], ~(near & (np.diff(labels[order]) == 0))])
    samples = np.empty(len(labels), dtype=int)
    samples[order] = np.cumsum(new) - 1
    return order[new], samples


def _projections(features: np.ndarray) -> np.ndarray:
    """Project features on a few random directions, the same each time."""
    directions = np.random.default_rng(0).standard_normal((features.shape[1], PROJECTIONS))
    scale = np.sqrt(np.mean(features**2) * features.shape[1])
    return features @ directions / (scale or 1.0)
