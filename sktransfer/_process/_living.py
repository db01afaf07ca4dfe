"""Identify this process in words by which another process can tell whether it still runs.

A number alone would not do: it is given to another process once its own has ended. So the words also hold when the
process began, the machine, and the machine's space of process numbers.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

# What is known of a process that another one asks for.
ALIVE, DEAD, UNKNOWN = "alive", "dead", "unknown"


def this_process() -> str:
    """Return what tells this process from any other, on any machine, that runs or ran.

    Returns
    -------
    str
        Words without spaces around them. A forked child has different words from its parent.
    """
    return _words_of(os.getpid())


@cache
def _words_of(number: int) -> str:  # of a process that runs: numbers of forked children are others
    return f"{machine()} {number} {begun(number) or ''}"


def state_of(words: str) -> str:
    """Tell whether a process is there.

    Parameters
    ----------
    words : str
        From its `this_process`.

    Returns
    -------
    str
        `ALIVE`, `DEAD`, or `UNKNOWN`: of another machine, stopped, or of a system that does not tell.
    """
    where, _, rest = words.partition(" ")
    number, _, beginning = rest.partition(" ")
    if where != machine() or not number.isdecimal():
        return UNKNOWN
    return state_of_number(int(number), beginning)


def state_of_number(number: int, beginning: str) -> str:
    """Tell whether a process of this machine is there.

    Parameters
    ----------
    number : int
        As the system counts it.
    beginning : str
        From `begun`; empty where it was not known.

    Returns
    -------
    str
        As `state_of` does.
    """
    ask = _exists()
    if ask is None:
        return UNKNOWN
    if not ask(number):
        return DEAD
    if not beginning:
        return UNKNOWN
    state, began = _looked_up(number)
    if state in ("Z", "X", "x") or (began and began != beginning):  # ended and not yet buried, or another one
        return DEAD
    return UNKNOWN if not began or state in ("T", "t") else ALIVE


def begun(number: int) -> str:
    """Return when a process of this machine began.

    Parameters
    ----------
    number : int
        As the system counts it.

    Returns
    -------
    str
        A number of digits that no later process of the same number has; empty where the system does not tell.
    """
    return _looked_up(number)[1]


def _looked_up(number: int) -> tuple[str, str]:
    """Return the state of a process and when it began, as Linux tells it."""
    with suppress(OSError, IndexError):
        # The name of a program, in brackets, may hold anything.
        told = Path(f"/proc/{number}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return told[0], told[19]
    return "", ""


@cache
def machine() -> str:
    """Return what tells this machine, since it was started, and its space of process numbers, from others.

    Returns
    -------
    str
        One word; the name of the machine where the system tells no more.
    """
    with suppress(OSError):
        started = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{started}:{os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116 (a name that leads nowhere)
    import platform

    return platform.node().replace(" ", "-") or "unnamed"


@cache
def _exists() -> Callable[[int], bool] | None:
    """Return what tells whether a number is that of a process; on Windows the same call would end it."""
    if sys.platform == "win32":
        return None

    def ask(number: int) -> bool:
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return False
        except OSError:  # of another user
            return True
        return True

    return ask
