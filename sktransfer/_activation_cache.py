"""Activations of frozen networks, kept by what they are a function of and by nothing else.

The key is made in one place, from the content of the sample, what is done to it, the network's part and its weights,
and the precision: never from a position, so any order, fold, clone or path of the same image hits.
"""

import hashlib
import threading
from collections import OrderedDict

import numpy as np

# Part of every key: to be raised when the way that activations are computed changes.
FORMAT = 1

# Bytes of activations that one process keeps; the least recently used leave first.
LIMIT = 512 * 2**20


def activation_key(sample: bytes, recipe: str, part: str, arithmetic: str) -> bytes:
    """Make the key of one activation.

    Parameters
    ----------
    sample : bytes
        Digest of the sample's content.
    recipe : str
        What is done to a sample before it enters the network.
    part : str
        Identity of the network's part: operations, layers and weights.
    arithmetic : str
        Device and precision.

    Returns
    -------
    bytes
        32 bytes; equal where all of these are equal.
    """
    digest = hashlib.blake2b(digest_size=32)
    for item in (str(FORMAT).encode(), sample, recipe.encode(), part.encode(), arithmetic.encode()):
        digest.update(len(item).to_bytes(8, "little"))
        digest.update(item)
    return digest.digest()


class ActivationCache:
    """A bounded store in memory, safe for several threads.

    Parameters
    ----------
    limit : int
        Bytes of activations to keep.

    Attributes
    ----------
    n_hits, n_misses : int
        How often an activation was found, or not, since the last `clear`.
    n_bytes : int
        Bytes that are kept.
    """

    def __init__(self, limit: int = LIMIT):
        self.limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self.n_hits = self.n_misses = self.n_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, keys: list[bytes]) -> list[np.ndarray | None]:
        """Return what is kept under each key, or `None`."""
        with self._lock:
            found = [self._kept.get(key) for key in keys]
            for key, value in zip(keys, found, strict=True):
                if value is not None:
                    self._kept.move_to_end(key)
            self.n_hits += sum(value is not None for value in found)
            self.n_misses += sum(value is None for value in found)
        return found

    def keep(self, key: bytes, value: np.ndarray) -> None:
        """Keep a copy of an activation, and let the least recently used go until all fit."""
        if value.nbytes > self.limit:
            return
        value = value.copy()
        value.flags.writeable = False
        with self._lock:
            old = self._kept.pop(key, None)
            self.n_bytes += value.nbytes - (0 if old is None else old.nbytes)
            self._kept[key] = value
            while self.n_bytes > self.limit:
                _, gone = self._kept.popitem(last=False)
                self.n_bytes -= gone.nbytes

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self.n_hits = self.n_misses = self.n_bytes = 0


# What `feature_cache="auto"` means: one for the process, whichever clone of whichever estimator asks.
PROCESS_CACHE = ActivationCache()
