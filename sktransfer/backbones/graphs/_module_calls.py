"""Record how a network calls its modules, and which of their results everything later depends on.

The network is run once without memory for its values, with gradients to follow: a result that every way from the output
back to the samples passes is one at which the network can be cut.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from sktransfer.backbones.graphs._base import UntraceableError

# What a module returns: tensors in it are given by their shape and type.
Shaped = Any


class _Nothing:
    """Stands for an attribute that is not there."""


@dataclass(frozen=True)
class Shape:
    """A tensor that a module returns, without its values.

    Attributes
    ----------
    sizes : tuple of int
        For one sample where the first axis grows with their number; else as they are.
    grows : bool
        Whether the first axis does.
    dtype : torch.dtype
        Its type.
    """

    sizes: tuple[int, ...]
    grows: bool
    dtype: torch.dtype

    def blank(self, n_samples: int, device: torch.device) -> torch.Tensor:
        """Return zeros of this shape for so many samples."""
        first = self.sizes[0] * n_samples if self.grows else None
        sizes = self.sizes if first is None else (first, *self.sizes[1:])
        return torch.zeros(sizes, dtype=self.dtype, device=device)


@dataclass
class Event:
    """A call of a module.

    Attributes
    ----------
    name : str
        Path of the module.
    start, end : int
        Where in the run it began and ended.
    result : object
        What it returned, with tensors as `Shape`.
    node : object
        What torch remembers of its first tensor, by number; `None` where that does not depend on the samples.
    is_cut : bool
        Whether all that follows needs nothing else of the samples.
    parameters : set of str
        Parameters on the way from the cut before to this one.
    """

    name: str
    start: int
    end: int = -1
    result: Shaped = None
    node: Any = None
    is_cut: bool = False
    parameters: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Watched:
    """Record of a run of a network.

    Attributes
    ----------
    events : list of Event
        Calls of modules that were called once, in order of their ends.
    spans : dict of str to tuple of int
        When the first call of each module began and its last ended.
    parameters : set of str
        All that the output depends on.
    behind : set of str
        Those on the way from the last cut to the output.
    """

    events: list[Event]
    spans: dict[str, tuple[int, int]]
    parameters: set[str]
    behind: set[str]


def value_in(result: Any) -> Any:
    """Return the first tensor in what a module returns, or `None`."""
    return next(iter(_tensors_in(result)), None)


def _tensors_in(result: Any) -> Iterator[Any]:
    if isinstance(result, torch.Tensor | Shape):
        yield result
    elif isinstance(result, Mapping):
        for one in result.values():
            yield from _tensors_in(one)
    elif isinstance(result, tuple | list):
        for one in result:
            yield from _tensors_in(one)


def mapped(result: Any, change: Callable[[Any], Any]) -> Any:
    """Return the like of what a module returned with other tensors, whatever holds them.

    Parameters
    ----------
    result : object
        A tensor, or a tuple, list or mapping of what may hold some.
    change : callable
        Of each tensor, or `Shape`.

    Returns
    -------
    object
        Of the same kinds.
    """
    if isinstance(result, torch.Tensor | Shape):
        return change(result)
    if isinstance(result, Mapping):
        kind: Any = type(result)
        return kind(**{str(name): mapped(one, change) for name, one in result.items()})
    if isinstance(result, tuple | list):
        held = [mapped(one, change) for one in result]
        kind = type(result)
        return kind(*held) if hasattr(result, "_fields") else kind(held)
    return result


def watch(network: nn.Module, run: Callable[[nn.Module, int], tuple[torch.Tensor, torch.Tensor]]) -> Watched:
    """Run a network on two and on three samples, and see what its modules return.

    Parameters
    ----------
    network : nn.Module
        A copy that may be changed: its parameters will want gradients.
    run : callable
        Given the network and a number of samples, returns those samples, which want gradients, and the output.

    Returns
    -------
    Watched
        What was seen.

    Raises
    ------
    UntraceableError
        If the network cannot be run, or calls other modules for other numbers of samples.
    """
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    calls, x, output = _run_once(network, run, 2)
    others, _, _ = _run_once(network, run, 3)
    if [event.name for event in calls] != [event.name for event in others]:
        raise UntraceableError(
            f"Got a {type(network).__name__} that calls different layers for two and for three samples; expected the "
            "same layers for any number of samples. It cannot be cut: use another network."
        )
    counts = Counter(event.name for event in calls)
    spans: dict[str, tuple[int, int]] = {}
    for event in calls:
        first, last = spans.get(event.name, (event.start, event.end))
        spans[event.name] = min(first, event.start), max(last, event.end)
    events = []
    for event, other in zip(calls, others, strict=True):
        if counts[event.name] == 1:
            event.result = _joined(event.result, other.result)
            events.append(event)
    graph = _Dataflow(output, x)
    for event in events:
        event.node, event.is_cut = graph.place_of(event.node)
    return _with_parameters(events, spans, graph, _names_of(network))


def remembered(network: nn.Module, copied: nn.Module) -> dict[str, dict[str, Any]]:
    """Find what modules keep of what they compute of their parameters: it is wrong when these have changed.

    Parameters
    ----------
    network : nn.Module
        Which has not run.
    copied : nn.Module
        A copy that `watch` has run.

    Returns
    -------
    dict of str to dict of str to object
        By the paths of modules, and the names of their attributes, what `forget` puts there.
    """
    found = {}
    usual = vars(nn.Module())
    for name, module in copied.named_modules():
        before = vars(network.get_submodule(name))
        kept = {
            one: copy.copy(before.get(one, _Nothing))
            for one, value in vars(module).items()
            if one not in usual and any(isinstance(t, torch.Tensor) and t.grad_fn for t in _tensors_in(value))
        }
        if kept:
            found[name] = kept
    return found


def forget(module: nn.Module, values: Mapping[str, Any]) -> None:
    """Let a module keep nothing of earlier runs.

    Parameters
    ----------
    module : nn.Module
        Whose attributes are set.
    values : mapping of str to object
        As `remembered` found them.
    """
    for name, value in values.items():
        vars(module).pop(name, None)
        if value is not _Nothing:
            vars(module)[name] = copy.copy(value)


def _run_once(network: nn.Module, run: Callable[..., Any], n_samples: int) -> tuple[list[Event], Any, Any]:
    calls: list[Event] = []
    open_calls: list[Event] = []
    clock = iter(range(10**9))

    def enter(name: str, module: nn.Module, args: Any) -> None:
        open_calls.append(Event(name, next(clock)))

    def leave(name: str, module: nn.Module, args: Any, result: Any) -> None:
        event = open_calls.pop()
        event.end = next(clock)
        value = value_in(result)
        event.node = None if value is None or value.grad_fn is None else (value.grad_fn, value.output_nr)
        event.result = result if _is_plain(result) else _Unknown()
        event.result = mapped(event.result, lambda tensor: Shape(tuple(tensor.shape), False, tensor.dtype))
        calls.append(event)

    hooks = []
    for name, module in network.named_modules():
        if name:
            hooks.append(module.register_forward_pre_hook(partial(enter, name)))
            hooks.append(module.register_forward_hook(partial(leave, name)))
    try:
        x, output = run(network, n_samples)
    finally:
        for hook in hooks:
            hook.remove()
    return calls, x, output


class _Unknown:
    """Stands for what a module returned, where it is of no kind that can be made again."""


def _is_plain(result: Any) -> bool:
    if isinstance(result, Mapping):
        return all(map(_is_plain, result.values()))
    if isinstance(result, tuple | list):
        return all(map(_is_plain, result))
    return result is None or isinstance(result, torch.Tensor | bool | int | float | str)


def _joined(two: Shaped, three: Shaped) -> Shaped:
    """Return the shapes for one sample of those for two and for three."""
    others = iter(list(_tensors_in(three)))
    unknown = False

    def join(one: Shape) -> Shape:
        nonlocal unknown
        other = next(others, None)
        if other is None or len(one.sizes) != len(other.sizes) or one.sizes[1:] != other.sizes[1:]:
            unknown = True
            return one
        if one.sizes == other.sizes:
            return one
        unknown |= 3 * one.sizes[0] != 2 * other.sizes[0]
        return Shape((one.sizes[0] // 2, *one.sizes[1:]), True, one.dtype)

    joined = mapped(two, join)
    return _Unknown() if unknown else joined


def is_known(result: Shaped) -> bool:
    """Tell whether what a module returned can be made again without it."""
    return not isinstance(result, _Unknown)


def has_a_row_per_sample(result: Shaped) -> bool:
    """Tell whether what a module returned can be made again, and its first tensor has a row of floats per sample."""
    value = value_in(result) if is_known(result) else None
    return isinstance(value, Shape) and value.grows and value.sizes[0] == 1 and value.dtype.is_floating_point


class _Dataflow:
    """History of an output, as torch remembers it for gradients."""

    def __init__(self, output: torch.Tensor, x: torch.Tensor):
        if output.grad_fn is None:
            raise UntraceableError(
                "Got a network whose operations between samples and output cannot be followed; expected an output that "
                "is computed from the samples by torch. It cannot be cut: use another network."
            )
        self.output, self._input = output.grad_fn, x.grad_fn
        order = _in_order(self.output)
        reaches = {self._input}
        for node in reversed(order):  # from the samples on
            if any(following in reaches for following, _ in node.next_functions):
                reaches.add(node)
        flowing = [node for node in order if node in reaches]
        position = {node: number for number, node in enumerate(flowing)}
        self._asked: dict[Any, set[int]] = {}
        farthest = -1
        self._alone: dict[Any, int] = {}
        for number, node in enumerate(flowing):
            if farthest <= number:
                self._alone[node] = number
            for following, index in node.next_functions:
                if following in position:
                    self._asked.setdefault(following, set()).add(index)
                    farthest = max(farthest, position[following])
        self._flowing = position

    def place_of(self, seen: Any) -> tuple[Any, bool]:
        """Return what torch remembers of a tensor, if it lies on the way, and whether all ways pass it."""
        if seen is None or seen[0] not in self._flowing or seen[0] is self._input:
            return (None if seen is None or seen[0] not in self._flowing else seen[0]), False
        node, index = seen
        return node, node in self._alone and (node is self.output or self._asked.get(node) == {index})

    def number_of(self, node: Any) -> int | None:
        """Return the same number for the same tensor, `None` for one that does not depend on the samples."""
        return self._flowing.get(node)


def _leaves(node: Any, stop: Any = None) -> set[int]:
    found, done, todo = set(), {stop}, [node]
    while todo:
        one = todo.pop()
        if one is None or one in done:
            continue
        done.add(one)
        if hasattr(one, "variable"):
            found.add(id(one.variable))
        todo.extend(following for following, _ in one.next_functions)
    return found


def parameters_of(value: torch.Tensor, network: nn.Module) -> set[str]:
    """Return the names of the parameters that a value depends on.

    Parameters
    ----------
    value : Tensor
        With gradients to follow.
    network : nn.Module
        Whose parameters they are.

    Returns
    -------
    set of str
        Of those that are shared, the first name.
    """
    return _named(_leaves(value.grad_fn), _names_of(network))


def _names_of(network: nn.Module) -> dict[int, str]:
    return {id(parameter): name for name, parameter in reversed(list(network.named_parameters()))}


def _in_order(output: Any) -> list[Any]:
    """Return all that an output was computed from, each before what it was computed from."""
    waiting: dict[Any, int] = {}
    seen, todo = {output}, [output]
    while todo:
        for following, _ in todo.pop().next_functions:
            if following is not None:
                waiting[following] = waiting.get(following, 0) + 1
                if following not in seen:
                    seen.add(following)
                    todo.append(following)
    order, ready = [], [output]
    while ready:
        node = ready.pop()
        order.append(node)
        for following, _ in node.next_functions:
            if following is not None:
                waiting[following] -= 1
                if not waiting[following]:
                    ready.append(following)
    return order


def _with_parameters(
    events: list[Event], spans: dict[str, tuple[int, int]], graph: _Dataflow, names: Mapping[int, str]
) -> Watched:
    before: Any = None
    for event in (one for one in events if one.is_cut):
        if event.node is not before:
            event.parameters = _named(_leaves(event.node, before), names)
        before = event.node
    parameters, behind = _named(_leaves(graph.output), names), set[str]()
    if before is not graph.output:
        behind = _named(_leaves(graph.output, before), names)
    for event in events:  # by number, so that what torch remembers can be forgotten
        event.node = graph.number_of(event.node)
    return Watched(events, spans, parameters, behind)


def _named(leaves: Iterable[int], names: Mapping[int, str]) -> set[str]:
    return {names[leaf] for leaf in leaves if leaf in names}
