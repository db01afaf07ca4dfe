"""Choose which parameters of a network learn if not all do: norms, biases, or low-rank updates of weights.

Layers are recognised by their types, never by their names, so one rule serves every architecture. They are looked for
in the network itself, whose parts may hold weights without the layers that they belong to.
"""

import math
import re
from collections.abc import Iterable

import torch
from torch import nn

from sktransfer._process._private_names import ConvNd

# Which parameters of blocks behind the cut learn.
TRAINABLE = ("all", "norm", "bias", "lora")

# What classes are called that normalise: BatchNorm2d, T5LayerNorm, LlamaRMSNorm, ConvNextV2GRN, timm's Affine.
_NORMS = re.compile(r"norm|GRN|^Affine$", re.IGNORECASE)

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)

# Parameters of nn.MultiheadAttention that are matrices, beside its linear layer.
_OF_ATTENTION = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def find_learned(network: nn.Module, names: Iterable[str], trainable: str) -> tuple[str, ...]:
    """Return which of some parameters learn; with `"lora"`, to which of them a low-rank update is added.

    Parameters
    ----------
    network : nn.Module
        The whole network.
    names : iterable of str
        Of parameters, as the network calls them.
    trainable : {"all", "norm", "bias", "lora"}
        `"norm"` is scales and shifts of normalisation layers (Frankle et al., "Training BatchNorm and only BatchNorm",
        ICLR 2021), `"bias"` these and all biases (Zaken et al., "BitFit", ACL 2022), `"lora"` the weights of linear,
        attention and ungrouped convolution layers (Hu et al., "LoRA", ICLR 2022).

    Returns
    -------
    tuple of str
        In the order of `names`.
    """
    if trainable == "all":
        return tuple(names)
    shared = _held_by_others(network) if trainable == "lora" else set()
    found = []
    for name in names:
        path, _, own = name.rpartition(".")
        owner, parameter = network.get_submodule(path), network.get_parameter(name)
        if trainable == "lora":
            learns = _is_matrix(owner, own) and id(parameter) not in shared
        else:
            learns = _is_of_norm(owner, parameter) or (trainable == "bias" and _is_bias(own, parameter))
        if learns:
            found.append(name)
    return tuple(found)


def matrix_shape(weight: torch.Tensor) -> tuple[int, int]:
    """Return the shape of a weight as a matrix: its first axis, and all others together.

    Parameters
    ----------
    weight : Tensor
        Of a linear or convolution layer.

    Returns
    -------
    tuple of int
        Rows and columns.
    """
    return weight.shape[0], math.prod(weight.shape[1:])


def is_transposed(owner: nn.Module) -> bool:
    """Tell whether a layer's weight has inputs for rows, as in GPT-2, whose linear layers are called Conv1D.

    Parameters
    ----------
    owner : nn.Module
        The layer.

    Returns
    -------
    bool
        Whether it has.
    """
    return _conv1d_of_transformers(type(owner))


def _is_matrix(owner: nn.Module, own: str) -> bool:
    """Tell whether a parameter is the weight of a layer that multiplies by it."""
    if isinstance(owner, nn.MultiheadAttention) and own in _OF_ATTENTION:
        return True
    if own != "weight":
        return False
    if isinstance(owner, ConvNd):
        return owner.groups == 1 and not isinstance(owner, _TRANSPOSED)
    return isinstance(owner, nn.Linear) or is_transposed(owner)


def _is_of_norm(owner: nn.Module, parameter: torch.Tensor) -> bool:
    """Tell whether a parameter is a scale or a shift of a layer that normalises: a vector of its own, not a matrix."""
    if isinstance(owner, (nn.Linear, ConvNd)) or not _is_named_norm(type(owner)):
        return False
    return _is_vector(parameter) or tuple(parameter.shape) == getattr(owner, "normalized_shape", None)


def _is_bias(own: str, parameter: torch.Tensor) -> bool:
    return "bias" in own.split("_") and _is_vector(parameter)


def _is_vector(parameter: torch.Tensor) -> bool:
    return sum(size > 1 for size in parameter.shape) <= 1


def _is_named_norm(kind: type) -> bool:
    return any(_NORMS.search(one.__name__) for one in kind.__mro__)


def _conv1d_of_transformers(kind: type) -> bool:
    return any(one.__name__ == "Conv1D" and one.__module__.startswith("transformers.") for one in kind.__mro__)


def _held_by_others(network: nn.Module) -> set[int]:
    """Return the identities of parameters that layers of another kind hold too, such as a table of embeddings."""
    return {
        id(parameter)
        for module in network.modules()
        for own, parameter in module.named_parameters(recurse=False)
        if not _is_matrix(module, own)
    }
