"""One SQLite file in a folder, shared by threads and processes. Each may be stopped or killed at any moment.

Nobody waits in here without an end. Reading needs no lock that a writer holds; whoever is kept from writing waits for a
few seconds, and after one wait in vain only tries, until a try succeeds. Few databases are open at once.
"""

import os
import sqlite3
import stat
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

from sktransfer._messages import shortened, shown

T = TypeVar("T")

# Seconds to wait for another process that is in the way: while its files stay as they are, and while they change.
PATIENCE = 5.0
LONGEST = 30.0
# Databases that are open at once; each takes three handles.
OPEN_AT_ONCE = 16
# Large pages suit large values; a page holds a few vectors of features.
PAGE = 16384
# Pages of the log that are not in the database yet: more come together only where somebody reads and does not go on.
_LOG_PAGES = 4096

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_UNWRITABLE = {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
# What could not be done, and what follows.
_FAILED = {
    "read": ("read", "Activations are computed instead"),
    "write": ("written to", "New results are not cached"),
    "empty": ("emptied", "Its content stays there"),
}


class BusyError(sqlite3.OperationalError):
    """Another process is in the way."""


class SharedDatabase:
    """A database that is opened when it is needed.

    Parameters
    ----------
    path : Path
        Its file. It is made by the first write, and its folder too, for their owner alone.
    tables : dict of str to str
        The statement that makes each table or index, by name.
    quiet : bool, default=False
        Whether no fault is warned of.
    """

    def __init__(self, path: Path, tables: dict[str, str], quiet: bool = False):
        self.path = path.absolute()
        self.folder = self.path.parent
        self._tables, self._quiet = tables, quiet
        self._lock = threading.RLock()  # held while something is done, and never while another process is waited for
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        self._stuck: set[str] = set()
        self._warned: set[str] = set()
        with _OPEN_LOCK:
            _ALL.add(self)

    @property
    def is_deleted(self) -> bool:
        """Whether the file was there and is no more."""
        return self._inode != 0 and not self._is_there()

    def read(self, work: Callable[[sqlite3.Connection], T], otherwise: T) -> T:
        """Return what reading gives, or something else where there is nothing or it cannot be read."""
        return self._do("read", work, otherwise)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """Write in one transaction and return what the work gives, or `None` where that failed.

        The file is made where there is none.
        """
        nothing: T | None = None
        return self._do("write", lambda db: self._write(db, work), nothing, make=True)

    def write_if_free(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Write what matters little in one transaction, unless another process is in the way."""
        self._do("write", lambda db: self._write(db, work), None, patient=False)

    def empty(self) -> None:
        """Delete all rows and give their space back; where there is no file, none is made."""
        self._do("empty", self._empty, None)

    def close(self) -> None:
        """Close the file, unless another thread is using it."""
        if self._lock.acquire(blocking=False):
            try:
                self._disconnect()
            finally:
                self._lock.release()

    def warn(self, kind: str, message: str) -> None:
        """Warn, once for each kind of fault."""
        if kind not in self._warned and not self._quiet:
            if "empty" not in kind:  # which a person asks for each time
                self._warned.add(kind)
            warnings.warn(message, UserWarning, stacklevel=2)

    # What is done with an open file

    def _write(self, db: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        self._mind_the_log(db)
        with _transaction(db):
            return work(db)

    def _empty(self, db: sqlite3.Connection) -> None:
        with _transaction(db):
            for name, statement in self._tables.items():
                if "TABLE" in statement:
                    db.execute(f"DELETE FROM {name}")  # noqa: S608
        db.execute("VACUUM")
        if db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise BusyError("its log cannot be emptied")

    def _mind_the_log(self, db: sqlite3.Connection) -> None:
        """Write no more into a log that cannot be emptied, because a process that reads it was stopped."""
        try:
            if self._beside("-wal").stat().st_size < _LOG_PAGES * PAGE:
                return
        except OSError:
            return
        busy, pages, copied = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if busy or pages - copied > _LOG_PAGES:
            raise BusyError("its log cannot be emptied")

    # Faults: a cache that cannot be read or written costs time, never a result

    def _do(
        self,
        use: str,
        work: Callable[[sqlite3.Connection], T],
        otherwise: T,
        *,
        make: bool = False,
        patient: bool = True,
    ) -> T:
        """Do something; where that is impossible, say so once and go on without."""
        waiting = _Waiting((self.path, self._beside("-wal")))
        again = True
        while True:
            with self._lock:
                try:
                    db = self._connect(make)
                    result = otherwise if db is None else work(db)
                    self._stuck.discard(use)
                    return result
                except sqlite3.OperationalError as error:  # another process, a full disk, folder gone or read-only
                    reason: Exception = error
                    if not _is_busy(error):
                        self._disconnect()
                except sqlite3.DatabaseError as error:
                    reason = error
                    self._set_aside()
                except OSError as error:
                    reason = error
                    self._disconnect()
            if _is_busy(reason):
                if patient and use not in self._stuck and waiting.go_on():
                    continue
                if patient:
                    self._give_up(use)
                return otherwise
            if not again:
                if patient:
                    self._say_unusable(use, reason)
                return otherwise
            again = False

    def _give_up(self, use: str) -> None:
        """Wait no more, until a try succeeds; what a person asked for is waited for each time."""
        if use != "empty":
            self._stuck |= {"read", "write"} if use == "read" else {use}
        failed, follows = _FAILED[use]
        self.warn(
            f"stuck {use}",
            f"The activation cache in {shown(self.folder)} could not be {failed}: another process holds it and did not "
            f"let go within {PATIENCE:.0f} s. {follows}, until it lets go; nothing waits for it again. If that process "
            "was stopped or hangs, continue or end it (`fuser` tells who uses a file), or set feature_cache to another "
            "folder.",
        )

    def _say_unusable(self, use: str, reason: Exception) -> None:
        kind = type(reason).__name__
        failed, follows = _FAILED["empty"] if use == "empty" else ("used", _FAILED["read"][1])
        self.warn(
            f"empty {kind}" if use == "empty" else kind,
            f"The activation cache in {shown(self.folder)} could not be {failed} ({shortened(str(reason))}). "
            f"{follows}. Check the folder's permissions and the space on its disk, or set feature_cache to another "
            "folder.",
        )

    # Opening and closing

    def _connect(self, make: bool) -> sqlite3.Connection | None:
        """Return the connection, or `None` where there is nothing to read."""
        if self._connection is None or not self._is_there():
            self._disconnect()
            self._connection = self._open(make)
            if self._connection is None:
                return None
            self._inode = self.path.stat().st_ino
        _note_use(self)
        return self._connection

    def _open(self, make: bool) -> sqlite3.Connection | None:
        if make:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not self.path.exists():
            return None
        for place in (self.folder, self.path):
            _refuse_others(place)
        try:
            return self._open_as("rwc" if make else "rw", make)
        except sqlite3.OperationalError as error:
            whole = self.path.exists() and not self._beside("-wal").exists()
            if _code(error) not in _UNWRITABLE or not whole or os.access(self.folder, os.W_OK):
                raise
            # Of a folder that is read-only nobody here writes a log or takes a lock, which reading would need.
            return self._open_as("ro&immutable=1", make=False)

    def _open_as(self, mode: str, make: bool) -> sqlite3.Connection | None:
        # SQLite itself does not wait: it would do so with this process's lock in hand.
        db = sqlite3.connect(
            f"{self.path.as_uri()}?mode={mode}", timeout=0, isolation_level=None, check_same_thread=False, uri=True
        )
        db.text_factory = lambda raw: raw.decode(errors="replace")  # damage is for the checksum to find
        try:
            marks = ",".join("?" * len(self._tables))
            there = f"SELECT COUNT(*) FROM sqlite_master WHERE name IN ({marks})"  # noqa: S608
            if db.execute(there, list(self._tables)).fetchone()[0] < len(self._tables):
                if not make:
                    db.close()
                    return None
                for pragma in (f"page_size = {PAGE}", "journal_mode = WAL"):
                    db.execute(f"PRAGMA {pragma}")
                with _transaction(db):
                    for statement in self._tables.values():
                        db.execute(statement)
            for pragma in ("synchronous = NORMAL", f"journal_size_limit = {1024 * PAGE}"):
                db.execute(f"PRAGMA {pragma}")
        except BaseException:
            db.close()
            raise
        return db

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(self.path.name + ending)

    def _is_there(self) -> bool:
        """Whether the file that was opened is still the one under its name."""
        with suppress(OSError):
            return self.path.stat().st_ino == self._inode
        return False

    def _disconnect(self) -> None:
        if self._connection is not None:
            _note_closed(self)
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _set_aside(self) -> None:
        """Put a damaged file out of the way, unless another process has done so."""
        there = self._connection is None or self._is_there()
        self._disconnect()
        if there:
            # The file itself last: whoever makes it anew must not lose the log to this.
            for place in (self._beside("-wal"), self._beside("-shm"), self.path):
                with suppress(OSError):
                    place.unlink()
            self.warn("database", f"The activation cache in {shown(self.folder)} was damaged and is started anew.")


class _Waiting:
    """Waits for another process as long as that goes on, and no longer.

    Parameters
    ----------
    files : tuple of Path
        What changes while others write.
    """

    def __init__(self, files: tuple[Path, ...]):
        self._files = files
        self._began = self._changed = time.monotonic()
        self._seen = self._look()
        self._pause = 0.001

    def go_on(self) -> bool:
        """Sleep for a moment and return True, or return False at once when it was long enough."""
        now, seen = time.monotonic(), self._look()
        if seen != self._seen:
            self._seen, self._changed = seen, now
        if now - self._changed >= PATIENCE or now - self._began >= LONGEST:
            return False
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, 0.05)
        return True

    def _look(self) -> list[tuple[int, int]]:
        seen = []
        for file in self._files:
            with suppress(OSError):
                found = file.stat()
                seen.append((found.st_size, found.st_mtime_ns))
        return seen


def _code(error: BaseException) -> int:
    """Return SQLite's number of an error, without its details."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, BusyError) or _code(error) in _BUSY


def _refuse_others(place: Path) -> None:
    """Raise if another user may write there: what is read would be whatever they please."""
    if not hasattr(os, "geteuid") or not place.exists():
        return
    found = place.stat()
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(
            f"other users may write to {shown(place)}: mode {stat.filemode(found.st_mode)}, owner {found.st_uid}; "
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


# All databases of this process, and those that are open, the least recently used first

_ALL: WeakSet[SharedDatabase] = WeakSet()
_OPEN: OrderedDict[SharedDatabase, None] = OrderedDict()
_OPEN_LOCK = threading.Lock()


def _note_use(database: SharedDatabase) -> None:
    """Put a database last in the row, and close the first of too many; those that are in use stay open."""
    with _OPEN_LOCK:
        _OPEN[database] = None
        _OPEN.move_to_end(database)
        too_many = list(_OPEN)[:-OPEN_AT_ONCE]
    for other in too_many:
        other.close()


def _note_closed(database: SharedDatabase) -> None:
    with _OPEN_LOCK:
        _OPEN.pop(database, None)


# A child of a fork has its parent's connections, which it must neither use nor close, and its parent's locks, which
# nobody there would release: so nobody holds them while the process forks.

_PARENTS: list[sqlite3.Connection] = []
_FORKING = threading.Lock()
_held: list[SharedDatabase] = []


def _before_fork() -> None:
    _FORKING.acquire()
    with _OPEN_LOCK:
        _held.extend(_ALL)
    for database in _held:
        database._lock.acquire()
    _OPEN_LOCK.acquire()


def _after_fork() -> None:
    _OPEN_LOCK.release()
    while _held:
        _held.pop()._lock.release()
    _FORKING.release()


def _after_fork_in_child() -> None:
    for database in _OPEN:
        if database._connection is not None:
            _PARENTS.append(database._connection)
            database._connection = None
    _OPEN.clear()
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
