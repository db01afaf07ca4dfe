"""The identity of a network: all that its results depend on except for its weights, in one text.

The rule: two networks with the same weights and the same text compute the same, so what was kept of one may be given
for the other. Settings are written down whole: numbers with all their bits, tensors, containers, objects with all that
they hold. Code is identified by what it does, because code that was edited and run again keeps its names: functions and
classes are written down by their bytecode, their constants and all that they refer to; what an installed library
defines, by name and version. What cannot be written down whole leaves a network without identity: it is neither kept
nor shared.
"""

import functools
import operator
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from sktransfer.backbones._code import NotWritableError

__all__ = ["Description", "NotWritableError", "Settings", "describe_network", "describe_operations"]


@dataclass(frozen=True)
class Description:
    """Description of what a network computes, without its weights.

    Attributes
    ----------
    text : str
        Of networks that compute the same, the same in any process.
    lasting : bool
        Whether it stays so while the network's modules hold the same settings: not if it contains your own code,
        because what that refers to may be edited.
    """

    text: str
    lasting: bool


def describe_operations(network: nn.Module, nodes: Iterable[fx.Node]) -> Description:
    """Write down what a traced network computes, except for its weights.

    Parameters
    ----------
    network : nn.Module
        As it was traced.
    nodes : iterable of fx.Node
        Its operations, in order.

    Returns
    -------
    Description
        The operations, under the names of their values, and all that they call.

    Raises
    ------
    NotWritableError
        If something cannot be written down whole.
    """
    from sktransfer.backbones._writing import Writer

    writer = Writer(_weights(network))
    lines = []
    for node in nodes:
        where = str(node.target) if node.op in ("call_module", "get_attr") else node.name
        called: Any = node.target
        if node.op in ("call_module", "get_attr"):
            called = functools.reduce(getattr, where.split("."), network)
        arguments = writer.write((node.args, node.kwargs), where)
        lines.append(f"{node.name} {node.op} {where!r} {writer.write(called, where)} {arguments}")
    return Description(writer.text(lines), writer.lasting)


def describe_network(network: nn.Module, **settings: Any) -> Description:
    """Write down what a network that runs its own code computes, except for its weights.

    Parameters
    ----------
    network : nn.Module
        Any network.
    **settings : object
        What else its results depend on.

    Returns
    -------
    Description
        All its modules, and the settings.

    Raises
    ------
    NotWritableError
        If something cannot be written down whole.
    """
    from sktransfer.backbones._writing import Writer

    writer = Writer(_weights(network))
    text = writer.text([writer.write(network, type(network).__name__), writer.write(settings, "settings")])
    return Description(text, writer.lasting)


def _weights(network: nn.Module) -> dict[int, str]:
    """Return the first name of each tensor whose bits are a part of the network's fingerprint, by the tensor's id."""
    state = network.state_dict()
    named = (
        *network.named_parameters(remove_duplicate=False),
        *network.named_buffers(remove_duplicate=False),
    )
    names: dict[int, str] = {}
    for name, tensor in named:
        if name in state and tensor.layout is torch.strided and tensor.is_set_to(state[name]):
            names.setdefault(id(tensor), name)
    return names


_LOOKED_INTO = {dict, list, OrderedDict}


class Settings:
    """Content of a network's modules at one moment, to detect later changes.

    A setting that was replaced is another object, and torch counts how often a tensor was written to; of lists and
    dicts, what they hold is looked at.

    Parameters
    ----------
    network : nn.Module
        Any network.
    """

    def __init__(self, network: nn.Module):
        self._held = _held_by(network)
        kinds = {kind for kind in set(map(type, self._held)) if issubclass(kind, torch.Tensor)}
        self._tensors = [thing for thing in self._held if type(thing) in kinds and not thing.is_inference()]
        self._writes = [tensor._version for tensor in self._tensors]

    def are_those_of(self, network: nn.Module) -> bool:
        """Tell whether a network's modules hold the same."""
        now = _held_by(network)
        same = len(now) == len(self._held) and all(map(operator.is_, now, self._held))
        return same and [tensor._version for tensor in self._tensors] == self._writes


def _held_by(network: nn.Module) -> list[Any]:
    """Return what modules hold, and what lists and dicts among it do."""
    held: list[Any] = []
    for module in network.modules():
        held.extend(vars(module).values())
    for container in [thing for thing in held if type(thing) in _LOOKED_INTO and thing]:
        held.extend(container.values() if isinstance(container, dict) else container)
    return held
