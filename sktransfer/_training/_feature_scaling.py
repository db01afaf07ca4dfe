"""Features come to the head at one scale, whichever network and layer they come from.

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

# What the vectors of earlier layers weigh beside the last one's: see benchmarks/accuracy.py.
EARLIER = 0.4

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
    mean, factor : Tensor of shape (n_features,)
        What is taken from features, and what they are multiplied by.
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
        self.register_buffer("factor", torch.ones(sum(widths)))
        self.register_buffer("floor", torch.zeros(len(widths)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self._mapped(x) - self.mean) * self.factor

    def _mapped(self, x: torch.Tensor) -> torch.Tensor:
        if not any(self.square_roots):
            return x
        layers = []
        for number, layer in enumerate(torch.split(x, self.widths, dim=1)):
            if self.square_roots[number]:
                roots = (layer.clamp(min=0) + self.floor[number]).sqrt()
                layer = roots / roots.norm(dim=1, keepdim=True).clamp(min=1e-12)
            layers.append(layer)
        return torch.cat(layers, dim=1)

    def to_record(self) -> dict[str, Any]:
        """Return what it takes, beside the tensors, to build it again."""
        return {"widths": self.widths, "square_roots": self.square_roots}


def fit_scaling(features: np.ndarray, widths: Sequence[int], weights: np.ndarray) -> FeatureScaling:
    """Learn how features are scaled.

    Parameters
    ----------
    features : float ndarray of shape (n_samples, n_features)
        Of all layers, those of the last one at the end.
    widths : sequence of int
        Number of features of each layer.
    weights : ndarray of shape (n_samples,)
        Weight of each sample, at least one above 0.

    Returns
    -------
    FeatureScaling
        In double precision. What leaves it has a mean squared norm of 1.
    """
    parts = np.split(features, np.cumsum(widths)[:-1], axis=1)
    scaling = FeatureScaling(widths, [bool(part.min(initial=0.0) >= 0) for part in parts]).double()
    scaling.floor[:] = torch.tensor([FLOOR * max(0.0, float(part.mean())) for part in parts])
    with torch.no_grad():
        mapped = scaling._mapped(torch.from_numpy(features).double()).numpy()
    mean = np.average(mapped, axis=0, weights=weights)
    factor = np.ones_like(mean)
    stops = np.cumsum(widths)
    for number, (start, stop) in enumerate(zip([0, *stops[:-1]], stops, strict=True)):
        variance = np.average((mapped[:, start:stop] - mean[start:stop]) ** 2, axis=0, weights=weights)
        weight = 1.0 if stop == stops[-1] else EARLIER
        factor[start:stop] = weight * _factor(variance, scaling.square_roots[number])
    norm = np.average((((mapped - mean) * factor) ** 2).sum(1), weights=weights)
    scaling.mean[:] = torch.from_numpy(mean)
    scaling.factor[:] = torch.from_numpy(factor / np.sqrt(norm) if norm > 0 else factor)
    return scaling


def _factor(variance: np.ndarray, square_roots: bool) -> np.ndarray:
    """Return what the features of one layer are multiplied by, for a mean squared norm of 1."""
    overall = variance.mean()
    if overall == 0:  # constant features, of constant images
        return np.ones_like(variance)
    divisor = np.ones_like(variance) if square_roots else np.maximum(variance, LEAST_VARIANCE * overall) ** 0.25
    return 1 / (divisor * np.sqrt((variance / divisor**2).sum()))


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
