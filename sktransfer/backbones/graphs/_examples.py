"""Learn from examples which shapes the values of a traced network have.

Nobody says what shape of sample a network takes, so likely ones are tried: small networks run on random numbers, large
ones on tensors that have a shape and no values, which takes torch longer for each operation.
"""

import contextlib
import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from sktransfer._process._seeding import generator_kept

# A small side first, for networks that take any; others were built for one.
_SIDES = (64, 224, 32, 28, 256, 128, 16, 8, 96, 384, 299, 240, 288, 48, 112, 160, 192, 24, 40, 56, 80, 12, 20, 100)
_MORE_SIDES = (320, 336, 448, 512, 518, 10, 14, 36, 60, 72, 84, 120, 144, 180, 200, 300, 400, 4)
_LENGTHS = (16, 64, 256, 1000, 1024, 16000, 49, 50, 100, 128, 197, 4000, 8000)
# How many operations may be run to find a shape, by whether there are numbers in the tensors; they are counted, since a
# clock would make what is found depend on how busy the machine is.
_OPERATIONS = {"cpu": 40_000, "meta": 5_000}
# How many parameters a network may have that is run on numbers first.
_SMALL = 50_000_000


@dataclass(frozen=True)
class Seen:
    """Record of a tensor.

    Attributes
    ----------
    shape : tuple of int
        Its shape.
    dtype : torch.dtype
        Its type.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype


Values = dict[fx.Node, Any]


def look(network: nn.Module, nodes: list[fx.Node], first: list[torch.Size], closely: bool) -> list[Values]:
    """Run a network on examples and write down what each operation returns.

    Parameters
    ----------
    network : nn.Module
        In eval mode; it is not changed.
    nodes : list of fx.Node
        What is run, in order; the first is the input.
    first : list of torch.Size
        Shapes of the weights that meet the input first.
    closely : bool
        Whether to go on to samples of other sizes.

    Returns
    -------
    list of dict
        For each example, by operation, a `Seen` for a tensor and else the value. Empty where no example was taken. The
        first is of the shape found, the others, where they are asked for, of other sizes of batch and sample.
    """
    shapes = list(_likely_shapes(first, network))
    small = sum(parameter.numel() for parameter in network.parameters()) <= _SMALL
    empty = any(parameter.is_meta for parameter in network.parameters())
    for device in ("cpu", "meta") if small and not empty else ("meta",):
        with contextlib.suppress(Exception):  # what cannot be copied is not looked at
            there = network if device == "cpu" else without_memory(network)
            if found := _look_at(there, nodes, shapes, device, closely):
                return found
    return []


def _look_at(
    network: nn.Module, nodes: list[fx.Node], shapes: list[tuple[int, ...]], device: str, closely: bool
) -> list[Values]:
    left = _OPERATIONS[device]
    for shape in shapes:
        found, done = _try(network, nodes, (2, *shape), device)
        left -= done
        if found is not None:
            more = [_try(network, nodes, other, device)[0] for other in (_others(shape) if closely else ())]
            return [found, *(one for one in more if one is not None)]
        if left < 0:
            break
    return []


def _try(network: nn.Module, nodes: list[fx.Node], shape: tuple[int, ...], device: str) -> tuple[Values | None, int]:
    """Run the operations on one example; return `None` where the network does not take it, and how many were run."""
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
    if device == "meta":
        x = torch.empty(shape, dtype=dtype, device="meta")
    else:  # with a generator of its own: the numbers of torch's are others' to draw
        x = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    values: Values = {}
    try:
        with torch.device(device), torch.no_grad(), torch.autocast("cpu", enabled=False), generator_kept():
            for node in nodes:
                values[node] = x if node.op == "placeholder" else _run(network, node, values)
    except Exception:  # networks raise what they please at a shape that is not theirs
        return None, len(values)
    seen = {
        node: Seen(tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else value
        for node, value in values.items()
    }
    result = seen[nodes[-1]]
    takes_it = not isinstance(result, Seen) or result.shape[:1] == shape[:1]  # a row per sample comes out
    return seen if takes_it else None, len(values)


def _run(network: nn.Module, node: fx.Node, values: Values) -> Any:
    args = fx.map_arg(node.args, values.__getitem__)
    kwargs: dict[str, Any] = fx.map_arg(node.kwargs, values.__getitem__)
    if node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        return getattr(network.get_submodule(owner), name)
    if node.op == "call_module":
        return network.get_submodule(str(node.target))(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return args[0] if node.op == "output" else node.target(*args, **kwargs)  # type: ignore[operator]


def without_memory(network: nn.Module) -> nn.Module:
    """Return a copy whose tensors have shapes and no values."""
    memo: dict[int, Any] = {}
    for module in network.modules():
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False), *vars(module).values()):
            if isinstance(tensor, nn.Parameter):
                memo[id(tensor)] = nn.Parameter(tensor.detach().to("meta"), requires_grad=False)
            elif isinstance(tensor, torch.Tensor):
                memo[id(tensor)] = tensor.detach().to("meta")
    return copy.deepcopy(network, memo)


# Shapes


def _others(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield batches of other sizes, of samples of this shape and of others; a network does not take them all."""
    yield (3, *shape)
    n_axes = len(shape)
    groups = {tuple(range(start, stop)) for start in range(n_axes) for stop in range(start + 1, n_axes + 1)}
    for axes in sorted(groups, key=len, reverse=True) if n_axes < 4 else [(1, 2, 3), (2, 3), (0,), (1,), (0, 1, 2)]:
        if len(axes) == n_axes > 2:
            continue  # channels too
        grown: list[Callable[[int, int], int]] = [lambda s, _: 2 * s, lambda s, _: s + 1]
        if len(axes) > 1:
            grown.append(lambda s, i: s + 32 * (i + 1))
        for number, larger in enumerate(grown):
            sizes = {axis: larger(shape[axis], i) for i, axis in enumerate(axes)}
            yield (2 + number % 2, *(sizes.get(axis, size) for axis, size in enumerate(shape)))


def _likely_shapes(first: list[torch.Size], network: nn.Module) -> Iterator[tuple[int, ...]]:
    """Yield shapes of samples that a network with such weights at its entrance may take, the likeliest first."""
    tried: set[tuple[int, ...]] = set()
    for shape in _all_shapes(first, network):
        if shape not in tried and math.prod(shape) < 10**7:
            tried.add(shape)
            yield shape


def _all_shapes(first: list[torch.Size], network: nn.Module) -> Iterator[tuple[int, ...]]:
    for weight in first[:1]:
        yield from _usual(weight)
    positions = [p.shape[-2] for p in (*network.parameters(), *network.buffers()) if p.ndim in (2, 3)]
    for weight in first:
        yield from _unusual(weight, list(dict.fromkeys(n - less for n in positions[:8] for less in (0, 1) if n > less)))
    for weight in first[1:]:
        yield from _usual(weight)
    yield from _pictures((3, 1), (*_SIDES, *_MORE_SIDES))


def _pictures(channels: Iterable[int], sides: Iterable[int]) -> Iterator[tuple[int, ...]]:
    for side in sides:
        yield from ((n, side, side) for n in channels)


def _usual(weight: torch.Size) -> Iterator[tuple[int, ...]]:
    """Yield samples that a layer takes as they are."""
    if len(weight) == 4:
        yield from _pictures((weight[1],), (*_SIDES, *_MORE_SIDES))
    elif len(weight) == 3:
        yield from ((weight[1], length) for length in _LENGTHS)
    elif len(weight) == 5:
        yield from ((weight[1], depth, side, side) for side in (32, 112, 16, 64, 224) for depth in (8, 16, side))
    elif weight:
        yield (weight[-1],)
        yield from ((length, weight[-1]) for length in _LENGTHS[:6])


def _unusual(weight: torch.Size, positions: list[int]) -> Iterator[tuple[int, ...]]:
    """Yield samples that are brought into another form before a layer takes them."""
    if len(weight) == 4:
        for side in _SIDES[:8]:
            yield from (
                (weight[1] * side * side,),
                (side, side, weight[1]),
                (side, side),
                (4, weight[1], side, side),
                (weight[1], 4, side, side),
            )
    elif len(weight) == 3:
        yield from ((length,) for length in _LENGTHS)
        yield from ((length, weight[1]) for length in _LENGTHS)
    elif len(weight) in (1, 2):
        width = weight[-1]
        yield from ((length, width) for length in positions)
        for channels in (3, 1, 2, 4):
            side = math.isqrt(width // channels)
            if channels * side * side == width:  # a picture, flattened or in patches
                yield (channels, side, side)
                yield from _pictures((channels,), _SIDES[:6])
        yield (7, 7, width)
        yield (width, 16)
        yield from ((weight[0],), (16, weight[0]))
