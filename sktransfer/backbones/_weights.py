"""Reading, checking and fingerprinting weights. A weights file is data: nothing in this file ever runs its code."""

import hashlib
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Collection, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError

import torch
from torch import nn

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

# Where weights may be downloaded from: nobody on the way can read or change what comes by https.
SCHEMES = ("https",)

# torchvision's DenseNet files name their layers `norm.1`, its networks `norm1`.
_DOTTED_DENSE_LAYER = re.compile(r"(\.denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read the tensors of a `.safetensors` file or of one that `torch.save` wrote.

    Parameters
    ----------
    path : path-like
        A file holding one `state_dict`, possibly under the key `"state_dict"` or `"model"`.

    Returns
    -------
    dict of str to Tensor
        On the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file holds anything but tensors by name, such as code to be run.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"Got weights={str(path)!r}, which is no file; expected a path to .pth or .safetensors, a weight name such "
            'as "IMAGENET1K_V1", "DEFAULT" or None.'
        )
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    renamed = OrderedDict((_DOTTED_DENSE_LAYER.sub(r"\1\2", name), tensor) for name, tensor in state.items())
    if hasattr(state, "_metadata"):
        renamed._metadata = state._metadata  # type: ignore[attr-defined]
    return renamed


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise ValueError(f"Got {str(path)!r}, which is no whole safetensors file ({error}).") from error


def _read_torch(path: Path) -> Mapping[str, torch.Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"Refused to load {str(path)!r}: it holds more than tensors, and loading that would run code from the "
            f"file, or it is no weights file at all (torch.load with weights_only=True: {_reason(error)}). Save the "
            "network's state_dict() alone, or as safetensors, and give that file."
        ) from error
    except Exception as error:  # a damaged file may stop torch anywhere
        raise ValueError(
            f"Got {str(path)!r}, which torch.load cannot read ({_reason(error)}); expected a whole state_dict file."
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    named = isinstance(state, Mapping) and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(
            f"Got {str(path)!r}, which holds a {type(state).__name__}; expected a state_dict: tensors by name."
        )
    return state


def _reason(error: Exception) -> str:
    """Return torch's reason in one line, without its advice on how to load the file all the same."""
    reason = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    return reason.partition(" Please use")[0].strip().partition("\n")[0] or type(error).__name__


def fill(network: nn.Module, state: Mapping[str, torch.Tensor], used: Collection[str], source: str) -> None:
    """Load tensors into a network, or say in one sentence why they do not fit.

    Parameters
    ----------
    network : nn.Module
        Its parameters and buffers are overwritten.
    state : mapping of str to Tensor
        The tensors by name.
    used : collection of str
        Names that must be there: what the network's graph uses. Auxiliary classifiers that only training uses may lack.
    source : str
        Where the tensors come from, for the message.

    Raises
    ------
    ValueError
        If names are missing or unexpected, or shapes differ. The network is as before.
    """
    own = network.state_dict()
    # BatchNorm's counter came late; files from before it are whole.
    missing = [n for n in own if n not in state and n in used and not n.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if missing or unexpected or shapes:
        raise ValueError(
            f"Got weights from {source} that do not match the backbone {type(network).__name__}: "
            f"{_count('missing key', missing)}; {_count('unexpected key', unexpected)}; "
            f"{_count('other shape', shapes)}. Give the weights of this very architecture, or the backbone that these "
            "weights were saved from."
        )
    # Some layers ask which version of themselves wrote the tensors; where nothing says so, it was this one.
    versioned = OrderedDict(state)
    versioned._metadata = getattr(state, "_metadata", own._metadata)  # type: ignore[attr-defined]
    network.load_state_dict(versioned, strict=False)


def _count(what: str, names: list[str]) -> str:
    plural = "" if len(names) == 1 else "s"
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return f"{len(names)} {what}{plural}" + (f" ({shown})" if names else "")


def place_of(weights: "WeightsEnum") -> Path:
    """Return where torch keeps, or would keep, the file of these weights.

    Parameters
    ----------
    weights : WeightsEnum
        A member of one of torchvision's enumerations of weights.

    Returns
    -------
    Path
        In torch's folder of checkpoints.
    """
    return Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]


def fetch(weights: "WeightsEnum") -> None:
    """Make sure that torchvision's file of these weights is in torch's folder, whole, and holds tensors alone.

    The file is downloaded to a name of its own, its hash checked, and then renamed, so processes that start at once do
    not disturb each other.

    Parameters
    ----------
    weights : WeightsEnum
        A member of one of torchvision's enumerations of weights.

    Raises
    ------
    ConnectionError
        If the file has to be downloaded and cannot be.
    ValueError
        If the address is not one of https, the file is damaged, or what was downloaded is not what its name promises;
        that is not kept.
    """
    place = place_of(weights)
    by_hand = (
        f"Download {weights.url} on a machine that can, and put it at {str(place)!r}, or anywhere and give its path: "
        "weights=PATH."
    )
    scheme = weights.url.partition(":")[0]
    if scheme not in SCHEMES and not place.is_file():
        raise ValueError(f"Refused to download {weights.url}, which comes by {scheme}; expected https. {by_hand}")
    try:
        weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
        raise ConnectionError(
            f"Could not download the weights {weights} ({error}), and {str(place)!r} is not there. {by_hand}"
        ) from error
    except Exception as error:  # a damaged file may stop torch anywhere
        if place.is_file():
            raise ValueError(
                f"The weights file of {weights} at {str(place)!r} is damaged ({_reason(error)}). Delete it, then try "
                f"again. {by_hand}"
            ) from error
        if isinstance(error, RuntimeError):  # the hash
            raise ValueError(
                f"Downloaded the weights {weights}, and they arrived damaged ({_reason(error)}); nothing was kept. "
                f"Try again. {by_hand}"
            ) from error
        raise  # a full disk, a folder that may not be written


def stamp(file: Path) -> tuple[int, ...] | None:
    """Return what changes when a file does, even where somebody puts its size and date back.

    Parameters
    ----------
    file : Path
        Of weights.

    Returns
    -------
    tuple of int or None
        Times, size and place on the disk; `None` where there is no such file.
    """
    if not file.exists():
        return None
    found = file.stat()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def fingerprint(network: nn.Module) -> str:
    """Digest of every parameter and buffer: equal where all names, types, shapes and bits are equal.

    Parameters
    ----------
    network : nn.Module
        Any network, on any device.

    Returns
    -------
    str
        64 hexadecimal digits (SHA-256).
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
