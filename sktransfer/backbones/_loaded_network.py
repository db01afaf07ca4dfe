"""One network per process: whoever loads the same network again gets the one that is loaded.

Clones, folds and candidates of a search share it. It is held in eval mode and nothing in this package changes it; where
somebody else did, that is seen and it is loaded anew.
"""

import hashlib
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from sktransfer._process._locks import Lock
from sktransfer._process._seeding import turn
from sktransfer.backbones._code import is_library
from sktransfer.backbones._identity import NotWritableError, Settings
from sktransfer.backbones._recipes import Recipe
from sktransfer.backbones.graphs._base import NOTHING, Cut, Pooled, Ready
from sktransfer.backbones.sources._base import Source
from sktransfer.backbones.sources._weights import fingerprint

# Networks that stay loaded when no estimator holds them, and parts of each that stay ready to run.
NETWORKS_KEPT = 4
PARTS_KEPT = 16


class LoadedNetwork:
    """A network in eval mode, traced.

    Parameters
    ----------
    network : nn.Module
        It is put into eval mode, and its parameters no longer require gradients.
    source : Source
        Where it comes from.
    """

    def __init__(self, network: nn.Module, source: Source):
        self.network = network.eval().requires_grad_(False)
        self.graph = source.graph(network)
        self.preprocessing = source.preprocessing(network)
        self._lock = Lock()
        self._known: tuple[str, str | None] | None = None
        self._why_none, self._lasting = "", False
        self._ready: Ready = {}
        self._parts: OrderedDict[Any, nn.Module] = OrderedDict()
        self._settings = Settings(network)
        # What was found out by running a sample, by what it depends on.
        self.output_shapes: dict[Any, list[tuple[int, ...]]] = {}
        self.widths: dict[Any, list[int]] = {}
        self.stops: dict[Any, tuple[Any, ...]] = {}
        _LOADED.add(self)

    @property
    def fingerprint(self) -> str:
        """Digest of every parameter and buffer, as 64 hexadecimal digits."""
        return self._digests()[0]

    @property
    def identity(self) -> str | None:
        """Digest of weights, operations, layers and their settings; `None` where these cannot be written down whole."""
        return self._digests()[1]

    @property
    def why_no_identity(self) -> str:
        """Reason why there is no identity, as a clause; empty if there is one."""
        self._digests()
        return self._why_none

    @property
    def unchanged(self) -> bool:
        """Whether no tensor was written to, and no setting changed, since the digests were taken.

        That is as far as torch counts it, and as modules, lists and dicts show it.
        """
        return self._settings.are_those_of(self.network)

    def ready(self, start: Cut, end: Cut, device: torch.device, bfloat16: bool, pooled: Pooled = NOTHING) -> nn.Module:
        """Return the part between two cuts, ready to run on a device; the last few are held for the next who asks."""
        with self._lock:
            if not self.unchanged:
                self._forget()
            key = (start, end, device, bfloat16, pooled)
            if key not in self._parts:
                self._parts[key] = self.graph.ready(start, end, device, bfloat16, self._ready, pooled)
            self._parts.move_to_end(key)
            while len(self._parts) > PARTS_KEPT:
                self._parts.popitem(last=False)
            return self._parts[key]

    def is_like(self, other: "LoadedNetwork") -> bool:
        """Tell whether this network may be handed out for another: both have the same identity, blocks and classes.

        Running a class definition again makes another class with the same code, and pickle knows only the new one.
        """
        return (
            self.identity is not None
            and self.identity == other.identity
            and self.preprocessing == other.preprocessing
            and self.graph.blocks == other.graph.blocks
            and self._features == other._features
            and self._own_classes == other._own_classes
        )

    @property
    def _own_classes(self) -> list[type]:
        kinds = map(type, self.network.modules())
        return [kind for kind in kinds if not is_library(kind.__module__)]

    @property
    def _features(self) -> str:
        return str(self.graph.end_of_block(len(self.graph.blocks)).name)

    def _digests(self) -> tuple[str, str | None]:
        with self._lock:
            if not self.unchanged:
                self._forget()
            if self._known is None:
                self._known = fingerprint(self.network), self._describe()
            elif not self._lasting and (described := self._describe()) != self._known[1]:
                weights = self._known[0]
                self._forget()
                self._known = weights, described
            weights, code = self._known
            return weights, None if code is None else hashlib.sha256(f"{weights} {code}".encode()).hexdigest()

    def _describe(self) -> str | None:
        try:
            described = self.graph.describe()
        except NotWritableError as error:
            self._lasting, self._why_none = False, str(error)
            return None
        self._lasting, self._why_none = described.lasting, ""
        return described.text

    def _forget(self) -> None:
        self._known = None
        self._ready.clear()
        self._parts.clear()
        self.graph.forget_calls()
        self._settings = Settings(self.network)


_LOCK = Lock()
_KEPT: OrderedDict[Any, LoadedNetwork] = OrderedDict()

# All that there are, whether they are kept for others or not: an estimator may hold one that nobody else is handed.
_LOADED: "weakref.WeakSet[LoadedNetwork]" = weakref.WeakSet()


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
            _keep((source.kind, source.key), loaded)
        return loaded


def _find(source: Source) -> LoadedNetwork | None:
    with _LOCK:
        key = source.kind, source.key
        known = None if source.key is None else _KEPT.get(key)
        if known is None or not known.unchanged:
            return None
        _KEPT.move_to_end(key)
        return known


def share(loaded: LoadedNetwork) -> LoadedNetwork:
    """Return the network that is there with the same weights, code, settings and preprocessing, or this one.

    Parameters
    ----------
    loaded : LoadedNetwork
        Just loaded.

    Returns
    -------
    LoadedNetwork
        Shared from now on, if it has an identity.
    """
    with _LOCK:
        if loaded.identity is None:
            return loaded
        for known in _KEPT.values():
            if known.unchanged and known.is_like(loaded):
                return known
        _keep(loaded.identity, loaded)
        return loaded


def built_once(recipe: Recipe | None, weights: str, build: Callable[[], LoadedNetwork]) -> LoadedNetwork:
    """Return the network that the same recipe and the same weights made before, or build it now.

    Whoever unpickles an estimator again, in whatever thread, is handed the network of the first time. That it is what
    building would give is not claimed by the pickle: the weights are those at hand, and the recipe was seen to give it.

    Parameters
    ----------
    recipe : Recipe or None
        What it is built by; `None` builds it.
    weights : str
        Fingerprint of the weights that it is to have.
    build : callable
        Builds it.

    Returns
    -------
    LoadedNetwork
        Shared by all who build the same.
    """
    if recipe is None:
        return share(build())
    known = _find_built(recipe, weights)
    if known is not None:
        return known
    with turn(), _LOCK:  # in this order, as in `load`
        known = _find_built(recipe, weights)
        if known is not None:
            return known
        loaded = share(build())
        if loaded.identity is not None and loaded.fingerprint == weights:
            _keep((recipe.digest, weights), loaded)
        return loaded


def _find_built(recipe: Recipe, weights: str) -> LoadedNetwork | None:
    with _LOCK:
        key = recipe.digest, weights
        known = _KEPT.get(key)
        if known is None or not known.unchanged or not recipe.classes.issuperset(known._own_classes):
            return None
        _KEPT.move_to_end(key)
        return known


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


def bytes_of_networks() -> int:
    """Return what parameters and buffers of the networks take that stay loaded.

    Returns
    -------
    int
        Bytes; what two networks share counts once.
    """
    with _LOCK:
        kept = {id(loaded): loaded.network for loaded in _KEPT.values()}
        tensors = (tensor for network in kept.values() for tensor in network.state_dict().values())
        return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def forget_networks() -> None:
    """Let go of all networks that no estimator holds, and of what was made ready of the others."""
    with _LOCK:
        for loaded in list(_LOADED):
            with loaded._lock:
                loaded._forget()
        _KEPT.clear()
