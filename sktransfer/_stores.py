"""Which store the parameter `feature_cache` means: one for the process's memory, one for each folder, or none."""

import os
import threading
from pathlib import Path

from sktransfer._activation_cache import PROCESS_CACHE, ActivationStore

# Bytes of activations that one folder holds; the least recently used leave first.
DISK_LIMIT = 10 * 2**30

_FOLDERS: dict[str, ActivationStore] = {}
_FOLDER_LIMIT = [DISK_LIMIT]
_FOLDERS_LOCK = threading.Lock()


def store_for(feature_cache: object) -> ActivationStore | None:
    """Return the store that the parameter `feature_cache` means.

    Parameters
    ----------
    feature_cache : "auto", str, path-like or None
        As the estimators take it: the process's memory, a folder, or none.

    Returns
    -------
    ActivationStore or None
        One for each folder in a process.

    Raises
    ------
    ValueError
        If the path is one of a file.
    """
    if feature_cache is None or feature_cache == "auto":
        return None if feature_cache is None else PROCESS_CACHE
    assert isinstance(feature_cache, str | os.PathLike)
    folder = Path(feature_cache).expanduser().absolute()
    if folder.is_file():  # one look: the folder may come and go
        raise ValueError(
            f'Got feature_cache={os.fspath(feature_cache)!r}, which is a file; expected a folder, "auto" or None. Name '
            "a folder: it is made where there is none."
        )
    from sktransfer._disk_store import DiskStore

    with _FOLDERS_LOCK:
        return _FOLDERS.setdefault(str(folder), DiskStore(folder, _FOLDER_LIMIT[0]))


def clear_folders() -> None:
    """Empty all folders that this process has used."""
    with _FOLDERS_LOCK:
        for store in _FOLDERS.values():
            store.clear()


def set_disk_limit(limit: int) -> None:
    """Let every folder hold no more than so many bytes from now on.

    Parameters
    ----------
    limit : int
        Bytes.
    """
    with _FOLDERS_LOCK:
        _FOLDER_LIMIT[0] = limit
        for store in _FOLDERS.values():
            store.limit = limit
