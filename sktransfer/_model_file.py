"""One file of JSON and tensors: a safetensors file whose header holds the JSON. There is no code in it to be run.

It is written whole or not at all, under another name first; and each part has a checksum, since safetensors has none.
"""

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

# To be raised when what is written could be misread by those who read the version before.
VERSION = 1
_ENTRY = "sktransfer model"


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
        If the file cannot be written, as on a full disk.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    place = Path(os.path.realpath(Path(path).expanduser()))
    if place.is_dir():
        raise IsADirectoryError(f"Got path={os.fspath(path)!r}, which is a folder; expected the name of a file.")
    if not place.parent.is_dir():
        raise FileNotFoundError(
            f"Got path={os.fspath(path)!r}, whose folder does not exist; expected one that does. Make it first."
        )
    held = _apart({**tensors, _ENTRY: torch.tensor([VERSION])})  # never none at all, which old readers refuse
    text = json.dumps({**description, "tensors": {name: _digest(tensor) for name, tensor in held.items()}})
    # One entry, since safetensors writes several in any order, and equal models are to be equal files.
    header = {_ENTRY: f"{VERSION} {_digest_text(text)}\n{text}"}
    part = place.with_name(f".{place.name[:100]}.{secrets.token_hex(6)}.part")
    try:
        part.touch(exist_ok=False)
        mode = part.stat().st_mode  # as the umask says; safetensors makes files for their owner alone
        try:
            save_file(held, part, metadata=header)
        except SafetensorError as error:
            raise OSError(
                f"Could not write {str(part)!r}: {error}. What was at {str(place)!r} before is there still."
            ) from error
        part.chmod(mode)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(place)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    _sync_folder(place.parent)


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
        If it is no such file, of a version to come, or damaged: the message says which part.
    """
    from safetensors import SafetensorError, safe_open

    place = Path(path).expanduser()
    if not place.is_file():
        raise FileNotFoundError(
            f"Got path={os.fspath(path)!r}, which is no file; expected one that sktransfer.save has written."
        )
    try:
        with safe_open(place, "pt") as file:
            description = _check_header(place, file.metadata() or {})
            names = set(file.keys())
            tensors = {name: file.get_tensor(name).clone() for name in description["tensors"] if name in names}
    except SafetensorError as error:
        raise ValueError(
            f"Got {str(place)!r}, which is no whole safetensors file ({error}); expected one that sktransfer.save has "
            "written. Copy it again from where it is whole."
        ) from error
    known = description.pop("tensors")
    missing = [name for name in known if name not in tensors]
    damaged = [name for name, tensor in tensors.items() if _digest(tensor) != known[name]]
    for what, which in (("missing", missing), ("damaged", damaged)):
        if which:
            raise ValueError(
                f"Got {str(place)!r}, in which {len(which)} of {len(known)} tensors are {what}: "
                f"{', '.join(map(repr, which[:5]))}. Copy it again from where it is whole."
            )
    return description, tensors


def _check_header(place: Path, header: Mapping[str, str]) -> dict[str, Any]:
    if _ENTRY not in header:
        raise ValueError(
            f"Got {str(place)!r}, which is a safetensors file but no model that sktransfer.save has written. If it "
            "holds weights of a network, give it to an estimator: weights=PATH."
        )
    first, _, text = header[_ENTRY].partition("\n")
    version, _, digest = first.partition(" ")
    if version != str(VERSION):
        newer = version.isdecimal() and int(version) > VERSION
        raise ValueError(
            f"Got {str(place)!r}, of format version {version!r}; expected {VERSION}. "
            + ("A newer sktransfer wrote it: upgrade." if newer else "There is no such version: the file is damaged.")
        )
    if _digest_text(text) != digest:
        raise ValueError(f"Got {str(place)!r}, whose description is damaged. Copy it again from where it is whole.")
    try:
        description = json.loads(text)
    except RecursionError:
        description = None
    if not (isinstance(description, dict) and isinstance(description.get("tensors"), dict)):
        raise ValueError(
            f"Got {str(place)!r}, whose description says nothing of its tensors; sktransfer wrote no such."
        )
    return description


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors on the CPU of which no two share memory, which safetensors refuses."""
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


def _sync_folder(folder: Path) -> None:
    """Have the new name written down too, where the system lets a folder be opened."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
