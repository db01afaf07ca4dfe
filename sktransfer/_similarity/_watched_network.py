"""Watch a network: record what enters its BatchNorms, and the vector at each depth, for each sample.

It is a copy of the layers before any of them is folded, so that BatchNorms are there to be watched. Nothing is hooked
and nothing is changed: torch itself is asked, in the thread that computes, which statistics a batch is normalised by.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sktransfer.backbones._feature_network import FeatureNetwork
from sktransfer.backbones._frozen_part import FrozenPart

# Height and width of the pictures that a baseline without a network sees, and the most values of anything else.
PIXELS, VALUES = 32, 4096


class WatchedNetwork(nn.Module):
    """Runs a part of a network, and returns what it saw of each sample.

    Parameters
    ----------
    part : FrozenPart
        With the layers whose vectors are wanted; it ends in a vector.

    Attributes
    ----------
    norms : list of str
        Names of the BatchNorms that keep running statistics, in the order in which they were called. Known after the
        first batch.
    spreads : dict of str to Tensor of shape (n_channels,)
        By name of a BatchNorm its running standard deviation, in the units of what is returned: 1, and less where
        `eps` counts.
    """

    def __init__(self, part: FrozenPart):
        super().__init__()
        # A copy: a device takes it, and the network that others use stays where it is.
        self.network: FeatureNetwork = copy.deepcopy(part.network()).eval().requires_grad_(False)
        self.norms: list[str] = []
        self.spreads: dict[str, torch.Tensor] = {}
        self.drawn = False

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the vector of each depth, what a network without layers would see, and the statistics.

        Returns
        -------
        tuple of Tensor of shape (n, ...)
            A vector of each depth; small values of the input, of shape (n, at most 4096); and for each name in `norms`
            a tensor of shape (n, 2, n_channels): by sample the mean, and the mean square, of what enters the layer, in
            its running standard deviations from its running mean.
        """
        if self.drawn:  # statistics that have seen nothing say nothing
            return (*self.network.run(x)[0], _small(x))
        buffers = self.network.named_buffers()
        with _NormInputs(len(x), {id(buffer): name.removeprefix("part.") for name, buffer in buffers}) as seen:
            vectors, _ = self.network.run(x)
        self.norms, self.spreads = list(seen.statistics), seen.spreads  # the same in each thread
        return (*vectors, _small(x), *(torch.stack(seen.statistics[name]).mean(dim=0) for name in self.norms))

    def redraw(self, seed: int) -> None:
        """Give the network random weights, as He et al. (2015) draw them, and BatchNorms that have seen nothing.

        Matrices and filters are normal with variance 2 / fan-in; biases are 0, scales 1, running statistics 0 and 1.
        After that no statistics are returned.
        """
        self.drawn = True
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                if parameter.ndim > 1:
                    drawn = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(drawn * math.sqrt(2 / max(1, math.prod(parameter.shape[1:]))))
                else:
                    parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            for name, buffer in self.network.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    buffer.fill_(0.0 if name.endswith("running_mean") else 1.0)


class _NormInputs(TorchFunctionMode):
    """Notes what enters each BatchNorm that is computed in this thread, and lets it be computed as ever."""

    def __init__(self, n_samples: int, names: Mapping[int, str]):
        super().__init__()
        self._n_samples, self._names = n_samples, names
        self.statistics: dict[str, list[torch.Tensor]] = {}
        self.spreads: dict[str, torch.Tensor] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _ARGUMENTS:
            given = dict(zip(_ARGUMENTS[function], args, strict=False)) | (kwargs or {})
            mean, variance = given["running_mean"], given["running_var"]
            name = self._names.get(id(mean), "").removesuffix(".running_mean")
            if name and variance is not None and not given.get("training", False):
                wide = (variance.float() + float(given.get("eps", 1e-5))).sqrt()
                self.spreads[name] = variance.float().sqrt() / wide
                self.statistics.setdefault(name, []).append(_seen(given["input"], mean, wide, self._n_samples))
        return function(*args, **(kwargs or {}))


# What layers call, and what a network that calls torch's own operation does; in the order of their arguments.
_ARGUMENTS: dict[Any, tuple[str, ...]] = {
    nn.functional.batch_norm: ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
    torch.batch_norm: ("input", "weight", "bias", "running_mean", "running_var", "training", "momentum", "eps"),
}


def _seen(x: torch.Tensor, mean: torch.Tensor, wide: torch.Tensor, n_samples: int) -> torch.Tensor:
    """Return by sample the mean and the mean square of normalised values, of shape (n_samples, 2, n_channels)."""
    values = x.float().movedim(1, -1) - mean.float()
    values = values.reshape(len(values), -1, values.shape[-1])
    evenly = values.new_full((1, 1, values.shape[1]), 1 / values.shape[1]).expand(len(values), -1, -1)
    # A product with a row of equal numbers is a mean along the middle axis, and several times as fast as `mean`.
    means, squares = evenly @ values / wide, evenly @ values.square_() / wide.square()
    both = torch.cat([means, squares], dim=1)
    if len(both) % n_samples:  # rows that belong to no sample alone, such as pieces of several
        return both.mean(dim=0).expand(n_samples, *both.shape[1:])
    return both.reshape(n_samples, -1, *both.shape[1:]).mean(dim=1)


def _small(x: torch.Tensor) -> torch.Tensor:
    """Return samples as they enter the network as short rows: pictures of 32 x 32, or values side by side."""
    if not x.is_floating_point():  # numbers of tokens say nothing as numbers
        return torch.zeros(len(x), 0)
    if x.ndim == 4:
        return nn.functional.adaptive_avg_pool2d(x.float(), PIXELS).flatten(1)
    rows = x.float().flatten(1)
    if rows.shape[1] <= VALUES:
        return rows
    return nn.functional.avg_pool1d(rows[:, None], math.ceil(rows.shape[1] / VALUES), ceil_mode=True)[:, 0]
