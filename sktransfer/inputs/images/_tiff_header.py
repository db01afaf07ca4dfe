"""Read what a TIFF says about its bands from its first directories, without decoding pixels.

Pillow reads grey and colours, with or without transparency. Files with more bands, or bands of another meaning, are
recognised here, before anything is decoded.
"""

import os
import struct
from typing import IO, NamedTuple

import numpy as np

_MAGIC = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
_CODES = {1: "B", 3: "H", 4: "L", 16: "Q"}

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA, _FORMAT = 256, 257, 258, 262, 277, 284, 338, 339
_WANTED = {_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA, _FORMAT}
_RGB, _CMYK = 2, 5

# Entries of a directory, and directories, that are looked at.
_MOST_ENTRIES, _MOST_PAGES = 4096, 65


class TiffHeader(NamedTuple):
    """Content of the directories of a TIFF.

    Parameters
    ----------
    n_samples : int
        Bands of the first page.
    n_pages : int
        Pages of the same size, from the first on; 65 where there are more.
    photometric : int
        How its values are to be understood, as TIFF counts.
    has_transparency : bool
        Whether a band is said to be transparency.
    kind : numpy.dtype
        Of its values.
    is_planar : bool
        Whether bands lie one after another.
    """

    n_samples: int
    n_pages: int
    photometric: int
    has_transparency: bool
    kind: "np.dtype[np.generic]"
    is_planar: bool

    @property
    def is_coloured_and_transparent(self) -> bool:
        """Whether Pillow reads it as RGB with transparency."""
        plain = self.kind.kind == "u" and self.kind.itemsize <= (1 if self.is_planar else 2)
        return self.n_samples == 4 and self.are_colours and self.has_transparency and plain

    @property
    def is_halved(self) -> bool:
        """Whether Pillow reads 8 bits of colours of 16 that lie one after another."""
        return self.is_planar and self.n_samples > 1 and self.kind == np.uint16 and self.photometric <= _RGB

    @property
    def drops(self) -> bool:
        """Whether Pillow leaves out bands behind the colours, or behind grey, that are not said to be transparency."""
        return self.n_samples in (2, 4) and not self.has_transparency and not self.are_inks

    @property
    def are_colours(self) -> bool:
        """Whether the first bands are red, green and blue."""
        return self.photometric == _RGB

    @property
    def are_inks(self) -> bool:
        """Whether they are cyan, magenta, yellow and black."""
        return self.photometric == _CMYK


def read_header(file: IO[bytes]) -> TiffHeader | None:
    """Read what a TIFF says of its bands.

    Parameters
    ----------
    file : binary file
        Its position does not matter.

    Returns
    -------
    TiffHeader or None
        `None` if it is not a TIFF, or its first directory is damaged.
    """
    file.seek(0)
    head = file.read(16)
    if head[:4] not in _MAGIC:
        return None
    order, big = _MAGIC[head[:4]]
    try:
        (start,) = struct.unpack_from(f"{order}{'Q' if big else 'L'}", head, 8 if big else 4)
        size = file.seek(0, os.SEEK_END)
        first, behind = _directory(file, start, order, big, size)
        n_pages, seen = 1, {start}
        while behind and behind not in seen and n_pages < _MOST_PAGES:
            seen.add(behind)
            try:
                page, behind = _directory(file, behind, order, big, size)
            except (struct.error, ValueError):
                break
            if (page.get(_WIDTH), page.get(_HEIGHT)) != (first.get(_WIDTH), first.get(_HEIGHT)):
                break
            n_pages += 1
    except (struct.error, ValueError, OSError):
        return None
    return TiffHeader(
        first.get(_SAMPLES, [1])[0],
        n_pages,
        first.get(_PHOTOMETRIC, [1])[0],
        bool({1, 2} & set(first.get(_EXTRA, []))),
        _kind(first.get(_FORMAT, [1])[0], first.get(_BITS, [1])[0]),
        first.get(_PLANAR, [1])[0] == 2,
    )


def _directory(file: IO[bytes], start: int, order: str, big: bool, size: int) -> tuple[dict[int, list[int]], int]:
    """Return the numbers of one directory, by tag, and where the next one begins."""
    if not 8 <= start < size:
        raise ValueError("a directory that lies behind the end")
    file.seek(start)
    width, room, offset = (20, 8, "Q") if big else (12, 4, "L")
    (count,) = struct.unpack(f"{order}{'Q' if big else 'H'}", file.read(8 if big else 2))
    if count > _MOST_ENTRIES:
        raise ValueError("a directory of too many entries")
    entries = file.read(count * width)
    (behind,) = struct.unpack(f"{order}{offset}", file.read(room))
    found: dict[int, list[int]] = {}
    for at in range(0, count * width, width):
        tag, kind = struct.unpack_from(f"{order}HH", entries, at)
        if tag not in _WANTED or kind not in _CODES:
            continue
        (number,) = struct.unpack_from(f"{order}{offset}", entries, at + 4)
        form = f"{order}{min(number, 64)}{_CODES[kind]}"
        if struct.calcsize(form) <= room:
            found[tag] = list(struct.unpack_from(form, entries, at + width - room))
        else:
            (place,) = struct.unpack_from(f"{order}{offset}", entries, at + width - room)
            file.seek(place)
            found[tag] = list(struct.unpack(form, file.read(struct.calcsize(form))))
    return {tag: values for tag, values in found.items() if values}, behind


def _kind(form: int, bits: int) -> "np.dtype[np.generic]":
    """Return the type of values; one that holds them where NumPy has none of as many bits."""
    if form == 3:
        return np.dtype(np.float64 if bits > 32 else np.float32)
    name = "int" if form == 2 else "uint"
    return np.dtype(f"{name}{next((width for width in (8, 16, 32) if bits <= width), 64)}")
