"""Reading, checking and fingerprinting weights. A weights file is data: nothing in this file ever runs its code."""

import hashlib
import os
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Collection, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import URLError

import torch
from torch import nn

from sktransfer._messages import shortened, shown
from sktransfer.backbones.sources._weights_file import check_tensors, check_versions, count, find_file, is_finite

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
    PermissionError
        If it may not be read.
    ValueError
        If the file holds anything but tensors by name, such as code to be run, or holds NaN or infinity.
    """
    path = find_file(path)
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    check_versions(state, path)
    check_tensors(state, path)
    renamed = OrderedDict((_DOTTED_DENSE_LAYER.sub(r"\1\2", name), tensor) for name, tensor in state.items())
    if getattr(state, "_metadata", None) is not None:
        renamed._metadata = state._metadata  # type: ignore[attr-defined]
    return renamed


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except Exception as error:  # a damaged file, types that torch does not have, no memory to map it
        raise ValueError(
            f"Got weights={shown(path)}, which is not a whole safetensors file ({_reason(error)}); expected one as "
            "safetensors.torch.save_file writes it. Download or save it again, or give it the ending of what it is."
        ) from error


def _read_torch(path: Path) -> Mapping[str, torch.Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"Refused to load {shown(path)}: it holds more than tensors, and loading that would run code from the "
            f"file, or it is not a weights file at all (torch.load with weights_only=True: {_reason(error)}). Save the "
            "network's state_dict() alone, or as safetensors, and give that file."
        ) from error
    except Exception as error:  # a damaged file may stop torch anywhere
        raise ValueError(
            f"Got weights={shown(path)}, which torch.load cannot read ({_reason(error)}); expected a whole file of a "
            "state_dict. Download or save it again."
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    named = isinstance(state, Mapping) and all(isinstance(name, str) for name in state)
    if not named or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(
            f"Got weights={shown(path)}, which holds a {type(state).__name__}; expected a state_dict: tensors by name."
        )
    return state


def _reason(error: Exception) -> str:
    """Return the reason in one short line, without torch's advice on how to load the file all the same."""
    reason = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    if "TorchScript" in reason:
        return "it is a TorchScript archive, which holds code"
    return shortened(reason.partition(" Please use")[0].strip().partition("\n")[0], 160) or type(error).__name__


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
    state = without_prefix(state, own, source)
    # BatchNorm's counter came late; files from before it are whole.
    missing = [n for n in own if n not in state and n in used and not n.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    types = [
        f"{name} {fault}" for name in own if name in state and (fault := _type_fault(state[name], own[name].dtype))
    ]
    if missing or unexpected or shapes or types:
        faults = [count("missing key", missing), count("unexpected key", unexpected), count("other shape", shapes)]
        faults += [count("other type", types)] if types else []
        raise ValueError(
            f"Got weights from {_short(source)} that do not match the backbone "
            f"{shortened(type(network).__name__, 40)}: {'; '.join(faults)}. Give the weights of this very "
            "architecture, or the backbone that these weights were saved from."
        )
    # Some layers ask which version of themselves wrote the tensors; where nothing says so, it was this one.
    versioned = OrderedDict(state)
    versioned._metadata = getattr(state, "_metadata", own._metadata)  # type: ignore[attr-defined]
    network.load_state_dict(versioned, strict=False)


def without_prefix(state: Mapping[str, torch.Tensor], own: Collection[str], source: str) -> Mapping[str, torch.Tensor]:
    """Leave out what the names in a file all begin with, such as `module.`, where the network's names do not.

    DataParallel, Lightning, torch.compile and torch.optim.swa_utils put it there.

    Parameters
    ----------
    state : mapping of str to Tensor
        The tensors by name.
    own : collection of str
        The network's names.
    source : str
        Where the tensors come from, for the warning.

    Returns
    -------
    mapping of str to Tensor
        The same where a name is the network's already, or none would be.
    """
    averaged = "n_averaged"  # AveragedModel counts in it
    names = [name for name in state if name != averaged]
    prefix = ""
    while names and not any(name in own for name in names):
        first = names[0].partition(".")[0] + "."
        if not all(name.startswith(first) for name in names):
            return state
        prefix += first
        names = [name.removeprefix(first) for name in names]
    if not prefix:
        return state
    bare = OrderedDict((name.removeprefix(prefix), tensor) for name, tensor in state.items() if name != averaged)
    if hasattr(state, "_metadata"):
        noted = {f"{name}.": note for name, note in state._metadata.items()}
        bare._metadata = {  # type: ignore[attr-defined]
            name.removeprefix(prefix)[:-1]: note for name, note in noted.items() if name.startswith(prefix)
        }
    warnings.warn(
        f"The names in {_short(source)} all begin with {shown(prefix, 60)}, which the network's do not; it was left "
        "out.",
        UserWarning,
        stacklevel=2,
    )
    return bare


def _type_fault(tensor: torch.Tensor, wanted: torch.dtype) -> str | None:
    """Say why a tensor cannot be converted to a type and mean the same: whole numbers, for one, are no weights."""
    given = tensor.dtype
    differ = f"{str(given)[6:]} for {str(wanted)[6:]}"
    if given == wanted or wanted.is_complex:
        return None
    if tensor.is_complex():
        return differ
    if not wanted.is_floating_point:  # counters and masks, some of which were written as floats
        return differ if given.is_floating_point and not bool((tensor == tensor.round()).all()) else None
    if not given.is_floating_point:
        return differ
    return differ + ", too large" if given.itemsize > wanted.itemsize and not is_finite(tensor.to(wanted)) else None


def _short(source: str) -> str:
    return source if len(source) <= 130 else "'..." + source[-120:]


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
    if place.exists() and not place.is_file():  # a pipe would keep torch waiting
        raise ValueError(f"Got {shown(place)}, which is not a file. Delete it, then try again. {by_hand}")
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
    return fingerprint_of_tensors(network.state_dict())


def fingerprint_of_tensors(state: Mapping[str, torch.Tensor]) -> str:
    """Return the fingerprint of a network that holds these tensors, and no others.

    Parameters
    ----------
    state : mapping of str to Tensor
        The tensors by name, on any device.

    Returns
    -------
    str
        As that of `fingerprint`.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
