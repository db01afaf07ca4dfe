"""What a kind of network must provide to be cut: an order of cuts, the part between any two, and blocks.

Two files keep it: `_traced_graph.py` for networks whose operations can be traced, and `_layer_graph.py` for stacks of
layers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from sktransfer.backbones._identity import Description


class UntraceableError(ValueError):
    """The network cannot be traced as a sequence of operations, so it cannot be cut."""


@dataclass(frozen=True)
class Block:
    """Part of a network with weights, between two places where the network can be cut.

    Attributes
    ----------
    name : str
        Path of the last module with weights in the block, such as `"layer3.1"`.
    parameter_names : tuple of str
        Qualified names of its parameters.
    buffer_names : tuple of str
        Qualified names of its buffers, including the running statistics of BatchNorm layers.
    """

    name: str
    parameter_names: tuple[str, ...]
    buffer_names: tuple[str, ...]


# A value at which a network can be cut, of a kind that its graph knows; hashable, with a `name`.
Cut = Any


@dataclass(frozen=True)
class Pooled:
    """Cuts on the way through a part whose values are wanted too, as vectors.

    Parameters
    ----------
    cuts : tuple of Cut, default=()
        In order from the input.
    pooling : str, default="avg"
        How maps and tokens become vectors.
    """

    cuts: tuple[Cut, ...] = ()
    pooling: str = "avg"


NOTHING = Pooled()

# Tensors and layers that are ready to run, by what they were made of.
Ready = dict[tuple[str, str, torch.device, bool], Any]


class Graph(Protocol):
    """Cuts of a network, and its blocks."""

    blocks: tuple[Block, ...]
    gives_maps: bool  # whether values may be maps; else they are tokens

    def ending_at(self, cut: Cut) -> "Graph":
        """Return the same graph with its features at another cut."""

    def cut_names(self) -> list[str]:
        """Return the paths of all modules at whose end the network can be cut, in the order in which they end."""

    def end_of_block(self, depth: int) -> Cut:
        """Return the cut behind the first `depth` blocks; 0 is the input."""

    def end_of_module(self, name: str) -> Cut | None:
        """Return the cut behind a module, or `None` where the network cannot be cut there."""

    def cut_points_before(self, cut: Cut) -> list[Cut]:
        """Return the cuts on the way to this one, itself included, in order."""

    def in_order(self, cuts: Iterable[Cut]) -> list[Cut]:
        """Sort cuts from the input onwards, each once."""

    def parameter_names_before(self, cut: Cut) -> set[str]:
        """Return the names of all parameters and buffers that the value at a cut depends on."""

    def feature_names(self) -> set[str]:
        """Return the names of all parameters and buffers that the features depend on."""

    def has_channels_last(self, cut: Cut) -> bool:
        """Tell whether a map's channels are its last axis."""

    def between(self, start: Cut, end: Cut | None = None, pooled: Pooled = NOTHING) -> nn.Module:
        """Return the part that computes the value at one cut, or the output, from that at another.

        It takes and returns one tensor; where values on the way are wanted too, it returns a tuple of that tensor and
        a vector for each of them, in order. Its layers are the network's own, under their names, not copies.
        """

    def ready(
        self, start: Cut, end: Cut, device: torch.device, bfloat16: bool, ready: Ready, pooled: Pooled = NOTHING
    ) -> nn.Module:
        """Return the part between two cuts, of copies of its layers, as one that computes the same in less time."""

    def forget_calls(self) -> None:
        """Forget what its layers were called with, which lies on the device where they ran."""

    def describe(self) -> Description:
        """Write down what the network computes, except for its weights; raise `NotWritableError` if it cannot."""

    def output_shapes(self, x: torch.Tensor) -> list[tuple[int, ...]]:
        """Run the network once and return the shape of each block's output, up to the features."""
