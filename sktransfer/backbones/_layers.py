"""Networks that are a stack of layers, such as transformers: cut behind the embeddings, and behind each layer.

Their own code runs throughout. A copy of the network whose layers only write down what they are called with says what
each layer is to be given besides the hidden states (masks, positions); the layers are then called with just that. So
nothing here knows one architecture from another: the stack is found, and what does not behave like one is refused.
"""

import contextlib
import copy
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from sktransfer._seeding import generator_kept
from sktransfer.backbones._graph import Block, Ready, UntraceableError
from sktransfer.backbones._identity import Description, describe_network
from sktransfer.backbones._inference import CAST
from sktransfer.backbones._layer_calls import (
    Call,
    Front,
    Gate,
    Notes,
    find_stack,
    first_of,
    is_traced,
    notes_of,
    output_of,
    segments,
    with_replaced,
)
from sktransfer.backbones._pooling import pool

# Lengths of which it is remembered what layers are given.
_LENGTHS_KEPT = 64

FIRST_BLOCK = "embeddings"


class Feed(Protocol):
    """How prepared samples are handed to a network, and how hidden states stand for them."""

    def absent(self, x: torch.Tensor) -> torch.Tensor | None:
        """Return which positions of samples, or of hidden states, stand only for the length of others, if any do."""

    def arguments(self, x: torch.Tensor, absent: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """Return what the network's forward takes."""

    def stand_in(self, hidden: torch.Tensor, absent: torch.Tensor | None) -> dict[str, torch.Tensor] | None:
        """Return what makes it call its layers as with these hidden states; `None` where that is always the same."""

    def as_value(self, x: torch.Tensor, absent: torch.Tensor | None) -> torch.Tensor:
        """Return samples as floats that can be kept and joined like hidden states."""

    def flat(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return hidden states as layers take them, of shape (n, positions, features)."""

    def unflat(self, hidden: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """Return them with a row a sample of `x` again."""


@dataclass(frozen=True)
class LayerCut:
    """A place between layers.

    Attributes
    ----------
    name : str
        What ends there.
    depth : int
        Blocks before it.
    """

    name: str
    depth: int


class _Unchanged:
    """Holds a graph that copies of its holder share: what it runs is never trained."""

    def __init__(self, graph: "LayerGraph"):
        self.graph = graph

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Unchanged":
        return self


class LayerGraph:
    """A network as embeddings and a stack of layers.

    Parameters
    ----------
    network : nn.Module
        In eval mode; it is not changed.
    feed : Feed
        How samples are handed to it.
    example : Tensor
        One prepared sample, or several, to see how the network calls its layers.
    finish : nn.Module or None, default=None
        What makes vectors of the last hidden states and of absent positions, where the network comes with it.

    Raises
    ------
    UntraceableError
        If the network is no such stack.
    """

    def __init__(self, network: nn.Module, feed: Feed, example: torch.Tensor, finish: nn.Module | None = None):
        self.network, self.feed, self.finish = network, feed, finish
        self.stack, seen = find_stack(network, feed.arguments(example, feed.absent(example)))
        self._lock = threading.Lock()
        self.takes_autocast = True
        self._known: OrderedDict[Any, list[Call]] = OrderedDict()
        layers = list(network.get_submodule(self.stack))  # type: ignore[call-overload]
        self._after = seen.after
        self._layers = dict(enumerate(layers))
        self._n_returned, self._n_calls = seen.n_returned, len(seen.numbers)
        self._sequence, self._ends = seen.numbers, segments(seen.numbers, layers)
        self._example_arguments = {
            name: tensor.detach()[:1] for name, tensor in feed.arguments(example, feed.absent(example)).items()
        }
        self._front = self._make_front(network)
        self.blocks = self._record_blocks(seen.before, seen.used)
        self._check(example)
        self.takes_autocast = self._try_autocast(example)

    # What `Graph` owes

    def ending_at(self, cut: LayerCut) -> "LayerGraph":
        """Return the same graph with its features at another cut."""
        other = copy.copy(self)
        other.blocks = self.blocks[: max(1, cut.depth)]
        return other

    def cut_names(self) -> list[str]:
        """Return the names of all blocks."""
        return [block.name for block in self.blocks]

    def end_of_block(self, depth: int) -> LayerCut:
        """Return the cut behind the first `depth` blocks; 0 is the input."""
        return LayerCut("input" if depth == 0 else self.blocks[depth - 1].name, depth)

    def end_of_module(self, name: str) -> LayerCut | None:
        """Return the cut behind a block, or `None` where there is no such block."""
        names = self.cut_names()
        return self.end_of_block(names.index(name) + 1) if name in names else None

    def places_before(self, cut: LayerCut) -> list[LayerCut]:
        """Return the cuts on the way to this one, itself included, in order."""
        return [self.end_of_block(depth) for depth in range(1, cut.depth + 1)]

    def in_order(self, cuts: Iterable[LayerCut]) -> list[LayerCut]:
        """Sort cuts from the input onwards, each once."""
        return sorted(set(cuts), key=lambda cut: cut.depth)

    def parameter_names_before(self, cut: LayerCut) -> set[str]:
        """Return the names of all parameters and buffers of the blocks before a cut."""
        blocks = self.blocks[: cut.depth]
        return {name for block in blocks for name in (*block.parameter_names, *block.buffer_names)}

    def used_names(self) -> set[str]:
        """Return the names of all parameters and buffers that the output depends on."""
        return {name for block in self.blocks for name in (*block.parameter_names, *block.buffer_names)}

    def has_channels_last(self, cut: LayerCut) -> bool:
        """Tell that features are the last axis, as in every stack of layers."""
        return True

    def between(self, start: LayerCut, end: LayerCut | None = None) -> "LayerPart":
        """Return the part of the network between two cuts, with the network's own layers."""
        stop = self._depth if end is None else end.depth
        front = self._front if start.depth == 0 and stop else None
        return LayerPart(self, start.depth, stop, front, self._layers, self._module_after(start.depth, stop))

    def ready(self, start: LayerCut, end: LayerCut, device: torch.device, bfloat16: bool, ready: Ready) -> "LayerPart":
        """Return the part between two cuts, made of copies on a device; under autocast, weights are cast once."""

        def made(name: str, module: nn.Module) -> nn.Module:
            key = (name, "", device, bfloat16)
            if key not in ready:
                ready[key] = _made_ready(module, device, bfloat16)
            return ready[key]

        bfloat16 = bfloat16 and self.takes_autocast
        front = None
        if start.depth == 0 and end.depth:
            skeleton = made("", self._front.skeleton)
            front = Front(skeleton, notes_of(skeleton))
        calls = self._numbers(start.depth, end.depth)
        layers = {number: made(f"{self.stack}.{number}", self._layers[number]) for number in dict.fromkeys(calls)}
        after = self._module_after(start.depth, end.depth)
        after = None if after is None else (after[0], made(after[0], after[1]))
        return LayerPart(self, start.depth, end.depth, front, layers, after).requires_grad_(False)

    def describe(self) -> Description:
        """Write down what the network computes, but for its weights."""
        return describe_network(
            self.network, stack=self.stack, ends=self._ends, after=self._after, finish=self.finish, feed=self.feed
        )

    def interpret(self, x: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Run the network once and yield each block's depth and output, up to the features."""
        for depth in range(1, len(self.blocks) + 1):
            x = self.between(self.end_of_block(depth - 1), self.end_of_block(depth))(x)
            yield depth, x

    # What parts ask

    def calls(self, hidden: torch.Tensor, absent: torch.Tensor | None) -> list[Call]:
        """Return what each layer is called with for such hidden states."""
        arguments = self.feed.stand_in(hidden[:1] if absent is None else hidden, absent)
        always_the_same = arguments is None
        key = (None if always_the_same else hidden.shape[1], hidden.device)
        remembered = always_the_same or (absent is None and not is_traced())
        with self._lock:
            if remembered and key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        if arguments is None:
            arguments = self._example_arguments
        kept = generator_kept() if torch.is_grad_enabled() else contextlib.nullcontext()  # in training
        cast = torch.autocast(hidden.device.type, enabled=False)
        # Whatever the caller's modes are: what comes of it is remembered, and used in training too.
        with kept, cast, torch.inference_mode(False), torch.no_grad():
            _, calls = self._front.run({name: tensor.clone().cpu() for name, tensor in arguments.items()})
        calls = [
            Call(call.number, _moved(call.args, hidden.device), _moved(call.kwargs, hidden.device)) for call in calls
        ]
        if remembered:
            with self._lock:
                self._known[key] = calls
                while len(self._known) > _LENGTHS_KEPT:
                    self._known.popitem(last=False)
        return calls

    def call_range(self, start: int, end: int) -> tuple[int, int]:
        """Return which calls of layers lie between two depths."""
        return (self._ends[start - 1] if start else 0), (self._ends[end - 1] if end else 0)

    def is_last(self, depth: int) -> bool:
        """Tell whether nothing of the network follows behind some blocks."""
        return depth == self._depth

    # What the network looks like

    @property
    def _depth(self) -> int:
        return len(self._ends)

    def _numbers(self, start: int, end: int) -> list[int]:
        first, last = self.call_range(start, end)
        return self._sequence[first:last]

    def _module_after(self, start: int, end: int) -> tuple[str, nn.Module] | None:
        ends = start < end == self._depth
        return (self._after, self.network.get_submodule(self._after)) if self._after and ends else None

    def _make_front(self, network: nn.Module) -> Front:
        notes = Notes()
        gates = [Gate(layer, number, notes, self._n_calls, self._n_returned) for number, layer in self._layers.items()]
        return Front(with_replaced(network, self.stack, nn.ModuleList(gates)), notes)

    def _record_blocks(self, before: set[str], used: set[str]) -> tuple[Block, ...]:
        parameters = dict.fromkeys(name for name, _ in self.network.named_parameters())
        buffers = dict.fromkeys(name for name in self.network.state_dict() if name not in parameters)
        of_layers = {
            number: [name for name in parameters if name.startswith(f"{self.stack}.{number}.")]
            for number in self._layers
        }
        blocks = [
            Block(
                FIRST_BLOCK,
                tuple(name for name in parameters if name in before),
                tuple(name for name in buffers if not name.startswith(f"{self.stack}.")),
            )
        ]
        for depth in range(2, self._depth + 1):
            numbers = list(dict.fromkeys(self._numbers(depth - 1, depth)))
            mine = [name for number in numbers for name in of_layers[number] if name in used]
            if depth == self._depth:
                mine += [name for name in parameters if name in used - before and not name.startswith(f"{self.stack}.")]
            prefixes = tuple(f"{self.stack}.{number}." for number in numbers)
            blocks.append(
                Block(f"{self.stack}.{numbers[-1]}", tuple(mine), tuple(b for b in buffers if b.startswith(prefixes)))
            )
        return tuple(blocks)

    def _check(self, example: torch.Tensor) -> None:
        """Refuse a network whose parts, run one after another, do not give what it gives itself."""
        same, reason = False, ""
        with torch.no_grad():
            expected = output_of(self.network(**self.feed.arguments(example, self.feed.absent(example))))
            try:
                x = example
                for depth in range(1, self._depth + 1):
                    part = self.between(LayerCut("", depth - 1), LayerCut("", depth))
                    part.finish = None
                    x = part(x)
                same = torch.equal(self.feed.flat(x), expected)
            except Exception as error:  # networks raise what they please
                reason = f" ({error})"
        if not same:
            raise UntraceableError(
                f"Got a {type(self.network).__name__}, whose layers, called one after another, do not give what the "
                f"network gives{reason}; expected layers that hand on hidden states alone. It cannot be cut."
            )

    def _try_autocast(self, example: torch.Tensor) -> bool:
        """Tell whether layers can be run in mixed precision: a few have constants that bfloat16 cannot hold."""
        try:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                self.between(self.end_of_block(0), self.end_of_block(min(2, self._depth)))(example)
        except Exception:  # networks raise what they please
            return False
        return True


class LayerPart(nn.Module):
    """The part of a network between two depths; its layers bear the names that they have in the network.

    Parameters
    ----------
    graph : LayerGraph
        Of the network.
    start, end : int
        Blocks before its first layer, and before what follows it.
    front : Front or None
        What runs before the layers, for a part that begins at the input.
    layers : mapping of int to nn.Module
        Layers by their number in the stack.
    after : tuple of str and nn.Module, or None
        What follows the last layer, for a part that ends there.
    """

    def __init__(
        self,
        graph: LayerGraph,
        start: int,
        end: int,
        front: Front | None,
        layers: Mapping[int, nn.Module],
        after: tuple[str, nn.Module] | None,
    ):
        super().__init__()
        self._shared = _Unchanged(graph)
        self.start, self.end = start, end
        self._front = front
        self._first, self._last = graph.call_range(start, end)
        self._stack, self._after = graph.stack, None if after is None else after[0]
        self.finish = graph.finish if start < end and graph.is_last(end) else None
        if front is not None:
            for name, module in _beside(front.skeleton, graph.stack):
                if not (after and name == after[0]):
                    _nest(self, name, module)
        for number in dict.fromkeys(graph._numbers(start, end)):
            _nest(self, f"{graph.stack}.{number}", layers[number])
        if after is not None:
            _nest(self, *after)
        self.eval()

    @property
    def graph(self) -> LayerGraph:
        """The network's graph."""
        return self._shared.graph

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return hidden states, or vectors where the network ends in them; absent positions are NaN on both sides."""
        feed, absent = self.graph.feed, self.graph.feed.absent(x)
        if self.start == self.end:
            return x if self.end else feed.as_value(x, absent)
        if self.graph.takes_autocast:
            hidden = feed.unflat(self._hidden(x, absent), x)
        else:
            with torch.autocast(x.device.type, enabled=False):
                hidden = feed.unflat(self._hidden(x.float() if x.is_floating_point() else x, absent), x)
        if self.finish is not None:
            return self.finish(hidden.float(), absent)
        if absent is not None:
            hidden = hidden.masked_fill(absent.view(*absent.shape, *[1] * (hidden.ndim - absent.ndim)), torch.nan)
        return hidden

    def _hidden(self, x: torch.Tensor, absent: torch.Tensor | None) -> torch.Tensor:
        feed = self.graph.feed
        if self._front is not None:
            hidden, calls = self._front.run(feed.arguments(x, absent))
        else:
            hidden = feed.flat(x if absent is None else x.nan_to_num())
            calls = self.graph.calls(hidden, absent)
        layers = self.get_submodule(self._stack) if self._last > self._first else None
        for call in calls[self._first : self._last]:
            hidden = first_of(getattr(layers, str(call.number))(hidden, *call.args, **call.kwargs))
        return hidden if self._after is None else self.get_submodule(self._after)(hidden)

    def pool(self, x: torch.Tensor, hidden: torch.Tensor, pooling: str) -> torch.Tensor:
        """Make vectors of what this part made of `x`: over the positions that are there, and over windows."""
        if hidden.ndim == 2:
            return hidden
        if pooling == "flatten":
            raise ValueError(
                'Got pooling="flatten" for samples that may differ in length; expected features of one length. Use '
                '"mean", "max", "cls" or "last".'
            )
        absent = self.graph.feed.absent(x)
        if hidden.ndim == 3:
            return pool(hidden, pooling, absent=absent)
        vectors = pool(hidden.flatten(0, 1), pooling).view(*hidden.shape[:2], -1)
        return pool(vectors, "max" if pooling == "max" else "mean", absent=absent)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _moved(item, device) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_moved(item, device) for item in value)
    return value


def _beside(module: nn.Module, path: str, prefix: str = "") -> Iterator[tuple[str, "nn.Module | nn.Parameter"]]:
    """Yield what stands beside a path: modules, and parameters of the modules on the path."""
    on_the_way, _, rest = path.partition(".")
    for name, parameter in module._parameters.items():
        if parameter is not None:
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
        if owner not in root._modules:
            root.add_module(owner, nn.Module())
        root = root.get_submodule(owner)
    if isinstance(thing, nn.Parameter):
        root.register_parameter(name, thing)
    else:
        root.add_module(name, thing)


def _made_ready(module: nn.Module, device: torch.device, bfloat16: bool) -> nn.Module:
    """Return a copy on a device, with the weights that autocast would turn to bfloat16 in each call in that already."""
    made = copy.deepcopy(module)
    if bfloat16:
        for layer in made.modules():
            if type(layer) in CAST:
                layer.to(torch.bfloat16)
    return made.to(device).requires_grad_(False)
