"""Find which way up an image lies: read one tag of its metadata, and hide all others from Pillow.

Photos are whole though their metadata is damaged. Pillow reads all of it when it opens a JPEG or a TIFF, warns or
raises where a tag is damaged, and writes all of it anew when it turns a picture.
"""

import io
import os
import re
import struct
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image

from sktransfer.inputs.images._tiff_meaning import NODATA

_ORIENTATION = 0x0112
_XMP = 700
# Characters of the number that stands for no data.
_LONGEST_NODATA = 64

# Tags of a TIFF that say how its pixels are stored; all else of its directory does not matter here.
_OF_PIXELS = {254, 255, *range(256, 260), 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, *range(320, 326), 330, 332}
_OF_PIXELS |= {338, 339, 347, 512, 513, 514, *range(519, 522), 529, 530, 531, 532, _ORIENTATION, _XMP}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "L"}

# Segments in front of the pixels of a JPEG; more are not looked at.
_MOST_SEGMENTS = 1000

_METHODS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(picture: Image.Image) -> int:
    """Read which way up a picture lies.

    Parameters
    ----------
    picture : PIL.Image.Image
        Decoded: some formats say it behind the pixels.

    Returns
    -------
    int
        1 to 8, as EXIF counts; 1, upright, where nothing valid is said. Pillow turns TIFFs itself when it loads them.
    """
    # Whoever changed a picture in memory did so in the EXIF that it keeps, under a private name: asking for it by the
    # public one would read, and complain of, all of it.
    known = getattr(picture, "_exif", None)
    if known is not None:
        try:
            return _valid(known.get(_ORIENTATION, 1))
        except Exception:  # a damaged tag raises what it pleases, and says nothing of the picture
            return 1
    found = _in_exif(_exif_bytes(picture.info))
    return _in_xmp(picture.info) if found is None else found


def turn(picture: Image.Image, way: int) -> Image.Image:
    """Turn a picture upright.

    Parameters
    ----------
    picture : PIL.Image.Image
        Decoded.
    way : int
        Its orientation.

    Returns
    -------
    PIL.Image.Image
        A new one, or the same where it is upright.
    """
    return picture.transpose(_METHODS[way]) if way in _METHODS else picture


def turn_array(pixels: np.ndarray, way: int) -> np.ndarray:
    """Turn an array upright.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, ...)
        As stored.
    way : int
        Its orientation.

    Returns
    -------
    ndarray
        A view.
    """
    if way >= 5:
        pixels = pixels.swapaxes(0, 1)
    upside_down, mirrored = way in (3, 4, 7, 8), way in (2, 3, 6, 7)
    return pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1]


class BareFile(io.BufferedReader):
    """A picture's file, in which other bytes stand where its metadata does.

    Parameters
    ----------
    file : path-like or bytes
        Its path, or its content.
    """

    def __init__(self, file: "str | os.PathLike[str] | bytes"):
        super().__init__(io.BytesIO(file) if isinstance(file, bytes) else io.FileIO(file))
        self.says: int | None = None
        """The orientation, where a JPEG or its metadata that was taken out says it."""
        self._instead: list[tuple[int, bytes]] = []
        head = super().read(8)
        try:
            if head[:2] == b"\xff\xd8":
                self._look_at_jpeg()
            elif head[:2] in (b"II", b"MM") and 42 in head[2:4]:
                self._look_at_tiff()
        except (struct.error, EOFError):  # cut short: whoever decodes the file will say so
            pass
        self.seek(0)

    def read(self, size: int | None = -1, /) -> bytes:
        start = self.tell()
        data = super().read(size)
        for at, other in self._instead:
            if start < at + len(other) and at < start + len(data):
                changed = bytearray(data)
                first, last = max(at, start), min(at + len(other), start + len(data))
                changed[first - start : last - start] = other[first - at : last - at]
                data = bytes(changed)
        return data

    def _look_at_jpeg(self) -> None:
        """Rename the segments that hold EXIF, and the list of further pictures, whose tags Pillow would read too."""
        xmp = b""
        self.seek(2)
        for _ in range(_MOST_SEGMENTS):
            marker = _exactly(self, 2)
            if marker == b"\xff\xff":  # padding
                self.seek(-1, os.SEEK_CUR)
                continue
            if marker[0] != 0xFF or marker[1] in (0xDA, 0xD9):
                break
            (length,) = struct.unpack(">H", _exactly(self, 2))
            start = self.tell()
            if marker[1] == 0xE1:
                content = super().read(length - 2) if length > 2 else b""
                if content.startswith(b"Exif\0\0"):
                    self._instead.append((start, b"exif"))
                    self.says = _in_exif(content) if self.says is None else self.says
                elif content.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
                    xmp = xmp or content
            elif marker[1] == 0xE2 and super().read(4) == b"MPF\0":
                self._instead.append((start, b"mpf\0"))
            self.seek(start + length - 2)
        if self.says is None and xmp:
            self.says = _in_xmp({"xmp": xmp})

    def _look_at_tiff(self) -> None:
        """Blank the entries that do not say how pixels are stored, and an invalid orientation."""
        self.seek(0, os.SEEK_END)
        size = self.tell()
        for entry in list(_entries(self)):
            outside = entry.length > 4 and entry.offset + entry.length > size
            if entry.tag == _ORIENTATION:
                blank = entry.value is None or not 1 <= entry.value <= 8
            elif entry.tag == NODATA:
                blank = outside or entry.length > _LONGEST_NODATA
            else:
                blank = entry.tag not in _OF_PIXELS or (entry.tag == _XMP and outside)
            if blank:
                self._instead.append((entry.at, struct.pack(f"{entry.order}HHLL", 0xFFFF, 1, 1, 0)))


class _Entry(NamedTuple):
    """One of a directory: where it stands, its tag, the bytes it holds and where, its value if it is a whole number."""

    order: str
    at: int
    tag: int
    length: int
    offset: int
    value: int | None


def _entries(file: IO[bytes]) -> Iterator[_Entry]:
    """Yield the entries of the first directory of a TIFF, up to its end or that of the file."""
    file.seek(0)
    head = _exactly(file, 8)
    order = "<" if head[:2] == b"II" else ">"
    (start,) = struct.unpack(f"{order}L", head[4:])
    file.seek(start)
    (count,) = struct.unpack(f"{order}H", _exactly(file, 2))
    data = file.read(12 * count)
    for at in range(0, len(data) - 11, 12):
        tag, kind, values, offset = struct.unpack_from(f"{order}HHLL", data, at)
        form = _INTEGERS.get(kind) if values == 1 else None
        value = struct.unpack_from(f"{order}{form}", data, at + 8)[0] if form else None
        yield _Entry(order, start + 2 + at, tag, values * _SIZES.get(kind, 1), offset, value)


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _in_exif(exif: bytes) -> int | None:
    """Find the orientation in EXIF, if it is there."""
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    if exif[:2] not in (b"II", b"MM"):
        return None
    try:
        return next((_valid(e.value) for e in _entries(io.BytesIO(exif)) if e.tag == _ORIENTATION), None)
    except (struct.error, EOFError):
        return None


def _exif_bytes(info: dict[Any, Any]) -> bytes:
    exif = info.get("exif")
    if isinstance(exif, bytes):
        return exif
    text = info.get("Raw profile type exif")  # as ImageMagick writes it into PNGs
    try:
        return bytes.fromhex("".join(text.split("\n")[3:])) if isinstance(text, str) else b""
    except ValueError:
        return b""


def _in_xmp(info: dict[Any, Any]) -> int:
    xmp = info.get("XML:com.adobe.xmp") or info.get("xmp") or ""
    text = xmp.decode("latin-1") if isinstance(xmp, bytes) else str(xmp)
    found = re.search(r"tiff:Orientation(?:=[\"']|>)\s*([0-9]+)", text)
    return _valid(int(found[1])) if found and len(found[1]) < 4 else 1


def _valid(value: Any) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
