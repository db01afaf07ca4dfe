"""Cache activations in an SQLite database on disk. Several processes share it, and each may die at any moment.

SQLite was chosen over LMDB, diskcache and plain files by measurement (benchmarks/stores.py): LMDB alone is faster, and
both are many times faster than what they spare. SQLite comes with Python, survives a kill in mid-write, and answers
damage with an error where a memory map would crash. Values are bare bytes with a checksum; nothing is ever unpickled.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from sktransfer._cache._claims import CLAIMS_TABLE, Claims, end_claims
from sktransfer._cache._memory_store import ActivationStore
from sktransfer._cache._shared_database import SharedDatabase
from sktransfer._messages import shown

# Part of the file's name: to be raised when its tables change.
TABLES = 2
_NAME = f"activations-{TABLES}.sqlite"
# Keys in one question.
_KEYS = 500

_TABLES = {
    "entries": """CREATE TABLE IF NOT EXISTS entries (
        id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, used INTEGER NOT NULL, size INTEGER NOT NULL)""",
    "by_use": "CREATE INDEX IF NOT EXISTS by_use ON entries (used)",
    "activations": """CREATE TABLE IF NOT EXISTS activations (
        id INTEGER PRIMARY KEY, shape TEXT NOT NULL, value BLOB NOT NULL, checksum BLOB NOT NULL)""",
    "claims": CLAIMS_TABLE,
}


# Key, shape, content and checksum.
_Row = tuple[bytes, str, bytes, bytes]


class DiskStore(ActivationStore):
    """A store in a folder.

    Parameters
    ----------
    folder : Path
        Made, for its owner alone, where there is none and something is to be kept.
    limit : int
        Bytes that the database may use, a log of a few MiB aside.
    quiet : bool, default=False
        Whether nothing is said where it cannot be used: nobody asked for it.
    """

    largest_stop = 400 * 2**10

    def __init__(self, folder: Path, limit: int, quiet: bool = False):
        self.folder = folder
        self.limit = limit
        self._database = SharedDatabase(folder / _NAME, _TABLES, quiet)

    def contains(self, keys: Sequence[bytes]) -> list[bool]:
        nothing: set[bytes] = set()
        found = self._database.read(lambda db: {key for key, *_ in _select(db, "key", "entries", keys)}, nothing)
        return [key in found for key in keys]

    def get(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        wanted = "key, id, used, shape, value, checksum", "entries LEFT JOIN activations USING (id)"
        nothing: list[tuple[Any, ...]] = []
        rows = self._database.read(lambda db: list(_select(db, *wanted, keys)), nothing)
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
            self._database.warn(
                "damaged", f"{len(damaged)} activations in {shown(self.folder)} were damaged; they are computed again."
            )
            self._database.write_if_free(lambda db: _remove(db, damaged))
        self._touch(stale)
        return [found.get(key) for key in keys]

    def put(self, items: Iterable[tuple[bytes, np.ndarray]], done: Sequence[bytes] = ()) -> None:
        fitting = ((key, *_write(value)) for key, value in items if value.nbytes <= self.limit)
        rows = [(key, shape, content, _checksum(key, shape, content)) for key, shape, content in fitting]
        if rows or done:
            self._database.write(lambda db: self._insert(db, rows, done))

    def claims(self) -> Claims:
        return Claims(self._database)

    def clear(self) -> None:
        self._database.empty()

    def close(self) -> None:
        """Let go of the file until it is needed again."""
        self._database.close()

    @property
    def is_deleted(self) -> bool:
        """Whether somebody deleted the folder, or the file in it, after it was used."""
        return self._database.is_deleted

    @property
    def n_bytes(self) -> int:
        return self._database.read(_used_bytes, 0)

    def __len__(self) -> int:
        return self._database.read(lambda db: int(db.execute("SELECT COUNT(*) FROM entries").fetchone()[0]), 0)

    def _insert(
        self, db: sqlite3.Connection, rows: list[tuple[bytes, str, bytes, bytes]], done: Sequence[bytes]
    ) -> None:
        end_claims(db, done)  # in the same transaction: who finds no claim finds the value
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
            latest = _latest_use(db)
            older = [(latest + 1, number) for number, used in rows if used < latest]
            db.executemany("UPDATE entries SET used = ? WHERE id = ?", older)

        if rows and self.n_bytes > self.limit // 2:
            self._database.write_if_free(update)


def _select(db: sqlite3.Connection, columns: str, tables: str, keys: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(keys), _KEYS):
        some = keys[start : start + _KEYS]
        marks = ",".join("?" * len(some))
        with closing(db.execute(f"SELECT {columns} FROM {tables} WHERE key IN ({marks})", some)) as rows:  # noqa: S608
            yield from rows


def _remove(db: sqlite3.Connection, numbers: list[int]) -> None:
    for table in ("entries", "activations"):
        db.executemany(f"DELETE FROM {table} WHERE id = ?", [(number,) for number in numbers])  # noqa: S608


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
