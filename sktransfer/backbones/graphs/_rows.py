"""Find the values of a network that are one row of floats per sample, so that they can be cached by sample."""

import re
from typing import Any

from torch import fx, nn

from sktransfer.backbones.graphs._examples import Seen, Values

# Operations whose result may not be a tensor, or not a tensor of floats.
_OTHER_RESULTS = re.compile(r"fft|chunk|split|unbind|topk|sort|^mode$|^arg|long|^int$|bool|complex|unfold|^to$|^type$")


def is_row_by_row(node: fx.Node, examples: list[Values]) -> bool:
    """Tell whether a value is a tensor of one row for each sample that can be kept as numbers of floating point.

    Parameters
    ----------
    node : fx.Node
        The value.
    examples : list of dict
        As `look` returns them.

    Returns
    -------
    bool
        Whether it is one on all of them.
    """
    seen = [(example[node], next(iter(example.values()))) for example in examples]
    return all(
        isinstance(value, Seen) and value.dtype.is_floating_point and value.shape[:1] == given.shape[:1]
        for value, given in seen
    )


def may_lose_rows(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Tell whether an operation might return something else than a tensor of one row of floats for each sample.

    Parameters
    ----------
    node : fx.Node
        The operation.
    modules : dict of str to nn.Module
        Of the network.

    Returns
    -------
    bool
        False where it certainly does not if it is given one.
    """
    layer = modules.get(str(node.target)) if node.op == "call_module" else None
    if layer is not None:
        return isinstance(layer, nn.RNNBase | nn.MultiheadAttention) or getattr(layer, "start_dim", 1) == 0
    name = str(getattr(node.target, "__name__", node.target))
    numbers: Any = node.args[1] if node.args[1:] and isinstance(node.args[1], tuple | list) else node.args[1:]
    first = numbers[0] if numbers else None
    if name in ("view", "reshape"):
        return not (isinstance(first, fx.Node) and first.args[-1:] == (0,))  # except for x.size(0) and x.shape[0]
    if name == "permute":
        return bool(first != 0)
    if name in ("transpose", "swapaxes", "swapdims", "movedim"):
        return 0 in numbers
    return (name == "flatten" and first in (None, 0)) or _OTHER_RESULTS.search(name) is not None
