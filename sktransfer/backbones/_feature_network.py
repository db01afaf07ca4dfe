"""The outputs of one layer, or of several, as one vector a sample, in one run of the network."""

from collections.abc import Sequence

import torch
from torch import nn

from sktransfer.backbones.graphs._layer_part import LayerPart
from sktransfer.backbones.graphs._pooling import pool


class FeatureNetwork(nn.Module):
    """Computes the outputs of several layers in one run and joins them.

    Parameters
    ----------
    parts : sequence of nn.Module
        Each continues where the one before ended.
    order : sequence of int
        Parts whose outputs are joined.
    pooling : str or None
        How maps and tokens become vectors; `None` leaves one value as it is.
    channels_last : sequence of bool
        Of each part, whether the channels of its map are the last axis.
    """

    def __init__(
        self, parts: Sequence[nn.Module], order: Sequence[int], pooling: str | None, channels_last: Sequence[bool]
    ):
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.order = list(order)
        self.pooling = pooling
        self.channels_last = list(channels_last)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        vectors = []
        for part, channels_last in zip(self.parts, self.channels_last, strict=True):
            entered, x = x, part(x)
            if self.pooling is None:
                return x
            vector = pool_output(part, entered, x.float(), self.pooling, channels_last)
            # What follows may work in place, on what the vector may be a view of.
            vectors.append(vector if part is self.parts[-1] else vector.clone())
        return vectors[0] if len(self.order) == 1 else torch.cat([vectors[i] for i in self.order], dim=1)


def pool_output(
    part: nn.Module, x: torch.Tensor, output: torch.Tensor, pooling: str, channels_last: bool
) -> torch.Tensor:
    """Turn what a part of a network made of samples into vectors.

    Parameters
    ----------
    part : nn.Module
        The part.
    x : Tensor of shape (n, ...)
        What entered it; a part of a stack of layers sees by it which positions are padding.
    output : Tensor of shape (n, ...)
        What left it.
    pooling : str
        How maps and tokens become vectors.
    channels_last : bool
        Whether the channels of a map are its last axis.

    Returns
    -------
    Tensor of shape (n, n_features)
        The vectors.
    """
    return part.pool(x, output, pooling) if isinstance(part, LayerPart) else pool(output, pooling, channels_last)
