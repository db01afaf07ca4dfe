"""Detect damage that Pillow lets pass: files that end early, or hold less than they claim.

Each check looks at a file's own account of itself, never at pixels.
"""

import os
import struct
from typing import IO, Any

from PIL import Image

# Formats whose decoders run no other program, and notice where a file ends early, with the help of this file. Pillow
# hands PostScript to an interpreter, takes almost any bytes for a TGA, and half a PCX for a whole one.
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")

# Bytes of the largest file that is looked at; no picture within Pillow's limit on pixels needs as many.
MAX_FILE_BYTES = 2**31

# Pixels that any file may claim, and those that a byte of it may: a photograph has about ten a byte.
_FREE_PIXELS = 2**24
_PIXELS_A_BYTE = 10_000


def known_formats() -> list[str]:
    """Return those of `FORMATS` that the installed Pillow has.

    Returns
    -------
    list of str
        For `PIL.Image.open`.
    """
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def load_whole(picture: Image.Image) -> None:
    """Decode a picture, which may be decoded already, if its file is whole.

    Parameters
    ----------
    picture : PIL.Image.Image
        Opened.

    Raises
    ------
    OSError
        If its file ends early, or holds less than it claims.
    """
    file = getattr(picture, "fp", None)
    if file is None:
        picture.load()
        return
    _check_file(picture, file)
    # Pillow maps a file that it knows by name into memory: should the file shrink meanwhile, the process dies; and what
    # is mapped of a TIFF that lies on its side comes out scrambled.
    name = getattr(picture, "filename", "")
    try:
        if name:
            picture.filename = ""  # type: ignore[attr-defined]
        picture.load()
    finally:
        if name:
            picture.filename = name  # type: ignore[attr-defined]


def _check_file(picture: Image.Image, file: IO[bytes]) -> None:
    before = file.tell()
    try:
        size = file.seek(0, os.SEEK_END)
        pixels = picture.width * picture.height
        _check_ratio(picture.width, picture.height, size)
        if picture.format == "TIFF":
            _check_directory(file, size)
            tiles: list[Any] = getattr(picture, "tile", [])  # none are left of a picture that is decoded already
            if tiles and sum((right - left) * (low - high) for _, (left, high, right, low), *_ in tiles) < pixels:
                raise OSError("part of its pixels is not in the file")
        if picture.format == "JPEG2000" and not _has_all_tiles(file):
            raise OSError("its last tile is cut short")
    finally:
        file.seek(before)


def check_claim(width: int, height: int, size: int) -> None:
    """Refuse a file of another library that claims no pixels, more than Pillow's limit, or more than it can hold.

    Parameters
    ----------
    width, height : int
        Of its picture, in pixels, as it claims.
    size : int
        Of the file, in bytes.

    Raises
    ------
    PIL.Image.DecompressionBombError
        If the claim is above `PIL.Image.MAX_IMAGE_PIXELS`.
    OSError
        If there are no pixels, or far too many for so small a file.
    """
    if min(width, height) < 1:
        raise OSError(f"it has {width} x {height} pixels")
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise Image.DecompressionBombError(
            f"it claims {width} x {height} pixels, and the limit is {limit} (PIL.Image.MAX_IMAGE_PIXELS)."
        )
    _check_ratio(width, height, size)


def _check_ratio(width: int, height: int, size: int) -> None:
    if width * height > max(_FREE_PIXELS, _PIXELS_A_BYTE * size):
        raise OSError(f"it claims {width} x {height} pixels in {size} bytes")


def _check_directory(file: IO[bytes], size: int) -> None:
    """Raise if the first directory of a TIFF runs past the end of the file: Pillow leaves out the entries that lack."""
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = 43 in head[2:4]
    (start,) = struct.unpack(f"{order}Q", head[8:]) if big else struct.unpack(f"{order}L", head[4:8])
    file.seek(start)
    (count,) = struct.unpack(f"{order}Q", file.read(8)) if big else struct.unpack(f"{order}H", file.read(2))
    if file.tell() + count * (20 if big else 12) > size:
        raise OSError("its directory is cut short")


def _has_all_tiles(file: IO[bytes]) -> bool:
    """Tell whether the tiles of a JPEG 2000 stream reach its end marker; one that lacks would be decoded as blank."""
    file.seek(0)
    data = file.read()
    at = data.find(b"\xff\x4f\xff\x51") + 2  # behind the start of the codestream
    while at + 10 <= len(data):
        marker = data[at : at + 2]
        if marker == b"\xff\x90":  # start of a tile
            (length,) = struct.unpack(">L", data[at + 6 : at + 10])
            if not length:  # the last one, up to the end
                return data.endswith(b"\xff\xd9")
            at += length
        else:
            at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return data[at : at + 2] == b"\xff\xd9"
