"""Load pretrained networks. Each kind of backbone has its own file, and this file chooses among them."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from sktransfer._messages import shown
from sktransfer._words_of_others import refuse_words
from sktransfer.backbones._backbone import Backbone
from sktransfer.backbones._summary import BackboneSummary
from sktransfer.backbones.graphs._base import Block, UntraceableError
from sktransfer.backbones.sources import _torchvision
from sktransfer.backbones.sources._base import Source
from sktransfer.backbones.sources._custom import CustomSource
from sktransfer.backbones.sources._torchvision import TorchvisionSource
from sktransfer.backbones.sources._wrapped_networks import refuse_other
from sktransfer.inputs import ImagePreprocessing, restore_preprocessing
from sktransfer.inputs._base import Preprocessing
from sktransfer.inputs.images._shapes import check_n_channels

# The most layers, or labels, that are believed of a description. Real ones have less than a tenth.
_MOST_COUNTED = 50_000

__all__ = [
    "Backbone",
    "BackboneSummary",
    "Block",
    "ImagePreprocessing",
    "UntraceableError",
    "list_backbones",
    "load_backbone",
    "restore_backbone",
]


def list_backbones() -> list[str]:
    """List the torchvision networks that `backbone=` takes.

    If timm is installed, `backbone=` also takes its networks: `"timm:"` followed by a name from `timm.list_models()`,
    such as `"timm:convnext_tiny"`, or by a name with weights from `timm.list_pretrained()`, such as
    `"timm:convnext_tiny.fb_in22k"`.

    Returns
    -------
    list of str
        Sorted names.

    Examples
    --------
    >>> from sktransfer.backbones import list_backbones
    >>> "resnet18" in list_backbones()
    True
    """
    return list(_torchvision.names())


def kind_of_input(backbone: Any) -> str | None:
    """Tell what a backbone takes, as far as its name says it before anything is loaded.

    Parameters
    ----------
    backbone : object
        As `load_backbone` takes it.

    Returns
    -------
    {"images", None}
        `None` where only the network itself says it.
    """
    return "images" if isinstance(backbone, str) and not backbone.startswith("hf:") else None


def load_backbone(
    backbone: str | nn.Module | Callable[..., nn.Module],
    weights: str | os.PathLike[str] | None = "DEFAULT",
    *,
    seed: int = 0,
    n_features: int | None = None,
    n_channels: int | None = None,
    tower: str = "auto",
) -> Backbone:
    """Load a pretrained network as a sequence of blocks.

    Parameters
    ----------
    backbone : str, nn.Module or callable
        The network, as one of:

        - a name from `list_backbones()`;
        - `"timm:"` followed by a name from timm;
        - `"hf:"` followed by a folder or a name on the Hugging Face Hub. Add `"@"` and a branch, tag or commit to
          choose a revision;
        - a network (`nn.Module`), or a function that returns one.
    weights : str, path-like or None, default="DEFAULT"
        `"DEFAULT"`, or another of torchvision's weight names or timm's tags. These are downloaded once, into the folder
        of torch or of the Hugging Face Hub. Or the path of a `.pth` or `.safetensors` file, or `None` for random
        weights. Names in a file may have a common prefix, and a file may contain a classification head: both are
        dropped, with a warning. A network of your own keeps its weights unless you give a path.
    seed : int, default=0
        Seed of random weights.
    n_features : int or None, default=None
        Number of columns of a 2-D X. It is passed to a function that takes `n_features`.
    n_channels : int or None, default=None
        Number of channels of the images, from 1 to 64. If the network takes another number, the filters of its first
        layer are repeated and scaled, as timm does. `None` does not change the layer.
    tower : {"auto", "image", "text"}, default="auto"
        Which network to use if the model has one for images and one for texts, as CLIP does. Features are the network's
        own pooled vector, before any projection into the space that both networks share.

    Returns
    -------
    Backbone
        The network, with `blocks`, `split(depth)` and `summary()`.

    Raises
    ------
    ValueError
        If the name is unknown, or is the name in another library; if the hub has no such model or revision; if the
        weights do not match; if a file contains anything other than tensors, or NaN or infinity; or if the first layer
        cannot be adapted.
    FileNotFoundError
        If a file does not exist.
    PermissionError
        If a file cannot be read, or if the model is gated and you have not accepted its conditions and logged in.
    ConnectionError
        If a download is needed and fails.
    ImportError
        If the name begins with `"timm:"` and timm is not installed: `pip install "sktransfer[timm]"`.

    Examples
    --------
    >>> from sktransfer.backbones import load_backbone
    >>> backbone = load_backbone("squeezenet1_1", weights=None)
    >>> len(backbone.blocks)
    9
    >>> prefix, suffix = backbone.split(5)
    """
    refuse_other(backbone)
    refuse_words("weights", weights)
    if not (weights is None or isinstance(weights, str | os.PathLike)) or weights == "":
        raise ValueError(
            f'Got weights={shown(weights)}; expected "DEFAULT", a weight name such as "IMAGENET1K_V1", a path, or None.'
        )
    if tower != "auto" and not (isinstance(backbone, str) and backbone.startswith("hf:")):
        raise ValueError(
            f"Got tower={shown(tower)} for a backbone that is a single network; expected 'auto'. Leave it out."
        )
    source: Source
    if isinstance(backbone, str) and backbone.startswith("hf:"):
        from sktransfer.backbones.sources._huggingface import (
            HuggingFaceSource,  # whoever wants none of them waits for none
        )

        source = HuggingFaceSource(backbone, weights, seed, tower=tower)
    elif isinstance(backbone, str) and backbone.startswith("timm:"):
        from sktransfer.backbones.sources._timm import TimmSource

        source = TimmSource(backbone, weights, seed)
    elif isinstance(backbone, str):
        source = TorchvisionSource(backbone, weights, seed)
    else:
        source = CustomSource(backbone, weights, seed, n_features)
    return Backbone(source) if n_channels is None else _load_for_channels(source, n_channels)


def _load_for_channels(source: Source, n_channels: int) -> Backbone:
    n_channels = check_n_channels(n_channels)
    try:
        backbone = Backbone(source)
    except ValueError:  # the file may be of a network that was adapted, and tuned
        from sktransfer.backbones._adapted_source import source_of_file

        found = source_of_file(source, n_channels)
        if found is None:
            raise
        return Backbone(found)
    return backbone.with_channels(n_channels)


def restore_backbone(
    record: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    custom: nn.Module | Callable[..., nn.Module] | None = None,
) -> Backbone:
    """Rebuild a backbone from the result of its `to_record`.

    Parameters
    ----------
    record : mapping
        Plain values: the first result of `to_record`.
    tensors : mapping of str to Tensor
        Parameters and buffers. If they were left out, they are loaded again by name when first needed.
    custom : nn.Module, callable or None, default=None
        Your own network, or a function that returns it, if the backbone is one: a record contains no code.

    Returns
    -------
    Backbone
        Backbone with the same weights, depth and preprocessing.

    Raises
    ------
    ValueError
        If a network of your own is missing, or if the tensors do not match it.
    """
    kind, values = record["kind"], dict(record["source"])
    channels = values.pop("n_channels", None), values.pop("n_own_channels", None)
    kind = "custom" if kind == "own" else kind  # as earlier versions called it
    prepared = restore_preprocessing(record["preprocessing"])
    if kind not in ("custom", "hf", "torchvision", "timm"):
        raise ValueError(f"unknown kind of backbone {kind!r}")
    _check_record(kind, values, prepared)
    source: Source
    if kind == "custom":
        if custom is None:
            raise ValueError("expected your own network that it was fitted with")
        source = CustomSource(custom, **values)
    elif kind == "hf":
        from sktransfer.backbones.sources._huggingface import HuggingFaceSource

        source = HuggingFaceSource(**{**values, "config": _without_places(values["config"])}, prepared=prepared)
    elif kind == "torchvision":
        source = TorchvisionSource(**{**values, "recipe": values.get("recipe") or ""})
    else:
        from sktransfer.backbones.sources._timm import TimmSource

        source = TimmSource(**{**values, "recipe": values.get("recipe") or ""})
    if channels != (None, None):
        from sktransfer.backbones._adapted_source import AdaptedSource

        source = AdaptedSource(source, *map(check_n_channels, channels))
    return Backbone.from_record(source, record, tensors)


def _check_record(kind: str, values: Mapping[str, Any], prepared: Preprocessing) -> None:
    """Refuse a record that leaves something out: a source would look for it in a folder, or ask a hub."""
    if kind != "custom" and not isinstance(values.get("name"), str):
        raise ValueError(f"a backbone of kind {kind!r} without a name")
    weights = values.get("weights")
    if not (weights is None or isinstance(weights, str | os.PathLike)) or not isinstance(values.get("seed", 0), int):
        raise ValueError(f"a backbone of kind {kind!r} with invalid weights or seed")
    config = values.get("config") if kind == "hf" else None
    if kind == "hf" and not (isinstance(config, dict) and isinstance(config.get("model_type"), str)):
        raise ValueError("a network of transformers without a description in the file")
    _check_counts(config, "")
    if prepared.kind != "images" and kind != "hf":
        raise ValueError(f"a backbone of kind {kind!r} for {prepared.kind}")


def _without_places(value: Any) -> Any:
    """Return a description without what names code or kernels, which stand elsewhere; refuse networks that do."""
    if not isinstance(value, Mapping):
        return [_without_places(held) for held in value] if isinstance(value, list) else value
    if value.get("model_type") == "timm_backbone" or value.get("use_timm_backbone") or value.get("backbone"):
        raise ValueError("a description that loads part of its network from elsewhere")
    dropped = [name for name in value if name in ("auto_map", "kernel_config") or "attn_implementation" in str(name)]
    return {name: _without_places(held) for name, held in value.items() if name not in dropped}


def _check_counts(value: Any, name: str) -> None:
    """Refuse numbers that lists as long are made of before there is anything to compare with tensors."""
    if isinstance(value, Mapping):
        for key, held in value.items():
            _check_counts(held, str(key))
    elif isinstance(value, int) and value > _MOST_COUNTED and ("label" in name or "layer" in name):
        raise ValueError(f"a description with {name[:50]} above {_MOST_COUNTED}")
