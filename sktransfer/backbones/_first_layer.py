"""Adapt the first layer to other channels: its filters are repeated and scaled, as timm does.

The layer is not known by name. The network is run once, and whatever takes the image itself is watched: one or more
convolutions can be adapted, and a network that does anything else with the image is refused.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from sktransfer._messages import first_line
from sktransfer._process._seeding import seeded

# Operations after which a value is still the image: each channel by itself, all of them in the same way.
_SAME = {
    "__get__", "clone", "contiguous", "detach", "dropout", "float", "interpolate", "pad", "requires_grad_", "to",
    "type", "type_as",
}  # fmt: skip
_SAME_WITH_A_NUMBER = {
    "__add__", "__mul__", "__radd__", "__rmul__", "__rsub__", "__sub__", "__truediv__", "add", "div", "mul", "sub",
    "true_divide",
}  # fmt: skip

# How modules call the number of channels that they take; transformers compares a batch with it.
_COUNTS = ("num_channels", "in_channels", "in_chans")


class UnadaptableError(ValueError):
    """The network does something with the image that other channels do not allow."""


def adapted(network: nn.Module, example: torch.Tensor, n_channels: int) -> nn.Module:
    """Return a copy of a network whose first layer takes other channels; all other tensors are shared with it.

    Of c channels that the layer takes, filter k of the new layer is filter k modulo c of the old one, times
    c / n_channels, so that a network sees the same brightness. For one channel the filters are added up.

    Parameters
    ----------
    network : nn.Module
        It is put into eval mode.
    example : Tensor of shape (1, c, height, width)
        A prepared image of the network's own channels.
    n_channels : int
        Channels that the copy takes.

    Returns
    -------
    nn.Module
        The network itself, where its first layer takes as many.

    Raises
    ------
    UnadaptableError
        If its first layer cannot be adapted, with the reason in a clause.
    """
    network.eval()
    names, ran = _first_layers(network, example)
    layers = [network.get_submodule(name) for name in names]
    if all(_count(layer) == n_channels for layer in layers):
        return network
    other = _copy_of_structure(network)
    for name in names:
        _widen(other, name, n_channels)
    if ran is not None:
        wider = ran[:, :1].expand(-1, n_channels, *ran.shape[2:])
        try:
            _run(other, wider)
        except Exception as error:  # a network may raise what it pleases
            raise UnadaptableError(f"it does not run with {n_channels} channels: {first_line(error)}") from error
    return other


def filters_for(weight: torch.Tensor, n_channels: int) -> torch.Tensor:
    """Return the filters of a convolution for another number of channels.

    Parameters
    ----------
    weight : Tensor of shape (n_filters, channels, height, width)
        Its filters.
    n_channels : int
        How many channels the new filters take.

    Returns
    -------
    Tensor of shape (n_filters, n_channels, height, width)
        Of the same type.
    """
    channels = weight.shape[1]
    if n_channels == channels:
        return weight
    wide = weight.float()
    if n_channels == 1:
        return wide.sum(dim=1, keepdim=True).to(weight.dtype)
    wide = wide.repeat(1, math.ceil(n_channels / channels), 1, 1)[:, :n_channels]
    return (wide * (channels / float(n_channels))).contiguous().to(weight.dtype)


def _count(layer: nn.Module) -> Any:
    return getattr(layer, "in_channels", None)


def _first_layers(network: nn.Module, example: torch.Tensor) -> tuple[list[str], torch.Tensor | None]:
    """Return the names of the convolutions that take the image, and the batch with which the network ran to its end."""
    names = {module: name for name, module in network.named_modules()}
    why: Exception | None = None
    ran = None
    for batch in (example[:0], example):  # no sample at all costs nothing, where the network takes it
        watch = _Watch(batch)
        with ExitStack() as opened:
            for module in names:
                opened.callback(module.register_forward_pre_hook(watch.enter).remove)
                opened.callback(module.register_forward_hook(watch.leave, always_call=True).remove)
            try:
                _run(network, batch, watch)
                why, ran = None, batch
                break
            except Exception as error:  # it may be made for another size; the first layer was seen by then
                why = error
    if watch.others:
        raise UnadaptableError(f"it uses the image not only in a convolution ({', '.join(sorted(watch.others))})")
    if not watch.layers:
        reason = "" if why is None else f" (it does not run: {first_line(why)})"
        raise UnadaptableError(f"no convolution takes the image{reason}")
    for layer in watch.layers:
        kind = type(layer).__name__
        weight = layer._parameters.get("weight")
        if weight is None or weight.ndim != 4 or weight.shape[1] != _count(layer):
            raise UnadaptableError(f"its first layer, of type {kind}, has filters of an unsupported kind")
    return [names[layer] for layer in watch.layers], ran


def _run(network: nn.Module, batch: torch.Tensor, watch: "_Watch | None" = None) -> None:
    with seeded(0), torch.no_grad(), ExitStack() as opened:
        if watch is not None:
            opened.enter_context(watch)
        network(batch)


class _Watch(TorchFunctionMode):
    """For `with`: notes which modules convolve the image, and what else is done with it.

    Parameters
    ----------
    image : Tensor
        What the network is given.
    """

    def __init__(self, image: torch.Tensor):
        super().__init__()
        self._images = {id(image): image}
        self._running: list[nn.Module] = []
        self.layers: list[nn.Module] = []
        self.others: set[str] = set()

    def enter(self, module: nn.Module, args: Any) -> None:
        self._running.append(module)

    def leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self._running.pop()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.Tensor)]
        image = [one for one in tensors if id(one) in self._images]
        name = getattr(func, "__name__", str(func))
        if name == "conv2d" and image and image[0] is tensors[0] and self._running:
            if self._running[-1] not in self.layers:
                self.layers.append(self._running[-1])
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        listed = [one for value in args if isinstance(value, list | tuple) for one in value]
        if image or any(id(one) in self._images for one in listed):
            numbers = all(one.numel() == 1 for one in tensors if one is not image[0]) if image else False
            if not isinstance(result, torch.Tensor | list | tuple) or isinstance(result, torch.Size):
                return result
            if isinstance(result, torch.Tensor) and (name in _SAME or (name in _SAME_WITH_A_NUMBER and numbers)):
                self._images[id(result)] = result
            elif isinstance(result, torch.Tensor) or any(isinstance(one, torch.Tensor) for one in result):
                self.others.add(name.strip("_"))
        return result


def _copy_of_structure(network: nn.Module) -> nn.Module:
    """Copy modules and their settings; tensors are those of the network."""
    kept = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    for module in network.modules():
        kept |= {id(value): value for value in vars(module).values() if isinstance(value, torch.Tensor)}
    return copy.deepcopy(network, kept)


def _widen(network: nn.Module, name: str, n_channels: int) -> None:
    layer = network.get_submodule(name)
    weight = layer._parameters["weight"]
    assert weight is not None
    channels = _count(layer)
    if getattr(layer, "groups", 1) != 1:
        raise UnadaptableError("its first layer convolves each channel separately")
    layer.weight = nn.Parameter(filters_for(weight.detach(), n_channels), requires_grad=weight.requires_grad)
    around = [network.get_submodule(path) for path in ("", *_parents(name), name)]
    for thing in [*around, *(getattr(module, "config", None) for module in around)]:
        for count in _COUNTS:
            if vars(thing).get(count) == channels if hasattr(thing, "__dict__") else False:
                setattr(thing, count, n_channels)


def _parents(name: str) -> list[str]:
    return [name[:end] for end, letter in enumerate(name) if letter == "."]
