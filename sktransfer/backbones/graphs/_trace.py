"""Trace the forward of a network as a graph of operations, with torch.fx.

Every operation's result is read by those that need it, also after statements that work in place, so that a graph can
be cut by who reads what.
"""

import math
import re
import threading
from collections.abc import Callable, Collection
from typing import Any

from torch import fx, nn

from sktransfer._messages import first_line
from sktransfer._process._locks import Lock
from sktransfer.backbones.graphs._base import UntraceableError

# Classes of modules, and functions, that a trace does not look into.
Untraced = Collection[type[nn.Module] | Callable[..., Any]]


class _ScopedTracer(fx.Tracer):
    """Traces into every module but torch's own layers, those named, and modules that hold neither weights nor modules.

    The latter (stochastic depth, your own dropout) may behave differently in training, which a trace of their
    inside would freeze.

    While it traces, torch hands it every call of every module in the process; those of other threads are let through.
    """

    turn = Lock()

    def __init__(self, untraced: Untraced):
        import torchvision

        self._layers = {thing for thing in untraced if isinstance(thing, type)}
        functions = tuple(thing for thing in untraced if not isinstance(thing, type))
        modules: Any = (math, torchvision.ops)
        super().__init__(autowrap_modules=modules, autowrap_functions=functions)

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


def trace(network: nn.Module, untraced: Untraced) -> fx.Graph:
    """Return the operations of a network.

    Parameters
    ----------
    network : nn.Module
        In eval mode; it is not changed.
    untraced : collection of classes of modules and of functions
        Each is a single operation, as torch's own layers are.

    Returns
    -------
    fx.Graph
        From one input.

    Raises
    ------
    UntraceableError
        If the forward pass branches on values, or takes several tensors.
    """
    tracer = _ScopedTracer(untraced)
    try:
        graph = tracer.trace(network)
    except (TypeError, RuntimeError, ValueError, AssertionError) as error:
        raise UntraceableError(
            f"Got a {type(network).__name__} whose forward cannot be traced ({first_line(error)}); expected operations "
            "that do not depend on the values of the input. Mark functions that branch with torch.fx.wrap, or put "
            "them into their own module."
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


def find_constants(graph: fx.Graph) -> set[fx.Node]:
    """Return the values that do not depend on the input; either side of a cut may compute them anew.

    Parameters
    ----------
    graph : fx.Graph
        A traced network.

    Returns
    -------
    set of fx.Node
        Its parameters, its buffers, and what is made of them alone.
    """
    constants: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op not in ("placeholder", "output") and all(source in constants for source in node.all_input_nodes):
            constants.add(node)
    return constants


def first_names(network: nn.Module) -> dict[str, str]:
    """Return, for every name of a parameter or buffer, the first that it has: tied tensors have several.

    Parameters
    ----------
    network : nn.Module
        Any.

    Returns
    -------
    dict of str to str
        By each name, the first.
    """
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(tensor), name)
        for name, tensor in (
            *network.named_parameters(remove_duplicate=False),
            *network.named_buffers(remove_duplicate=False),
        )
    }


def scopes_of(node: fx.Node) -> list[str]:
    """Return the paths of the modules that an operation runs in, from the outermost inwards.

    Parameters
    ----------
    node : fx.Node
        The operation.

    Returns
    -------
    list of str
        A module of torch that is a single operation is the last of its own.
    """
    stack = node.meta.get("nn_module_stack", {})
    paths = [str(entry[0]) for entry in stack.values()]
    return [path for path in paths if path]
