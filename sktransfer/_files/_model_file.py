"""Write and read models as one safetensors file, whose header holds JSON. It contains no code.

It is written whole or not at all; and each part has a checksum, since safetensors has none.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sktransfer._files._file_kinds import expand, guess_kind, type_of
from sktransfer._files._whole_files import check_target, written_whole
from sktransfer._messages import shown

# To be raised when what is written could be misread by those who read the version before.
VERSION = 1
ENTRY = "sktransfer model"


def write_model(
    path: "str | os.PathLike[str]", description: dict[str, Any], tensors: Mapping[str, torch.Tensor]
) -> None:
    """Write a description and tensors to a file, or leave the file that is there as it is.

    Parameters
    ----------
    path : path-like
        Where to.
    description : dict
        For `json.dumps`.
    tensors : mapping of str to Tensor
        On any device.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    IsADirectoryError
        If the path is a folder.
    OSError
        If the file cannot be written, as on a full disk, or what is there is a pipe or a device.
    """
    place = Path(os.path.realpath(check_target(path)))
    held = apart({**tensors, ENTRY: torch.tensor([VERSION])})  # never none at all, which old readers refuse
    text = json.dumps({**description, "tensors": {name: _digest(tensor) for name, tensor in held.items()}})
    # One entry, since safetensors writes several in any order, and equal models are to be equal files.
    header = {ENTRY: f"{VERSION} {_digest_text(text)}\n{text}"}
    with written_whole(place, path) as file:
        write_tensors(file, held, header, path)


def write_tensors(
    file: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, str], path: "str | os.PathLike[str]"
) -> None:
    """Write a safetensors file.

    Parameters
    ----------
    file : Path
        Where to; nothing is there yet.
    tensors : mapping of str to Tensor
        As `apart` returns them.
    header : mapping of str to str
        What stands in front of them.
    path : path-like
        What a person called the file.

    Raises
    ------
    OSError
        If it cannot be written, as on a full disk.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    file.touch(exist_ok=False)
    mode = file.stat().st_mode  # as the umask says; safetensors makes files for their owner alone
    try:
        save_file(dict(tensors), file, metadata=dict(header))
    except SafetensorError as error:
        raise OSError(
            f"Could not write {shown(path)}: {error}. A file that was there before is unchanged. Free disk space, or "
            "give another folder."
        ) from error
    file.chmod(mode)


def read_model(path: "str | os.PathLike[str]") -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read what `write_model` wrote.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    description : dict
        As it was given.
    tensors : dict of str to Tensor
        On the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not such a file, if a newer version wrote it, or if it is damaged. The message says which part.
    """
    from safetensors import SafetensorError, safe_open

    place = expand(path)
    name = shown(path)
    if (kind := type_of(place)) or not os.path.isfile(place):
        raise FileNotFoundError(
            f"Got path={name}, which is {kind or 'not a file'}; expected a file that sktransfer.save wrote."
        )
    if not os.access(place, os.R_OK):
        raise PermissionError(
            f"Got path={name}, which you may not read; expected a readable file. Change its permissions."
        )
    try:
        if not place.stat().st_size:  # of files of /proc too, some of which block whoever reads
            raise SafetensorError("it is empty")
        with safe_open(place, "pt") as file:
            description = _check_header(name, file.metadata() or {})
            names = set(file.keys())
            tensors = {name: file.get_tensor(name).clone() for name in description["tensors"] if name in names}
    except (SafetensorError, OSError) as error:
        kind = guess_kind(place)
        raise ValueError(
            f"Got {name}, which is not a whole safetensors file ({str(error)[:150]}); expected one that "
            "sktransfer.save wrote. " + (f"It looks like {kind}." if kind else "Copy the file again from its source.")
        ) from error
    known = description.pop("tensors")
    missing = [name for name in known if name not in tensors]
    damaged = [name for name, tensor in tensors.items() if _digest(tensor) != known[name]]
    for what, which in (("missing", missing), ("damaged", damaged)):
        if which:
            raise ValueError(
                f"Got {name}, in which {len(which)} of {len(known)} tensors are {what}: "
                f"{', '.join(shown(one) for one in which[:3])}. Copy the file again from its source."
            )
    return description, tensors


def _check_header(name: str, header: Mapping[str, str]) -> dict[str, Any]:
    if ENTRY not in header:
        raise ValueError(
            f"Got {name}, which is a safetensors file, but not a model that sktransfer.save wrote. If it contains "
            "the weights of a network, give it to an estimator: weights=PATH."
        )
    first, _, text = header[ENTRY].partition("\n")
    version, _, digest = first.partition(" ")
    if version != str(VERSION):
        newer = version.isdecimal() and len(version) < 10 and int(version) > VERSION
        raise ValueError(
            f"Got {name}, of format version {shown(version)}; expected {VERSION}. "
            + ("A newer sktransfer wrote it: upgrade." if newer else "There is no such version: the file is damaged.")
        )
    if _digest_text(text) != digest:
        raise ValueError(f"Got {name}, whose description is damaged. Copy the file again from its source.")
    try:
        description = json.loads(text, parse_constant=_finite, parse_float=_finite, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"Got {name}, whose description is not JSON that sktransfer writes ({str(error)[:150]}). The file was "
            "changed: ask for another copy."
        ) from error
    if not (isinstance(description, dict) and isinstance(description.get("tensors"), dict)):
        raise ValueError(
            f"Got {name}, whose description does not list its tensors. sktransfer did not write this file."
        )
    return description


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it contains a name twice")
    return found


def apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors on the CPU that do not share memory, because safetensors refuses those that do.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        On any device.

    Returns
    -------
    dict of str to Tensor
        Copies, where they share some.
    """
    held: dict[str, torch.Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        storage = tensor.untyped_storage()
        if storage.data_ptr() in taken or storage.nbytes() != tensor.numel() * tensor.element_size():
            tensor = tensor.clone()
        taken.add(tensor.untyped_storage().data_ptr())
        held[name] = tensor
    return held


def _digest(tensor: torch.Tensor) -> str:
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
    digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digest_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
