"""Check a weights file: it must be a whole file of plain and finite numbers. Each fault has its own message.

Nothing is opened that another process would have to feed, and no memory is taken for what a file merely claims.
"""

import os
import stat
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from sktransfer._messages import shortened, shown

# Entry in the header of a safetensors file: the weights whose preprocessing goes with those in the file.
RECIPE = "sktransfer preprocessing of"
# Of BatchNorm; files from before it counted are whole without it.
COUNTER = "num_batches_tracked"

# What git leaves in the place of a large file that was not fetched.
_POINTER = b"version https://git-lfs"

_NO_FILES = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}  # fmt: skip


def is_path(weights: str | os.PathLike[str]) -> bool:
    """Tell whether a text stands for a file rather than for the name of weights.

    Parameters
    ----------
    weights : str
        As the user wrote it.

    Returns
    -------
    bool
        True where it has a separator or an ending, or there is such a file.
    """
    if not isinstance(weights, str):
        return True
    return os.sep in weights or bool(Path(weights).suffix) or os.path.lexists(weights)


def find_file(weights: str | os.PathLike[str]) -> Path:
    """Return the path of a file that can be read.

    Parameters
    ----------
    weights : path-like
        As the user wrote it; `~` is the home folder.

    Returns
    -------
    Path
        Of a file that is not empty.

    Raises
    ------
    FileNotFoundError
        If there is no such file, or something else under that name: a folder, a pipe, a device.
    PermissionError
        If it may not be read.
    ValueError
        If it is empty, cannot be read, or is what git leaves in the place of a large file.
    """
    named = f"Got weights={shown(Path(weights))}"
    expected = 'expected a path to .pth or .safetensors, a weight name such as "IMAGENET1K_V1", "DEFAULT" or None.'
    try:
        path = Path(weights).expanduser()
        found = path.stat()
    except RuntimeError as error:  # ~ of a user that the system does not know
        raise FileNotFoundError(f"{named}, whose home folder is not known; {expected} Give the full path.") from error
    except (OSError, ValueError) as error:  # not there, a circle of links, a name that is too long, a zero byte in it
        reason = getattr(error, "strerror", None) or str(error)
        refusal = PermissionError if isinstance(error, PermissionError) else FileNotFoundError
        raise refusal(f"{named}, which is not a file ({reason}); {expected}") from error
    if not stat.S_ISREG(found.st_mode):
        what = _NO_FILES.get(stat.S_IFMT(found.st_mode), "something else")
        raise FileNotFoundError(f"{named}, which is not a file but {what}; {expected}")
    if not found.st_size:  # files below /proc are empty too, and some keep their readers waiting
        raise ValueError(f"{named}, which is empty (0 bytes); expected the weights. Copy or download the file again.")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        kind = PermissionError if isinstance(error, PermissionError) else ValueError
        raise kind(
            f"{named}, which cannot be read ({error.strerror}); expected a readable file. Change its "
            "permissions, or copy it."
        ) from error
    if start.startswith(_POINTER):
        raise ValueError(
            f"{named}, which is a Git LFS pointer: a few lines of text that git leaves in the place of a large file. "
            "Expected the file itself. Run `git lfs pull` in its folder, or download the file."
        )
    if start.startswith(b"PK"):
        _check_archive(path, found.st_size)
    return path


def read_recipe(weights: str | os.PathLike[str]) -> str:
    """Return the name of the weights whose preprocessing goes with those in a file, as far as the file says it.

    Parameters
    ----------
    weights : path-like
        As the user wrote it.

    Returns
    -------
    str
        Empty where there is none, or no such file; whoever reads its tensors says so.
    """
    if Path(weights).suffix != ".safetensors":
        return ""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(find_file(weights), "pt") as file:
            return (file.metadata() or {}).get(RECIPE, "")
    except (OSError, ValueError, SafetensorError):
        return ""


def _check_archive(path: Path, size: int) -> None:
    """Refuse an archive that unpacks to much more than it holds; torch packs nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # torch says what is wrong with it
    if unpacked > 4 * size + 2**26:
        raise ValueError(
            f"Got weights={shown(path)}, which has {size} bytes and claims to hold {unpacked}; expected a file as "
            "torch.save writes it. Save the weights again."
        )


def check_tensors(state: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse tensors that no network can use, and values that are not numbers.

    Infinity is refused too, except in masks of zeros and minus infinity, which some layers add to their scores. The
    look costs one sum of each tensor.

    Parameters
    ----------
    state : mapping of str to Tensor
        What a file holds.
    path : Path
        The file, for the message.

    Raises
    ------
    ValueError
        With the names of the first tensors.
    """
    named = f"Got weights={shown(path)}"
    odd = [f"{name} ({what})" for name, tensor in state.items() if (what := _oddity(tensor))]
    if odd:
        raise ValueError(
            f"{named}, which holds {count('tensor', odd)} that no layer can use; expected dense tensors with values. "
            "Convert them (to_dense(), dequantize()), or save the network's state_dict() again."
        )
    size = path.stat().st_size
    large = [
        name for name, t in state.items() if t.numel() * t.element_size() > max(size, t.untyped_storage().nbytes())
    ]
    if large:
        raise ValueError(
            f"{named}, which has {size} bytes but claims more in {count('tensor', large)}; expected tensors whose "
            "values are in the file. Save the weights again, with contiguous() tensors."
        )
    wrong = [name for name, tensor in state.items() if not is_finite(tensor)]
    if wrong:
        raise ValueError(
            f"{named}, which holds NaN or infinity in {count('tensor', wrong)}; expected finite numbers. The file is "
            "damaged, or its training diverged. Download it again, or take an earlier checkpoint."
        )


def check_versions(state: Any, path: Path) -> None:
    """Refuse what torch keeps with tensors, the versions of layers, where torch could not read it.

    Parameters
    ----------
    state : mapping
        What a file holds; its attribute `_metadata` has them, by name of layer.
    path : Path
        The file, for the message.

    Raises
    ------
    ValueError
        If they are not a dict of dicts, with a number as `version`.
    """
    metadata = getattr(state, "_metadata", None)
    fine = metadata is None or (
        isinstance(metadata, dict)
        and all(isinstance(name, str) and isinstance(note, dict) for name, note in metadata.items())
        and all(note.get("version") is None or type(note["version"]) is int for note in metadata.values())
    )
    if not fine:
        raise ValueError(
            f"Got weights={shown(path)}, whose _metadata, a {type(metadata).__name__}, torch cannot read; expected a "
            "dict with a dict for each layer, as state_dict() makes it. Save the tensors in a plain dict: torch.save("
            "dict(state), PATH)."
        )


def _oddity(tensor: torch.Tensor) -> str | None:
    """Say what keeps a tensor from being copied into a layer."""
    if tensor.is_nested:
        return "nested"
    if tensor.layout != torch.strided:
        return "sparse" if "sparse" in str(tensor.layout) else str(tensor.layout)
    if tensor.device.type != "cpu":
        return f"on the device {tensor.device.type}"
    if tensor.is_quantized:
        return "quantized"
    try:
        torch.empty(1, dtype=tensor.dtype).to(torch.complex64 if tensor.is_complex() else torch.float32)
    except (RuntimeError, NotImplementedError):
        return f"packed as {tensor.dtype}"
    return None


def is_finite(tensor: torch.Tensor) -> bool:
    """Tell whether a tensor holds numbers alone, or is a mask of zeros and minus infinity.

    Parameters
    ----------
    tensor : Tensor
        Dense, on the CPU.

    Returns
    -------
    bool
        True for whole numbers, whatever they are.
    """
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    if not tensor.is_floating_point():
        return True
    if tensor.element_size() < 4:
        tensor = tensor.float()
    if bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all()):  # large numbers may add up to infinity
        return True
    return bool(((tensor == 0) | (tensor == -torch.inf)).all())


def count(what: str, names: list[str]) -> str:
    """Say how many there are, and name the first, five at most.

    Parameters
    ----------
    what : str
        What they are, one of them.
    names : list of str
        What they are called.

    Returns
    -------
    str
        A short clause, however long the names are.
    """
    plural = "" if len(names) == 1 else "s"
    several = [shortened(name, 60) for name in names[:5]]
    while len(several) > 1 and len(", ".join(several)) > 100:
        several.pop()
    listed = ", ".join(several) + (", ..." if len(names) > len(several) else "")
    return f"{len(names)} {what}{plural}" + (f" ({listed})" if names else "")


def reason_of(error: Exception) -> str:
    """Return the reason in one short line, without torch's advice on how to load the file all the same.

    Parameters
    ----------
    error : Exception
        As torch or safetensors raised it.

    Returns
    -------
    str
        For a message.
    """
    reason = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    if "TorchScript" in reason:
        return "it is a TorchScript archive, which holds code"
    return shortened(reason.partition(" Please use")[0].strip().partition("\n")[0], 160) or type(error).__name__
