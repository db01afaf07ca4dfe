"""Where a network can be cut, and which of those cuts bound its blocks.

A network is traced once into a graph of operations. Wherever exactly one tensor is alive the network can be cut, so
cuts are found, never listed by hand: one rule serves every architecture.
"""

import copy
import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import torch
from torch import fx, nn

from sktransfer.backbones._graph import Block, Ready, UntraceableError
from sktransfer.backbones._identity import Description, describe_operations
from sktransfer.backbones._inference import make_ready

# Classes of modules, and functions, that a trace does not look into.
Untraced = Collection[type[nn.Module] | Callable[..., Any]]


class _ScopedTracer(fx.Tracer):
    """Traces into every module but torch's own layers, those named, and modules that hold neither weights nor modules.

    The latter (stochastic depth, a dropout of one's own) may behave differently in training, which a trace of their
    inside would freeze.

    While it traces, torch hands it every call of every module in the process; those of other threads are let through.
    """

    turn = threading.Lock()

    def __init__(self, untraced: Untraced):
        import torchvision

        self._layers = {thing for thing in untraced if isinstance(thing, type)}
        functions = tuple(thing for thing in untraced if not isinstance(thing, type))
        super().__init__(autowrap_modules=(math, torchvision.ops), autowrap_functions=functions)

    def trace(self, *args: Any, **kwargs: Any) -> fx.Graph:
        with self.turn:
            self._thread = threading.get_ident()
            return super().trace(*args, **kwargs)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **named: Any) -> Any:
        if kind == "placeholder" and args and self.graph.find_nodes(op="placeholder"):
            return args[0]  # what may be given beside the samples, such as a mask, is never given
        return super().create_proxy(kind, target, args, kwargs, *more, **named)

    def is_leaf_module(self, module: nn.Module, module_qualified_name: str) -> bool:
        empty = next(module.parameters(), None) is None and next(module.children(), None) is None
        return empty or type(module) in self._layers or super().is_leaf_module(module, module_qualified_name)


class NetworkGraph:
    """The traced graph of a network, its cuts and its blocks.

    Parameters
    ----------
    network : nn.Module
        In eval mode; it is not changed.
    ends_in_classifier : bool or None, default=None
        Whether the last layer with weights is a classification layer, so that the features are what enters it.
        `None` says yes where the network's output comes straight out of a linear layer.
    untraced : collection of classes of modules and of functions, default=()
        Each is a single operation, as torch's own layers are.

    Raises
    ------
    UntraceableError
        If the forward pass branches on values, or the features cannot be separated from what follows them.
    """

    def __init__(self, network: nn.Module, ends_in_classifier: bool | None = None, untraced: Untraced = ()):
        self.network = network
        self._graph = _trace(network, untraced)
        self._order = {node: position for position, node in enumerate(self._graph.nodes)}
        self._modules = dict(network.named_modules())
        self._first_names = _first_names(network)
        self._constants = _find_constants(self._graph)
        self._input = next(node for node in self._order if node.op == "placeholder")
        self._output = next(node for node in self._order if node.op == "output")
        self._weight_layers = {
            name
            for name, module in self._modules.items()
            if any(p.ndim > 1 for p in module.parameters(recurse=False))
            and not any(next(child.parameters(), None) is not None for child in module.children())
        } | {name for name, module in self._modules.items() if isinstance(module, nn.MultiheadAttention)}
        # Asked for in each prediction, and always the same.
        self._places_before: dict[fx.Node, list[fx.Node]] = {}
        self._names_before: dict[fx.Node, set[str]] = {}
        self._places = self._find_places()
        self._features = self._find_features(ends_in_classifier)
        self.blocks, self._ends = self._find_blocks()

    def ending_at(self, node: fx.Node) -> "NetworkGraph":
        """Return the same graph with its features at another cut."""
        other = copy.copy(self)
        other._features = node
        other.blocks, other._ends = other._find_blocks()
        return other

    def cut_names(self) -> list[str]:
        """Paths of all modules at whose end the network can be cut, in the order in which they end."""
        return list(self._module_ends())

    def end_of_block(self, depth: int) -> fx.Node:
        """Return the value that leaves the first `depth` blocks; 0 is the input."""
        return self._input if depth == 0 else self._ends[depth - 1]

    def end_of_module(self, name: str) -> fx.Node | None:
        """Return the value that leaves a module, or `None` where the network cannot be cut there."""
        return self._module_ends().get(name)

    def places_before(self, node: fx.Node) -> list[fx.Node]:
        """Return the values on the way to this one, itself included, at which the network can be cut, in order."""
        if node not in self._places_before:
            on_the_way = set(self._slice(node, self._input))
            self._places_before[node] = [place for place in self._places if place in on_the_way]
        return self._places_before[node]

    def in_order(self, cuts: Iterable[fx.Node]) -> list[fx.Node]:
        """Sort cuts from the input onwards, each once."""
        return sorted(set(cuts), key=self._order.__getitem__)

    def parameter_names_before(self, node: fx.Node) -> set[str]:
        """Return the names of all parameters and buffers that a value depends on."""
        if node not in self._names_before:
            earlier = self._slice(node, self._input)
            self._names_before[node] = {name for one in earlier for name in self._state_names(one)}
        return set(self._names_before[node])

    def used_names(self) -> set[str]:
        """Return the names of all parameters and buffers that the output depends on."""
        return self.parameter_names_before(self._output)

    def has_channels_last(self, node: fx.Node) -> bool:
        """Tell whether a map's channels are its last axis, by the last operation that says so."""
        while node is not self._input:
            layer = self._modules.get(str(node.target)) if node.op == "call_module" else None
            if isinstance(layer, (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)):
                return False
            if type(layer) in (nn.Linear, nn.LayerNorm):
                return True
            if (order := _permutation(node, layer)) is not None:
                return order == [0, *range(2, len(order)), 1]
            earlier = [source for source in node.all_input_nodes if source not in self._constants]
            if not earlier:
                return False
            node = earlier[0]
        return False

    def between(self, start: fx.Node, end: fx.Node | None = None) -> fx.GraphModule:
        """Return the part of the network that computes one value from another.

        Parameters
        ----------
        start, end : fx.Node
            Two cuts; `None` is the network's output.

        Returns
        -------
        GraphModule
            Takes and returns one tensor. Its layers are the network's own, not copies.
        """
        end = self._output if end is None else end
        graph = fx.Graph()
        copies = {start: graph.placeholder("x")}
        for node in self._slice(end, start):
            if node.op != "output":
                copies[node] = graph.node_copy(node, copies.__getitem__)
        result = end.args[0] if end.op == "output" else end
        graph.output(fx.node.map_arg(result, copies.__getitem__))
        return fx.GraphModule(self.network, graph, class_name="NetworkPart").eval()  # also containers that fx adds

    def ready(self, start: fx.Node, end: fx.Node, device: torch.device, bfloat16: bool, ready: Ready) -> nn.Module:
        """Return the part between two values as one that computes the same, to rounding, in less time."""
        return make_ready(self.between(start, end), device, bfloat16, ready)

    def describe(self) -> Description:
        """Write down what the network computes, but for its weights."""
        return describe_operations(self.network, self._slice(self._output, self._input))

    def block_ends(self) -> dict[fx.Node, int]:
        """Return the number of each block by the value that leaves it, in order."""
        return {node: depth for depth, node in enumerate(self._ends, start=1)}

    def interpret(self, x: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
        """Run the network once and yield each block's depth and output, up to the features."""
        last = self.end_of_block(0)
        for node, depth in self.block_ends().items():
            x = self.between(last, node)(x)
            last = node
            yield depth, x

    # Cuts

    def _slice(self, end: fx.Node, start: fx.Node) -> list[fx.Node]:
        """Nodes that `end` needs, in order, when `start` is given."""
        needed: set[fx.Node] = set()
        todo = [end]
        while todo:
            node = todo.pop()
            if node not in needed and node is not start:
                needed.add(node)
                todo.extend(node.all_input_nodes)
        return sorted(needed, key=self._order.__getitem__)

    def _find_places(self) -> list[fx.Node]:
        """Values that are the only one alive at some point of the run."""
        needed = set(self._slice(self._output, self._input)) | {self._input}
        flowing = [node for node in self._order if node in needed and node not in self._constants]
        last_use = {
            node: max((self._order[user] for user in node.users if user in needed), default=-1) for node in flowing
        }
        places: list[fx.Node] = []
        alive: set[fx.Node] = set()
        for node in flowing:
            position = self._order[node]
            alive = {other for other in alive if last_use[other] > position}
            if node is not self._output:
                alive.add(node)
            if len(alive) == 1 and (only := next(iter(alive))) not in places[-1:]:
                places.append(only)
        return places

    def _find_features(self, ends_in_classifier: bool | None) -> fx.Node:
        with_weights = [node for node in self._order if node.op == "call_module" and self._weights_of(node)]
        last = with_weights[-1] if with_weights else None
        result = self._output.args[0]
        if not isinstance(result, fx.Node):
            raise UntraceableError(
                f"Got a network whose output is a {type(result).__name__} of values; expected one tensor. "
                "Wrap it in a module that returns the tensor to be used."
            )
        if ends_in_classifier is None:
            ends_in_classifier = last is result and isinstance(self._modules[str(last.target)], nn.Linear)
        if ends_in_classifier and last is not None:
            entering = last.all_input_nodes[0]
            if entering in self._places and any(self._weights_of(n) for n in self._slice(entering, self._input)):
                return entering
        return result

    def _module_ends(self) -> dict[str, fx.Node]:
        """Return the last value of each module that ends at a place."""
        inner = set(self._slice(self._features, self._input))
        whole = self._slice(self._output, self._input)
        last = {name: node for node in whole if node not in self._constants for name in _scopes(node)}
        places = inner & {*self._places, self._features}
        ends = sorted(last.items(), key=lambda end: self._order[end[1]])
        return {name: node for name, node in ends if node in places}

    # Blocks

    def _weights_of(self, node: fx.Node) -> set[str]:
        """Layers with weights that an operation uses."""
        if node.op == "call_module":
            target = str(node.target)
            return {name for name in self._weight_layers if name == target or name.startswith(target + ".")}
        return {
            owner
            for attribute in node.all_input_nodes
            if attribute.op == "get_attr" and (owner := str(attribute.target).rpartition(".")[0]) in self._weight_layers
        }

    def _state_names(self, node: fx.Node) -> Iterator[str]:
        if node.op == "get_attr" and node.target in self._first_names:
            yield self._first_names[str(node.target)]
        elif node.op == "call_module":
            for name in _first_names(self._modules[str(node.target)]):
                yield self._first_names[f"{node.target}.{name}"]

    def _find_blocks(self) -> tuple[tuple[Block, ...], list[fx.Node]]:
        inner = self._slice(self._features, self._input)
        stretches = self._stretches(inner)
        units = self._find_units(stretches)
        groups: list[tuple[str, list[fx.Node]]] = []  # weight operations of a block, under its module's name
        seen: set[str] = set()  # a layer that is used again opens no second block
        for stretch in stretches:
            weighty = [node for node in stretch if self._weights_of(node) - seen]
            seen.update(name for node in weighty for name in self._weights_of(node))
            if weighty:
                scopes = _scopes(weighty[-1]) or ["network"]  # a lone layer stands in no module
                name = next((scope for scope in scopes if scope in units), None)
                if groups and name is not None and groups[-1][0] == name:
                    groups[-1][1].extend(weighty)
                else:
                    groups.append((name or scopes[-1], weighty))
        names = self._widen([name for name, _ in groups])
        ends = [
            self._boundary(nodes[-1], follower, following[0])
            for (_, nodes), follower, (_, following) in zip(groups, names[1:], groups[1:], strict=False)
        ]
        ends = [*ends, self._features] if groups else [self._features]
        return self._record_blocks(names or ["network"], ends), ends

    def _stretches(self, nodes: list[fx.Node]) -> list[list[fx.Node]]:
        """Operations between one place and the next."""
        places, result, current = set(self._places), [], []
        for node in nodes:
            if node not in self._constants:
                current.append(node)
                if node in places or node is self._features:
                    result.append(current)
                    current = []
        return result

    def _find_units(self, stretches: list[list[fx.Node]]) -> set[str]:
        """Modules not to be cut: each is the smallest around a stretch with weights that has no cut inside.

        Where one instance of a class is such a module (a residual block), all of that class are, though some, without
        a shortcut, could be cut.
        """
        units = set()
        for stretch in stretches:
            if any(self._weights_of(node) for node in stretch):
                common = [set(_scopes(node)) for node in stretch if node.op != "placeholder"]
                around = [scope for scope in _scopes(stretch[-1]) if all(scope in scopes for scopes in common)]
                if around and not self._is_layer(around[-1]):
                    units.add(around[-1])
        classes = {type(self._modules[name]) for name in units}
        classes = {kind for kind in classes if not kind.__module__.startswith("torch.nn.")}
        return units | {name for name, module in self._modules.items() if name and type(module) in classes}

    def _is_layer(self, name: str) -> bool:
        return self._modules[name].__module__.startswith("torch.nn.") and not isinstance(
            self._modules[name], nn.Sequential
        )

    def _widen(self, names: list[str]) -> list[str]:
        """Name each block after the outermost module that holds this block alone."""
        beyond = {name for node in self._slice(self._output, self._features) for name in self._weights_of(node)}
        names = [*names, *beyond]
        paths = [[".".join(name.split(".")[: i + 1]) for i in range(name.count(".") + 1)] for name in names]
        count = Counter(path for each in paths for path in each)
        widened = [next((path for path in each if count[path] == 1), each[-1]) for each in paths]
        return widened[: len(names) - len(beyond)]

    def _boundary(self, last: fx.Node, follower: str, first: fx.Node) -> fx.Node:
        """Return the last place before the next block's module opens, so that a normalisation stays with its layer."""
        opening = min(
            (position for node, position in self._order.items() if follower in _scopes(node)),
            default=self._order[first],
        )
        between = [place for place in self._places if self._order[last] <= self._order[place] < self._order[first]]
        outside = [place for place in between if self._order[place] < opening]
        return outside[-1] if outside else between[0]

    def _record_blocks(self, names: list[str], ends: list[fx.Node]) -> tuple[Block, ...]:
        parameters = {name for name, _ in self.network.named_parameters()}
        blocks, seen = [], set()
        for name, end in zip(names, ends, strict=True):
            states = dict.fromkeys(s for node in self._slice(end, self._input) for s in self._state_names(node))
            new = [state for state in states if state not in seen]
            seen.update(new)
            blocks.append(
                Block(
                    name,
                    tuple(state for state in new if state in parameters),
                    tuple(state for state in new if state not in parameters),
                )
            )
        return tuple(blocks)


def _trace(network: nn.Module, untraced: Untraced) -> fx.Graph:
    tracer = _ScopedTracer(untraced)
    try:
        graph = tracer.trace(network)
    except (fx.proxy.TraceError, TypeError, RuntimeError, ValueError, AssertionError) as error:
        raise UntraceableError(
            f"Got a {type(network).__name__} whose forward cannot be traced ({error}); expected operations that do "
            "not depend on the values of the input. Mark what branches with torch.fx.wrap, or put it in a module "
            "of its own."
        ) from error
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    if not placeholders or any(spare.users for spare in placeholders[1:]):
        raise UntraceableError(
            f"Got a {type(network).__name__} whose forward takes {len(placeholders)} arguments; expected one. Wrap it "
            "in a module whose forward takes the samples alone."
        )
    _follow_in_place(graph, network)
    return graph


def _follow_in_place(graph: fx.Graph, network: nn.Module) -> None:
    """Let what reads a value after a statement such as `x.relu_()` read that statement's result.

    A graph is cut by who reads whose result, so a change without a reader would be lost.
    """
    order = {node: position for position, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if node.users or not _changes_in_place(node, network):
            continue
        node.all_input_nodes[0].replace_all_uses_with(node, lambda user, node=node: order[user] > order[node])
        if not node.users:
            raise UntraceableError(
                f"Got a {type(network).__name__} whose forward changes a part of a value in place ({node.name}); "
                "expected operations whose result is used. Write x = torch.relu(x) instead of x.relu_()."
            )


def _changes_in_place(node: fx.Node, network: nn.Module) -> bool:
    if node.op == "call_module":
        return bool(getattr(network.get_submodule(str(node.target)), "inplace", False))
    name = node.target if node.op == "call_method" else getattr(node.target, "__name__", "")
    named = node.op in ("call_method", "call_function") and re.search(r"[^_]_$", str(name)) is not None
    return bool(node.all_input_nodes) and (named or bool(node.kwargs.get("inplace")))


def _first_names(network: nn.Module) -> dict[str, str]:
    """Return, for every name of a parameter or buffer, the first that it has: tied tensors have several."""
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(tensor), name)
        for name, tensor in (
            *network.named_parameters(remove_duplicate=False),
            *network.named_buffers(remove_duplicate=False),
        )
    }


def _find_constants(graph: fx.Graph) -> set[fx.Node]:
    """Values that do not depend on the input; either side of a cut may compute them anew."""
    constants: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op not in ("placeholder", "output") and all(source in constants for source in node.all_input_nodes):
            constants.add(node)
    return constants


def _permutation(node: fx.Node, layer: nn.Module | None) -> list[int] | None:
    """Order of axes that an operation brings about, or `None` where it moves none."""
    if layer is None and getattr(node.target, "__name__", node.target) != "permute":
        return None
    given: Any = getattr(layer, "dims", None) if layer is not None else node.args[1:]
    flat = given[0] if given and isinstance(given[0], tuple | list) else given
    return list(flat) if flat and all(isinstance(axis, int) for axis in flat) else None


def _scopes(node: fx.Node) -> list[str]:
    """Paths of the modules that an operation runs in, from the outermost inwards."""
    stack = node.meta.get("nn_module_stack", {})
    paths = [str(entry[0]) for entry in stack.values()]
    return [path for path in paths if path]
