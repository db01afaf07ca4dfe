"""Cache activations of frozen networks in memory, by everything that they depend on and nothing else.

The key is made in one place, from the content of the sample, what is done to it, the network's part and its weights,
and the precision: never from a position, so any order, fold, clone or path of the same image hits.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sktransfer._process._locks import Lock
from sktransfer._process._versions import versions

if TYPE_CHECKING:
    from sktransfer._cache._claims import Claims

# Part of every key: to be raised when the way that activations are computed changes.
FORMAT = 3

# Bytes of activations that one process keeps; the least recently used leave first.
MEMORY_LIMIT = 2**30


def activation_keys(samples: Iterable[bytes], recipe: str, part: str, arithmetic: str) -> list[bytes]:
    """Make the keys of activations.

    Parameters
    ----------
    samples : iterable of bytes
        Digest of each sample's content.
    recipe : str
        What is done to a sample before it enters the network, and the versions of the libraries that do it.
    part : str
        Identity of the network's part: operations, layers, weights, and versions of the libraries that they come from.
    arithmetic : str
        Device and precision.

    Returns
    -------
    list of bytes
        32 bytes for each sample; equal where all of these are equal.
    """
    common = hashlib.blake2b(digest_size=32)
    for item in (f"{FORMAT} {versions('torch')}", recipe, part, arithmetic):
        encoded = item.encode()
        common.update(len(encoded).to_bytes(8, "little") + encoded)
    keys = []
    for sample in samples:
        digest = common.copy()
        digest.update(sample)
        keys.append(digest.digest())
    return keys


class ActivationStore(ABC):
    """A bounded store, safe for several threads.

    Attributes
    ----------
    limit : int
        Bytes that it may hold.
    largest_stop : int
        Bytes of what a pass leaves of one sample on its way, at most: more would take long beside what is computed.
    """

    limit: int
    largest_stop = 2**20

    @abstractmethod
    def contains(self, keys: Sequence[bytes]) -> list[bool]:
        """Tell which keys something is kept under."""

    @abstractmethod
    def get(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        """Return what is kept under each key, or `None`."""

    @abstractmethod
    def put(self, items: Iterable[tuple[bytes, np.ndarray]], done: Sequence[bytes] = ()) -> None:
        """Keep copies of activations, let the least recently used go until all fit, and end claims that are done."""

    def claims(self) -> "Claims | None":
        """Return what a pass claims by, or `None` of a store that one process has alone."""
        return None

    @abstractmethod
    def clear(self) -> None:
        """Forget everything."""

    @property
    @abstractmethod
    def n_bytes(self) -> int:
        """Bytes that are kept."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of activations that are kept."""


class MemoryStore(ActivationStore):
    """A store in memory.

    Parameters
    ----------
    limit : int
        Bytes of activations to keep.
    """

    def __init__(self, limit: int = MEMORY_LIMIT):
        self.limit = limit
        self._lock = Lock()
        self._kept: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._n_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def n_bytes(self) -> int:
        return self._n_bytes

    def contains(self, keys: Sequence[bytes]) -> list[bool]:
        with self._lock:
            for key in keys:
                if key in self._kept:
                    self._kept.move_to_end(key)
            return [key in self._kept for key in keys]

    def get(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        with self._lock:
            for key in keys:
                if key in self._kept:
                    self._kept.move_to_end(key)
            return [self._kept.get(key) for key in keys]

    def put(self, items: Iterable[tuple[bytes, np.ndarray]], done: Sequence[bytes] = ()) -> None:
        for key, value in items:
            if value.nbytes > self.limit:
                continue
            value = value.copy(order="K")
            value.flags.writeable = False
            with self._lock:
                old = self._kept.pop(key, None)
                self._n_bytes += value.nbytes - (0 if old is None else old.nbytes)
                self._kept[key] = value
                self._shrink()

    def set_limit(self, limit: int) -> None:
        """Keep no more than so many bytes from now on."""
        with self._lock:
            self.limit = limit
            self._shrink()

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._n_bytes = 0

    def _shrink(self) -> None:
        while self._n_bytes > self.limit:
            _, gone = self._kept.popitem(last=False)
            self._n_bytes -= gone.nbytes


class Counts:
    """Counts of samples that were found, or passed a network, in this process since the last `clear`.

    Attributes
    ----------
    hits : int
        Samples whose activation was found.
    misses : int
        Samples that were passed through a network from its input, whether there is a cache or not.
    continued : int
        Samples whose activation was computed from one that an earlier cut had left.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self.clear()

    def add(self, hits: int = 0, misses: int = 0, continued: int = 0) -> None:
        """Count some more."""
        with self._lock:
            self.hits += hits
            self.misses += misses
            self.continued += continued

    def clear(self) -> None:
        """Start from 0."""
        self.hits = self.misses = self.continued = 0


COUNTS = Counts()

# What `feature_cache="auto"` means: one for the process, whichever clone of whichever estimator asks.
PROCESS_CACHE = MemoryStore()
