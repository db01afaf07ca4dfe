"""Share work: processes that use one store claim a few samples each, so that none is computed twice.

A claim ends with what it was made for, with its pass, or with its process. Nobody waits for one while holding others,
so no two wait for each other; and what shows no progress for some time is no longer waited for.
"""

import itertools
import os
import sqlite3
import time
from collections.abc import Sequence
from typing import NamedTuple

from sktransfer._cache._shared_database import SharedDatabase
from sktransfer._process._living import ALIVE, DEAD, state_of, this_process

CLAIMS_TABLE = """CREATE TABLE IF NOT EXISTS claims (
    name BLOB PRIMARY KEY, owner TEXT NOT NULL, turn INTEGER NOT NULL) WITHOUT ROWID"""

# Seconds without progress after which nobody waits for a claim any longer: for a process that is known to be alive,
# which may have a slow network and a busy machine, and for a process that may be gone.
PATIENCE_WITH_LIVING = 60.0
PATIENCE_WITH_UNKNOWN = 10.0
# Seconds between two looks whether what is waited for has come.
SHORTEST_PAUSE, LONGEST_PAUSE = 0.002, 0.05
# Names in one question.
_NAMES = 500

_passes = itertools.count()


class Taken(NamedTuple):
    """Result of an attempt to claim.

    Attributes
    ----------
    mine : list of int
        Places, among the names, of those that nobody else computes.
    others : list of int
        Places of those that another process does.
    changed : bool
        Whether another process may have kept something since the attempt before.
    """

    mine: list[int]
    others: list[int]
    changed: bool


class Claims:
    """Claims of one pass in a database.

    Threads of one process do not wait for each other, since one might hold what the other needs to go on: what another
    pass of the same process has claimed is computed by both.

    Parameters
    ----------
    database : SharedDatabase
        With the table `CLAIMS_TABLE`.
    """

    def __init__(self, database: SharedDatabase):
        self._database = database
        self._process, self._number = this_process(), os.getpid()
        self._owner = f"{self._process} {next(_passes)}"
        self._turn = 0
        self._claimed = False
        self._impossible = False
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}
        self._version = database.read(self._version_of, None)

    def take(self, names: Sequence[bytes], at_most: int | None = None) -> Taken:
        """Claim what nobody else has claimed.

        Parameters
        ----------
        names : sequence of bytes
            Of what is to be computed.
        at_most : int or None, default=None
            How many to claim.

        Returns
        -------
        Taken
            Where the database cannot be written to, or a pass has given up claiming, all is this pass's.
        """
        everything = Taken(list(range(len(names))), [], True)
        if self._impossible or not names:
            return everything
        nobody: dict[bytes, str] = {}
        held = self._database.read(lambda db: self._others(db, names), nobody)
        if len(held) == len(names):  # most often so while something is waited for: nothing is to be written
            return Taken([], list(range(len(names))), True)
        self._turn, self._claimed = self._turn + 1, True
        taken = self._database.write(lambda db: self._take(db, names, at_most))
        if taken is None:
            self._impossible = True
            return everything
        return taken

    def wait(self, names: Sequence[bytes], at_most: int) -> Taken:
        """Wait until something that others computed is there, or theirs no more, and claim it.

        Parameters
        ----------
        names : sequence of bytes
            At least one.
        at_most : int
            How many to claim.

        Returns
        -------
        Taken
            At least one is this pass's.
        """
        pause = SHORTEST_PAUSE
        while not (taken := self.take(names, at_most)).mine:
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        return taken

    def let_go(self, names: Sequence[bytes]) -> None:
        """Give up claims: what they were made for is not kept, or was there already."""
        if names and self._claimed:
            self._database.write(lambda db: end_claims(db, names))

    def give_up(self) -> None:
        """Claim nothing any more, and give up what is claimed."""
        self._impossible = True
        self.close()

    def close(self) -> None:
        """Give up what is still claimed."""
        if not self._claimed or os.getpid() != self._number:  # a forked child leaves its parent's alone
            return
        self._claimed = False
        if self._database.read(self._has_claims, False):
            self._database.write(lambda db: db.execute("DELETE FROM claims WHERE owner = ?", (self._owner,)).rowcount)

    def _has_claims(self, db: sqlite3.Connection) -> bool:
        return db.execute("SELECT 1 FROM claims WHERE owner = ?", (self._owner,)).fetchone() is not None

    def _take(self, db: sqlite3.Connection, names: Sequence[bytes], at_most: int | None) -> Taken:
        held = self._others(db, names)
        mine = [place for place, name in enumerate(names) if name not in held][:at_most]
        others = [place for place, name in enumerate(names) if name in held]
        rows = [(names[place], self._owner, self._turn) for place in mine]
        db.executemany("INSERT OR REPLACE INTO claims VALUES (?, ?, ?)", rows)
        before, self._version = self._version, self._version_of(db)
        return Taken(mine, others, before != self._version)

    def _others(self, db: sqlite3.Connection, names: Sequence[bytes]) -> dict[bytes, str]:
        """Return which names living processes have claimed, and their owners."""
        held: dict[bytes, str] = {}
        for start in range(0, len(names), _NAMES):
            some = names[start : start + _NAMES]
            marks = ",".join("?" * len(some))
            held |= db.execute(f"SELECT name, owner FROM claims WHERE name IN ({marks})", some).fetchall()  # noqa: S608
        here = f"{self._process} "
        held = {name: owner for name, owner in held.items() if not owner.startswith(here)}
        waited_for = {owner for owner in set(held.values()) if self._is_waited_for(db, owner)}
        return {name: owner for name, owner in held.items() if owner in waited_for}

    def _is_waited_for(self, db: sqlite3.Connection, owner: str) -> bool:
        """Tell whether a pass of another process may still be at work on what it has claimed."""
        state = state_of(owner.rpartition(" ")[0])
        if state == DEAD:
            return False
        # Claims that come and go show that it goes on.
        progress = db.execute("SELECT COUNT(*), MAX(turn) FROM claims WHERE owner = ?", (owner,)).fetchone()
        now = time.monotonic()
        before, since = self._seen.get(owner, (None, now))
        if progress != before:
            self._seen[owner] = progress, now
            return True
        return now - since < (PATIENCE_WITH_LIVING if state == ALIVE else PATIENCE_WITH_UNKNOWN)

    @staticmethod
    def _version_of(db: sqlite3.Connection) -> tuple[int, int] | None:
        """Return what changes when another process, or another connection, has written."""
        return id(db), db.execute("PRAGMA data_version").fetchone()[0]


def end_claims(db: sqlite3.Connection, names: Sequence[bytes]) -> None:
    """End claims, in a transaction that is open.

    Parameters
    ----------
    db : sqlite3.Connection
        The database.
    names : sequence of bytes
        Of what was computed.
    """
    db.executemany("DELETE FROM claims WHERE name = ?", [(name,) for name in names])
