"""Share activations in one family of processes: a parent, and the workers that it started for a search.

Each keeps them in its memory. Workers keep them in a temporary folder too, which is found by the parent's number and
beginning, so that each other and the parent find them. It goes when the parent ends; where that was killed, the next
that makes such a folder removes it.
"""

import atexit
import hashlib
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sktransfer._cache._memory_store import PROCESS_CACHE, ActivationStore, MemoryStore
from sktransfer._process._living import DEAD, begun, machine, state_of_number
from sktransfer._process._locks import Lock

if TYPE_CHECKING:
    from sktransfer._cache._claims import Claims
    from sktransfer._cache._disk_store import DiskStore

# Seconds after which a folder that nobody used is removed, though its machine was another, or was started anew since.
FORGOTTEN = 7 * 24 * 3600.0

_NAME = "sktransfer-"


class FamilyStore(ActivationStore):
    """The memory of this process, then a folder.

    Parameters
    ----------
    memory : MemoryStore
        What is kept is kept here; its limit holds for the folder too.
    folder : DiskStore
        What is not here may be there.
    keeps : bool
        Whether what is kept goes there too.
    """

    def __init__(self, memory: MemoryStore, folder: "DiskStore", keeps: bool):
        self.memory, self.folder, self.keeps = memory, folder, keeps
        self.largest_stop = (folder if keeps else memory).largest_stop

    @property
    def limit(self) -> int:  # type: ignore[override]
        return self.memory.limit

    def contains(self, keys: Sequence[bytes]) -> list[bool]:
        here = self.memory.contains(keys)
        rest = [key for key, is_here in zip(keys, here, strict=True) if not is_here]
        there = {key for key, is_there in zip(rest, self.folder.contains(rest), strict=True) if is_there}
        return [is_here or key in there for key, is_here in zip(keys, here, strict=True)]

    def get(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        here = self.memory.get(keys)
        rest = [key for key, value in zip(keys, here, strict=True) if value is None]
        if not rest:
            return here
        there = {key: value for key, value in zip(rest, self.folder.get(rest), strict=True) if value is not None}
        self.memory.put(there.items())
        return [there.get(key) if value is None else value for key, value in zip(keys, here, strict=True)]

    def put(self, items: Iterable[tuple[bytes, np.ndarray]], done: Sequence[bytes] = ()) -> None:
        items = list(items)
        self.memory.put(items)
        if self.keeps:
            self.folder.limit = self.limit
            self.folder.put(items, done)

    def claims(self) -> "Claims | None":
        return self.folder.claims() if self.keeps else None

    def clear(self) -> None:
        self.memory.clear()
        self.folder.clear()

    @property
    def n_bytes(self) -> int:
        return self.memory.n_bytes

    def __len__(self) -> int:
        return len(self.memory)


_STORES: dict[tuple[Path, bool], FamilyStore] = {}
_LOCK = Lock()


def process_store() -> ActivationStore:
    """Return where this process keeps activations: its memory, and what its family shares, if that can be.

    Returns
    -------
    ActivationStore
        The memory alone where there is no family, or no temporary folder that is this user's alone.
    """
    parent = parent_process()
    number = os.getpid() if parent is None else parent.pid
    if sys.platform == "win32" or not isinstance(number, int):  # where nothing tells whether a process is there
        return PROCESS_CACHE
    beginning = begun(number)
    if parent is not None and state_of_number(number, beginning) == DEAD:
        return PROCESS_CACHE
    try:
        folder = _folder_of(number, beginning)
        if parent is not None:
            _make(folder)
        if not _is_private(folder):
            return PROCESS_CACHE
    except OSError:
        return PROCESS_CACHE
    with _LOCK:
        key = folder, parent is not None
        if key not in _STORES:
            from sktransfer._cache._disk_store import DiskStore

            disk = DiskStore(folder, PROCESS_CACHE.limit, quiet=True)
            _STORES[key] = FamilyStore(PROCESS_CACHE, disk, keeps=parent is not None)
        return _STORES[key]


def _folder_of(number: int, beginning: str) -> Path:
    return Path(tempfile.gettempdir(), f"{_NAME}{_here()}-{number}-{beginning}")


@cache
def _here() -> str:
    """Return what tells folders of this machine, and of this space of process numbers, from others."""
    return hashlib.blake2b(machine().encode(), digest_size=6).hexdigest()


def _make(folder: Path) -> None:
    """Make a folder for this user alone, unless it is there, and remove those that nobody will use again."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    for other in _abandoned(folder.parent):
        shutil.rmtree(other, ignore_errors=True)


def _is_private(folder: Path) -> bool:
    """Tell whether there is a folder, and no link to one, that this user alone may use."""
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077


def _abandoned(parent: Path) -> Iterator[Path]:
    """Yield folders of this user whose parent process is gone."""
    for folder in parent.glob(f"{_NAME}*-*-*"):
        here, number, beginning = folder.name.removeprefix(_NAME).split("-", 2)
        with suppress(OSError):
            if not _is_private(folder):
                continue
            if here == _here() and number.isdecimal():
                gone = state_of_number(int(number), beginning) == DEAD
            else:
                gone = max(one.stat().st_mtime for one in (folder, *folder.iterdir())) < time.time() - FORGOTTEN
            if gone:
                yield folder


def clear_family() -> None:
    """Empty the memory of this process, and what its family shares."""
    process_store().clear()


def _remove_own() -> None:
    """Remove what the workers of this process have left."""
    with suppress(OSError):
        folder = _folder_of(os.getpid(), begun(os.getpid()))
        if _is_private(folder):
            shutil.rmtree(folder, ignore_errors=True)


if sys.platform != "win32":
    atexit.register(_remove_own)
