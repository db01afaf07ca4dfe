"""Let one thread at a time decode an image object, or read a file handle that several images share.

Pillow decodes an opened picture when it is first used, changes the object while it does, and moves the handle.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image

from sktransfer._process._locks import Lock
from sktransfer.inputs._file_locks import N_LOCKS, alone_with_file, lock_number

_OF_PICTURES = [Lock() for _ in range(N_LOCKS)]


@contextmanager
def alone_with(picture: Image.Image) -> Iterator[None]:
    """Keep other threads of this package from a picture, and from those that read the same file handle.

    The wait ends when the thread that decodes it is done. Of the two locks that for the picture is always the first.

    Parameters
    ----------
    picture : PIL.Image.Image
        Opened by somebody else, decoded or not.
    """
    with _OF_PICTURES[lock_number(picture)]:
        file = getattr(picture, "fp", None)
        if file is None:
            yield
            return
        with alone_with_file(file):
            yield
