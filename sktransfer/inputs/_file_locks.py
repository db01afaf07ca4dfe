"""Let one thread at a time read a file handle, because reading moves it."""

from collections.abc import Iterator
from contextlib import contextmanager

from sktransfer._process._locks import Lock

# More than threads that decode: what happens to share a lock waits for each other without need.
N_LOCKS = 256

_OF_FILES = [Lock() for _ in range(N_LOCKS)]


def lock_number(thing: object) -> int:
    """Return which of `N_LOCKS` locks is that of an object, while it lives.

    Parameters
    ----------
    thing : object
        Anything.

    Returns
    -------
    int
        Its number.
    """
    return (id(thing) >> 4) % N_LOCKS


@contextmanager
def alone_with_file(file: object) -> Iterator[None]:
    """Keep other threads of this package from a file handle; the wait ends when the one that reads it is done.

    Parameters
    ----------
    file : file object
        Opened by somebody else.
    """
    with _OF_FILES[lock_number(file)]:
        yield
