"""How a network calls its layers: which list of modules they are, in which order, and with what.

Gates that stand where layers stood note what each is called with, so that the layers can be called without the network.
"""

import contextlib
import copy
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from sktransfer._messages import first_line
from sktransfer.backbones.graphs._base import UntraceableError


@dataclass(frozen=True)
class Call:
    """What a layer was called with, besides hidden states."""

    number: int
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Relay:
    """Something besides hidden states that one call of a layer returns and a later one is given.

    Attributes
    ----------
    slot : int or str
        Under which argument: its place behind hidden states, or its name.
    source : tuple of int
        The first call that returned it, and its place in the tuple that this returned.
    """

    slot: int | str
    source: tuple[int, int]


class _Reached(Exception):  # noqa: N818
    """The last layer has been called; nothing behind it is needed."""


class Passed(threading.local):
    """What has passed gates in this thread."""

    def __init__(self) -> None:
        self.hidden: torch.Tensor | None = None
        self.calls: list[Call] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> "Passed":
        return memo.setdefault(id(self), Passed())


class Gate(nn.Module):
    """Stands where a layer stood: notes what it is called with and lets hidden states pass."""

    def __init__(self, layer: nn.Module, number: int, passed: Passed, n_calls: int, n_returned: int | None):
        super().__init__()
        self.__dict__["layer"] = layer  # seen by those who ask for its attributes, but no part of this module
        self.number, self.passed, self.n_calls, self.n_returned = number, passed, n_calls, n_returned

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["layer"], name)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Gate":
        passed = copy.deepcopy(self.passed, memo)
        return memo.setdefault(
            id(self), Gate(self.__dict__["layer"], self.number, passed, self.n_calls, self.n_returned)
        )

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        hidden, args, kwargs = _take_hidden(args, kwargs)
        passed = self.passed
        if not passed.calls:
            passed.hidden = hidden
        passed.calls.append(Call(self.number, args, kwargs))
        if len(passed.calls) == self.n_calls:
            raise _Reached
        return hidden if self.n_returned is None else (hidden, *[None] * (self.n_returned - 1))


def _take_hidden(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    if args:
        return args[0], args[1:], kwargs
    if "hidden_states" not in kwargs:
        raise UntraceableError("Got a network that calls its layers without hidden states; expected a stack of them.")
    return kwargs["hidden_states"], (), {name: value for name, value in kwargs.items() if name != "hidden_states"}


def first_of(result: Any) -> torch.Tensor:
    return result[0] if isinstance(result, tuple | list) else result


class Opening:
    """A network without its layers: what runs before them, and says what they are called with.

    Each run has modules of its own: what networks note in them, such as positions of the length that they saw last, is
    seen by no other thread and no later run.
    """

    def __init__(self, skeleton: nn.Module, passed: Passed):
        self.skeleton, self.passed = skeleton, passed

    def run(self, arguments: dict[str, torch.Tensor]) -> tuple[torch.Tensor, list[Call]]:
        self.passed.calls, self.passed.hidden = [], None
        with contextlib.suppress(_Reached):
            twin(self.skeleton)(**arguments)
        hidden, calls = self.passed.hidden, self.passed.calls
        self.passed.calls, self.passed.hidden = [], None
        assert hidden is not None
        return hidden, calls


# How a network looks


@dataclass(frozen=True)
class Seen:
    """How a network ran.

    Attributes
    ----------
    numbers : list of int
        Which layers were called, in order.
    n_returned : int or None
        How many things each returns; `None` where it is a tensor.
    before, used : set of str
        Parameters that came in before the first layer, and at all.
    hands_weights : bool
        Whether layers are given something, besides hidden states, that depends on parameters.
    after : tuple of str
        The modules that follow the last layer, in order.
    relays : dict of int to list of Relay
        What layers are given that layers before them have returned besides hidden states, by call.
    """

    numbers: list[int]
    n_returned: int | None
    before: set[str]
    used: set[str]
    hands_weights: bool
    after: tuple[str, ...]
    relays: "dict[int, list[Relay]]"


def find_stack(network: nn.Module, arguments: dict[str, torch.Tensor]) -> tuple[str, Seen]:
    """Find the list of modules that is a stack of layers: of those that behave like one, that with most weights."""
    sizes = {
        name: sum(parameter.numel() for parameter in module.parameters())
        for name, module in network.named_modules()
        if isinstance(module, nn.ModuleList) and len(module)
    }
    if not sizes:
        raise UntraceableError(f"Got a {type(network).__name__} without a list of layers; expected a stack of them.")
    refusals = []
    for name in sorted(sizes, key=lambda name: -sizes[name]):
        try:
            return name, watch(network, name, arguments)
        except UntraceableError as error:
            refusals.append(error)
    raise refusals[0]


def watch(network: nn.Module, stack: str, arguments: dict[str, torch.Tensor]) -> Seen:
    """Run a network once, and see how it calls its layers."""
    kind, run = type(network).__name__, _Run()
    output = _run_watched(network, stack, arguments, run)
    if not all(isinstance(one, torch.Tensor) for one in (*run.entered, *run.left, output)):
        raise UntraceableError(
            f"Got a {kind} whose layers return something else than hidden states; expected a stack of layers. It "
            "cannot be cut: use another network."
        )
    if not run.numbers or any(not _same(one, two) for one, two in zip(run.left, run.entered[1:], strict=False)):
        raise UntraceableError(
            f"Got a {kind} whose layers do not take what the one before gave; expected a stack of layers. It cannot be "
            "cut: use another network."
        )
    names = {id(parameter): name for name, parameter in reversed(list(network.named_parameters()))}
    relays, others = run.relays()
    handed = {names[one] for tensor in others for one in _parameters_of(tensor) if one in names}
    before = handed | {names[one] for one in _parameters_of(run.entered[0]) if one in names}
    used = {names[one] for one in _parameters_of(output) if one in names}
    after = _find_followers(kind, run.followers, run.left[-1], output)
    return Seen(run.numbers, run.returned[0], before, used, bool(handed), after, relays)


class _Run:
    """What hooks see while a network runs."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.entered: list[Any] = []
        self.left: list[torch.Tensor] = []
        self.given: list[tuple[tuple[Any, ...], Mapping[str, Any]]] = []
        self.results: list[Any] = []
        self.returned: list[int | None] = []
        self.followers: list[tuple[str, torch.Tensor, torch.Tensor]] = []

    def layer_called(self, number: int, layer: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        hidden, rest, named = _take_hidden(args, kwargs)
        self.numbers.append(number)
        self.entered.append(hidden)
        self.left.append(first_of(result))
        self.returned.append(len(result) if isinstance(result, tuple | list) else None)
        self.given.append((rest, named))
        self.results.append(result)
        self.followers.clear()

    def relays(self) -> tuple[dict[int, list[Relay]], list[torch.Tensor]]:
        """Return what calls hand to later calls, and all other tensors that layers are given."""
        sources: dict[int, tuple[int, int]] = {}
        relays: dict[int, list[Relay]] = {}
        others: list[torch.Tensor] = []
        for number, (rest, named) in enumerate(self.given):
            slots: list[tuple[int | str, Any]] = [*enumerate(rest), *named.items()]
            for slot, value in slots:
                if id(value) in sources and isinstance(value, torch.Tensor):
                    relays.setdefault(number, []).append(Relay(slot, sources[id(value)]))
                else:
                    others.extend(tensors_in(value))
            result = self.results[number]
            for place, value in enumerate(result if isinstance(result, tuple | list) else ()):
                if place and isinstance(value, torch.Tensor):
                    sources.setdefault(id(value), (number, place))
        return relays, others

    def module_called(self, name: str, module: nn.Module, args: Any, result: Any) -> None:
        if args and isinstance(args[0], torch.Tensor) and isinstance(result, torch.Tensor):
            self.followers.append((name, args[0], result))


def _run_watched(network: nn.Module, stack: str, arguments: dict[str, torch.Tensor], run: _Run) -> torch.Tensor:
    """Run a network once with hooks on its layers and on the modules beside them, and with gradients to follow."""
    hooks = [
        layer.register_forward_hook(partial(run.layer_called, number), with_kwargs=True)
        for number, layer in enumerate(get_module(network, stack))
    ]
    hooks += [
        module.register_forward_hook(partial(run.module_called, name))
        for name, module in network.named_modules()
        if name and next(module.children(), None) is None and not name.startswith(f"{stack}.")
    ]
    wanted = [parameter.requires_grad for parameter in network.parameters()]
    try:
        network.requires_grad_(True)
        with torch.enable_grad():
            return output_of(twin(network)(**arguments))
    except UntraceableError:
        raise
    except Exception as error:  # networks raise what they please
        raise UntraceableError(
            f"Got a {type(network).__name__} that cannot be run ({first_line(error)}); expected one that takes samples "
            "alone. Use another network."
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
        for parameter, as_before in zip(network.parameters(), wanted, strict=True):
            parameter.requires_grad_(as_before)


def _find_followers(
    kind: str, followers: list[tuple[str, torch.Tensor, torch.Tensor]], last: torch.Tensor, output: torch.Tensor
) -> tuple[str, ...]:
    """Return the names of the modules that make the output of what the last layer gave, one after another."""
    names: list[str] = []
    value = output
    for name, x, y in reversed(followers):
        if _same(value, last):
            break
        if _same(y, value):
            names.insert(0, name)
            value = x
    if _same(value, last):
        return tuple(names)
    raise UntraceableError(
        f"Got a {kind} that changes what its last layer gives by more than modules called one after another; expected "
        "modules, such as a normalisation, or none. It cannot be cut: use another network."
    )


def _parameters_of(tensor: torch.Tensor) -> set[int]:
    """Return the identities of all tensors that a gradient would reach, this one included."""
    found, seen, todo = {id(tensor)}, set(), [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        todo.extend(following for following, _ in node.next_functions)
    return found


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Tell whether two tensors hold the same memory, viewed or not."""
    return one.data_ptr() == other.data_ptr() and one.numel() == other.numel()


def segments(numbers: list[int], layers: list[nn.Module]) -> list[int]:
    """Return after how many calls each block ends: the embeddings, and runs of layers that share no layer."""
    owners = [{id(parameter) for parameter in layers[number].parameters()} for number in numbers]
    ends = [0]
    for count in range(1, len(numbers) + 1):
        done: set[int] = set().union(*owners[:count])
        if not any(done & owner for owner in owners[count:]):
            ends.append(count)
    return ends


def is_traced() -> bool:
    """Tell whether operations are being written down, so that nothing may depend on what values are.

    Returns
    -------
    bool
        Whether one of torch's tracers is at work: that of TorchScript, or that of torch.export.
    """
    by_torchscript: bool = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    return by_torchscript or torch.compiler.is_compiling()


def output_of(result: Any) -> torch.Tensor:
    hidden = getattr(result, "last_hidden_state", None)
    return first_of(result) if hidden is None else hidden


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in what a layer is called with, and refuse what is remembered from call to call."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from tensors_in(item)
    elif not (value is None or isinstance(value, bool | int | float | str)):
        raise UntraceableError(f"Got a network that hands its layers a {type(value).__name__}; expected tensors.")


def get_module(network: nn.Module, path: str) -> Any:
    return network.get_submodule(path)


def with_replaced(module: nn.Module, path: str, new: nn.Module) -> nn.Module:
    """Return a module like this one, except for the module at a path; everything beside the path is shared."""
    name, _, rest = path.partition(".")
    other = twin_of_one(module)
    other._modules[name] = with_replaced(module.get_submodule(name), rest, new) if rest else new
    return other


def twin(module: nn.Module, made: "dict[int, nn.Module] | None" = None) -> nn.Module:
    """Return a module that shares all tensors with this one, and whose own state nobody else sees."""
    made = {} if made is None else made
    if id(module) not in made:
        made[id(module)] = other = twin_of_one(module)
        for name, child in module._modules.items():
            if child is not None:
                other._modules[name] = twin(child, made)
    return made[id(module)]


def twin_of_one(module: nn.Module) -> nn.Module:
    # Not by `copy`, which modules with parametrizations refuse.
    other: nn.Module = object.__new__(type(module))
    other.__dict__.update(
        {name: value.copy() if isinstance(value, dict) else value for name, value in module.__dict__.items()}
    )
    return other


def passed_by(skeleton: nn.Module) -> Passed:
    return next(module.passed for module in skeleton.modules() if isinstance(module, Gate))
