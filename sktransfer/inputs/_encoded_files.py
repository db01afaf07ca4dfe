"""Read files that a row contains instead of its path: bytes, open files, or cells of tables with one of these.

A file's content is its identity, wherever it lies: the same bytes have the same digest, and become the same sample, as
a file of them on the disk.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from sktransfer._messages import first_line
from sktransfer.inputs._base import UnreadableSampleError
from sktransfer.inputs._file_locks import alone_with_file

# Bytes of the largest file that is read from an open one: no picture or sound that is taken needs as many.
MOST_BYTES = 2**31

# Bytes of an open file that are asked for at first, and at most, in one call: it takes memory for as many.
_FIRST_PIECE, _LARGEST_PIECE = 2**16, 2**24

# Characters of a path that messages name whole.
_LONGEST_NAME = 350

# What a cell of the package datasets may hold of a picture or a sound; the others are what it cannot do without.
_OF_A_CELL = {"bytes", "path", "array", "sampling_rate"}
_MAIN_OF_A_CELL = {"bytes", "path", "array"}


class EncodedFile(ABC):
    """A file that is read as a whole, each time it is needed.

    Parameters
    ----------
    path : str or None
        What to call it, if it has a name.
    """

    is_far = False
    """Whether it comes over a network."""

    def __init__(self, path: str | None):
        self.path = path
        self._digest: bytes | None = None
        self._n_changes = 0

    @abstractmethod
    def _fetch(self) -> bytes:
        """Return the content, or raise whatever comes up."""

    def name(self, row: int) -> str:
        """Return what to call it in messages."""
        return f"the file in row {row}" if self.path is None else name_of_path(self.path, row)

    def read(self, row: int) -> bytes:
        """Return the content.

        Parameters
        ----------
        row : int
            Its row, used in error messages.

        Returns
        -------
        bytes
            All of it.

        Raises
        ------
        UnreadableSampleError
            If it cannot be read.
        """
        try:
            content = self._fetch()
        except UnreadableSampleError:
            raise
        except Exception as error:  # files of anybody's making raise what they please
            raise UnreadableSampleError(self._why_not(error, self.name(row))) from error
        if self._digest is not None:
            self._see(content)
        return content

    def digest(self, row: int) -> bytes:
        """Return the SHA-256 of the content when it was first asked for."""
        if self._digest is None:
            self._digest = _sha256(self.read(row))
        return self._digest

    def stamp(self) -> object:
        """Return what differs once another content was read than that of the digest."""
        return self._n_changes

    def _see(self, content: bytes) -> None:
        if _sha256(content) != self._digest:
            self._n_changes += 1

    def _why_not(self, error: Exception, name: str) -> str:
        return f"Could not read {name}: {first_line(error)}. Give one that is open in binary mode, or leave it out."


class HeldFile(EncodedFile):
    """The content of a file.

    Parameters
    ----------
    content : bytes
        All of it.
    path : str or None
        What to call it, if it has a name.
    """

    def __init__(self, content: bytes, path: str | None = None):
        super().__init__(path)
        self._content = content

    def _fetch(self) -> bytes:
        return self._content

    def _see(self, content: bytes) -> None:
        """Leave it: bytes do not change."""


class OpenFile(EncodedFile):
    """A binary file that somebody opened: it is read from its start, and its position put back.

    Where it cannot seek, it is read here, once, from where it is.

    Parameters
    ----------
    file : file object
        With a `read`.
    """

    def __init__(self, file: Any):
        named = getattr(file, "name", None)
        super().__init__(named if isinstance(named, str) else None)
        self._file = file
        self._read: bytes | Exception | None = None
        try:
            if not can_seek(file):
                with alone_with_file(file):
                    self._read = read_on(file)
        except Exception as error:  # said when it is read
            self._read = error

    def _fetch(self) -> bytes:
        if isinstance(self._read, Exception):
            raise self._read
        if self._read is not None:
            return self._read
        with alone_with_file(self._file):  # the same file may stand in several rows
            before = self._file.tell()
            try:
                self._file.seek(0)
                return read_on(self._file)
            finally:
                self._file.seek(before)


def name_of_path(path: str, row: int) -> str:
    """Say what to call a row in messages.

    Parameters
    ----------
    path : str
        Of its file.
    row : int
        Its row.

    Returns
    -------
    str
        Its name; of a very long path both ends.
    """
    text = repr(path)
    return f"{text if len(text) <= _LONGEST_NAME else f'{text[:100]}...{text[-200:]}'} (row {row})"


def can_seek(file: Any) -> bool:
    """Tell whether an open file can be read from its start, more than once.

    Parameters
    ----------
    file : binary file
        Open; one that is closed raises what it pleases.

    Returns
    -------
    bool
        Whether it can.
    """
    seekable = getattr(file, "seekable", None)
    return bool(seekable()) if callable(seekable) else hasattr(file, "seek") and hasattr(file, "tell")


def read_on(file: Any) -> bytes:
    """Read a file to its end; those without a buffer may give less than they are asked for.

    Parameters
    ----------
    file : binary file
        Of anybody's making.

    Returns
    -------
    bytes
        From where it stands.

    Raises
    ------
    OSError
        If there are too many, or it gives text.
    """
    pieces, length, size = [], 0, _FIRST_PIECE
    while piece := file.read(size):
        if isinstance(piece, str):
            raise OSError('it was opened as text; open it with mode "rb"')
        pieces.append(piece)
        length, size = length + len(piece), min(2 * size, _LARGEST_PIECE)
        if length > MOST_BYTES:
            raise OSError(f"it is larger than the limit of {MOST_BYTES} bytes")
    return b"".join(pieces)


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


# Rows


def is_cell(row: Any) -> bool:
    """Tell whether a row is a cell of a column of pictures or sounds, as the package datasets stores them.

    Parameters
    ----------
    row : object
        One of X.

    Returns
    -------
    bool
        Whether it is a dict with only `"bytes"`, `"path"`, `"array"` and `"sampling_rate"`.
    """
    return isinstance(row, Mapping) and _OF_A_CELL.issuperset(row) and not _MAIN_OF_A_CELL.isdisjoint(row)


def is_file(row: Any) -> bool:
    """Tell whether a row is a file: its path, its bytes, an open one, or a cell that holds one of these.

    Parameters
    ----------
    row : object
        One of X.

    Returns
    -------
    bool
        Whether it is.
    """
    return isinstance(row, str | os.PathLike | bytes | bytearray | memoryview) or is_cell(row) or is_open(row)


def is_open(row: Any) -> bool:
    """Tell whether a row is an open file.

    Parameters
    ----------
    row : object
        One of X.

    Returns
    -------
    bool
        Whether it can be read from.
    """
    return not isinstance(row, type) and callable(getattr(row, "read", None))
