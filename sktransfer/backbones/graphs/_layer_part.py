"""The part of a stack of layers between two cuts, as a module that takes and returns one tensor."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import nn

from sktransfer.backbones.graphs._base import NOTHING, Pooled
from sktransfer.backbones.graphs._layer_calls import Opening, first_of, twin
from sktransfer.backbones.graphs._layer_relays import Relayed
from sktransfer.backbones.graphs._pooling import PoolsItself, pool


class Layers(Protocol):
    """What a part asks the graph of its network."""

    entry: Any
    stack: str
    ends: Any
    takes_autocast: bool
    hands_weights: bool
    layers_keep_state: bool
    relays: Relayed

    def call_range(self, start: int, end: int) -> tuple[int, int]:
        """Return the calls between two depths."""

    def numbers(self, start: int, end: int) -> list[int]:
        """Return the numbers of the layers that are called between two depths, in order."""

    def is_last(self, depth: int) -> bool:
        """Tell whether nothing follows a depth."""

    def calls(self, hidden: torch.Tensor, padding: torch.Tensor | None) -> list[Any]:
        """Return how layers are called on such hidden states."""


class _Unchanged:
    """Holds a graph that copies of its holder share: what it runs is never trained."""

    def __init__(self, graph: Layers):
        self.graph = graph

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Unchanged":
        return self


class LayerPart(PoolsItself, nn.Module):
    """The part of a network between two depths; its layers bear the names that they have in the network.

    Parameters
    ----------
    graph : Layers
        Of the network.
    start, end : int
        Blocks before its first layer, and before what follows it.
    opening : Opening or None
        What runs before the layers, for a part that begins at the input.
    layers : mapping of int to nn.Module
        Layers by their number in the stack.
    after : mapping of str to nn.Module
        What follows the last layer, in order, for a part that ends there.
    finish : nn.Module or None
        What makes vectors of hidden states at the end of the network.
    own : tuple of str and nn.Module, or None
        The network's own module that goes on from what `finish` gives.
    pooled : Pooled, default=NOTHING
        Cuts from `start` on whose values are returned too, as vectors.
    """

    def __init__(
        self,
        graph: Layers,
        start: int,
        end: int,
        opening: Opening | None,
        layers: Mapping[int, nn.Module],
        after: Mapping[str, nn.Module],
        finish: nn.Module | None,
        own: tuple[str, nn.Module] | None = None,
        pooled: Pooled = NOTHING,
    ):
        super().__init__()
        self._shared = _Unchanged(graph)
        self.start, self.end, self.pooled = start, end, pooled
        self._opening = opening
        self._first, self._last = graph.call_range(start, end)
        self._ends = graph.ends
        self._stack, self._after = graph.stack, tuple(after)
        ends = start < end and graph.is_last(end)
        self.finish = finish if ends else None
        self._own = own[0] if own is not None and ends else None
        if opening is not None:
            for name, module in _beside(opening.skeleton, graph.stack):
                if name not in after:
                    _nest(self, name, module)
        for number in dict.fromkeys(graph.numbers(start, end)):
            _nest(self, f"{graph.stack}.{number}", layers[number])
        for name, module in after.items():
            _nest(self, name, module)
        if own is not None and ends:
            _nest(self, *own)
        self.eval()

    @property
    def graph(self) -> Layers:
        """The network's graph."""
        return self._shared.graph

    def forward(self, x: torch.Tensor) -> Any:
        """Return hidden states, or vectors where the network ends in them; padding is NaN on both sides."""
        vectors: list[torch.Tensor] = []
        value = self._value(x, vectors)
        return (value, *vectors) if self.pooled.cuts else value

    def _value(self, x: torch.Tensor, vectors: list[torch.Tensor]) -> torch.Tensor:
        entry, padding = self.graph.entry, self.graph.entry.padding(x)
        if self.start and self.start in self._wanted:
            vectors.append(self._pooled(x, x))
        if self.start == self.end:
            return x if self.end else entry.as_value(x, padding)
        if self.graph.takes_autocast:
            hidden = entry.unflat(self._hidden(x, padding, vectors), x)
        else:
            with torch.autocast(x.device.type, enabled=False):
                hidden = entry.unflat(self._hidden(x.float() if x.is_floating_point() else x, padding, vectors), x)
        if self.finish is not None:
            return self._vectors(self.finish(hidden.float(), padding))
        if padding is not None:
            hidden = hidden.masked_fill(padding.view(*padding.shape, *[1] * (hidden.ndim - padding.ndim)), torch.nan)
        return hidden

    def _vectors(self, finished: torch.Tensor) -> torch.Tensor:
        if self._own is None:
            return finished
        with torch.autocast(finished.device.type, enabled=False):  # one vector per text: exact costs nothing
            vectors: torch.Tensor = self.get_submodule(self._own)(finished)
        return vectors

    @property
    def _wanted(self) -> dict[int, int]:
        """The calls before each cut whose value is wanted, by its depth."""
        return {cut.depth: self._ends[cut.depth - 1] for cut in self.pooled.cuts}

    def _pooled(self, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        vector = self._pool_output(x, hidden.float(), self.pooled.pooling)
        return vector.clone() if self.pooled.pooling == "cls" else vector

    def _hidden(self, x: torch.Tensor, padding: torch.Tensor | None, vectors: list[torch.Tensor]) -> torch.Tensor:
        entry = self.graph.entry
        if self._opening is not None:
            hidden, calls = self._opening.run(entry.arguments(x, padding))
            if torch.is_autocast_enabled(x.device.type) and not self.graph.hands_weights:
                # Positions are counted in full precision, and on both sides of a cut the same.
                calls = self.graph.calls(hidden, padding)
        else:
            hidden = entry.flat(x if padding is None else x.nan_to_num())
            calls = self.graph.calls(hidden, padding)
        layers = self.get_submodule(self._stack) if self._last > self._first else None
        wanted = {calls for depth, calls in self._wanted.items() if depth > self.start}
        relays, returned = self.graph.relays, dict[tuple[int, int], torch.Tensor]()
        for count, call in enumerate(calls[self._first : self._last], start=self._first):
            if count in self._ends:
                hidden = _without(hidden, padding if entry.tells_padding else None)
            if count in wanted:
                vectors.append(self._pooled(x, entry.unflat(hidden, x)))
            layer = getattr(layers, str(call.number))
            layer = twin(layer) if self.graph.layers_keep_state else layer
            if relays.are_given(count):
                call = relays.give(count, calls, returned, hidden, padding is not None and entry.tells_padding)
            result = layer(hidden, *call.args, **call.kwargs)
            relays.take(count, result, returned)
            hidden = first_of(result)
        for name in self._after:
            hidden = self.get_submodule(name)(hidden)
        return hidden

    def _pool_output(self, x: torch.Tensor, hidden: torch.Tensor, pooling: str) -> torch.Tensor:
        """Make vectors of what this part made of `x`: over the positions that are there, and over windows."""
        if hidden.ndim == 2:
            return hidden
        if pooling == "flatten":
            raise ValueError(
                'Got pooling="flatten" for samples that may differ in length; expected features of one length. Use '
                '"mean", "max", "cls" or "last".'
            )
        padding = self.graph.entry.padding(x)
        if hidden.ndim == 3:
            return pool(hidden, pooling, padding=padding)
        vectors = pool(hidden.flatten(0, 1), pooling).view(*hidden.shape[:2], -1)
        return pool(vectors, "max" if pooling == "max" else "mean", padding=padding)


def _without(hidden: torch.Tensor, padding: torch.Tensor | None) -> torch.Tensor:
    """Return hidden states with zeros for padding between blocks, cut or not: so a cut there changes no bit."""
    return hidden if padding is None else hidden.masked_fill(padding.unsqueeze(-1), 0)


def _beside(module: nn.Module, path: str, prefix: str = "") -> Iterator[tuple[str, "nn.Module | nn.Parameter"]]:
    """Yield what stands beside a path: modules, and parameters of the modules on the path."""
    on_the_way, _, rest = path.partition(".")
    for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
        yield f"{prefix}{name}", parameter
    for name, child in module.named_children():
        if name != on_the_way:
            yield f"{prefix}{name}", child
        elif rest:
            yield from _beside(child, rest, f"{prefix}{name}.")


def _nest(root: nn.Module, path: str, thing: "nn.Module | nn.Parameter") -> None:
    """Give a module a descendant, or a parameter, of this path."""
    *owners, name = path.split(".")
    for owner in owners:
        if owner not in dict(root.named_children()):
            root.add_module(owner, nn.Module())
        root = root.get_submodule(owner)
    if isinstance(thing, nn.Parameter):
        root.register_parameter(name, thing)
    else:
        root.add_module(name, thing)
