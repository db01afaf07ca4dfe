"""Why the tensors of a file are not a network's, where more can be said than which names differ.

The message says if a file holds quantized weights, numpy arrays or nothing. Tensors of the same shapes under
other names are refused too, because shapes do not prove what a tensor is; but the message says how to rename them.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import islice

import torch

from sktransfer._messages import shown
from sktransfer.backbones.sources._state_dicts import StateDict
from sktransfer.backbones.sources._weights import short
from sktransfer.backbones.sources._weights_file import count

# What libraries for quantization call what they put beside, or in the place of, a layer's weight.
_QUANTIZED = re.compile(
    r"(^|\.)(qweight|qzeros|SCB|absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.\w+|weight_packed|"
    r"weight_format|weight_scale|weight_scale_inv|weight_zero_point|_packed_params|zero_point)$"
)


def explain_misfit(own: Mapping[str, torch.Tensor], needed: Sequence[str], state: StateDict, source: str) -> str:
    """Say what keeps tensors from being a network's, or raise if names have nothing to do with it.

    Parameters
    ----------
    own : mapping of str to Tensor
        The network's.
    needed : sequence of str
        Names of those that features depend on, in the network's order.
    state : StateDict
        What the file holds, as `read_states` returns it.
    source : str
        The file, for the message.

    Returns
    -------
    str
        Sentences for the message; empty where nothing more is known.

    Raises
    ------
    ValueError
        If the file holds no tensors, numpy arrays or quantized weights.
    """
    named = f"Got weights from {short(source)}"
    if not state.tensors:
        raise ValueError(
            f"{named}, which holds no tensors; expected a state_dict: tensors by name. Save the network's "
            "state_dict() again."
        )
    quantized = [name for name in (*state.tensors, *state.packed) if name not in own and _QUANTIZED.search(name)]
    if quantized:
        raise ValueError(
            f"{named}, which holds quantized weights, as {count('entry', quantized)} tells; expected weights in "
            "floating point, such as float32 or bfloat16. Give the weights that these were made from."
        )
    if state.arrays:
        raise ValueError(
            f"{named}, which holds {count('numpy array', list(state.arrays))}; expected tensors. Convert them: "
            "torch.from_numpy(array)."
        )
    return _other_names(own, needed, state)


def _other_names(own: Mapping[str, torch.Tensor], needed: Sequence[str], state: StateDict) -> str:
    """Name the first tensors that a file calls otherwise, where all shapes are the network's, in its order."""
    shapes = [own[name].shape for name in needed]
    given = [tensor.shape for tensor in islice(state.tensors.values(), len(shapes))]
    if not state.in_order or given != shapes or len(shapes) < 2:
        return ""
    others = [(name, given) for name, given in zip(needed, state.tensors, strict=False) if name != given]
    if not others:
        return ""
    pairs = ", ".join(f"{shown(given, 60)} for {shown(name, 60)}" for name, given in others[:3])
    return (
        f" Shapes and their order are the backbone's, but the names differ: {pairs}. If it is the same architecture, "
        "rename them: dict(zip(load_backbone(BACKBONE, weights=None).network.state_dict(), TENSORS.values()))."
    )
