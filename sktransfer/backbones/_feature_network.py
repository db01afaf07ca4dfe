"""Compute the outputs of one layer, or of several, in one pass through the network.

Where a network is cut, what earlier layers have given travels with the value at the cut, as one tensor: so it is kept
and found as one thing.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from sktransfer.backbones.graphs._pooling import PoolsItself, pool


class FeatureNetwork(nn.Module):
    """Runs a part of a network, and joins the vectors of layers that it passes.

    Parameters
    ----------
    part : nn.Module
        As a graph's `between` returns it: its value, or a tuple of that and vectors.
    pooling : str or None
        How the value becomes a vector too; `None` leaves it as it is.
    channels_last : bool
        Whether the channels of that value, where it is a map, are its last axis.
    order : sequence of int, default=()
        Order of the vectors, counted from the input; `()` is that in which they come.
    widths : sequence of int, default=()
        Widths of vectors that enter with the value at the part's beginning.

    Attributes
    ----------
    on_vectors : callable or None
        Told of the vectors of each batch.
    """

    def __init__(
        self,
        part: nn.Module,
        pooling: str | None,
        channels_last: bool,
        order: Sequence[int] = (),
        widths: Sequence[int] = (),
    ):
        super().__init__()
        self.part = part
        self.pooling = pooling
        self.channels_last = channels_last
        self.order = list(order)
        self.widths = list(widths)
        self.on_vectors: Callable[[list[torch.Tensor]], None] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.result(*self.run(x))

    def result(self, vectors: list[torch.Tensor], value: torch.Tensor) -> torch.Tensor:
        """Return as one tensor what `run` returns."""
        if self.on_vectors is not None:
            self.on_vectors(vectors)
        return join(vectors, self.order) if self.pooling else pack(vectors, value)

    def run(self, x: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Return the vectors of all layers, from the input onwards, and the value at the end."""
        early, entered = unpack(x, self.widths)
        return self.follow(early, entered)

    def follow(self, early: Sequence[torch.Tensor], entered: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Do the same from what the part before has returned."""
        vectors, value = run_part(self.part, entered, early)
        if self.pooling:
            vectors.append(pool_output(self.part, entered, value.float(), self.pooling, self.channels_last))
        return vectors, value


class StoppingNetwork(nn.Module):
    """Runs parts of a network one after another, and returns what each of them alone would.

    Between two parts the value stays as it is, in its order in memory too, so that the last has the bits that it has
    without a stop.

    Parameters
    ----------
    parts : sequence of FeatureNetwork
        Each begins where the one before it ends.
    """

    def __init__(self, parts: Sequence[FeatureNetwork]):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs, vectors, value = [], list[torch.Tensor](), x
        for part in self.parts:
            assert isinstance(part, FeatureNetwork)
            vectors, value = part.follow(vectors, value)
            last = part is self.parts[-1]
            # What follows may work in place.
            outputs.append(part.result(vectors, value if last or vectors else value.clone()))
        return tuple(outputs)


def run_part(
    part: nn.Module, x: torch.Tensor, early: Sequence[torch.Tensor] = ()
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Run a part of a network.

    Parameters
    ----------
    part : nn.Module
        As a graph's `between` returns it.
    x : Tensor of shape (n, ...)
        What enters it.
    early : sequence of Tensor, default=()
        Vectors of layers before it.

    Returns
    -------
    vectors : list of Tensor of shape (n, width)
        Those, and the ones of layers that the part passes.
    value : Tensor of shape (n, ...)
        What leaves it.
    """
    output = part(x)
    value, *vectors = output if isinstance(output, tuple) else (output,)
    return [*early, *vectors], value


def join(vectors: Sequence[torch.Tensor], order: Sequence[int] = ()) -> torch.Tensor:
    """Concatenate vectors.

    Parameters
    ----------
    vectors : sequence of Tensor of shape (n, width)
        At least one.
    order : sequence of int, default=()
        Which, in this order; `()` is all as they come.

    Returns
    -------
    Tensor of shape (n, sum of widths)
        One row per sample.
    """
    chosen = [vectors[i] for i in order] if order else list(vectors)
    return chosen[0] if len(chosen) == 1 else torch.cat(chosen, dim=1)


def pack(vectors: Sequence[torch.Tensor], value: torch.Tensor) -> torch.Tensor:
    """Put vectors in front of a value, in whole slices along its second axis, the last of them filled with zeros.

    Parameters
    ----------
    vectors : sequence of Tensor of shape (n, width)
        Perhaps none.
    value : Tensor of shape (n, length, ...)
        Float32, or of a type that is turned to it where there are vectors.

    Returns
    -------
    Tensor of shape (n, more + length, ...)
        The value itself, where there are no vectors.
    """
    if not vectors:
        return value
    early = torch.cat([vector.float() for vector in vectors], dim=1)
    size = math.prod(value.shape[2:])
    early = nn.functional.pad(early, (0, -early.shape[1] % size))
    return torch.cat([early.reshape(early.shape[0], -1, *value.shape[2:]), value.float()], dim=1)


def unpack(packed: torch.Tensor, widths: Sequence[int]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Take apart what `pack` has put together.

    Parameters
    ----------
    packed : Tensor of shape (n, more + length, ...)
        From `pack`.
    widths : sequence of int
        Of the vectors in it.

    Returns
    -------
    vectors : list of Tensor of shape (n, width)
        The vectors.
    value : Tensor of shape (n, length, ...)
        The value.
    """
    if not widths:
        return [], packed
    n_slices = math.ceil(sum(widths) / math.prod(packed.shape[2:]))
    early, value = packed[:, :n_slices].flatten(1)[:, : sum(widths)], packed[:, n_slices:]
    if value.ndim == 4:  # in the order in memory that it came in: others round otherwise
        last = packed.is_contiguous(memory_format=torch.channels_last) and not packed.is_contiguous()
        value = value.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    return list(torch.split(early, list(widths), dim=1)), value


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
    if isinstance(part, PoolsItself):
        return part._pool_output(x, output, pooling)
    return pool(output, pooling, channels_last)
