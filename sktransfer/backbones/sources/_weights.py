"""Weights of networks: given to a network, downloaded whole or not at all, and fingerprinted."""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import torch
from torch import nn

from sktransfer._messages import shortened, shown
from sktransfer.backbones.sources._weights_file import count, is_finite, reason_of

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

# Where weights may be downloaded from: nobody on the way can read or change what comes by https.
SCHEMES = ("https",)


def fill(network: nn.Module, state: Mapping[str, torch.Tensor], source: str) -> None:
    """Give a network tensors that are its own, or say which of them are not.

    Parameters
    ----------
    network : nn.Module
        Its parameters and buffers are overwritten.
    state : mapping of str to Tensor
        All of them, by name.
    source : str
        Where the tensors come from, for the message.

    Raises
    ------
    ValueError
        If names are missing or unexpected, or shapes or types differ. The network is as before.
    """
    own = network.state_dict()
    refuse_faults(
        network,
        source,
        # BatchNorm's counter came late; files from before it are whole.
        missing=[name for name in own if name not in state and not name.endswith("num_batches_tracked")],
        unexpected=[name for name in state if name not in own],
        shapes=[
            f"{name} {tuple(state[name].shape)} for {tuple(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
        types=type_faults(state, own),
    )
    put(network, state)


def put(network: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Copy tensors that fit into a network; what they do not name stays as it is.

    Parameters
    ----------
    network : nn.Module
        Its parameters and buffers are overwritten.
    state : mapping of str to Tensor
        Of the network's names and shapes.
    """
    own: Any = network.state_dict()
    # Some layers ask which version of themselves wrote the tensors; where nothing says so, it was this one.
    versioned: Any = OrderedDict(state)
    versioned._metadata = getattr(state, "_metadata", own._metadata)
    network.load_state_dict(versioned, strict=False)


def refuse_faults(
    network: nn.Module,
    source: str,
    missing: list[str],
    unexpected: list[str],
    shapes: list[str],
    types: list[str],
    more: str = "",
) -> None:
    """Raise in one sentence if anything is listed.

    Parameters
    ----------
    network : nn.Module
        For which the tensors are meant.
    source : str
        Where they come from.
    missing, unexpected, shapes, types : list of str
        Names, and what differs.
    more : str, default=""
        Sentences that say why, with a space in front.

    Raises
    ------
    ValueError
        With the first names of each list.
    """
    if missing or unexpected or shapes or types:
        faults = [count("missing key", missing), count("unexpected key", unexpected), count("other shape", shapes)]
        faults += [count("other type", types)] if types else []
        raise ValueError(
            f"Got weights from {short(source)} that do not match the backbone "
            f"{shortened(type(network).__name__, 40)}: {'; '.join(faults)}.{more} Give the weights of this very "
            "architecture, or the backbone that these weights were saved from."
        )


def type_faults(state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor]) -> list[str]:
    """Name tensors whose type cannot be converted to that of the network's.

    Parameters
    ----------
    state, own : mapping of str to Tensor
        Those given, and the network's.

    Returns
    -------
    list of str
        With both types.
    """
    return [f"{name} {fault}" for name in own if name in state and (fault := _type_fault(state[name], own[name].dtype))]


def _type_fault(tensor: torch.Tensor, wanted: torch.dtype) -> str | None:
    """Say why a tensor cannot be converted to a type and mean the same: whole numbers, for one, are not weights."""
    given = tensor.dtype
    differ = f"{str(given)[6:]} for {str(wanted)[6:]}"
    if given == wanted or wanted.is_complex:
        return None
    if tensor.is_complex():
        return differ
    if not wanted.is_floating_point:  # counters and masks, sometimes written as floats
        return differ if given.is_floating_point and not bool((tensor == tensor.round()).all()) else None
    if not given.is_floating_point:
        return differ
    return differ + ", too large" if given.itemsize > wanted.itemsize and not is_finite(tensor.to(wanted)) else None


def short(source: str) -> str:
    """Return the end of a source that is long.

    Parameters
    ----------
    source : str
        Where tensors come from.

    Returns
    -------
    str
        For a message.
    """
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
        raise ValueError(f"Refused to download {weights.url}, which uses {scheme}; expected https. {by_hand}")
    try:
        weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
        raise ConnectionError(
            f"Could not download the weights {weights} ({error}), and {str(place)!r} is not there. {by_hand}"
        ) from error
    except Exception as error:  # a damaged file may stop torch anywhere
        if place.is_file():
            raise ValueError(
                f"The weights file of {weights} at {str(place)!r} is damaged ({reason_of(error)}). Delete it, then try "
                f"again. {by_hand}"
            ) from error
        if isinstance(error, RuntimeError):  # the hash
            raise ValueError(
                f"Downloaded the weights {weights}, and they arrived damaged ({reason_of(error)}); nothing was kept. "
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
