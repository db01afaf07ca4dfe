"""Memory that a layer frees may be kept for the next layer, instead of handed back to the system and fetched again.

This sets glibc's allocator for the whole process, so it happens only where the environment asks for it.
"""

import ctypes
import os
import sys
from functools import cache

SWITCH = "SKTRANSFER_KEEP_FREED_MEMORY"
_MEANINGS = {None: False, "": False, "0": False, "1": True}

# As glibc names and numbers them; the values are the highest that it goes to by itself.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_VALUES = {_M_MMAP_THRESHOLD: 32 * 2**20, _M_TRIM_THRESHOLD: 64 * 2**20}
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
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    done = [mallopt(option, value) for option, value in _VALUES.items()]
    return all(done)
