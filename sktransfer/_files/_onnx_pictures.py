"""Resize, crop and normalisation as operations of ONNX, put in front of a network that takes prepared pictures.

Each axis is resized by a product with a matrix, whose weights are Pillow's and are computed in the graph from the size
of the picture. ONNX has an operation that resizes too, but not every runtime heeds its attribute `antialias`: OpenVINO
reads such a file and computes something else, without a word.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sktransfer._files._onnx_export import OPSET, import_onnx
from sktransfer._files._onnx_graph import Graph

PICTURES = "pictures"

# How far Pillow's filters reach, in pixels of the smaller of two pictures.
_REACH = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}
# The parameter of its bicubic filter.
_CUBIC = -0.5
# Weights are integers there, of so many bits behind the point. A float32 holds exact sums of half of the bits.
_BITS, _LOWER_BITS = 22, 11
# Columns of the result that are computed in one product: each needs but a part of the picture.
_COLUMNS_AT_ONCE = 32


def put_in_front(file: Path, preprocessing: Mapping[str, Any], prepared: str) -> None:
    """Let a file take pictures of 8 bits and any size, instead of prepared ones.

    Parameters
    ----------
    file : Path
        A network of one input, of shape (batch, channels, height, width). Its weights may be in another file.
    preprocessing : mapping
        The record of an `ImagePreprocessing`, with a crop, and a filter that `check_preprocessing` lets pass.
    prepared : str
        Name of that input. The new one is called `PICTURES`, and is uint8 of shape (batch, height, width, channels).
    """
    onnx = import_onnx()
    model = onnx.load(file, load_external_data=False)
    graph = _prepare(preprocessing, prepared)
    nodes = [*graph.nodes, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(graph.constants)
    (network_input,) = model.graph.input
    network_input.CopyFrom(_input(preprocessing))
    onnx.save_model(model, file)


def preparing_model(preprocessing: Mapping[str, Any], prepared: str) -> bytes:
    """Return the part in front alone, as an ONNX model.

    Parameters
    ----------
    preprocessing : mapping
        As in `put_in_front`.
    prepared : str
        Name of the output, float32 of shape (batch, channels, height, width).

    Returns
    -------
    bytes
        What a runtime reads.
    """
    onnx = import_onnx()
    graph = _prepare(preprocessing, prepared)
    shape = ["batch", preprocessing["channels"], *preprocessing["crop"]]
    gives = onnx.helper.make_tensor_value_info(prepared, onnx.TensorProto.FLOAT, shape)
    whole = onnx.helper.make_graph(graph.nodes, PICTURES, [_input(preprocessing)], [gives], graph.constants)
    model = onnx.helper.make_model(whole, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def check_preprocessing(description: Mapping[str, Any]) -> None:
    """Refuse what no graph prepares as this package does.

    Parameters
    ----------
    description : mapping
        What a reader says of how it prepares samples.

    Raises
    ------
    ValueError
        If samples are sounds, pictures are resized by another filter, or are not of 8 bits.
    """
    kind, preprocessing = description["kind"], description["preprocessing"]
    otherwise = "Write the file with preprocessing=False, and prepare the samples as the file beside it says."
    if kind == "sounds":
        raise ValueError(
            "Got preprocessing=True for an estimator of sounds; expected one of pictures, texts or numbers. "
            f"The processor of sounds is not a part of ONNX. {otherwise}"
        )
    if kind != "images":
        return
    if preprocessing["interpolation"] not in _REACH:
        raise ValueError(
            f"Got preprocessing=True for a network whose pictures are resized by "
            f"interpolation={preprocessing['interpolation']!r}; expected one of {', '.join(_REACH)}. {otherwise}"
        )
    low, high = description["value_range"] or (0, 255)
    # Pictures of grey and colours of 8 bits are read as 0 to 255 whatever arrays were: 0 to 1 means the same there.
    known = ((0, 255), (0, 1), (0, 65535)) if preprocessing["channels"] in (1, 3, 4) else ((0, 255),)
    if (low, high) not in known:
        raise ValueError(
            f"Got preprocessing=True for an estimator that was fitted on values from {low:g} to {high:g}; expected "
            f"pictures of 8 bits, from 0 to 255. Fit it on those. Or {otherwise[0].lower()}{otherwise[1:]}"
        )


def _input(preprocessing: Mapping[str, Any]) -> Any:
    onnx = import_onnx()
    shape = ["batch", "height", "width", preprocessing["channels"]]
    return onnx.helper.make_tensor_value_info(PICTURES, onnx.TensorProto.UINT8, shape)


def _prepare(preprocessing: Mapping[str, Any], prepared: str) -> Graph:
    """Do what `ImagePreprocessing` does, from `PICTURES` to the tensor that the network takes."""
    graph = Graph(import_onnx(), PICTURES)
    resize, crop = preprocessing["resize"], preprocessing["crop"]
    sides = [graph.op("Gather", graph.op("Shape", PICTURES), np.int64(axis)) for axis in (1, 2)]
    sizes = _sizes(graph, sides, resize, crop)
    # Where the crop is all that is resized, Pillow is given the part of the picture that it comes from.
    whole = preprocessing["manner"] == "transformers" or _may_have_a_border(resize, crop)
    axes = [
        _Axis(graph, side, size, _first(graph, size, inner, preprocessing["manner"]), inner, whole)
        for side, size, inner in zip(sides, sizes, crop, strict=True)
    ]
    rows, columns = (axis.weighed_by(preprocessing["interpolation"]) for axis in axes)
    resized = _resized(graph, sides, sizes if whole else [np.int64(side) for side in crop], rows, columns, crop)
    mean, std = (np.array(preprocessing[name], np.float32).reshape(1, -1, 1, 1) for name in ("mean", "std"))
    graph.op("Div", graph.op("Sub", graph.op("Div", resized, np.float32(255)), mean), std, name=prepared)
    return graph


def _sizes(graph: Graph, sides: list[str], resize: Any, crop: Any) -> list[Any]:
    """Height and width of the resized picture."""
    if not isinstance(resize, int):
        return [np.int64(side) for side in resize or crop]
    least = graph.op("Min", *sides)
    # The shorter side becomes exactly as long as that; integers are divided without their rest, as int() does it.
    return [graph.op("Div", graph.op("Mul", np.int64(resize), side), least) for side in sides]


def _may_have_a_border(resize: Any, crop: Any) -> bool:
    if isinstance(resize, int):
        return resize < max(crop)
    return any(side < inner for side, inner in zip(resize or crop, crop, strict=True))


def _first(graph: Graph, size: Any, inner: int, manner: str) -> str:
    """Return which row or column of the resized picture is the first of the crop; a negative one is outside."""
    half = graph.op("Mul", graph.cast(graph.op("Sub", size, np.int64(inner)), np.float64), 0.5)
    if manner == "transformers":
        return graph.cast(graph.op("Floor", half), np.int64)
    outside = graph.op("Less", half, 0.0)
    return graph.cast(graph.op("Where", outside, graph.op("Ceil", half), graph.op("Round", half)), np.int64)


def _resized(graph: Graph, sides: list[str], sizes: list[Any], rows: "_Weights", columns: "_Weights", crop: Any) -> str:
    """Return what the crop holds, first across and then down, or the other way round: values are rounded in between.

    Since Pillow 13 the height is first if it loses far more. All pictures of a call take one way, and none the other:
    an `If` would say the same, and OpenVINO computes something else where it first meets one.
    """
    import PIL

    n_samples = graph.op("Gather", graph.op("Shape", PICTURES), np.int64(0))
    if int(PIL.__version__.partition(".")[0]) < 13:
        return _across_then_down(graph, n_samples, rows, columns, crop)
    less = [graph.op("Sub", side, size) for side, size in zip(sides, sizes, strict=True)]
    more = graph.op("Greater", less[0], graph.op("Mul", less[1], np.int64(2)))
    is_tall = graph.op("And", more, graph.op("Greater", less[0], np.int64(0)))
    n_tall = graph.op("Where", is_tall, n_samples, np.int64(0))
    tall = _across(graph, _down(graph, rows, _pixels(graph, n_tall, rows, columns)), columns)
    others = _across_then_down(graph, graph.op("Sub", n_samples, n_tall), rows, columns, crop)
    return graph.op("Concat", tall, others, axis=0)


def _across_then_down(graph: Graph, n_samples: str, rows: "_Weights", columns: "_Weights", crop: Any) -> str:
    parts = []
    for first in range(0, crop[1], _COLUMNS_AT_ONCE):
        part = columns.of(graph, first, min(_COLUMNS_AT_ONCE, crop[1] - first))
        parts.append(_across(graph, _pixels(graph, n_samples, rows, part), part))
    return _down(graph, rows, graph.op("Concat", *parts, axis=3))


def _pixels(graph: Graph, n_samples: str, rows: "_Weights", columns: "_Weights") -> str:
    """Return those that count of the first samples, float32 of shape (n_samples, channels, rows, columns)."""
    starts, ends = (
        graph.op("Concat", *(graph.op("Unsqueeze", end, np.array([0])) for end in pair), axis=0)
        for pair in ((np.int64(0), rows.start, columns.start), (n_samples, rows.end, columns.end))
    )
    needed = graph.op("Slice", PICTURES, starts, ends, np.array([0, 1, 2]))
    return graph.cast(graph.op("Transpose", needed, perm=[0, 3, 1, 2]), np.float32)


def _across(graph: Graph, pixels: str, columns: "_Weights") -> str:
    weights = graph.op("Transpose", graph.op("Concat", columns.upper, columns.lower, axis=0), perm=[1, 0])
    return _to_8_bits(graph, graph.op("MatMul", pixels, weights), axis=3)


def _down(graph: Graph, rows: "_Weights", pixels: str) -> str:
    weights = graph.op("Concat", rows.upper, rows.lower, axis=0)
    return _to_8_bits(graph, graph.op("MatMul", weights, pixels), axis=2)


def _to_8_bits(graph: Graph, sums: str, axis: int) -> str:
    """Round sums of pixels, one half made by the upper bits of the weights and one by the lower, to 0 to 255.

    The order of operations keeps each number exact.
    """
    upper, lower = graph.halves(sums, axis)
    upper = graph.op("Add", graph.op("Mul", upper, np.float32(2.0 ** (_LOWER_BITS - _BITS))), np.float32(0.5))
    whole = graph.op("Floor", upper)
    rest = graph.op("Add", graph.op("Sub", upper, whole), graph.op("Mul", lower, np.float32(2.0**-_BITS)))
    return graph.op("Clip", graph.op("Add", whole, graph.op("Floor", rest)), np.float32(0), np.float32(255))


class _Axis:
    """Where rows, or columns, of the crop have their centres in the picture, as Pillow computes it, bit for bit."""

    def __init__(self, graph: Graph, side: str, size: Any, first: str, count: int, whole: bool):
        self._graph, self._side, self._count = graph, side, count
        op = graph.op
        ratio = op("Div", graph.cast(side, np.float64), graph.cast(size, np.float64))
        self._places = np.arange(count)
        self._outside: str | None = None
        if whole:
            self._scale = ratio
            places = op("Add", first, self._places)
            inside = op("And", op("GreaterOrEqual", places, np.int64(0)), op("Less", places, size))
            self._outside = op("Unsqueeze", op("Not", inside), np.array([1]))
            start, steps = graph.constant(0.0), graph.cast(places, np.float64)
        else:
            edges = [first, op("Add", first, np.int64(count))]
            # Pillow takes the part of the picture as float32.
            ends = [graph.cast(op("Mul", graph.cast(edge, np.float64), ratio), np.float32) for edge in edges]
            self._scale = op("Div", graph.cast(op("Sub", ends[1], ends[0]), np.float64), float(count))
            start, steps = graph.cast(ends[0], np.float64), graph.constant(self._places.astype(np.float64))
        self.centres = op("Add", op("Mul", op("Add", steps, 0.5), self._scale), start)

    def weighed_by(self, interpolation: str) -> "_Weights":
        """Return the weights of the picture's rows for each row of the crop."""
        graph, op = self._graph, self._graph.op
        # A filter is as wide as a pixel of the smaller of the two pictures.
        unit = op("Max", self._scale, 1.0)
        reach = op("Mul", unit, _REACH[interpolation])
        lowest = graph.cast(op("Floor", op("Sub", self.centres, reach)), np.int64)
        highest = graph.cast(op("Floor", op("Add", self.centres, reach)), np.int64)
        starts = op("Max", op("Sub", lowest, np.int64(1)), np.int64(0))
        ends = op("Min", op("Add", highest, np.int64(2)), self._side)
        start, end = op("ReduceMin", starts, keepdims=0), op("ReduceMax", ends, keepdims=0)
        places = graph.cast(op("Range", start, end, np.int64(1)), np.float64)
        apart = op("Sub", op("Unsqueeze", places, np.array([0])), op("Unsqueeze", self.centres, np.array([1])))
        weights = _filter(graph, op("Abs", op("Div", op("Add", apart, 0.5), unit)), interpolation)
        weights = op("Div", weights, op("ReduceSum", weights, np.array([1])))
        if self._outside is not None:
            weights = op("Where", self._outside, 0.0, weights)
        integers = op("Floor", op("Add", op("Mul", weights, 2.0**_BITS), 0.5))
        upper = op("Floor", op("Mul", integers, 2.0**-_LOWER_BITS))
        lower = op("Sub", integers, op("Mul", upper, 2.0**_LOWER_BITS))
        upper, lower = (graph.cast(half, np.float32) for half in (upper, lower))
        return _Weights(upper, lower, start, end, starts, ends)


class _Weights:
    """Two halves of the weights of rows `start` to `end` of the picture: (rows of the crop, rows of the picture)."""

    def __init__(self, upper: str, lower: str, start: str, end: str, starts: str, ends: str):
        self.upper, self.lower, self.start, self.end = upper, lower, start, end
        self._starts, self._ends = starts, ends

    def of(self, graph: Graph, first: int, count: int) -> "_Weights":
        """Return those of some rows of the crop, and of no more of the picture than these need."""
        start = graph.op("Gather", self._starts, np.int64(first))
        end = graph.op("Gather", self._ends, np.int64(first + count - 1))
        edges = [graph.op("Unsqueeze", graph.op("Sub", edge, self.start), np.array([0])) for edge in (start, end)]
        starts, ends = (
            graph.op("Concat", np.array([row]), edge, axis=0)
            for row, edge in zip((first, first + count), edges, strict=True)
        )
        upper, lower = (graph.op("Slice", half, starts, ends, np.array([0, 1])) for half in (self.upper, self.lower))
        return _Weights(upper, lower, start, end, self._starts, self._ends)


def _filter(graph: Graph, x: str, interpolation: str) -> str:
    """Return Pillow's weights of pixels, given how far they are from the centre."""
    op = graph.op
    if interpolation == "bilinear":
        return op("Max", op("Sub", 1.0, x), 0.0)
    if interpolation == "bicubic":
        near = op("Sub", op("Mul", x, _CUBIC + 2), _CUBIC + 3)
        near = op("Add", op("Mul", op("Mul", near, x), x), 1.0)
        far = op("Add", op("Mul", op("Sub", x, 5.0), x), 8.0)
        far = op("Mul", op("Sub", op("Mul", far, x), 4.0), _CUBIC)
        return op("Where", op("Less", x, 1.0), near, op("Where", op("Less", x, 2.0), far, 0.0))
    assert interpolation == "lanczos"
    window = op("Mul", _sinc(graph, x), _sinc(graph, op("Div", x, 3.0)))
    return op("Where", op("Less", x, 3.0), window, 0.0)


def _sinc(graph: Graph, x: str) -> str:
    angle = graph.op("Mul", graph.op("Max", x, 1e-9), np.pi)
    return graph.op("Div", graph.op("Sin", angle), angle)
