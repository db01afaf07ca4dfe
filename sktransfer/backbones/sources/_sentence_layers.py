"""What models of sentence-transformers put behind a pooling: layers that make another vector of a text's vector.

They are built here of what their folders say, within bounds, and their weights are read as tensors alone. They stand in
the network under one name, so they are fingerprinted, saved, frozen and tuned as its last block is.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sktransfer._messages import name_some, shown
from sktransfer.backbones.sources._hub_files import ModelFiles, refuse_pointer
from sktransfer.backbones.sources._state_dicts import read_state_dict

# Kinds that are understood; the last two have no weights.
KINDS = ("Dense", "LayerNorm", "Normalize", "Dropout")

# Activations by the name of their class in torch.nn: none has weights, or settings that files would say.
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    one.__name__: one
    for one in (
        nn.ELU, nn.GELU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Identity, nn.LeakyReLU, nn.LogSigmoid, nn.Mish,
        nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Tanh, nn.Tanhshrink,
    )
}  # fmt: skip
_MODULES_OF_TORCH = ("torch.nn", "torch.nn.modules.activation", "torch.nn.modules.linear")

_FILES = ("model.safetensors", "pytorch_model.bin")
_MOST_WEIGHTS = 2**28


class Dense(nn.Module):
    """A linear layer, its activation, and perhaps what went in added to what came out.

    Parameters
    ----------
    in_features, out_features : int
        Widths.
    bias : bool
        Whether the linear layer has one.
    activation : str
        Name of a class in torch.nn.
    residual : bool
        Whether what went in is added, through a linear layer where the widths differ.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool, activation: str, residual: bool):
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.activation = _ACTIVATIONS[activation]()
        self.adds = residual
        if residual and in_features != out_features:
            self.residual = nn.Linear(in_features, out_features, bias=False)

    def extra_repr(self) -> str:
        return f"adds={self.adds}"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.activation(self.linear(x))
        if not self.adds:
            return out
        return out + (self.residual(x) if hasattr(self, "residual") else x)


class Norm(nn.Module):
    """A normalisation over the values of a vector, with weights.

    Parameters
    ----------
    dimension : int
        Width.
    """

    def __init__(self, dimension: int):
        super().__init__()
        self.norm = nn.LayerNorm(dimension)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


class UnitLength(nn.Module):
    """Brings vectors to length 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(x, dim=1)


_LAYERS: dict[str, Callable[..., nn.Module]] = dict(
    zip(KINDS, (Dense, Norm, UnitLength, nn.Identity), strict=True)  # a dropout works only in training
)


def make_layer(kind: str, settings: Mapping[str, Any]) -> nn.Module:
    """Return a layer of what `read_layer` returned.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    settings : mapping
        What it is made with.

    Returns
    -------
    nn.Module
        With weights of no importance.
    """
    return _LAYERS[kind](**settings)


def read_layer(files: ModelFiles, kind: str, width: int | None) -> tuple[dict[str, Any], int | None]:
    """Return what a layer is made with, and the width of what comes out of it.

    Parameters
    ----------
    files : ModelFiles
        Of its folder.
    kind : str
        One of `KINDS`.
    width : int or None
        Of what goes in; `None` where that is not known.

    Returns
    -------
    settings : dict
        For `make_layer`.
    width : int or None
        Of what comes out.

    Raises
    ------
    ValueError
        If something is not understood, or does not fit.
    """
    if kind in ("Normalize", "Dropout"):
        return {}, width
    values = files.json("config.json") or {}
    if kind == "LayerNorm":
        settings: dict[str, Any] = {"dimension": _size(files, values, "dimension")}
        came, leaves = settings["dimension"], settings["dimension"]
    else:
        named = [values.get(key) for key in ("module_input_name", "module_output_name")]
        if any(name not in (None, "sentence_embedding") for name in named):
            raise _not_understood(files, "module_input_name and module_output_name", named, "sentence_embedding")
        came, leaves = _size(files, values, "in_features"), _size(files, values, "out_features")
        settings = {
            "in_features": came,
            "out_features": leaves,
            "bias": _yes_or_no(files, values, "bias", True),
            "activation": _activation(files, values),
            "residual": _yes_or_no(files, values, "use_residual", False),
        }
    if width not in (None, came) or came * leaves > _MOST_WEIGHTS:
        raise _not_understood(files, "a width of what goes in", came, f"{width}, the width of what is there")
    return settings, leaves


def read_weights(files: ModelFiles, layer: nn.Module) -> dict[str, torch.Tensor]:
    """Return the tensors of a layer, by the names that it has for them.

    Parameters
    ----------
    files : ModelFiles
        Of its folder.
    layer : nn.Module
        As `make_layer` returns it.

    Returns
    -------
    dict of str to Tensor
        In float32; none for a layer without weights.

    Raises
    ------
    ValueError
        If there are none, or they are those of another layer.
    """
    wanted = layer.state_dict()
    if not wanted:
        return {}
    file = weight_file(files)
    if file is None:
        files.expect_all("the weights")
        raise ValueError(
            f"Got backbone={files}, where the folder {shown(files.below)} has no weights; expected one of "
            f"{', '.join(_FILES)}. Download or save the model again."
        )
    with file.open("rb") as opened:
        refuse_pointer(files, f"{files.below}/{file.name}", opened.read(64))
    state = read_state_dict(file)
    wrong = [name for name in {**wanted, **state} if not _fits(state.get(name), wanted.get(name))]
    if wrong:
        raise ValueError(
            f"Got backbone={files}, where the weights in {shown(files.below)} are not those of its config.json "
            f"({name_some(wrong)}); expected tensors of these names and sizes. Download or save the model again."
        )
    return {name: tensor.to(torch.float32, copy=True) for name, tensor in state.items()}


def weight_file(files: ModelFiles) -> Path | None:
    """Return the file of a layer's weights.

    Parameters
    ----------
    files : ModelFiles
        Of its folder.

    Returns
    -------
    Path or None
        `None` where there is none.
    """
    return next((file for name in _FILES if (file := files.find(name)) is not None), None)


def _fits(given: torch.Tensor | None, wanted: torch.Tensor | None) -> bool:
    return given is not None and wanted is not None and given.shape == wanted.shape and given.is_floating_point()


def _size(files: ModelFiles, values: Mapping[str, Any], name: str) -> int:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**20:
        raise _not_understood(files, name, value, "a number of values")
    return value


def _yes_or_no(files: ModelFiles, values: Mapping[str, Any], name: str, usual: bool) -> bool:
    value = values.get(name, usual)
    if not isinstance(value, bool):
        raise _not_understood(files, name, value, "true or false")
    return value


def _activation(files: ModelFiles, values: Mapping[str, Any]) -> str:
    """Return the name of an activation that is known: what a file names is never imported."""
    named = values.get("activation_function", "torch.nn.modules.activation.Tanh")
    where, _, name = str(named).rpartition(".")
    if where not in _MODULES_OF_TORCH or name not in _ACTIVATIONS:
        raise _not_understood(files, "activation_function", named, f"one of torch.nn: {', '.join(_ACTIVATIONS)}")
    return name


def _not_understood(files: ModelFiles, name: str, value: Any, expected: str) -> ValueError:
    return ValueError(
        f"Got backbone={files}, whose {files.below}/config.json says {name}: {shown(value)}; expected {expected}. Give "
        "the folder of its Transformer alone, without modules.json."
    )
