"""The part between two cuts of a network that runs its own code: stand-ins replace modules before it.

The network is called as ever. What stands for a module before the cut returns zeros of the shape that the module would
return, or what it was given; the module at the cut returns the value that enters; behind the last module wanted the run
ends. So nothing of the network has to be understood, if only all that follows the cut needs that value alone.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Protocol

import torch
from torch import nn

from sktransfer.backbones.graphs._base import NOTHING, Pooled
from sktransfer.backbones.graphs._layer_calls import twin_of_one
from sktransfer.backbones.graphs._module_calls import Shape, forget, mapped, value_in
from sktransfer.backbones.graphs._pooling import PoolsItself


class _Reached(Exception):  # noqa: N818
    """The last module has been called; nothing behind it is needed."""


class Parts(Protocol):
    """Questions of a part to the graph of its network."""

    network: nn.Module
    poison: float
    remembered: dict[str, dict[str, Any]]

    def arguments(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what the network's forward takes."""

    def blank(self, x: torch.Tensor) -> torch.Tensor:
        """Return samples with nothing in them, as many as there are values."""

    def read(self, output: Any) -> torch.Tensor:
        """Return the features of what the network's forward returns."""

    def pool(self, value: torch.Tensor, pooling: str, cut: Any) -> torch.Tensor:
        """Return a value at a cut as vectors."""


class _Held(nn.Module):
    """Holds what a module of the network holds of a part, and runs nothing."""


class Plan:
    """Plan for running a part of a network: what to do with each module.

    Attributes
    ----------
    roles : dict of str to str
        `"passed"` for modules before the cut, `"given"` for the one at it, `"unreached"` for those behind the end; by
        the path of the outermost.
    whole : set of str
        Modules, outermost, that run as they are and whose parameters are all the part's.
    kept : set of str
        Parameters of the part.
    frozen : set of str
        Parameters from before the cut that are needed behind it too.
    lasting : set of str
        Buffers of the part that are among its weights.
    results : dict of str to object
        What modules return, without values.
    last : str or None
        The module behind which the run ends.
    """

    def __init__(self) -> None:
        self.roles: dict[str, str] = {}
        self.whole: set[str] = set()
        self.kept: set[str] = set()
        self.frozen: set[str] = set()
        self.lasting: set[str] = set()
        self.results: dict[str, Any] = {}
        self.last: str | None = None


class _Shared:
    """State that copies of a part share. Nothing of it is trained.

    It stands under one name, since the network's own modules may bear any other.
    """

    def __init__(self, graph: Parts, plan: Plan, start: Any, end: Any, pooled: Pooled):
        self.graph, self.plan, self.start, self.end, self.pooled = graph, plan, start, end, pooled

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Shared":
        return self


class ModulePart(PoolsItself, nn.Module):
    """The part of a network between two cuts; its layers bear the names that they have in the network.

    Parameters
    ----------
    graph : Parts
        Of the network.
    plan : Plan
        What runs.
    start, end : Cut
        Where it begins and ends.
    made : callable
        Given the path of a module, or of a tensor, and the thing itself, returns what to run instead.
    pooled : Pooled, default=NOTHING
        Cuts from `start` on whose values are returned too, as vectors.
    """

    def __init__(
        self,
        graph: Parts,
        plan: Plan,
        start: Any,
        end: Any,
        made: Callable[[str, Any], Any],
        pooled: Pooled = NOTHING,
    ):
        super().__init__()
        self._shared = _Shared(graph, plan, start, end, pooled)
        _hold(self, graph.network, "", plan, made)
        self.eval()

    def forward(self, x: torch.Tensor) -> Any:
        """Return the value at the end, and vectors of others where they are wanted."""
        shared = self._shared
        run = _Run(self, shared, x)
        if shared.start in shared.pooled.cuts:
            run.note(shared.start, x)
        value = x if shared.start == shared.end else run.to_the_end()
        if not shared.pooled.cuts:
            return value
        return (value, *(run.vectors[cut] for cut in shared.pooled.cuts))

    def _pool_output(self, x: torch.Tensor, output: torch.Tensor, pooling: str) -> torch.Tensor:
        shared = self._shared
        return shared.graph.pool(output, pooling, shared.end)


class _Run:
    """One run of a part: what is handed to modules in it, and what came of it."""

    def __init__(self, part: ModulePart, shared: _Shared, x: torch.Tensor):
        self.part, self.shared, self.x = part, shared, x
        self.n_samples = x.shape[0]
        self.vectors: dict[Any, torch.Tensor] = {}
        self.watched = {cut.name: cut for cut in shared.pooled.cuts if cut not in (shared.start, shared.end)}
        self.value: torch.Tensor | None = None

    def to_the_end(self) -> torch.Tensor:
        shared, graph = self.shared, self.shared.graph
        samples = self.x if shared.start.is_input else graph.blank(self.x)
        network = self._assembled("", graph.network, self.part)
        try:
            value = graph.read(network(**graph.arguments(samples)))
        except _Reached:
            assert self.value is not None
            value = self.value
        if shared.end in shared.pooled.cuts:
            self.note(shared.end, value)
        return value

    def note(self, cut: Any, value: torch.Tensor) -> None:
        """Keep the vector of a value, as what follows cannot change it."""
        self.vectors[cut] = self.shared.graph.pool(value.float(), self.shared.pooled.pooling, cut).clone()

    def _assembled(self, path: str, original: nn.Module, held: nn.Module) -> nn.Module:
        """Return the network with what stands for some of its modules; others are those of the part."""
        plan = self.shared.plan
        role = plan.roles.get(path)
        if role is not None:
            return _StandIn(original, self, path, role)
        module = held
        if path not in plan.whole:
            module = twin_of_one(original)
            module.training = held.training
            forget(module, self.shared.graph.remembered.get(path, {}))
            module._parameters = {**original._parameters, **held._parameters}
            mine = dict(held.named_buffers(recurse=False))
            for name in [name for name in mine if name in module._parameters]:
                del module._parameters[name]  # frozen, and no parameter of this part
            module._buffers = {**original._buffers, **mine}
            module._modules = {
                name: None if child is None else self._child(path, name, child, held)
                for name, child in original._modules.items()
            }
        if path and (path in self.watched or path == plan.last):
            return _Ending(module, self, path)
        return module

    def _child(self, path: str, name: str, child: nn.Module, held: nn.Module) -> nn.Module:
        below = held._modules.get(name)
        return self._assembled(f"{path}.{name}" if path else name, child, child if below is None else below)


class _StandIn(nn.Module):
    """Stands where a module stood: its attributes can be asked for, and it returns what it is set to return."""

    def __init__(self, original: nn.Module, run: _Run, path: str, role: str):
        super().__init__()
        # Seen by those who ask for attributes, but no parts of this module.
        self.__dict__["original"], self.__dict__["run"] = original, run
        self.path, self.role = path, role

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["original"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        run: _Run = self.__dict__["run"]
        result, first = run.shared.plan.results[self.path], True
        given = value_in([*args, *kwargs.values()])

        def fill(shape: Shape) -> torch.Tensor:
            nonlocal first
            is_first, first = first, False
            if self.role == "given" and is_first:
                return run.x
            sizes = (shape.sizes[0] * run.n_samples, *shape.sizes[1:]) if shape.grows else shape.sizes
            if is_first and given is not None and given.shape == sizes and given.is_floating_point():
                return given  # without values of its own, and without new memory
            made = shape.blank(run.n_samples, run.x.device)
            poison = run.shared.graph.poison
            return made.fill_(poison) if poison and made.is_floating_point() else made

        return mapped(result, fill)


class _Ending(nn.Module):
    """Calls a module whose value is wanted, and ends the run where nothing behind it is."""

    def __init__(self, module: nn.Module, run: _Run, path: str):
        super().__init__()
        self.__dict__["module"], self.__dict__["run"] = module, run
        self.path = path

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["module"], name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        result = self.__dict__["module"](*args, **kwargs)
        run: _Run = self.__dict__["run"]
        value = value_in(result)
        if self.path in run.watched:
            run.note(run.watched[self.path], value)
        if self.path == run.shared.plan.last:
            run.value = value
            raise _Reached
        return result


def _hold(holder: nn.Module, module: nn.Module, path: str, plan: Plan, made: Callable[[str, Any], Any]) -> None:
    """Give a holder the parameters, buffers and modules that a part runs of one module."""
    for name, parameter in module.named_parameters(recurse=False):
        full = f"{path}.{name}" if path else name
        if full in plan.kept:
            holder.register_parameter(name, made(full, parameter))
        elif full in plan.frozen:
            holder.register_buffer(name, made(full, parameter).detach(), persistent=False)
    for name, buffer in module.named_buffers(recurse=False):
        full = f"{path}.{name}" if path else name
        holder.register_buffer(name, made(full, buffer), persistent=full in plan.lasting)
    for name, child in module.named_children():
        full = f"{path}.{name}" if path else name
        if full in plan.roles:
            continue
        if full in plan.whole:
            holder.add_module(name, made(full, child))
        else:
            below = _Held()
            _hold(below, child, full, plan, made)
            holder.add_module(name, below)


def planned(
    roles: Mapping[str, str],
    network: nn.Module,
    kept: set[str],
    frozen: set[str],
    lasting: set[str],
    wanted: set[str],
    remembered: Collection[str] = (),
) -> Plan:
    """Return what to do with each module of a network.

    Parameters
    ----------
    roles : mapping of str to str
        What stands for modules, by path; of those inside others, the outermost count.
    network : nn.Module
        The network.
    kept, frozen, lasting : set of str
        As in `Plan`.
    wanted : set of str
        Modules whose values are wanted.
    remembered : collection of str, default=()
        Modules that keep what they compute of their parameters, which may change: they never run as they are.

    Returns
    -------
    Plan
        Without results, and without an end.
    """
    plan = Plan()
    plan.kept, plan.frozen, plan.lasting = kept, frozen, lasting

    def look(path: str, module: nn.Module) -> bool:
        """Tell whether a module runs whole."""
        if path in roles:
            plan.roles[path] = roles[path]
            return False
        below = [
            (name, look(name, child))
            for name, child in ((f"{path}.{name}" if path else name, c) for name, c in module.named_children())
        ]
        prefix = f"{path}." if path else ""
        around = any(name.startswith(prefix) for name in wanted)
        mine = all(prefix + name in kept for name, _ in module.named_parameters(recurse=False))
        whole = bool(path) and mine and not around and path not in remembered and all(one for _, one in below)
        if not whole:
            plan.whole |= {name for name, one in below if one}
        return whole

    look("", network)
    return plan
