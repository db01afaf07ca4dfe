"""What must hold of a network before it is cut between layers: run in parts and run whole it gives the same bits.

It is run at several lengths and in several batches, since what layers are called with may depend on both. Nothing that
a network notes in itself on the way stays there.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from sktransfer._messages import first_line
from sktransfer._process._seeding import seeded
from sktransfer.backbones.graphs._base import UntraceableError
from sktransfer.backbones.graphs._layer_calls import first_of, output_of, twin
from sktransfer.backbones.graphs._layer_graph import LayerGraph


def check(graph: LayerGraph) -> LayerGraph:
    """Refuse a network whose parts do not give what it gives itself, and learn how its layers are to be called.

    Parameters
    ----------
    graph : LayerGraph
        Of the network; its `by_rows`, `layers_keep_state` and `takes_autocast` are set.

    Returns
    -------
    LayerGraph
        The same.

    Raises
    ------
    UntraceableError
        If it cannot be cut.
    """
    attributes = _Attributes(graph.network.modules())
    try:
        with seeded(0), torch.no_grad():
            fault = _find_fault(graph)
            if fault is not None:  # layers may be called with something of as many rows as there are samples
                graph.by_rows = True
                graph.forget_calls()
                fault = _find_fault(graph)
            if fault is not None:
                raise UntraceableError(
                    f"Got a {type(graph.network).__name__}, whose layers, called one after another, do not give what "
                    f"the network gives, for {fault}; expected layers that hand on hidden states alone, and are given "
                    "besides what depends on the number of positions alone. It cannot be cut: use another network."
                )
            graph.takes_autocast = _takes_autocast(graph)
    finally:
        graph.layers_keep_state = attributes.put_back()
        graph.forget_calls()
    return graph


def _find_fault(graph: LayerGraph) -> str | None:
    """Return for which samples parts do not give what the whole gives, and why, or `None`."""
    entry = graph.entry
    examples = entry.examples()
    for x in (*(x for x in examples if len(x) == 1), *entry.long_examples()):
        try:
            if not (_calls_depend_on_positions_alone(graph, x) and _handed_on_whatever_they_are(graph, x)):
                return entry.describe(x)
        except UntraceableError:
            raise
        except Exception as error:  # networks raise what they please
            return f"{entry.describe(x)} ({first_line(error)})"
    for x in examples:
        try:
            if not (_handed_on_whatever_they_are(graph, x) and _parts_give_the_whole(graph, x)):
                return entry.describe(x)
        except Exception as error:  # networks raise what they please
            return f"{entry.describe(x)} ({first_line(error)})"
    return None


def _calls_depend_on_positions_alone(graph: LayerGraph, x: torch.Tensor) -> bool:
    """Tell whether layers are called for a sample as for what stands for its hidden states behind a cut."""
    padding = graph.entry.padding(x)
    try:
        hidden, calls = graph.opening.run(graph.entry.arguments(x, padding))
        others = graph.calls(hidden, padding)
    except Exception as error:  # networks raise what they please
        raise UntraceableError(
            f"Got a {type(graph.network).__name__} that cannot be run with {graph.entry.describe(x)} "
            f"({first_line(error)}); expected one that takes samples of any length that its tokenizer or feature "
            "extractor gives. Save these with the right limit, such as a smaller model_max_length, or use another "
            "network."
        ) from error
    if hidden.ndim != 3 or (graph.entry.tells_padding and hidden.shape[:2] != x.shape[:2]):
        return False
    return len(calls) == len(others) and all(
        one.number == other.number and _is_equal(one.args, other.args) and _is_equal(one.kwargs, other.kwargs)
        for one, other in zip(calls, others, strict=True)
    )


def _handed_on_whatever_they_are(graph: LayerGraph, x: torch.Tensor) -> bool:
    """Tell whether what layers hand on, besides hidden states, is the same for samples as for others of their shape."""
    if graph.relays.last_source < 0:
        return True
    padding = graph.entry.padding(x)
    hidden, calls = graph.opening.run(graph.entry.arguments(x, padding))
    padded = padding is not None and graph.entry.tells_padding
    again = graph.relays.made_again(calls, hidden, padded)
    returned: dict[tuple[int, int], torch.Tensor] = {}
    for count, call in enumerate(calls[: graph.relays.last_source + 1]):
        if graph.relays.are_given(count):
            call = graph.relays.give(count, calls, returned, hidden, padded)
        result = twin(graph.layer(call.number))(hidden, *call.args, **call.kwargs)
        graph.relays.take(count, result, returned)
        hidden = first_of(result)
    return _is_equal(returned, again)


def _parts_give_the_whole(graph: LayerGraph, x: torch.Tensor) -> bool:
    """Tell whether blocks, called one after another, give bit for bit what the network gives.

    Beside padding it may differ by rounding: what the network makes of padding, between its layers, is not kept.
    """
    entry, padding = graph.entry, graph.entry.padding(x)
    expected = output_of(twin(graph.network)(**entry.arguments(x, padding)))
    found = entry.flat(_in_parts(graph, x))
    if found.shape != expected.shape:
        return False
    if padding is None:
        return torch.equal(found, expected)
    found, expected = found[~padding], expected[~padding]
    return torch.allclose(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def _in_parts(graph: LayerGraph, x: torch.Tensor) -> torch.Tensor:
    for depth in range(1, len(graph.blocks) + 1):
        part = graph.between(graph.end_of_block(depth - 1), graph.end_of_block(depth))
        part.finish = None
        x = part(x)
    return x


def _takes_autocast(graph: LayerGraph) -> bool:
    """Tell whether layers can be run in mixed precision: a few have constants that bfloat16 cannot hold."""
    x = graph.entry.examples()[-1]
    padding = graph.entry.padding(x)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            found = _in_parts(graph, x)
    except Exception:  # networks raise what they please
        return False
    return bool((found if padding is None else found[~padding]).isfinite().all())


def _is_equal(one: Any, other: Any) -> bool:
    """Tell whether layers are called with the same, down to the bits of tensors."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.allclose(one, other, 0, 0, True)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_is_equal(value, other[name]) for name, value in one.items())
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(_is_equal(*pair) for pair in zip(one, other, strict=True))
    return type(one) is type(other) and bool(one == other)


class _Attributes:
    """The attributes of modules as they are now, to be put back."""

    def __init__(self, modules: Iterable[nn.Module]):
        self._held = [(module.__dict__, _copy(module.__dict__)) for module in modules]

    def put_back(self) -> bool:
        """Undo what modules have noted in themselves since, and tell whether any has."""
        noted = [(attributes, before) for attributes, before in self._held if not _are_same(attributes, before)]
        for attributes, before in noted:
            attributes.clear()
            attributes.update(_copy(before))
        return bool(noted)


def _copy(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.copy() if isinstance(value, dict) else value for name, value in attributes.items()}


def _are_same(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> bool:
    return one.keys() == other.keys() and all(
        value is other[name]
        or (isinstance(value, dict) and isinstance(other[name], dict) and _are_same(value, other[name]))
        for name, value in one.items()
    )
