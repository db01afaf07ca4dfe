"""Ask the system about a file, without reading it."""

import os
from collections.abc import Hashable
from pathlib import Path


def file_stamp(path: str | os.PathLike[str]) -> Hashable | None:
    """Return what tells a file from others, and from what it was before: which it is, its size and its dates.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    tuple or None
        `None` where there is none. The date of the last change of anything is in it, which nobody can set: a file that
        is written to in place has another one, whatever its size and its other date.
    """
    try:
        found = Path(path).stat()
    except (OSError, ValueError):  # not there, a circle of links, a name that is too long, a zero byte in it
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
