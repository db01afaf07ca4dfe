"""One network a process: whoever loads the same again is handed the one that is there.

Clones, folds and candidates of a search share it. It is held in eval mode and nothing in this package changes it; where
somebody else did, that is seen and it is loaded anew.
"""

import hashlib
import threading
from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from sktransfer._seeding import turn
from sktransfer.backbones._graph import Cut, Ready
from sktransfer.backbones._source import Source
from sktransfer.backbones._weights import fingerprint

# Networks that stay loaded when no estimator holds them, and parts of each that stay ready to run.
NETWORKS_KEPT = 4
PARTS_KEPT = 8


class LoadedNetwork:
    """A network in eval mode, traced.

    Parameters
    ----------
    network : nn.Module
        It is put into eval mode, and its parameters want no gradient any more.
    source : Source
        Where it comes from.
    """

    def __init__(self, network: nn.Module, source: Source):
        self.network = network.eval().requires_grad_(False)
        self.graph = source.graph(network)
        self.preprocessing = source.preprocessing(network)
        self._lock = threading.RLock()
        self._known: tuple[str, str] | None = None
        self._ready: Ready = {}
        self._parts: OrderedDict[Any, nn.Module] = OrderedDict()
        self._held = [held for module in network.modules() for held in (module._parameters, module._buffers) if held]
        self._versions = self._count_versions()

    @property
    def fingerprint(self) -> str:
        """Digest of every parameter and buffer, as 64 hexadecimal digits."""
        return self._digests()[0]

    @property
    def identity(self) -> str:
        """Digest of weights, operations, layers and constants."""
        return self._digests()[1]

    @property
    def unchanged(self) -> bool:
        """Whether no tensor was written to since the digests were taken, as far as torch counts that."""
        return self._versions == self._count_versions()

    def ready(self, start: Cut, end: Cut, device: torch.device, bfloat16: bool) -> nn.Module:
        """Return the part between two cuts, ready to run on a device; the last few are held for the next who asks."""
        with self._lock:
            if not self.unchanged:
                self._forget()
            key = (start, end, device, bfloat16)
            if key not in self._parts:
                self._parts[key] = self.graph.ready(start, end, device, bfloat16, self._ready)
            self._parts.move_to_end(key)
            while len(self._parts) > PARTS_KEPT:
                self._parts.popitem(last=False)
            return self._parts[key]

    def _digests(self) -> tuple[str, str]:
        with self._lock:
            if not self.unchanged:
                self._forget()
            if self._known is None:
                weights = fingerprint(self.network)
                code = self.graph.describe()
                self._known = weights, hashlib.sha256(f"{weights} {code}".encode()).hexdigest()
            return self._known

    def _forget(self) -> None:
        self._known = None
        self._ready.clear()
        self._parts.clear()
        self._versions = self._count_versions()

    def _count_versions(self) -> list[tuple[int, int]]:
        tensors = (tensor for held in self._held for tensor in held.values() if tensor is not None)
        return [(id(tensor), tensor._version) for tensor in tensors]


_LOCK = threading.RLock()
_KEPT: OrderedDict[Any, LoadedNetwork] = OrderedDict()


def load(source: Source) -> LoadedNetwork:
    """Return the network of a source: the one that is there, or loaded now.

    Parameters
    ----------
    source : Source
        Where it comes from.

    Returns
    -------
    LoadedNetwork
        Shared by all who load the same.
    """
    known = _find(source)
    if known is not None:
        return known
    with turn(), _LOCK:  # in this order: building draws random numbers, and whoever draws may ask what is loaded
        known = _find(source)  # another thread may have loaded it meanwhile
        if known is not None:
            return known
        loaded = share(LoadedNetwork(source.pretrained(), source))
        if source.key is not None:  # read again: what was downloaded is there now
            _keep(source.key, loaded)
        return loaded


def _find(source: Source) -> LoadedNetwork | None:
    with _LOCK:
        known = None if source.key is None else _KEPT.get(source.key)
        if known is None or not known.unchanged:
            return None
        _KEPT.move_to_end(source.key)
        return known


def share(loaded: LoadedNetwork) -> LoadedNetwork:
    """Return the network that is there with the same weights, code and preprocessing, or this one.

    Parameters
    ----------
    loaded : LoadedNetwork
        Just loaded.

    Returns
    -------
    LoadedNetwork
        Shared from now on.
    """
    with _LOCK:
        for known in _KEPT.values():
            if (
                known.unchanged
                and known.identity == loaded.identity
                and known.preprocessing == loaded.preprocessing
                and type(known.network) is type(loaded.network)
            ):
                return known
        _keep(loaded.identity, loaded)
        return loaded


def _keep(key: Any, loaded: LoadedNetwork) -> None:
    _KEPT[key] = loaded
    _KEPT.move_to_end(key)
    while count_networks() > NETWORKS_KEPT:
        _KEPT.popitem(last=False)


def count_networks() -> int:
    """Return how many networks stay loaded.

    Returns
    -------
    int
        At most `NETWORKS_KEPT`.
    """
    with _LOCK:
        return len({id(loaded) for loaded in _KEPT.values()})


def forget_networks() -> None:
    """Let go of all networks that no estimator holds, and of what was made ready of the others."""
    with _LOCK:
        for loaded in set(_KEPT.values()):
            with loaded._lock:
                loaded._forget()
        _KEPT.clear()
