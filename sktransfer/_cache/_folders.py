"""Choose the store for the parameter `feature_cache`: one for the process, one per folder, or none."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from sktransfer._cache._family_store import process_store
from sktransfer._cache._memory_store import ActivationStore
from sktransfer._messages import shown
from sktransfer._process._locks import Lock

if TYPE_CHECKING:
    from sktransfer._cache._disk_store import DiskStore

# Bytes of activations that one folder holds; the least recently used leave first.
DISK_LIMIT = 10 * 2**30

_FOLDERS: "dict[str, DiskStore]" = {}
_FOLDER_LIMIT = [DISK_LIMIT]
_FOLDERS_LOCK = Lock()


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
        If the path is one of a file, or begins with the home of a user that is not known.
    """
    _forget_deleted()
    if feature_cache is None or feature_cache == "auto":
        return None if feature_cache is None else process_store()
    assert isinstance(feature_cache, str | os.PathLike)
    folder = _folder(feature_cache)
    from sktransfer._cache._disk_store import DiskStore

    with _FOLDERS_LOCK:
        if str(folder) not in _FOLDERS:
            _FOLDERS[str(folder)] = DiskStore(folder, _FOLDER_LIMIT[0])
        return _FOLDERS[str(folder)]


def _folder(feature_cache: str | os.PathLike[str]) -> Path:
    named = f"Got feature_cache={shown(Path(feature_cache))}"
    try:
        folder = Path(feature_cache).expanduser().absolute()
    except RuntimeError as error:  # ~ of a user that the system does not know
        raise ValueError(f"{named}, whose home folder is not known; expected a folder. Give its full path.") from error
    if folder.is_file():  # one look: the folder may come and go
        raise ValueError(
            f'{named}, which is a file; expected a folder, "auto" or None. Give a folder. It is created if it does not '
            "exist."
        )
    return folder


def _forget_deleted() -> None:
    """Let go of folders that somebody has deleted, and so of the space on the disk that open files still take."""
    with _FOLDERS_LOCK:
        deleted = [folder for folder, store in _FOLDERS.items() if store.is_deleted]
        stores = [_FOLDERS.pop(folder) for folder in deleted]
    for store in stores:
        store.close()


def clear_folders() -> None:
    """Empty all folders that this process has used and that are still there."""
    _forget_deleted()
    with _FOLDERS_LOCK:
        stores = list(_FOLDERS.values())
    for store in stores:  # a folder may have to be waited for, and who uses others must not wait with it
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
