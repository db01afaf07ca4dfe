"""Show, limit and empty what this process caches."""

from numbers import Integral
from typing import NamedTuple

from sktransfer._cache._family_store import clear_family
from sktransfer._cache._folders import clear_folders, set_disk_limit
from sktransfer._cache._memory_store import COUNTS, PROCESS_CACHE
from sktransfer.backbones._loaded_network import count_networks, forget_networks


class CacheInfo(NamedTuple):
    """Counts of the cache, as `cache_info` returns them.

    Attributes
    ----------
    hits : int
        Samples whose cached output was used, since the process began or `clear_cache` was called.
    misses : int
        Samples that passed a frozen network from its input, with or without `feature_cache`.
    continued : int
        Samples that passed only the rest of a frozen network, from the cached output of an earlier cut.
    n_activations : int
        Number of outputs of frozen blocks, and of decoded images, that are cached in memory.
    n_bytes : int
        Their size in bytes.
    n_networks : int
        Networks that stay loaded for the next estimator that uses the same one.
    """

    hits: int
    misses: int
    continued: int
    n_activations: int
    n_bytes: int
    n_networks: int


def cache_info() -> CacheInfo:
    """Show what this process has cached, and how often it was used.

    Returns
    -------
    CacheInfo
        Named tuple with `hits`, `misses`, `continued`, `n_activations`, `n_bytes` and `n_networks`.

    Examples
    --------
    >>> import sktransfer
    >>> sktransfer.clear_cache()
    >>> sktransfer.cache_info().n_activations
    0
    """
    counts = COUNTS.hits, COUNTS.misses, COUNTS.continued
    return CacheInfo(*counts, len(PROCESS_CACHE), PROCESS_CACHE.n_bytes, count_networks())


def clear_cache(*, folders: bool = False) -> None:
    """Free the memory that this process uses for caching.

    This removes cached outputs of frozen blocks, networks that no estimator holds, and what they occupy on a GPU, and
    resets the counts. It also empties what the worker processes of one search share in the temporary directory.

    Parameters
    ----------
    folders : bool, default=False
        Whether to also empty the folders that were given as `feature_cache` in this process. A folder that cannot be
        emptied leads to a warning. A folder that was deleted is not created again.
    """
    if folders:
        clear_folders()
    clear_family()
    COUNTS.clear()
    forget_networks()


def set_cache_limit(*, memory: int | None = None, disk: int | None = None) -> None:
    """Set how many bytes the cache may use.

    The least recently used entries are dropped first. Outputs that would not fit as a whole are computed each time.

    Parameters
    ----------
    memory : int or None, default=None
        Limit for `feature_cache="auto"`, in bytes per process, and for what a worker process shares with others in the
        temporary directory. The default limit is 1 GiB. `None` does not change it.
    disk : int or None, default=None
        Limit for a folder, in bytes, not counting a log of a few MiB. The default limit is 10 GiB. `None` does not
        change it.

    Raises
    ------
    ValueError
        If a number is negative or not an integer.
    """
    for name, limit in (("memory", memory), ("disk", disk)):
        if limit is not None and (not isinstance(limit, Integral) or isinstance(limit, bool) or limit < 0):
            raise ValueError(f"Got {name}={limit!r}; expected a number of bytes, as {name}=2 * 2**30 for 2 GiB.")
    if memory is not None:
        PROCESS_CACHE.set_limit(int(memory))
    if disk is not None:
        set_disk_limit(int(disk))
