"""Networks that are a stack of layers, such as transformers: cut behind the embeddings, and behind each layer.

Their own code runs throughout. A copy of the network whose layers only write down what they are called with says what
each layer is to be given besides the hidden states (masks, positions); the layers are then called with just that. So
nothing here knows one architecture from another: the stack is found, and what does not behave like one is refused.
"""

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sktransfer._process._locks import Lock
from sktransfer._process._seeding import generator_kept
from sktransfer.backbones._identity import Description, describe_network
from sktransfer.backbones.graphs._base import NOTHING, Block, Pooled, Ready
from sktransfer.backbones.graphs._entries import Entry
from sktransfer.backbones.graphs._folding import CAST
from sktransfer.backbones.graphs._layer_calls import (
    Call,
    Gate,
    Opening,
    Passed,
    find_stack,
    is_traced,
    passed_by,
    segments,
    tensors_in,
    with_replaced,
)
from sktransfer.backbones.graphs._layer_part import LayerPart
from sktransfer.backbones.graphs._layer_relays import Relayed
from sktransfer.backbones.graphs._own_vector import OwnVector

# Number of lengths for which the inputs of layers are remembered, and how much memory that may take.
_LENGTHS_KEPT = 64
_BYTES_KEPT = 2**28

FIRST_BLOCK = "embeddings"


@dataclass(frozen=True)
class LayerCut:
    """A cut point between layers.

    Attributes
    ----------
    name : str
        What ends there.
    depth : int
        Blocks before it.
    """

    name: str
    depth: int


class LayerGraph:
    """A network as embeddings and a stack of layers.

    Parameters
    ----------
    network : nn.Module
        In eval mode; it is not changed.
    entry : Entry
        How samples are handed to it.
    finish : nn.Module or None, default=None
        What makes vectors of the last hidden states and of positions of padding, where the network comes with it. Where
        it is a module of the network, or an `OwnVector` names one, the module's weights are a part of the last block.

    Raises
    ------
    UntraceableError
        If the network is not such a stack.
    """

    gives_maps = False

    def __init__(self, network: nn.Module, entry: Entry, finish: nn.Module | None = None):
        self.network, self.entry, self.finish = network, entry, finish
        example = entry.examples()[0]
        self.stack, seen = find_stack(network, entry.arguments(example, entry.padding(example)))
        self.takes_autocast, self.by_rows, self.layers_keep_state = True, False, False
        self.hands_weights = seen.hands_weights
        self._lock = Lock()
        self._known: OrderedDict[Any, tuple[list[Call], int]] = OrderedDict()
        layers = list(network.get_submodule(self.stack))  # type: ignore[call-overload]
        self._after = seen.after
        self._layers = dict(enumerate(layers))
        self._n_returned, self._n_calls = seen.n_returned, len(seen.numbers)
        self.relays = Relayed(seen.relays, self._layers)
        self._sequence, self.ends = seen.numbers, segments(seen.numbers, layers)
        self._end = next((name for name, module in network.named_children() if module is finish), None)
        if isinstance(finish, OwnVector):
            self._end = finish.module
        self.opening = self._make_opening(network)
        self.blocks = self._record_blocks(seen.before, seen.used)

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

    def cut_points_before(self, cut: LayerCut) -> list[LayerCut]:
        """Return the cuts on the way to this one, itself included, in order."""
        return [self.end_of_block(depth) for depth in range(1, cut.depth + 1)]

    def in_order(self, cuts: Iterable[LayerCut]) -> list[LayerCut]:
        """Sort cuts from the input onwards, each once."""
        return sorted(set(cuts), key=lambda cut: cut.depth)

    def parameter_names_before(self, cut: LayerCut) -> set[str]:
        """Return the names of all parameters and buffers of the blocks before a cut."""
        blocks = self.blocks[: cut.depth]
        return {name for block in blocks for name in (*block.parameter_names, *block.buffer_names)}

    def feature_names(self) -> set[str]:
        """Return the names of all parameters and buffers that the features depend on."""
        return {name for block in self.blocks for name in (*block.parameter_names, *block.buffer_names)}

    def has_channels_last(self, cut: LayerCut) -> bool:
        """Tell that features are the last axis, as in every stack of layers."""
        return True

    def between(self, start: LayerCut, end: LayerCut | None = None, pooled: Pooled = NOTHING) -> "LayerPart":
        """Return the part of the network between two cuts, with the network's own layers."""
        stop = self._depth if end is None else end.depth
        opening = self.opening if start.depth == 0 and stop else None
        after = self._modules_after(start.depth, stop)
        return LayerPart(self, start.depth, stop, opening, self._layers, after, self.finish, self._own, pooled)

    def ready(
        self,
        start: LayerCut,
        end: LayerCut,
        device: torch.device,
        bfloat16: bool,
        ready: Ready,
        pooled: Pooled = NOTHING,
    ) -> "LayerPart":
        """Return the part between two cuts, made of copies on a device; under autocast, weights are cast once."""

        def made(name: str, module: nn.Module, exact: bool = False) -> nn.Module:
            cast = bfloat16 and not exact
            key = (name, "", device, cast)
            if key not in ready:
                ready[key] = _made_ready(module, device, cast)
            return ready[key]

        bfloat16 = bfloat16 and self.takes_autocast
        opening = None
        if start.depth == 0 and end.depth:
            skeleton = made("", self.opening.skeleton)
            opening = Opening(skeleton, passed_by(skeleton))
        calls = self.numbers(start.depth, end.depth)
        layers = {number: made(f"{self.stack}.{number}", self._layers[number]) for number in dict.fromkeys(calls)}
        after = {name: made(name, module) for name, module in self._modules_after(start.depth, end.depth).items()}
        finish, own = self.finish, self._own
        if own is not None:
            own = own[0], made(*own, exact=True)
        elif self._end is not None and finish is not None:
            finish = made(self._end, finish, exact=True)
        part = LayerPart(self, start.depth, end.depth, opening, layers, after, finish, own, pooled)
        return part.requires_grad_(False)

    def describe(self) -> Description:
        """Write down what the network computes, except for its weights."""
        after = " ".join(self._after) or None
        return describe_network(
            self.network, stack=self.stack, ends=self.ends, after=after, finish=self.finish, entry=self.entry
        )

    def output_shapes(self, x: torch.Tensor) -> list[tuple[int, ...]]:
        """Run the network once and return the shape of each block's output, up to the features."""
        shapes = []
        for depth in range(1, len(self.blocks) + 1):
            x = self.between(self.end_of_block(depth - 1), self.end_of_block(depth))(x)
            shapes.append(tuple(x.shape))
        return shapes

    # What parts ask

    def calls(self, hidden: torch.Tensor, padding: torch.Tensor | None) -> list[Call]:
        """Return what each layer is called with for such hidden states."""
        if not self.entry.tells_padding:
            padding = None
        rows = hidden if self.by_rows or padding is not None else hidden[:1]
        if padding is not None or (is_traced() and self.entry.tells_padding):
            return self._call_again(rows, padding)
        # All that they depend on: which values there are is not part of it, and the self-check saw that it need not.
        key = (int(rows.shape[0]), int(rows.shape[1]), hidden.device)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key][0]
        calls = self._call_again(rows, padding)
        with self._lock:
            self._known[key] = calls, _count_bytes(calls)
            while len(self._known) > _LENGTHS_KEPT or (
                len(self._known) > 1 and sum(size for _, size in self._known.values()) > _BYTES_KEPT
            ):
                self._known.popitem(last=False)
        return calls

    def forget_calls(self) -> None:
        """Forget what layers are called with."""
        self.relays.forget()
        with self._lock:
            self._known.clear()

    def _call_again(self, hidden: torch.Tensor, padding: torch.Tensor | None) -> list[Call]:
        kept = generator_kept() if torch.is_grad_enabled() else contextlib.nullcontext()  # in training
        cast = torch.autocast(hidden.device.type, enabled=False)
        # Whatever the caller's modes are: what comes of it is remembered, and used in training too.
        with kept, cast, torch.inference_mode(False), torch.no_grad():
            arguments = self.entry.stand_in(hidden, padding, self._count_positions)
            _, calls = self.opening.run(_on_cpu(arguments))
        return [
            Call(call.number, _moved(call.args, hidden.device), _moved(call.kwargs, hidden.device)) for call in calls
        ]

    def _count_positions(self, arguments: dict[str, torch.Tensor]) -> int:
        try:
            return int(self.opening.run(_on_cpu(arguments))[0].shape[1])
        except (RuntimeError, ValueError):  # so short that a convolution does not fit
            return 0

    def call_range(self, start: int, end: int) -> tuple[int, int]:
        """Return which calls of layers lie between two depths."""
        return (self.ends[start - 1] if start else 0), (self.ends[end - 1] if end else 0)

    def layer(self, number: int) -> nn.Module:
        """Return a layer of the stack by its number."""
        return self._layers[number]

    def is_last(self, depth: int) -> bool:
        """Tell whether nothing of the network follows behind some blocks."""
        return depth == self._depth

    # What the network looks like

    @property
    def _depth(self) -> int:
        return len(self.ends)

    def numbers(self, start: int, end: int) -> list[int]:
        first, last = self.call_range(start, end)
        return self._sequence[first:last]

    @property
    def features(self) -> str | None:
        """What the features are, in words, where a module of the network makes them."""
        at_end = len(self.blocks) == self._depth
        return "the pooled vector that the network itself gives (pooler_output)" if self._own and at_end else None

    @property
    def _own(self) -> tuple[str, nn.Module] | None:
        """The network's module that makes its vector, with its name."""
        if not isinstance(self.finish, OwnVector):
            return None
        return self.finish.module, self.network.get_submodule(self.finish.module)

    def _modules_after(self, start: int, end: int) -> dict[str, nn.Module]:
        names = self._after if start < end == self._depth else ()
        return {name: self.network.get_submodule(name) for name in names}

    def _make_opening(self, network: nn.Module) -> Opening:
        passed = Passed()
        gates = [Gate(layer, number, passed, self._n_calls, self._n_returned) for number, layer in self._layers.items()]
        skeleton = with_replaced(network, self.stack, nn.ModuleList(gates))
        if self._end is not None:  # which follows the layers
            skeleton._modules[self._end] = None
        return Opening(skeleton, passed)

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
            numbers = list(dict.fromkeys(self.numbers(depth - 1, depth)))
            mine = [name for number in numbers for name in of_layers[number] if name in used]
            if depth == self._depth:
                mine += [name for name in parameters if name in used - before and not name.startswith(f"{self.stack}.")]
                mine += [name for name in parameters if self._end is not None and name.startswith(f"{self._end}.")]
            prefixes = tuple(f"{self.stack}.{number}." for number in numbers)
            blocks.append(
                Block(f"{self.stack}.{numbers[-1]}", tuple(mine), tuple(b for b in buffers if b.startswith(prefixes)))
            )
        return tuple(blocks)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: _moved(item, device) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_moved(item, device) for item in value)
    return value


def _on_cpu(arguments: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.clone().cpu() for name, tensor in arguments.items()}


def _count_bytes(calls: list[Call]) -> int:
    """Return the memory of what layers are given, which is often the same for each."""
    tensors = [tensor for call in calls for tensor in tensors_in((call.args, call.kwargs))]
    return sum({tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}.values())


def _made_ready(module: nn.Module, device: torch.device, bfloat16: bool) -> nn.Module:
    """Return a copy on a device, with the weights that autocast would turn to bfloat16 in each call in that already."""
    made = copy.deepcopy(module)
    if bfloat16:
        for layer in made.modules():
            if type(layer) in CAST:
                layer.to(torch.bfloat16)
    return made.to(device).requires_grad_(False)
