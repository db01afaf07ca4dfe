"""Activations on disk, in an SQLite database: several processes share it, and a process may die at any moment.

SQLite was chosen over LMDB, diskcache and plain files by measurement (benchmarks/stores.py): LMDB alone is faster, and
both are many times faster than what they spare. SQLite comes with Python, survives a kill in mid-write, and answers
damage with an error where a memory map would crash. Values are bare bytes with a checksum; nothing is ever unpickled.
"""

import hashlib
import os
import sqlite3
import stat
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sktransfer._activation_cache import ActivationStore

T = TypeVar("T")

# Part of the file's name: to be raised when its tables change.
TABLES = 1
_NAME = f"activations-{TABLES}.sqlite"
# Large pages suit large values; a page holds a few vectors of features.
_PAGE = 16384
# Keys in one question.
_KEYS = 500
# Seconds to wait for another process that writes.
_PATIENCE = 60.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used INTEGER NOT NULL, size INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS by_use ON entries (used);
CREATE TABLE IF NOT EXISTS activations (
    id INTEGER PRIMARY KEY, shape TEXT NOT NULL, value BLOB NOT NULL, checksum BLOB NOT NULL);
"""


class DiskStore(ActivationStore):
    """A store in a folder.

    Parameters
    ----------
    folder : Path
        Made, for its owner alone, where there is none.
    limit : int
        Bytes that the database may use, a log of a few MiB aside.
    """

    def __init__(self, folder: Path, limit: int):
        self.folder = folder
        self.limit = limit
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._owner = 0
        self._inode = 0
        self._warned: set[str] = set()

    def holds(self, keys: Sequence[bytes]) -> list[bool]:
        nothing: set[bytes] = set()
        found = self._try(lambda db: {key for key, *_ in _select(db, "key", "entries", keys)}, nothing)
        return [key in found for key in keys]

    def find(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        wanted = "key, id, used, shape, value, checksum", "entries LEFT JOIN activations USING (id)"
        nothing: list[tuple[Any, ...]] = []
        rows = self._try(lambda db: list(_select(db, *wanted, keys)), nothing)
        found: dict[bytes, np.ndarray] = {}
        damaged, stale = [], []
        for key, number, used, shape, value, checksum in rows:
            array = _read(key, shape, value, checksum)
            if array is None:
                damaged.append(number)
            else:
                found[key] = array
                stale.append((number, used))
        if damaged:
            self._warn(
                "damaged",
                f"{len(damaged)} activations in {str(self.folder)!r} were damaged; they are computed again.",
            )
            self._try(lambda db: _delete(db, damaged), None)
        self._touch(stale)
        return [found.get(key) for key in keys]

    def keep(self, items: Iterable[tuple[bytes, np.ndarray]]) -> None:
        fitting = ((key, *_write(value)) for key, value in items if value.nbytes <= self.limit)
        rows = [(key, shape, content, _checksum(key, shape, content)) for key, shape, content in fitting]
        self._try(lambda db: self._insert(db, rows), None)

    def clear(self) -> None:
        self._try(_delete_all, None)

    @property
    def n_bytes(self) -> int:
        return self._try(_used_bytes, 0)

    def __len__(self) -> int:
        return self._try(lambda db: int(db.execute("SELECT COUNT(*) FROM entries").fetchone()[0]), 0)

    def _insert(self, db: sqlite3.Connection, rows: list[tuple[bytes, str, bytes, bytes]]) -> None:
        with _transaction(db):
            used = _latest_use(db) + 1
            for key, shape, value, checksum in rows:
                new = db.execute(
                    "INSERT INTO entries (key, used, size) VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING",
                    (key, used, len(value)),
                )
                if new.rowcount:
                    db.execute("INSERT INTO activations VALUES (?, ?, ?, ?)", (new.lastrowid, shape, value, checksum))
            self._evict(db)

    def _evict(self, db: sqlite3.Connection) -> None:
        """Let the least recently used go until the rest fits."""
        excess = _used_bytes(db) - self.limit
        if excess <= 0:
            return
        gone = []
        for number, size in db.execute("SELECT id, size FROM entries ORDER BY used, id"):
            gone.append(number)
            excess -= size
            if excess <= 0:
                break
        _remove(db, gone)

    def _touch(self, rows: list[tuple[int, int]]) -> None:
        """Remember what was used last, once the order in which entries will leave comes to matter."""

        def update(db: sqlite3.Connection) -> None:
            if rows and _used_bytes(db) > self.limit // 2:
                with _transaction(db):
                    latest = _latest_use(db)
                    older = [(latest + 1, number) for number, used in rows if used < latest]
                    db.executemany("UPDATE entries SET used = ? WHERE id = ?", older)

        self._try(update, None)

    # Faults: a cache that cannot be read or written costs time, never a result

    def _try(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Do something with the database; where it cannot be done, say so once and go on without."""
        with self._lock:
            for _ in range(2):
                try:
                    return work(self._connect())
                except sqlite3.OperationalError as error:  # locked for long, full disk, folder gone or read-only
                    reason: Exception = error
                except sqlite3.DatabaseError as error:
                    reason = error
                    self._set_aside()
                except OSError as error:
                    reason = error
                self._disconnect()
            self._warn(
                type(reason).__name__,
                f"The activation cache in {str(self.folder)!r} could not be used ({reason}); activations are computed "
                "instead. Check the folder's permissions and the space on its disk, or set feature_cache to another "
                "folder.",
            )
            return otherwise

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None and self._owner == os.getpid() and self._is_there():
            return self._connection
        if self._owner == os.getpid():
            self._disconnect()
        # A connection that came through a fork is its parent's: it is left alone.
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / _NAME
        for place in (self.folder, path):
            _refuse_others(place)
        db = sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False)
        db.text_factory = lambda raw: raw.decode(errors="replace")  # damage is for the checksum to find
        try:
            for pragma in (f"page_size = {_PAGE}", "journal_mode = WAL", "synchronous = NORMAL"):
                db.execute(f"PRAGMA {pragma}")
            db.execute(f"PRAGMA journal_size_limit = {1024 * _PAGE}")
            with _transaction(db):
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
            self._inode = path.stat().st_ino
        except BaseException:
            db.close()
            raise
        self._connection, self._owner = db, os.getpid()
        return db

    def _is_there(self) -> bool:
        """Whether the file that the connection reads is still the one under its name."""
        with suppress(OSError):
            return (self.folder / _NAME).stat().st_ino == self._inode
        return False

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _set_aside(self) -> None:
        """Put a damaged database out of the way, unless another process has done so."""
        there = self._connection is None or self._is_there()
        self._disconnect()
        if there:
            for name in (_NAME, f"{_NAME}-wal", f"{_NAME}-shm"):
                with suppress(OSError):
                    (self.folder / name).unlink()
            self._warn("database", f"The activation cache in {str(self.folder)!r} was damaged and is started anew.")

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(message, UserWarning, stacklevel=2)


def _refuse_others(place: Path) -> None:
    """Raise if another user may write there: what is read would be whatever they please."""
    if not hasattr(os, "geteuid") or not place.exists():
        return
    found = place.stat()
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(
            f"other users may write to {str(place)!r}: mode {stat.filemode(found.st_mode)}, owner {found.st_uid}; "
            "expected one of yours that nobody else may write, as after chmod go-w"
        )


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _select(db: sqlite3.Connection, columns: str, tables: str, keys: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(keys), _KEYS):
        some = keys[start : start + _KEYS]
        marks = ",".join("?" * len(some))
        with closing(db.execute(f"SELECT {columns} FROM {tables} WHERE key IN ({marks})", some)) as rows:  # noqa: S608
            yield from rows


def _delete(db: sqlite3.Connection, numbers: list[int]) -> None:
    with _transaction(db):
        _remove(db, numbers)


def _remove(db: sqlite3.Connection, numbers: list[int]) -> None:
    for table in ("entries", "activations"):
        db.executemany(f"DELETE FROM {table} WHERE id = ?", [(number,) for number in numbers])  # noqa: S608


def _delete_all(db: sqlite3.Connection) -> None:
    with _transaction(db):
        db.execute("DELETE FROM entries")
        db.execute("DELETE FROM activations")
    db.execute("VACUUM")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _latest_use(db: sqlite3.Connection) -> int:
    """Return the number of the latest use: uses are counted, not timed, since clocks may jump."""
    return int(db.execute("SELECT COALESCE(MAX(used), 0) FROM entries").fetchone()[0])


def _used_bytes(db: sqlite3.Connection) -> int:
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _write(value: np.ndarray) -> tuple[str, bytes]:
    return ",".join(map(str, value.shape)), value.astype("<f4").tobytes()


def _read(key: bytes, shape: Any, value: Any, checksum: Any) -> np.ndarray | None:
    """Return the array, or `None` where its bytes are not those that were written."""
    if not (isinstance(shape, str) and isinstance(value, bytes)) or _checksum(key, shape, value) != checksum:
        return None
    try:
        return np.frombuffer(value, "<f4").reshape([int(side) for side in shape.split(",")])
    except ValueError:
        return None


def _checksum(key: bytes, shape: str, value: bytes) -> bytes:
    digest = hashlib.blake2b(value, digest_size=16, key=key)
    digest.update(shape.encode())
    return digest.digest()
