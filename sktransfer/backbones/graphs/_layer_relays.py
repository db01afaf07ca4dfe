"""What layers hand on to later layers besides hidden states, such as a bias by position that the first of them makes.

In one part of a network it is handed on as the network does, gradients and all. A part that begins behind the layer
that makes it has that layer make it again, frozen as it is, of other hidden states of the same shape. That this gives
the same, whatever the hidden states are, is seen before a network is cut.
"""

import contextlib
import copy
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sktransfer._process._locks import Lock
from sktransfer._process._seeding import generator_kept
from sktransfer.backbones.graphs._layer_calls import Call, Relay, is_traced, twin

# Shapes of hidden states for which it is remembered what is handed on, and how much memory that may take.
_SHAPES_KEPT = 16
_BYTES_KEPT = 2**28

_Values = dict[tuple[int, int], torch.Tensor]


class Relayed:
    """What is handed on, by the call that is given it.

    Parameters
    ----------
    relays : mapping of int to list of Relay
        By call.
    layers : mapping of int to nn.Module
        Layers of the network by their number.
    """

    def __init__(self, relays: Mapping[int, list[Relay]], layers: Mapping[int, nn.Module]):
        self._relays, self._layers = relays, layers
        self._sources = {relay.source for some in relays.values() for relay in some}
        self._lock = Lock()
        self._known: OrderedDict[Any, _Values] = OrderedDict()
        self._copies: dict[tuple[int, torch.device], nn.Module] = {}

    @property
    def last_source(self) -> int:
        """The last call that makes something that is handed on; -1 where there is none."""
        return max((call for call, _ in self._sources), default=-1)

    def are_given(self, call: int) -> bool:
        """Tell whether a call is given something that layers hand on."""
        return call in self._relays

    def take(self, call: int, result: Any, returned: _Values) -> None:
        """Note what a call returned that is handed on."""
        for source in self._sources:
            if source[0] == call:
                returned[source] = result[source[1]]

    def give(
        self, number: int, calls: list[Call], returned: Mapping[Any, torch.Tensor], hidden: torch.Tensor, padded: bool
    ) -> Call:
        """Return a call with what it is given by earlier layers: what they returned, or else what they would.

        Parameters
        ----------
        number : int
            Of the call.
        calls : list of Call
            All of them, without what is handed on.
        returned : mapping
            What calls of this part have returned.
        hidden : Tensor of shape (n, positions, features)
            Of whose shape the call's hidden states are.
        padded : bool
            Whether layers receive a mask of padding.

        Returns
        -------
        Call
            Complete.
        """
        sources = {relay.source for relay in self._relays[number]}
        made = {} if sources <= returned.keys() else self.made_again(calls, hidden, padded)
        call = calls[number]
        args, kwargs = list(call.args), dict(call.kwargs)
        for relay in self._relays[number]:
            value = returned[relay.source] if relay.source in returned else made[relay.source]
            if isinstance(relay.slot, int):
                args[relay.slot] = value
            else:
                kwargs[relay.slot] = value
        return Call(call.number, tuple(args), kwargs)

    def made_again(self, calls: list[Call], hidden: torch.Tensor, padded: bool) -> _Values:
        """Return all that is handed on, as layers make it of other hidden states of this shape.

        Parameters
        ----------
        calls : list of Call
            As in `give`.
        hidden : Tensor of shape (n, positions, features)
            Whose values do not matter.
        padded : bool
            As in `give`: what layers are given depends on its places then, and else on the shape alone.

        Returns
        -------
        dict
            By source.
        """
        if padded or is_traced():
            return self._make(calls, hidden)
        key = tuple(hidden.shape), hidden.device
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        made = self._make(calls, hidden)
        with self._lock:
            self._known[key] = made
            while len(self._known) > 1 and (len(self._known) > _SHAPES_KEPT or self._count_bytes() > _BYTES_KEPT):
                self._known.popitem(last=False)
        return made

    def _count_bytes(self) -> int:
        tensors = [tensor for made in self._known.values() for tensor in made.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def _make(self, calls: list[Call], hidden: torch.Tensor) -> _Values:
        kept = generator_kept() if torch.is_grad_enabled() else contextlib.nullcontext()
        cast = torch.autocast(hidden.device.type, enabled=False)
        made: _Values = {}
        with kept, cast, torch.inference_mode(False), torch.no_grad():
            stand_in = torch.zeros_like(hidden, dtype=torch.float32)
            for number in sorted({call for call, _ in self._sources}):
                call = self.give(number, calls, made, stand_in, True) if self.are_given(number) else calls[number]
                result = twin(self._on(call.number, hidden.device))(stand_in, *call.args, **call.kwargs)
                self.take(number, result, made)
        return made

    def _on(self, number: int, device: torch.device) -> nn.Module:
        """Return a layer on a device."""
        layer = self._layers[number]
        if next((one.device for one in layer.parameters()), device) == device:
            return layer
        with self._lock:
            if (number, device) not in self._copies:
                self._copies[number, device] = copy.deepcopy(layer).to(device)
            return self._copies[number, device]

    def forget(self) -> None:
        """Forget what was made, and copies of layers."""
        with self._lock:
            self._known.clear()
            self._copies.clear()
