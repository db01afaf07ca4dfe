"""Keep the memory that a layer frees for the next layer, instead of returning it to the system.

This sets glibc's allocator for the whole process, so it happens only where the environment asks for it; and in workers
of Dask, which makes glibc hand back all that it can, as long as a pass runs.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from sktransfer._process._locks import Lock

SWITCH = "SKTRANSFER_KEEP_FREED_MEMORY"
_MEANINGS = {None: False, "": False, "0": False, "1": True}

# As glibc names and numbers them; the values are the highest that it goes to by itself.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_VALUES = {_M_MMAP_THRESHOLD: 32 * 2**20, _M_TRIM_THRESHOLD: 64 * 2**20}
# What Dask gives its workers, and what glibc then takes for the other.
_OF_DASK = {_M_MMAP_THRESHOLD: 128 * 2**10, _M_TRIM_THRESHOLD: 65536}
_SET_BY_USER = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


@cache
def keep_freed_blocks() -> bool:
    """Let glibc keep free blocks of up to 32 MiB, and up to 64 MiB of them per thread, where the user asks for it.

    The environment variable `SKTRANSFER_KEEP_FREED_MEMORY` is read when the first network is run. It holds from then on
    in this process.

    Returns
    -------
    bool
        Whether that was done: not where there is no glibc, nor where its own environment variables are set.

    Raises
    ------
    ValueError
        If the variable is neither "0" nor "1".
    """
    given = os.environ.get(SWITCH)
    if given not in _MEANINGS:
        raise ValueError(f'Got {SWITCH}={given!r} in the environment; expected "1" (keep freed memory) or "0".')
    if not _MEANINGS[given] or sys.platform != "linux" or any(name in os.environ for name in _SET_BY_USER):
        return False
    library = _glibc()
    return library is not None and _set(library, _VALUES)


def _glibc() -> Any:
    """Return the C library, or `None` where it is another one."""
    try:
        library = ctypes.CDLL(None)
        return library if library.mallopt and library.malloc_trim else None
    except (OSError, AttributeError):
        return None


def _set(library: Any, values: dict[int, int]) -> bool:
    done = [library.mallopt(option, value) for option, value in values.items()]
    return all(done)


class _Passes:
    """Passes that run in this process, whatever their threads."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.n = 0


_PASSES = _Passes()


@contextmanager
def kept_between_layers() -> Iterator[None]:
    """In a worker of Dask, keep freed blocks for the next layer as long as this lasts, and hand them back after it.

    Dask starts its workers with `MALLOC_TRIM_THRESHOLD_=65536`, so that memory of tasks that have ended does not stay
    with them. With it glibc fetches the memory of each layer anew, which takes a quarter of a pass. What Dask wants
    holds again when the last pass ends. Elsewhere, and where other variables of glibc are set, this does nothing.
    """
    library = _glibc() if _is_worker_of_dask() else None
    if library is None:
        yield
        return
    with _PASSES.lock:
        _PASSES.n += 1
        if _PASSES.n == 1:
            _set(library, _VALUES)
    try:
        yield
    finally:
        with _PASSES.lock:
            _PASSES.n -= 1
            if _PASSES.n == 0:
                _set(library, _OF_DASK)
                library.malloc_trim(0)


def _is_worker_of_dask() -> bool:
    names = [name for name in _SET_BY_USER if name in os.environ]
    as_dask = str(_OF_DASK[_M_TRIM_THRESHOLD])
    return (
        sys.platform == "linux"
        and names == ["MALLOC_TRIM_THRESHOLD_"]
        and os.environ["MALLOC_TRIM_THRESHOLD_"] == as_dask
        and "distributed.worker" in sys.modules
    )
