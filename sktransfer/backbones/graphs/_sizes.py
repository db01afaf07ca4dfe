"""Compute, after a cut, the values that depend only on the sizes of a sample.

A forward that reads `x.shape` at its start and uses it at its end does not keep x alive: what it needs are numbers.
Behind a cut there is only one tensor, so each such number must follow from the shape of that tensor. Which of its axes
it is, or which multiple of one, is seen on examples; and as examples prove nothing, the part before the cut, which
knows the number, compares it with what the part behind will take it for.
"""

import itertools
import math
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import fx

from sktransfer.backbones.graphs._examples import Values

# Writes a value into a graph, given the node of the tensor at the cut.
Writer = Callable[[fx.Graph, fx.Node], Any]

_ATTRIBUTES = ("shape", "dtype", "device", "ndim", "is_cuda")
_METHODS = ("size", "dim", "ndimension", "numel", "nelement")
# What draws random numbers gives others in each part that computes it; what is left empty holds anything.
_UNREPEATABLE = re.compile(r"rand|bernoulli|normal|multinomial|poisson|dropout|empty|uniform|exponential")


def spell_out(graph: fx.Graph, constants: set[fx.Node]) -> None:
    """Write operations that take a tensor for its size, type or device alone as ones that take just those.

    Parameters
    ----------
    graph : fx.Graph
        It is changed.
    constants : set of fx.Node
        What does not depend on the input; it is changed too.
    """
    sizes = find_sizes(graph, constants)
    for node in list(graph.nodes):
        form = _FORMS.get(node.target)
        like = _like(node)
        if form is None or like is None or like in sizes or like in constants:
            continue
        with graph.inserting_before(node):
            read = {key: graph.call_function(getattr, (like, key)) for key in ("shape", "dtype", "device")}
            new = form(graph, node, read)
        for one in (*read.values(), new):
            one.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        graph.erase_node(node)
        for spare in read.values():
            if not spare.users:
                graph.erase_node(spare)


def _reshaped(graph: fx.Graph, node: fx.Node, read: dict[str, fx.Node]) -> fx.Node:
    return graph.call_method(str(node.target).removesuffix("_as"), (node.args[0], read["shape"]))


def _cast(graph: fx.Graph, node: fx.Node, read: dict[str, fx.Node]) -> fx.Node:
    return graph.call_method("to", (node.args[0], read["device"], read["dtype"]))


def _new(graph: fx.Graph, node: fx.Node, read: dict[str, fx.Node]) -> fx.Node:
    function = getattr(torch, str(node.target).removeprefix("new_"))
    return graph.call_function(function, node.args[1:], {**_kind(read), **node.kwargs})


def _filled(graph: fx.Graph, node: fx.Node, read: dict[str, fx.Node]) -> fx.Node:
    function = getattr(torch, node.target.__name__.removesuffix("_like"))  # type: ignore[union-attr]
    given = {key: value for key, value in node.kwargs.items() if key != "memory_format" and value is not None}
    return graph.call_function(function, (read["shape"], *node.args[1:]), {**_kind(read), **given})


def _kind(read: dict[str, fx.Node]) -> dict[str, Any]:
    return {"dtype": read["dtype"], "device": read["device"]}


_LIKE_ANOTHER = ("view_as", "reshape_as", "expand_as", "type_as", "to")
_FORMS: dict[Any, Callable[[fx.Graph, fx.Node, dict[str, fx.Node]], fx.Node]] = {
    **dict.fromkeys(("view_as", "reshape_as", "expand_as"), _reshaped),
    **dict.fromkeys(("type_as", "to"), _cast),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full"), _new),
    **dict.fromkeys((torch.zeros_like, torch.ones_like, torch.full_like), _filled),
}


def _like(node: fx.Node) -> fx.Node | None:
    """Return the argument that only lends its size, type or device."""
    if node.target in _LIKE_ANOTHER:
        like = node.args[1] if len(node.args) == 2 else None
    else:
        like = node.args[0] if node.args else None
    return like if isinstance(like, fx.Node) else None


def find_sizes(graph: fx.Graph, constants: set[fx.Node]) -> set[fx.Node]:
    """Return the values that depend on the input through sizes, types and devices alone, and on constants.

    Parameters
    ----------
    graph : fx.Graph
        A traced network.
    constants : set of fx.Node
        What does not depend on the input.

    Returns
    -------
    set of fx.Node
        Numbers, and also tensors such as `torch.arange(x.shape[1])`.
    """
    sizes: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op in ("placeholder", "output", "get_attr") or node in constants:
            continue
        flowing = [source for source in node.all_input_nodes if source not in constants]
        name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))
        if _reads_size(node) or (
            flowing and all(source in sizes for source in flowing) and not _UNREPEATABLE.search(name)
        ):
            sizes.add(node)
    return sizes


def _reads_size(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in _METHODS and bool(node.all_input_nodes)
    if node.op != "call_function":
        return False
    return node.target is torch.numel or (node.target is getattr and node.args[1] in _ATTRIBUTES)


class Behind:
    """Sizes that lie before a cut and are computed again after it.

    Parameters
    ----------
    cut : fx.Node
        The tensor at the cut.
    gone : set of fx.Node
        Tensors that are there no more.
    sizes : set of fx.Node
        As `find_sizes` returns them.
    examples : list of dict
        As `look` returns them.
    """

    def __init__(self, cut: fx.Node, gone: set[fx.Node], sizes: set[fx.Node], examples: list[Values]):
        self._cut, self._gone, self._sizes, self._examples = cut, gone, sizes, examples
        self.writers: dict[fx.Node, Writer] = {}

    @property
    def numbers(self) -> list[fx.Node]:
        """Those that are numbers, or tuples of them."""
        values = self._examples[0]
        return [node for node in self.writers if _is_number(values[node]) or isinstance(values[node], tuple)]

    def settle(self, needed: Iterable[fx.Node]) -> bool:
        """Tell whether all that these operations need of sizes can be had, and note how."""
        asked = {source for node in needed if node not in self._sizes for source in node.all_input_nodes}
        return all(self._settle(node) for node in asked if node in self._sizes)

    def _settle(self, node: fx.Node) -> bool:
        if node in self.writers or not any(tensor in self._gone for tensor in self._tensors(node)):
            return True
        writer = self._find_writer(node)
        if writer is not None:
            self.writers[node] = writer
            return True
        return not _reads_size(node) and all(self._settle(one) for one in node.all_input_nodes if one in self._sizes)

    def _tensors(self, node: fx.Node) -> Iterator[fx.Node]:
        """Tensors whose size, type or device a value comes from."""
        todo, done = [node], {node}
        while todo:
            for source in todo.pop().all_input_nodes:
                if source in self._sizes and source not in done:
                    done.add(source)
                    todo.append(source)
                elif source not in self._sizes:
                    yield source

    def _find_writer(self, node: fx.Node) -> Writer | None:
        values = [example[node] for example in self._examples]
        first = values[0]
        if _reads_size(node) and node.target is getattr and node.args[1] in ("device", "is_cuda"):
            return lambda graph, cut: graph.call_function(getattr, (cut, node.args[1]))
        if isinstance(first, torch.dtype):
            return self._write_dtype(node)
        if _is_number(first):
            return self._write_number(values)
        if isinstance(first, tuple) and all(map(_is_number, first)) and len({len(value) for value in values}) == 1:
            each = [self._write_number(numbers) for numbers in zip(*values, strict=True)]
            kind = torch.Size if isinstance(first, torch.Size) else None
            return None if None in each else lambda graph, cut: _write_all(graph, cut, each, kind)
        return None

    def _write_dtype(self, node: fx.Node) -> Writer | None:
        pairs = {(example[node], example[self._cut].dtype) for example in self._examples}
        if len(pairs) > 1:
            return None
        (dtype, at_cut) = pairs.pop()
        if dtype == at_cut:
            return lambda graph, cut: graph.call_function(dtype_of, (cut,))
        return lambda graph, cut: dtype

    def _write_number(self, values: Sequence[int]) -> Writer | None:
        """Return how a number follows from the shape at the cut: on all examples, or else on those that are square."""
        shapes = [example[self._cut].shape for example in self._examples]
        writer = _as_size(values, shapes)
        if writer is None:
            square = [i for i, example in enumerate(self._examples) if _is_square(_input_shape(example))]
            writer = _as_side([values[i] for i in square], [shapes[i] for i in square]) if len(square) > 1 else None
        return writer


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _input_shape(example: Values) -> tuple[int, ...]:
    return next(iter(example.values())).shape


def _is_square(shape: tuple[int, ...]) -> bool:
    return len(shape) > 3 and (shape[-1] == shape[-2] or shape[1] == shape[2])


def _write_all(graph: fx.Graph, cut: fx.Node, each: Sequence[Writer | None], kind: type | None) -> Any:
    numbers = tuple(writer(graph, cut) for writer in each if writer is not None)
    return numbers if kind is None else graph.call_function(kind, (numbers,))


def _as_size(values: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> Writer | None:
    """Return how to write numbers in terms of the sizes of axes: as one, as always the same, or as a little more."""
    if len({len(shape) for shape in shapes}) > 1:
        return None
    axes = [[shape[axis] for shape in shapes] for axis in range(len(shapes[0]))]
    for axis, sizes in enumerate(axes):
        if sizes == list(values):
            return partial(_size, axis=axis)
    if len(set(values)) == 1:
        return lambda graph, cut: values[0]
    for axis, sizes in enumerate(axes):
        if (way := _relation(values, sizes)) is not None:
            return partial(_call, function=way[0], axes=(axis,), more=(way[1],))
    for i, j in itertools.combinations(range(len(axes)), 2):
        if [a * b for a, b in zip(axes[i], axes[j], strict=True)] == list(values):
            return partial(_call, function=operator.mul, axes=(i, j))
    return None


def _as_side(values: Sequence[int], shapes: Sequence[tuple[int, ...]]) -> Writer | None:
    """Return how to write numbers as the side of a square of as many positions as an axis has, except for a few."""
    for axis in range(1, min(map(len, shapes))):
        positions = [shape[axis] for shape in shapes]
        spare = {n - value * value for n, value in zip(positions, values, strict=True)}
        if len(spare) == 1 and (extra := spare.pop()) >= 0:
            return partial(_call, function=side_of, axes=(axis,), more=(extra,))
    return None


def _relation(values: Sequence[int], sizes: Sequence[int]) -> tuple[Callable[..., int], int] | None:
    pairs = list(zip(values, sizes, strict=True))
    factor, more = values[0] // max(1, sizes[0]), values[0] - sizes[0]
    if factor and all(value == factor * size for value, size in pairs):
        return operator.mul, factor
    if len(set(values)) > 2 and all(value - size == more for value, size in pairs):
        return operator.add, more
    factor = sizes[0] // max(1, values[0])
    if factor and len(set(values)) > 2 and all(size == factor * value for value, size in pairs):
        return operator.floordiv, factor
    return None


def _size(graph: fx.Graph, cut: fx.Node, axis: int) -> fx.Node:
    return graph.call_method("size", (cut, axis))


def _call(
    graph: fx.Graph, cut: fx.Node, function: Callable[..., Any], axes: Sequence[int], more: tuple[int, ...] = ()
) -> fx.Node:
    return graph.call_function(function, (*(_size(graph, cut, axis) for axis in axes), *more))


# What parts call


def side_of(positions: int, extra: int) -> int:
    """Return the side of a square of so many positions, beside a few extra ones.

    Parameters
    ----------
    positions : int
        How many there are.
    extra : int
        How many of them are not in the square.

    Returns
    -------
    int
        The side, rounded down.
    """
    return math.isqrt(max(0, int(positions) - extra))


def dtype_of(x: torch.Tensor) -> torch.dtype:
    """Return the type that a tensor has where no autocast lowers it.

    Parameters
    ----------
    x : Tensor
        At a cut, where autocast may have left it in bfloat16, or it may come from a store of float32.

    Returns
    -------
    torch.dtype
        The same in both cases.
    """
    lowered = x.dtype in (torch.bfloat16, torch.float16) and torch.is_autocast_enabled(x.device.type)
    return torch.float32 if lowered else x.dtype


def agree(x: torch.Tensor, found: Sequence[Any], taken: Sequence[Any], name: str) -> torch.Tensor:
    """Return the tensor at a cut if what is behind it will work with the numbers that the network does.

    Parameters
    ----------
    x : Tensor
        At the cut.
    found : sequence of int, or of tuples of int
        The numbers.
    taken : sequence of int, or of tuples of int
        What follows from the shape of the tensor.
    name : str
        Of the cut.

    Returns
    -------
    Tensor
        As it came.

    Raises
    ------
    ValueError
        If they differ.
    """
    for one, other in zip(found, taken, strict=True):
        if one != other:
            raise ValueError(
                f"Got samples of a shape for which this network cannot be cut at {name!r}: what follows needs "
                f"{_short(one)}, and from a value of shape {tuple(x.shape)} there it would take {_short(other)}. Use "
                "square pictures of the size that the network is made for, or cut it elsewhere: another freeze_depth "
                "or layer."
            )
    return x


def _short(number: Any) -> str:
    return str(tuple(map(int, number)) if isinstance(number, tuple | list) else int(number))
