"""One thread at a time decodes a picture object, or reads the file handle that several of them share.

Pillow decodes an opened picture when it is first used, changes the object while it does, and moves the handle.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

# More than threads that decode: pictures that happen to share a lock wait for each other without need.
_N_LOCKS = 256


class _Locks:
    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin with free locks: who held one when a process forked does not run in the child."""
        self.of_pictures = [threading.Lock() for _ in range(_N_LOCKS)]
        self.of_files = [threading.Lock() for _ in range(_N_LOCKS)]


_LOCKS = _Locks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_LOCKS.renew)


@contextmanager
def alone_with(picture: Image.Image) -> Iterator[None]:
    """Keep other threads of this package from a picture, and from those that read the same file handle.

    The wait ends when the thread that decodes it is done. Of the two locks that for the picture is always the first.

    Parameters
    ----------
    picture : PIL.Image.Image
        Opened by somebody else, decoded or not.
    """
    with _LOCKS.of_pictures[_place(picture)]:
        file = getattr(picture, "fp", None)
        if file is None:
            yield
            return
        with _LOCKS.of_files[_place(file)]:
            yield


def _place(thing: object) -> int:
    return (id(thing) >> 4) % _N_LOCKS
