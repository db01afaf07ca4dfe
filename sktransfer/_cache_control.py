"""What this process keeps, seen, bounded and emptied."""

from numbers import Integral
from typing import NamedTuple

from sktransfer._cache._family_store import clear_family
from sktransfer._cache._folders import clear_folders, set_disk_limit
from sktransfer._cache._memory_store import COUNTS, PROCESS_CACHE
from sktransfer.backbones._loaded_network import count_networks, forget_networks


class CacheInfo(NamedTuple):
    """What `cache_info` returns.

    Attributes
    ----------
    hits : int
        Samples whose activation was found, since the process began or `clear_cache` was called.
    misses : int
        Samples that were passed through a frozen network from its input, whether `feature_cache` is on or not.
    continued : int
        Samples whose activation was computed from the one that an earlier cut had left.
    n_activations : int
        Activations, and decoded images, that are kept in memory.
    n_bytes : int
        Bytes that these take.
    n_networks : int
        Networks that stay loaded for the next estimator that asks for the same.
    """

    hits: int
    misses: int
    continued: int
    n_activations: int
    n_bytes: int
    n_networks: int


def cache_info() -> CacheInfo:
    """Say what this process keeps and how often that served.

    Returns
    -------
    CacheInfo
        Named tuple: `hits`, `misses`, `continued`, `n_activations`, `n_bytes`, `n_networks`.

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
    """Empty the memory of this process: activations, networks that no estimator holds, what lies on a GPU, counts.

    What worker processes of one search share in the temporary directory is emptied too.

    Parameters
    ----------
    folders : bool, default=False
        Whether to empty the folders too that this process was given as `feature_cache`. Each that cannot be emptied is
        warned of; one that was deleted stays so.
    """
    if folders:
        clear_folders()
    clear_family()
    COUNTS.clear()
    forget_networks()


def set_cache_limit(*, memory: int | None = None, disk: int | None = None) -> None:
    """Set how many bytes of activations are kept; the least recently used leave first.

    Activations that would not fit as a whole are computed each time instead.

    Parameters
    ----------
    memory : int or None, default=None
        Of `feature_cache="auto"`, in each process, and of what a worker process keeps for the others in the temporary
        directory. 1 GiB until it is set; `None` leaves it as it is.
    disk : int or None, default=None
        Of a folder, a log of a few MiB aside. 10 GiB until it is set; `None` leaves it as it is.

    Raises
    ------
    ValueError
        If a number is negative or no integer.
    """
    for name, limit in (("memory", memory), ("disk", disk)):
        if limit is not None and (not isinstance(limit, Integral) or isinstance(limit, bool) or limit < 0):
            raise ValueError(f"Got {name}={limit!r}; expected a number of bytes, as {name}=2 * 2**30 for 2 GiB.")
    if memory is not None:
        PROCESS_CACHE.set_limit(int(memory))
    if disk is not None:
        set_disk_limit(int(disk))
