"""Write files whole or not at all: first into a folder next to their place, then move them."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sktransfer._files._file_kinds import expand, type_of
from sktransfer._messages import shown


def check_target(path: "str | os.PathLike[str]") -> Path:
    """Return the path that a file is to be written to, or say why none can be.

    Parameters
    ----------
    path : path-like
        As a person gave it.

    Returns
    -------
    Path
        In a folder that exists; if anything is there already, it is a plain file, or a link to one.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    IsADirectoryError
        If the path is a folder.
    OSError
        If it is a pipe, a device or a socket, which writing would replace.
    """
    place = expand(path)
    kind = type_of(place)
    if kind is not None:
        error = IsADirectoryError if place.is_dir() else OSError
        raise error(f"Got path={shown(path)}, which is {kind}; expected the name of a file.")
    folder = Path(os.path.realpath(place)).parent
    if not folder.is_dir():
        raise FileNotFoundError(
            f"Got path={shown(path)}, whose folder does not exist; expected an existing folder. Create it first."
        )
    if not os.access(folder, os.W_OK):
        raise PermissionError(
            f"Got path={shown(path)}, in a folder that you may not write to; expected a writable folder."
        )
    return place


@contextlib.contextmanager
def written_whole(place: Path, given: "str | os.PathLike[str]") -> Iterator[Path]:
    """Move what is written inside to its place, once all of it is on the disk; after an error, nothing is left of it.

    Parameters
    ----------
    place : Path
        Where the file is to be.
    given : path-like
        What a person called it.

    Yields
    ------
    Path
        Where to write it until then, under the same name in a folder of its own. What else is written to that folder
        is moved too, before it.

    Raises
    ------
    OSError
        If it cannot be written, as on a full disk.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=".sktransfer-", dir=place.parent))
        try:
            yield folder / place.name
            files = sorted(folder.iterdir(), key=lambda file: file.name == place.name)
            for file in files:
                with file.open("rb+") as written:
                    os.fsync(written.fileno())
            for file in files:
                file.replace(place.with_name(file.name))
        finally:
            with contextlib.suppress(OSError):
                for left in folder.iterdir():
                    left.unlink()
                folder.rmdir()
        _sync_folder(place.parent)
    except OSError as error:
        if error.filename is None:
            raise
        raise type(error)(  # the name that it tells is not the one given
            f"Could not write {shown(given)}: {error.strerror}. Give a folder that you can write to."
        ) from error


def _sync_folder(folder: Path) -> None:
    """Have the new names written down too, where the system lets a folder be opened."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
