"""Recognise a file by its first and last bytes, so that errors can say what somebody gave instead.

Nothing of it is unpickled or unpacked, and what may block whoever opens it, as a pipe does, is never opened.
"""

import errno
import os
import re
import stat
from pathlib import Path

from sktransfer._messages import shown

_PICKLE = re.compile(rb"\x80[\x02-\x05]|[(\]}]*c[\w.]+\n[\w.]+\n")
_COMPRESSED = re.compile(rb"x[\x01\x5e\x9c\xda]|\x1f\x8b|BZh[1-9]|\xfd7zXZ\0|\x5d\0\0|\x04\x22\x4d\x18|ZF0x")
_ONNX = re.compile(rb"\x08[\x01-\x1f][\x12\x3a]")
_LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_LOOKED_AT = 64 * 1024

_TYPES = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe (FIFO)"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def expand(path: "str | os.PathLike[str]") -> Path:
    """Return a path with `~` and `~name` replaced by the home folder.

    Parameters
    ----------
    path : path-like
        As a person gave it.

    Returns
    -------
    Path
        Not resolved: links in it stay.

    Raises
    ------
    TypeError
        If it is not a path.
    ValueError
        If no file can have this name.
    FileNotFoundError
        If the home folder is that of a user who does not exist.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"Got path={shown(path)}; expected the name of a file: a str or a pathlib.Path.")
    place = Path(path)
    try:
        if b"\0" in os.fsencode(place):
            raise ValueError
    except ValueError as error:  # half a character, which cannot be written as bytes, too
        raise ValueError(
            f"Got path={shown(path)}, which is not a valid file name; expected the name of a file."
        ) from error
    try:
        return place.expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(
            f"Got path={shown(path)}, in the home folder of an unknown user; expected ~/ for your own home folder, "
            "or the full path."
        ) from error


def type_of(place: Path) -> str | None:
    """Tell what stands at a path where that is not a plain file.

    Parameters
    ----------
    place : Path
        Links in it are followed.

    Returns
    -------
    str or None
        Such as "a folder"; `None` for a plain file, and where nothing is.
    """
    try:
        mode = place.stat().st_mode
    except OSError as error:
        circular = error.errno == errno.ELOOP
        return "a link that leads back to itself" if circular else None
    return next((name for is_it, name in _TYPES if is_it(mode)), None)


def guess_kind(place: Path) -> str | None:
    """Guess what a plain file holds, and how it is loaded.

    Parameters
    ----------
    place : Path
        The file.

    Returns
    -------
    str or None
        The end of a sentence that begins with "it looks like"; `None` where it cannot be told.
    """
    try:
        size = place.stat().st_size
        if not size:  # files of /proc say so too, and some of them block whoever reads
            return "an empty file"
        with place.open("rb") as file:
            head = file.read(min(size, _LOOKED_AT))
            file.seek(max(0, size - _LOOKED_AT))
            tail = file.read(_LOOKED_AT)
    except OSError:
        return None
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_archive(tail)
    text = head.lstrip()[:200].lower()
    known = (
        (head.startswith(_LEGACY_TORCH), "weights that torch.save wrote: give them to an estimator, weights=PATH"),
        (_PICKLE.match(head), "a pickle: joblib.load loads it, and runs its code, so it must be from whom you trust"),
        (_COMPRESSED.match(head), "a compressed pickle of joblib.dump: joblib.load loads it, and runs its code"),
        (head.startswith(b"version https://git-lfs"), "a Git LFS pointer, not the file itself: run `git lfs pull`"),
        (head.startswith(b"\x89HDF"), "an HDF5 file, as Keras writes them"),
        (head.startswith(b"\x93NUMPY"), "an array: numpy.load loads it"),
        (head.startswith(b"GGUF"), "a GGUF file of weights"),
        (_ONNX.match(head), "an ONNX file: onnxruntime runs it"),
        (text.startswith((b"<!doctype", b"<html")), "a web page: the download went wrong"),
        (text.startswith((b"{", b"[")), "a text file (JSON)"),
    )
    return next((kind for found, kind in known if found), None)


def _kind_of_archive(tail: bytes) -> str:
    """Tell by the names at its end what a zip archive is."""
    if b"schema.json" in tail:
        return "a file of skops: skops.io.load loads it"
    if b"/data.pkl" in tail:
        return "a file of torch.save: if it holds weights, give it to an estimator, weights=PATH"
    return "arrays of numpy.savez: numpy.load loads them" if b".npy" in tail else "a zip archive"
