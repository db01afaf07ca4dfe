"""Write the weights of a network as a plain state dict, in a safetensors file that any program reads."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from sktransfer._files._model_file import apart, write_tensors
from sktransfer._files._whole_files import check_target, written_whole
from sktransfer._messages import shown

ENDING = ".safetensors"


def write_network(
    path: "str | os.PathLike[str]", tensors: Mapping[str, torch.Tensor], header: Mapping[str, str]
) -> None:
    """Write tensors to a file, or leave the file that is there as it is.

    Parameters
    ----------
    path : path-like
        Where to; it ends in `.safetensors`.
    tensors : mapping of str to Tensor
        On any device.
    header : mapping of str to str
        What stands in front of them; one entry, for several are written in any order.

    Raises
    ------
    ValueError
        If the path ends in anything else.
    FileNotFoundError
        If there is no such folder.
    IsADirectoryError
        If the path is a folder.
    OSError
        If the file cannot be written, as on a full disk, or what is there is a pipe or a device.
    """
    place = Path(os.path.realpath(check_target(path)))
    if Path(path).suffix.lower() != ENDING:
        raise ValueError(
            f"Got path={shown(path)}; expected a name that ends in {ENDING!r}, such as 'backbone{ENDING}'. For a .pth "
            "file, read it with safetensors.torch.load_file and write it with torch.save."
        )
    with written_whole(place, path) as file:
        write_tensors(file, apart(tensors), header, path)
