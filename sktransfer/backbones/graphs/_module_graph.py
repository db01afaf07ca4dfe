"""Cut networks that run their own code on samples of one size, after modules that all later ones depend on.

Nothing here knows one architecture from another, or traces operations: a run with gradients to follow says which
results every way from the output back to the samples passes, and parts are seen to give the bits of the whole.
"""

import contextlib
import copy
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from sktransfer._messages import first_line
from sktransfer._process._private_names import ConvNd, NormBase
from sktransfer._process._seeding import seeded
from sktransfer.backbones._identity import Description, describe_network
from sktransfer.backbones.graphs._base import NOTHING, Block, Pooled, Ready, UntraceableError
from sktransfer.backbones.graphs._examples import without_memory
from sktransfer.backbones.graphs._folding import CAST
from sktransfer.backbones.graphs._module_calls import (
    Event,
    Watched,
    forget,
    has_a_row_per_sample,
    is_known,
    remembered,
    value_in,
    watch,
)
from sktransfer.backbones.graphs._module_part import ModulePart, planned
from sktransfer.backbones.graphs._pooling import pool


@dataclass(frozen=True)
class ModuleCut:
    """A cut point behind a module.

    Attributes
    ----------
    name : str
        Path of the module, `"input"`, or `"features"`.
    order : int
        When its call ended, counted from 1.
    """

    name: str
    order: int

    @property
    def is_input(self) -> bool:
        """Whether nothing of the network lies before it."""
        return self.order == 0


_INPUT = ModuleCut("input", 0)
# How many parameters a network may have that is run on numbers to see how it runs.
_SMALL = 50_000_000


class SizedEntry(Protocol):
    """Hand samples of one size to a network, and take its features out of the result."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one sample."""

    @property
    def usual(self) -> str:
        """Return what stands for the pooling `"avg"` of tokens."""

    @property
    def features(self) -> str:
        """Description of the features."""

    def arguments(self, x: torch.Tensor) -> dict[str, Any]:
        """Return what the network's forward takes."""

    def settle(self, output: Any, network: nn.Module, watched: nn.Module) -> None:
        """Choose what the features are, given what the network, or its like without values, has returned."""

    def found_special(self, special: torch.Tensor | None) -> None:
        """Remember the tokens that are the same for any samples."""

    def read(self, output: Any) -> torch.Tensor:
        """Return the features of what the network's forward returns."""


class ModuleGraph:
    """A network that takes samples of one size, its cuts and its blocks.

    Parameters
    ----------
    network : nn.Module
        In eval mode; it is not changed.
    entry : SizedEntry
        How samples are handed to it.

    Raises
    ------
    UntraceableError
        If it cannot be cut, or its parts do not give what it gives itself.
    """

    gives_maps = True
    poison = 0.0

    def __init__(self, network: nn.Module, entry: SizedEntry):
        self.network, self.entry = network, entry
        self.remembered: dict[str, dict[str, Any]] = {}
        watched = self._watch()
        self._spans, self._parameters = watched.spans, watched.parameters
        self._events = {event.name: event for event in watched.events}
        self._lasting = set(network.state_dict())
        cuts: dict[int, ModuleCut] = {}
        self._cut_of: dict[str, ModuleCut] = {}
        self._before: dict[ModuleCut, set[str]] = {_INPUT: set()}
        names: set[str] = set()
        for event in watched.events:
            names |= event.parameters
            if not (event.is_cut and has_a_row_per_sample(event.result)):
                continue
            number = event.node
            if number not in cuts:
                cuts[number] = ModuleCut(event.name, event.end + 1)
                self._before[cuts[number]] = set(names)
            self._cut_of[event.name] = cuts[number]
        end = 1 + max((last for _, last in self._spans.values()), default=0)
        # A module that returns the features themselves ends there, and so does what it is a part of.
        features = ModuleCut("features", end + 1)
        self._before[features] = set(self._parameters)
        self._cut_points = [*cuts.values()]
        self._features = self._end = features
        self.special: torch.Tensor | None = None
        self._blocks_and_ends()
        self._features_shape = self._check()

    # What the graph tells

    @property
    def features(self) -> str | None:
        """Description of the features; `None` if the user chose the layer."""
        return self.entry.features if self._features == self._end else None

    def ending_at(self, cut: ModuleCut) -> "ModuleGraph":
        """Return the same graph with its features at another cut."""
        other = copy.copy(self)
        other._features = cut
        other._blocks_and_ends()
        return other

    def cut_names(self) -> list[str]:
        """Return the paths of all modules at whose end the network can be cut, in the order in which they end."""
        return [name for name, cut in self._cut_of.items() if cut.order <= self._features.order]

    def end_of_block(self, depth: int) -> ModuleCut:
        """Return the cut behind the first `depth` blocks; 0 is the input."""
        return self._ends[depth - 1] if depth else _INPUT

    def end_of_module(self, name: str) -> ModuleCut | None:
        """Return the cut behind a module, or `None` where the network cannot be cut there."""
        cut = self._cut_of.get(name)
        return cut if cut is not None and cut.order <= self._features.order else None

    def cut_points_before(self, cut: ModuleCut) -> list[ModuleCut]:
        """Return the cuts on the way to this one, itself included, in order."""
        return [*(one for one in self._cut_points if one.order < cut.order), cut]

    def in_order(self, cuts: Iterable[ModuleCut]) -> list[ModuleCut]:
        """Sort cuts from the input onwards, each once."""
        return sorted(set(cuts), key=lambda cut: cut.order)

    def parameter_names_before(self, cut: ModuleCut) -> set[str]:
        """Return the names of all parameters and buffers that a value depends on."""
        return self._before[cut] | {name for name in self._buffers if self._buffer_order(name) <= cut.order}

    def feature_names(self) -> set[str]:
        """Return the names of all parameters and buffers that the features depend on."""
        return self.parameter_names_before(self._features)

    def has_channels_last(self, cut: ModuleCut) -> bool:
        """Tell whether a map's channels are its last axis, by its shape, or else by the last layer before it."""
        shape = self._shape_at(cut)
        height, width = self.entry.shape[-2:]
        if shape is not None and len(shape) == 4:
            first, last = shape[2] * width == shape[3] * height, shape[1] * width == shape[2] * height
            if first != last:
                return last
        done = [event for event in self._events.values() if event.end < cut.order]
        modules = (self.network.get_submodule(event.name) for event in reversed(done))
        for module in modules:
            if isinstance(module, ConvNd | NormBase | nn.GroupNorm):
                return False
            if isinstance(module, nn.Linear | nn.LayerNorm):
                return True
        return False

    def between(self, start: ModuleCut, end: ModuleCut | None = None, pooled: Pooled = NOTHING) -> ModulePart:
        """Return the part of the network between two cuts, with the network's own layers."""
        return self._part(start, end or self._end, lambda name, thing: thing, pooled)

    def ready(
        self,
        start: ModuleCut,
        end: ModuleCut,
        device: torch.device,
        bfloat16: bool,
        ready: Ready,
        pooled: Pooled = NOTHING,
    ) -> ModulePart:
        """Return the part between two cuts, made of copies on a device; under autocast, weights are cast once."""

        def made(name: str, thing: Any) -> Any:
            key = (name, "", device, bfloat16)
            if key not in ready:
                ready[key] = _made_ready(thing, device, bfloat16)
            return ready[key]

        return self._part(start, end, made, pooled).requires_grad_(False)

    def forget_calls(self) -> None:
        """Nothing is remembered from run to run."""

    def describe(self) -> Description:
        """Write down what the network computes, except for its weights."""
        return describe_network(self.network, entry=self.entry, special=self.special)

    def output_shapes(self, x: torch.Tensor) -> list[tuple[int, ...]]:
        """Run the network once and return the shape of each block's output, up to the features."""
        shapes = []
        for depth in range(1, len(self.blocks) + 1):
            x = self.between(self.end_of_block(depth - 1), self.end_of_block(depth))(x)
            shapes.append(tuple(x.shape))
        return shapes

    # What parts ask

    def arguments(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what the network's forward takes."""
        return self.entry.arguments(x)

    def blank(self, x: torch.Tensor) -> torch.Tensor:
        """Return samples with nothing in them, as many as there are values."""
        return torch.full((1, *self.entry.shape), self.poison, device=x.device).expand(x.shape[0], *self.entry.shape)

    def read(self, output: Any) -> torch.Tensor:
        """Return the features of what the network's forward returns."""
        return self.entry.read(output)

    def pool(self, value: torch.Tensor, pooling: str, cut: ModuleCut) -> torch.Tensor:
        """Return a value at a cut as vectors; tokens that stand for no patch are left out of means and maxima."""
        if value.ndim == 3 and pooling in ("avg", "mean", "max"):
            special = self.special
            has_special = special is not None and len(special) == value.shape[1]
            if pooling == "avg" and self.entry.usual == "cls" and (has_special or cut == self._end):
                return value[:, 0]
            if special is not None and has_special:
                value = value[:, (~special).to(value.device)]
        return pool(value, pooling, self.has_channels_last(cut))

    # Parts

    def _part(self, start: ModuleCut, end: ModuleCut, made: Callable[[str, Any], Any], pooled: Pooled) -> ModulePart:
        before, upto = self._before[start], self._before[end]
        kept = upto - before
        frozen = before if start.order else set()
        if start == end:
            kept, frozen = set(), set()
        wanted = {cut.name for cut in (*pooled.cuts, end)}
        plan = planned(self._roles(start, end), self.network, kept, frozen, self._lasting, wanted, self.remembered)
        plan.last = None if end == self._end else end.name
        plan.results = {name: event.result for name, event in self._events.items() if name in plan.roles}
        return ModulePart(self, plan, start, end, made, pooled)

    def _roles(self, start: ModuleCut, end: ModuleCut) -> dict[str, str]:
        """Say what stands for modules before and behind a part."""
        roles = {}
        for name, (first, last) in self._spans.items():
            event = self._events.get(name)
            if start == end:
                roles[name] = "unreached"
            elif name == start.name:
                roles[name] = "given"
            elif last + 1 <= start.order and event is not None and event.node is not None and is_known(event.result):
                roles[name] = "passed"
            elif first + 1 > end.order:
                roles[name] = "unreached"
        return roles

    # Blocks

    @property
    def _buffers(self) -> list[str]:
        parameters = {name for name, _ in self.network.named_parameters(remove_duplicate=False)}
        return [name for name in self._lasting if name not in parameters]

    def _buffer_order(self, name: str) -> int:
        """Return when the module of a buffer has done its work, counted like cuts."""
        owner = name.rpartition(".")[0]
        return self._spans[owner][1] + 1 if owner in self._spans else 1

    def _shape_at(self, cut: ModuleCut) -> tuple[int, ...] | None:
        if cut == self._end:
            return self._features_shape
        event = self._events.get(cut.name)
        return None if event is None else tuple(value_in(event.result).sizes)

    def _blocks_and_ends(self) -> None:
        """Find blocks: stretches between cuts that hold layers, as large as the smallest module that cannot be cut."""
        cuts = self.cut_points_before(self._features)
        flowing = (event for event in self._events.values() if event.node is not None)
        layers = [event for event in flowing if _is_layer(self.network.get_submodule(event.name))]
        layers = [event for event in layers if event.end + 1 <= self._features.order]
        sections: list[tuple[ModuleCut, list[Event]]] = []
        start = 0
        for cut in cuts:
            inside = [event for event in layers if start < event.end + 1 <= cut.order]
            inside = [event for event in inside if self._has_used(event.name)]
            if inside:
                sections.append((cut, inside))
            start = cut.order
        units = self._units([[event.name for event in inside] for _, inside in sections])
        groups: list[tuple[str, ModuleCut, Event]] = []  # of each block its module, its last cut and its first layer
        for cut, inside in sections:
            scopes = _scopes(inside[-1].name)
            unit = next((scope for scope in scopes if scope in units), None)
            if groups and unit is not None and groups[-1][0] == unit:
                groups[-1] = (unit, cut, groups[-1][2])
            else:
                groups.append((unit or inside[-1].name, cut, inside[0]))
        names = _widened([name for name, _, _ in groups])
        ends = [
            self._boundary(cut, follower, first)
            for (_, cut, _), follower, (_, _, first) in zip(groups, names[1:], groups[1:], strict=False)
        ]
        self._ends = [*ends, self._features]
        self.blocks = self._record_blocks(names or ["network"], self._ends)

    def _has_used(self, name: str) -> bool:
        return any(
            f"{name}.{own}" in self._parameters for own, _ in self.network.get_submodule(name).named_parameters()
        )

    def _units(self, sections: list[list[str]]) -> set[str]:
        """Modules not to be cut: the smallest around layers between which there is no cut, and all of their class."""
        units = set()
        for names in sections:
            common = [scope for scope in _scopes(names[-1]) if all(scope in _scopes(name) for name in names)]
            if common and not _is_layer(self.network.get_submodule(common[-1])):
                units.add(common[-1])
        kinds = {type(self.network.get_submodule(name)) for name in units}
        kinds = {kind for kind in kinds if not kind.__module__.startswith("torch.nn.")}
        return units | {name for name, module in self.network.named_modules() if name and type(module) in kinds}

    def _boundary(self, last: ModuleCut, follower: str, first: Event) -> ModuleCut:
        """Return the last cut before the next block's module opens: a normalisation stays with its layer."""
        opens = self._spans[follower][0] if follower in self._spans else first.start
        between = [cut for cut in self._cut_points if last.order <= cut.order <= first.start]
        outside = [cut for cut in between if cut.order <= opens]
        return outside[-1] if outside else (between or [last])[0]

    def _record_blocks(self, names: list[str], ends: list[ModuleCut]) -> tuple[Block, ...]:
        parameters = [name for name, _ in self.network.named_parameters()]
        blocks, before = [], set[str]()
        for name, end in zip(names, ends, strict=True):
            upto = self.parameter_names_before(end)
            new = upto - before
            mine = set(parameters)
            blocks.append(
                Block(
                    name,
                    tuple(one for one in parameters if one in new),
                    tuple(sorted(one for one in new if one not in mine)),
                )
            )
            before = upto
        return tuple(blocks)

    # Looks

    def _watch(self) -> Watched:
        """See how the network runs: a large one on tensors without values, where it takes them."""
        network, kind = self.network, type(self.network).__name__
        if sum(parameter.numel() for parameter in network.parameters()) > _SMALL:
            # Not with "meta" as the device of all that is made: libraries keep some tensors for later calls.
            with contextlib.suppress(Exception):
                return self._watch_copy(without_memory(network))
        try:
            # What torch would keep for gradients is dropped: nobody asks for them.
            with saved_tensors_hooks(_dropped, _dropped):
                return self._watch_copy(copy.deepcopy(network))
        except UntraceableError:
            raise
        except Exception as error:  # networks raise what they please
            raise UntraceableError(
                f"Got a {kind} that cannot be run on an image alone ({first_line(error)}); expected a network that "
                f"takes pictures of shape {tuple(self.entry.shape)}. Use another network."
            ) from error

    def _watch_copy(self, copied: nn.Module) -> Watched:
        """See how a copy runs, and which of its modules keep what they compute of their parameters."""
        watched = watch(copied, self._run_watched)
        self.remembered = remembered(self.network, copied)
        return watched

    def _run_watched(self, network: nn.Module, n_samples: int) -> tuple[torch.Tensor, Any]:
        device = next(network.parameters()).device
        x = torch.rand(n_samples, *self.entry.shape, generator=torch.Generator().manual_seed(0))
        x = x.to(device).requires_grad_(True).clone()
        with torch.enable_grad(), torch.autocast("cpu", enabled=False), seeded(0):
            output = network(**self.entry.arguments(x))
        self.entry.settle(output, self.network, network)
        return x, self.entry.read(output)

    def _check(self) -> tuple[int, ...]:
        """Refuse a network whose parts do not give the bits that it gives itself; return the shape of its features."""
        kind = type(self.network).__name__
        x = torch.rand(2, *self.entry.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
        self.poison = torch.nan
        try:
            with seeded(0), torch.no_grad():
                whole = self.read(self.network(**self.arguments(x)))
                value = x
                for depth in range(1, len(self.blocks) + 1):
                    part = self.between(self.end_of_block(depth - 1), self.end_of_block(depth))
                    value = part(value)
                    if depth == 1 and value.ndim == 3:
                        same = (value[0] == value[1]).all(dim=1)
                        self.special = same if same.any() and not same.all() else None
                        self.entry.found_special(self.special)
        except Exception as error:  # networks raise what they please
            raise UntraceableError(
                f"Got a {kind} whose parts cannot be run one after another ({first_line(error)}); expected modules "
                "that need only the results of earlier modules. It cannot be cut: use another network."
            ) from error
        finally:
            self.poison = 0.0
            for name, values in self.remembered.items():
                forget(self.network.get_submodule(name), values)
        if whole.shape[:1] != x.shape[:1] or not whole.is_floating_point():
            raise UntraceableError(
                f"Got a {kind} that returns values of shape {tuple(whole.shape)} for two pictures; expected one row "
                "per picture. It cannot be cut: use another network."
            )
        if not torch.equal(value, whole):
            raise UntraceableError(
                f"Got a {kind} whose modules, called one after another, do not reproduce the network's result; "
                "expected modules that need only the results of earlier modules. It cannot be cut: use another network."
            )
        return tuple(whole.shape)


def _dropped(_: Any) -> Any:
    return None


def _is_layer(module: nn.Module) -> bool:
    own = any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))
    return own and not any(next(child.parameters(), None) is not None for child in module.children())


def _scopes(name: str) -> list[str]:
    """Return the paths of the modules around a module, from the outermost, and its own."""
    parts = name.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def _widened(names: list[str]) -> list[str]:
    """Name each block after the outermost module that holds this block alone."""
    count = Counter(scope for name in names for scope in _scopes(name))
    return [next((scope for scope in _scopes(name) if count[scope] == 1), name) for name in names]


def _made_ready(thing: Any, device: torch.device, bfloat16: bool) -> Any:
    if isinstance(thing, torch.Tensor):
        made = thing.detach().clone().to(device)
        return nn.Parameter(made, requires_grad=False) if isinstance(thing, nn.Parameter) else made
    module = copy.deepcopy(thing)
    for layer in module.modules():
        if bfloat16 and type(layer) in CAST:
            layer.to(torch.bfloat16)
        if isinstance(layer, nn.Conv2d):
            layer.to(memory_format=torch.channels_last)
    return module.to(device).requires_grad_(False)
