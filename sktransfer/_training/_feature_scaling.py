"""Bring features to one scale before the head, whichever network and layer they come from.

Features that are never negative, as behind a ReLU, go through a square root and then to unit length, which is the
Hellinger map of what a layer has seen (Arandjelovic and Zisserman, "Three things everyone should know to improve object
retrieval", CVPR 2012). Others are divided by the square root of their standard deviation (Pareto scaling: van den Berg
et al., "Centering, scaling, and transformations", BMC Genomics 7:142, 2006). Then each layer's features are centred and
scaled to a mean squared norm of 1, so that one penalty means the same on every network, and weighed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

# What the vectors of earlier layers weigh beside the last one's, where that is not chosen by the data.
EARLIER = 0.3

# A value below this part of a layer's mean is not told from 0, so that the square root has a slope there in training.
FLOOR = 1e-4

# A feature that varies less than this part of the mean, in variance, is not blown up.
LEAST_VARIANCE = 1e-6


class FeatureScaling(nn.Module):
    """The first layer of a head: it scales the features of each layer, and keeps their order.

    Parameters
    ----------
    widths : sequence of int
        Number of features of each layer.
    square_roots : sequence of bool
        Of each layer, whether its features are never negative.

    Attributes
    ----------
    mean : Tensor of shape (n_features,)
        What is taken from features.
    factor : Tensor of shape (n_factors,)
        What they are multiplied by: one number for a layer that goes through a square root, else one per feature.
    floor : Tensor of shape (n_layers,)
        What is added in front of a square root.
    """

    mean: torch.Tensor
    factor: torch.Tensor
    floor: torch.Tensor

    def __init__(self, widths: Sequence[int], square_roots: Sequence[bool]):
        super().__init__()
        self.widths, self.square_roots = list(widths), list(square_roots)
        self.register_buffer("mean", torch.zeros(sum(widths)))
        self.register_buffer("factor", torch.ones(sum(self._n_factors)))
        self.register_buffer("floor", torch.zeros(len(widths)))

    @property
    def _n_factors(self) -> list[int]:
        return [1 if roots else width for width, roots in zip(self.widths, self.square_roots, strict=True)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means, factors = torch.split(self.mean, self.widths), torch.split(self.factor, self._n_factors)
        layers = zip(self._mapped(x), means, factors, strict=True)
        return torch.cat([(layer - mean) * factor for layer, mean, factor in layers], dim=1)

    def _mapped(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of each layer, those that are never negative as square roots of unit length."""
        layers = []
        for number, layer in enumerate(torch.split(x, self.widths, dim=1)):
            if self.square_roots[number]:
                roots = (layer.clamp(min=0) + self.floor[number]).sqrt()
                layer = roots / roots.norm(dim=1, keepdim=True).clamp(min=1e-12)
            layers.append(layer)
        return layers

    def columns(self) -> np.ndarray:
        """Return what each feature is multiplied by: float64 ndarray of shape (n_features,)."""
        factors = torch.split(self.factor, self._n_factors)
        layers = [factor.expand(width) for factor, width in zip(factors, self.widths, strict=True)]
        return torch.cat(layers).double().numpy()

    def to_record(self) -> dict[str, Any]:
        """Return what it takes, beside the tensors, to build it again."""
        return {"widths": self.widths, "square_roots": self.square_roots}


def fit_scaling(
    features: np.ndarray, widths: Sequence[int], weights: np.ndarray, earlier: float = EARLIER
) -> FeatureScaling:
    """Learn how features are scaled.

    Parameters
    ----------
    features : float ndarray of shape (n_samples, n_features)
        Of all layers, those of the last one at the end.
    widths : sequence of int
        Number of features of each layer.
    weights : ndarray of shape (n_samples,)
        Weight of each sample, at least one above 0.
    earlier : float, default=0.3
        What the features of earlier layers weigh beside the last one's.

    Returns
    -------
    FeatureScaling
        In double precision. What leaves it has a mean squared norm of 1.
    """
    parts = np.split(features, np.cumsum(widths)[:-1], axis=1)
    scaling = FeatureScaling(widths, [bool(part.min(initial=0.0) >= 0) for part in parts]).double()
    means = [np.average(part.mean(axis=1), weights=weights) for part in parts]
    scaling.floor[:] = torch.tensor([FLOOR * max(0.0, float(mean)) for mean in means])
    with torch.no_grad():
        mapped = [layer.numpy() for layer in scaling._mapped(torch.from_numpy(features).double())]
    means, factors, norm = [], [], 0.0
    for number, layer in enumerate(mapped):
        mean = np.average(layer, axis=0, weights=weights)
        variance = np.average((layer - mean) ** 2, axis=0, weights=weights)
        weight = 1.0 if number == len(mapped) - 1 else earlier
        factor = weight * _factor(variance, scaling.square_roots[number])
        norm += float((variance * factor**2).sum())
        means.append(mean)
        factors.append(factor)
    scaling.mean[:] = torch.from_numpy(np.concatenate(means))
    scaling.factor[:] = torch.from_numpy(np.concatenate(factors) / (np.sqrt(norm) or 1.0))
    return scaling


def _factor(variance: np.ndarray, square_roots: bool) -> np.ndarray:
    """Return what the features of one layer are multiplied by, for a mean squared norm of 1."""
    overall = variance.mean()
    if overall == 0:  # constant features, of constant images
        return np.ones(1 if square_roots else len(variance))
    divisor = np.ones(1) if square_roots else np.maximum(variance, LEAST_VARIANCE * overall) ** 0.25
    return np.asarray(1 / (divisor * np.sqrt((variance / divisor**2).sum())))


def restore_scaling(record: Mapping[str, Any]) -> FeatureScaling:
    """Build a scaling again from what `to_record` returned; its tensors are to be loaded.

    Parameters
    ----------
    record : mapping
        Words and numbers.

    Returns
    -------
    FeatureScaling
        Which scales nothing yet.
    """
    return FeatureScaling([int(width) for width in record["widths"]], [bool(one) for one in record["square_roots"]])
