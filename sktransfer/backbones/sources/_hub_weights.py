"""The weights of a model of transformers: which files hold them, and how the library is handed their tensors.

Files are read here, as tensors alone; the library opens none, and what a network claims is held against them first.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sktransfer._messages import shown
from sktransfer.backbones.sources._hub_architectures import count_values, encoder, on_paper, towers_of
from sktransfer.backbones.sources._hub_files import ModelFiles, explained, refuse_pointer
from sktransfer.backbones.sources._state_dicts import read_state_dict
from sktransfer.backbones.sources._weights_file import COUNTER

# Files of weights, in the order in which the library looks for them; each may be in parts that an index lists.
_FILES = ("model.safetensors", "pytorch_model.bin")


def weight_files(files: ModelFiles) -> list[Path]:
    """Return the files that hold the weights of a model.

    Parameters
    ----------
    files : ModelFiles
        Of the model.

    Returns
    -------
    list of Path
        One, or those that an index lists.

    Raises
    ------
    ValueError
        If there are none, or an index is damaged.
    """
    for name in _FILES:
        if (file := files.find(name)) is not None:
            return [file]
        index = files.json(f"{name}.index.json")
        if index is not None:
            return [_part(files, f"{name}.index.json", part) for part in _parts(files, f"{name}.index.json", index)]
    files.expect_all("the weights")
    raise ValueError(
        f"Got backbone={files}, whose weights cannot be loaded (there are none); expected one of {', '.join(_FILES)}. "
        "Save the model again: model.save_pretrained(FOLDER)."
    )


def weight_files_here(files: ModelFiles) -> list[Path] | None:
    """Return the files that hold the weights of a model, without asking a hub.

    Parameters
    ----------
    files : ModelFiles
        Of the model.

    Returns
    -------
    list of Path or None
        `None` where they are not all on this machine.
    """
    try:
        return weight_files(replace(files, asks=False))
    except ValueError:
        return None


def _parts(files: ModelFiles, index: str, values: Mapping[str, Any]) -> list[str]:
    listed = values.get("weight_map")
    parts = set(listed.values()) if isinstance(listed, dict) and all(map(_is_name, listed.values())) else set()
    if not parts:
        raise ValueError(
            f"Got backbone={files}, whose {index} lists {shown(listed)}; expected the files of its parts, beside "
            "it. Download or save the model again."
        )
    return sorted(parts)


def _is_name(part: Any) -> bool:
    return isinstance(part, str) and Path(part).name == part and "\\" not in part and "\0" not in part


def _part(files: ModelFiles, index: str, part: str) -> Path:
    file = files.find(part)
    if file is None:
        raise ValueError(
            f"Got backbone={files}, which lacks {shown(part)}, a part of its weights that {index} lists; expected "
            "all parts. Download the model again."
        )
    return file


def load_weights(files: ModelFiles, config: Any, tower: str = "auto") -> tuple[Any, list[str]]:
    """Return the network with its weights.

    Parameters
    ----------
    files : ModelFiles
        Of the model.
    config : transformers.PreTrainedConfig
        As `build_config` returns it.
    tower : {"image", "text", "auto"}, default="auto"
        Which of two networks is wanted.

    Returns
    -------
    network : nn.Module
        In float32, whatever the file has; of two networks, the one.
    missing : list of str
        Its parameters that no file has. They are zero.

    Raises
    ------
    ValueError
        If the files do not match, or claim what they do not hold.
    """
    state: dict[str, torch.Tensor] = {}
    for file in weight_files(files):
        with file.open("rb") as opened:
            refuse_pointer(files, file.name, opened.read(64))
        # Copies: a tensor of a file that is mapped into memory changes with the file.
        state.update({name: tensor.clone() for name, tensor in read_state_dict(file).items()})
    check_claims(on_paper(config, files, tower), sum(tensor.numel() for tensor in state.values()), f"backbone={files}")
    network, missing, _ = by_library(files, config, tower, state)
    return network, missing


def by_library(
    files: ModelFiles, config: Any, tower: str, state: Mapping[str, torch.Tensor]
) -> tuple[Any, list[str], list[str]]:
    """Return the network that the library makes of tensors, under their names of now or of files of earlier days.

    Parameters
    ----------
    files : ModelFiles
        Files of the model, used in error messages.
    config : transformers.PreTrainedConfig
        As `build_config` returns it.
    tower : {"image", "text", "auto"}
        Which of two networks is wanted.
    state : mapping of str to Tensor
        Of the whole model, or of that network alone.

    Returns
    -------
    network : nn.Module
        In float32; of two networks, or of encoder and decoder, the one that is wanted.
    missing : list of str
        Its parameters and buffers that are not among the tensors. They are zero.
    unexpected : list of str
        Names of tensors that the library had no use for.

    Raises
    ------
    ValueError
        If shapes do not match.
    """
    network = on_paper(config, files, tower)
    name = towers_of(network).get(tower)
    if name is not None and not network.get_submodule(name).state_dict().keys().isdisjoint(state):
        state = {f"{name}.{one}": tensor for one, tensor in state.items()}
    library: Any = type(network)
    with explained(files, "weights"):
        loaded, info = library.from_pretrained(
            None, config=config, state_dict=dict(state), dtype=torch.float32, output_loading_info=True
        )
    names = {id(tensor): name for name, tensor in (*loaded.named_parameters(), *loaded.named_buffers())}
    part = encoder(loaded, tower)
    lacking = set(info["missing_keys"])
    missing = {
        name: tensor
        for name, tensor in (*part.named_parameters(), *part.named_buffers())
        if names.get(id(tensor)) in lacking and not name.endswith(COUNTER)
    }
    with torch.no_grad():
        for tensor in missing.values():
            tensor.zero_()  # not at random: whoever loads it again finds the same
    return part, sorted(missing), sorted(info["unexpected_keys"])


def check_claims(network: nn.Module, held: int, whose: str) -> None:
    """Refuse to take memory for a network that is far larger than the tensors for it.

    Parameters
    ----------
    network : nn.Module
        As `on_paper` returns it.
    held : int
        Numbers in the tensors. A file may lack parts that are not used, such as a decoder, but not most of a network.
    whose : str
        Where the tensors come from, for the message.

    Raises
    ------
    ValueError
        If the network has more than four times as many.
    """
    claimed = count_values(network)
    if claimed > 4 * held + 10_000_000:
        raise ValueError(
            f"Got {whose}, whose description claims {claimed} parameters and whose weights hold {held}; expected as "
            "many. Give the description and the weights of one model."
        )
