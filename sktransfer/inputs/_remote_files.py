"""Fetch files at addresses that fsspec reads, such as `s3://bucket/x.jpg`: each whole, and once per X.

What was fetched waits in a temporary file for whoever decodes it. A file that was fetched before is known again without
fetching it only by a strong ETag: where that is the same, the content is. Whatever its address, a file's digest is that
of its content, and content that differs from the digest of it is noticed where it is read.
"""

import contextlib
import hashlib
import re
import tempfile
from typing import IO, Any

from sktransfer._messages import first_line, named_extra
from sktransfer._process._locks import Lock
from sktransfer.inputs import _encoded_files
from sktransfer.inputs._encoded_files import EncodedFile

# At least two letters before "://": C:// is a place of Windows.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::[A-Za-z][A-Za-z0-9+.-]+)*://")

# Bytes of files of one X that wait to be decoded; what is beyond is fetched again when it is decoded.
MOST_WAITING = 2**31

# Digests of contents, by address and ETag.
_KNOWN: dict[tuple[str, str], bytes] = {}
_MOST_KNOWN = 2**18


def is_address(path: str) -> bool:
    """Tell whether a path is an address that fsspec reads.

    Parameters
    ----------
    path : str
        Of a file.

    Returns
    -------
    bool
        Whether it begins like `s3://` or `zip://`.
    """
    return _ADDRESS.match(path) is not None


class Waiting:
    """Contents that wait in one temporary file, which is gone when this is."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._file: IO[bytes] | None = None
        self._end = 0

    def put(self, content: bytes) -> tuple[int, int] | None:
        """Keep a content and return where; `None` where there is no room."""
        with self._lock, contextlib.suppress(OSError):  # a full disk
            if self._end + len(content) > MOST_WAITING:
                return None
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115
            self._file.seek(self._end)
            self._file.write(content)
            self._file.flush()
            place = self._end, len(content)
            self._end += len(content)
            return place
        return None

    def get(self, place: tuple[int, int]) -> bytes:
        """Return what was put there."""
        start, length = place
        with self._lock:
            assert self._file is not None
            self._file.seek(start)
            return self._file.read(length)


class Places:
    """Finds addresses; archives that many rows lie in are opened once."""

    def __init__(self) -> None:
        self.waiting = Waiting()
        self._lock = Lock()
        self._archives: dict[tuple[str, str], Any] = {}
        self._fresh: list[Any] = []

    def find(self, address: str) -> tuple[Any, str]:
        """Return the file system of an address, and its path there.

        Parameters
        ----------
        address : str
            As a person gave it.

        Returns
        -------
        file system
            Of fsspec.
        str
            The path.

        Raises
        ------
        ImportError
            If fsspec is not installed, or what it needs for such addresses.
        """
        with named_extra(
            f"Files at addresses such as {address.partition('//')[0]}// need the package fsspec", "remote"
        ):
            from fsspec.core import url_to_fs
        kind, _, rest = address.partition("://")
        inner, chained, outer = rest.partition("::")
        if not chained or "::" in kind:
            return self._open(url_to_fs, address)
        with self._lock:
            if (kind, outer) not in self._archives:
                self._archives[kind, outer] = self._open(url_to_fs, address)[0]
            return self._archives[kind, outer], inner

    def _open(self, url_to_fs: Any, address: str) -> tuple[Any, str]:
        try:
            found = url_to_fs(address)
        except ImportError as error:
            raise ImportError(
                f"Got the address {address!r}, for which fsspec needs another package: {first_line(error)}. Install "
                'it. For https://, use pip install "sktransfer[remote]".'
            ) from error
        system = found[0]
        if not any(system is one for one in self._fresh):
            system.invalidate_cache()  # what it remembers of its files may be old
            self._fresh.append(system)
        return system, str(found[1])


class RemoteFile(EncodedFile):
    """A file at an address.

    Parameters
    ----------
    address : str
        As a person gave it.
    places : Places
        What finds it.
    """

    is_far = True

    def __init__(self, address: str, places: Places):
        super().__init__(address)
        self.address = address
        self._places = places
        self._size: int | None = None
        self._version: tuple[str, str] | None = None
        self._place: tuple[int, int] | None = None
        self._lock = Lock()

    def is_there(self) -> bool:
        """Ask for the file, and note its size and version; what else is wrong is said when it is read.

        Returns
        -------
        bool
            Whether it may be there.
        """
        try:
            self._version = self._look()
        except FileNotFoundError as error:
            return not _is_missing(error)
        except ImportError:
            raise
        except Exception:  # a network that is down, a file that may not be looked at
            return True
        return True

    def digest(self, row: int) -> bytes:
        if self._digest is None and self._version is not None:
            self._digest = _KNOWN.get(self._version)
        if self._digest is None:
            self._digest = hashlib.sha256(self.read(row)).digest()
            with contextlib.suppress(Exception):
                if self._version is not None and self._look() == self._version:  # it did not change meanwhile
                    if len(_KNOWN) >= _MOST_KNOWN:
                        _KNOWN.clear()
                    _KNOWN[self._version] = self._digest
        return self._digest

    def _look(self) -> tuple[str, str] | None:
        """Return address and strong ETag of the file, as far as its server tells."""
        system, path = self._places.find(self.address)
        info = system.info(path)
        if info.get("type") == "directory":
            raise FileNotFoundError(self.address)
        size = info.get("size")
        self._size = size if isinstance(size, int) else None
        tag = info.get("ETag") or info.get("etag")
        return (self.address, tag) if isinstance(tag, str) and tag.strip('"') and not tag.startswith("W/") else None

    def _fetch(self) -> bytes:
        with self._lock:  # the same file may stand in several rows
            if self._place is not None:
                return self._places.waiting.get(self._place)
            system, path = self._places.find(self.address)
            most = _encoded_files.MOST_BYTES
            if self._size is not None and self._size > most:
                raise OSError(f"it has {self._size} bytes, and the limit is {most}")
            if self._size is None:
                with system.open(path, "rb") as file:
                    content = _encoded_files.read_on(file)
            else:
                content = bytes(system.cat_file(path))
            self._place = self._places.waiting.put(content)
            return content

    def _why_not(self, error: Exception, name: str) -> str:
        cause = error.__cause__ if isinstance(error, FileNotFoundError) and not _is_missing(error) else error
        missing = isinstance(error, FileNotFoundError) and cause is error
        why = "there is no such file" if missing or not isinstance(cause, BaseException) else first_line(cause)
        return (
            f"Could not read {name}: {why}. Check the address, the network and your right to read it, or leave its row "
            "out."
        )


def _is_missing(error: FileNotFoundError) -> bool:
    """Tell whether a file is missing: fsspec says so of whatever goes wrong over http, and why in what caused it."""
    cause = error.__cause__
    return cause is None or getattr(cause, "status", None) in (404, 410)
