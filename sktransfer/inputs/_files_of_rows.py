"""Find the rows of X that are files, and those whose files are missing."""

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from sktransfer._messages import name_some, shown
from sktransfer.inputs._base import UnreadableSampleError, each
from sktransfer.inputs._encoded_files import EncodedFile, HeldFile, OpenFile, is_cell, is_open
from sktransfer.inputs._remote_files import Places, RemoteFile, is_address


class FilesOfRows:
    """Finds the files of the rows of one X; an open file, or an address, that stands in several rows is one."""

    def __init__(self) -> None:
        self._opened: dict[int, OpenFile] = {}
        self._remote: dict[str, RemoteFile] = {}
        self._places = Places()

    def of(self, row: Any, place: str) -> "str | EncodedFile | None":
        """Return the file of a row.

        Parameters
        ----------
        row : object
            One of X.
        place : str
            What to call it in messages.

        Returns
        -------
        str, EncodedFile or None
            A path on this machine, a file that is read in another way, or `None` if the row is not a file.

        Raises
        ------
        ValueError
            If the row may lack a part of a file's bytes.
        """
        if isinstance(row, np.bytes_):
            raise ValueError(
                f"Got {place} in an array of NumPy's type 'S', which drops zero bytes at the end of a file; expected "
                "all bytes. Give files as a list of bytes, or in an array of dtype=object."
            )
        if isinstance(row, str | os.PathLike):
            return self._at(os.fsdecode(row))
        if isinstance(row, bytes | bytearray | memoryview):
            return HeldFile(bytes(row))
        if is_cell(row):
            return self._in_cell(row)
        if is_open(row):
            if id(row) not in self._opened:
                self._opened[id(row)] = OpenFile(row)
            return self._opened[id(row)]
        return None

    def _at(self, path: str) -> "str | EncodedFile":
        if not is_address(path):
            return path
        if path[:5].lower() == "file:":
            return self._places.find(path)[1]
        if path not in self._remote:
            self._remote[path] = RemoteFile(path, self._places)
        return self._remote[path]

    def _in_cell(self, cell: Mapping[str, Any]) -> "str | EncodedFile | None":
        if cell.get("array") is not None:  # decoded already
            return None
        content, path = cell.get("bytes"), cell.get("path")
        path = os.fsdecode(path) if isinstance(path, str | os.PathLike) and path else None
        if isinstance(content, bytes | bytearray | memoryview):
            return HeldFile(bytes(content), path)
        return None if path is None else self._at(path)


def _if_texts(names: list[str]) -> str:
    """Return what to do if missing files were meant as texts, where they read as such."""
    some = names[:20]
    if any(re.search(r"\.\w{1,5}$", name) for name in some) or not any(" " in name for name in some):
        return ""
    return ' If these are texts, take a backbone for texts, such as "hf:distilbert-base-uncased".'


def without_missing_files(rows: list[Any], what: str, tolerant: bool) -> list[Any]:
    """Refuse paths and addresses that lead to no file; a tolerant reader puts an error in place of each.

    Parameters
    ----------
    rows : list
        Paths as str, files, and anything else.
    what : str
        What the files are to be, such as `"an image"`.
    tolerant : bool
        Whether errors are to stand in the list, for `Samples.load` to raise.

    Returns
    -------
    list
        The rows, with errors among them.

    Raises
    ------
    FileNotFoundError
        With the first of them.
    """
    missing = [row for row, path in enumerate(rows) if isinstance(path, str) and not os.path.isfile(path)]
    remote = list(dict.fromkeys(file for file in rows if isinstance(file, RemoteFile)))
    if remote:
        there = each(RemoteFile.is_there, remote, far=True)
        gone = {file for file, found in zip(remote, there, strict=True) if not found}
        missing = sorted(
            {*missing, *(row for row, file in enumerate(rows) if isinstance(file, RemoteFile) and file in gone)}
        )
    names = {row: rows[row] if isinstance(rows[row], str) else rows[row].address for row in missing}
    if missing and not tolerant:
        raise FileNotFoundError(
            f"Got {len(missing)} of {len(rows)} paths that are not files; expected paths of {what.split()[1]}s, "
            f"relative to {os.getcwd()!r} or absolute. The first: {name_some(list(names.values()))}."
            f"{_if_texts(list(names.values()))}"
        )
    rows = list(rows)
    for row, path in names.items():
        rows[row] = UnreadableSampleError(
            f"Got {shown(path, 200)} (row {row}), which is not a file; expected the path of {what}."
        )
    return rows
