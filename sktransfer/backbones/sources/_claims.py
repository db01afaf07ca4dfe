"""A network of a description that anybody may have written is built while it is no larger than the tensors beside it.

Layers are counted as they are put together, before their weights are drawn, so what claims more is stopped at once.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

# How many times more a network may hold than its file does: decoders, or classifiers that only training from scratch
# uses, are built with it and taken away. And what any network may hold besides, of numbers that follow from its shape.
_TIMES = 6
_MORE_TENSORS = 200
_MORE_VALUES = 2**20
_MORE_BUFFER_VALUES = 2**25


@contextmanager
def no_larger_than(tensors: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Stop whoever builds, in this thread, a network far larger than some tensors.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        What is to be filled into it.

    Raises
    ------
    ValueError
        As soon as the network has more, or larger, tensors.
    """
    there = sum(tensor.numel() for tensor in tensors.values())
    thread = threading.get_ident()
    totals: dict[Any, list[int]] = {}

    def check(kind: str, tensor: Any, more: int) -> None:
        if not isinstance(tensor, torch.Tensor) or threading.get_ident() != thread:
            return
        # A network may be built first on the device "meta", without memory; each building is counted by itself.
        total = totals.setdefault((kind, tensor.device.type), [0, 0])
        total[0] += 1
        total[1] += tensor.numel()
        if total[0] > _TIMES * len(tensors) + _MORE_TENSORS or total[1] > _TIMES * there + more:
            raise ValueError(
                f"a network of more than {total[0] - 1} {kind}s or {total[1]} values, in a file of {len(tensors)} "
                f"tensors and {there} values"
            )

    hooks = [
        register_module_parameter_registration_hook(lambda _, name, one: check("parameter", one, _MORE_VALUES)),
        register_module_buffer_registration_hook(lambda _, name, one: check("buffer", one, _MORE_BUFFER_VALUES)),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
