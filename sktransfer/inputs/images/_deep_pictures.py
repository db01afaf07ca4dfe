"""Read images with more than 8 bits as arrays: grey of 16 bits, 32 bits or floats, and colours of 16 bits.

Pillow keeps 8 bits of colours of 16, and scales some grey to 16 bits by the white that the file states. Here the other
8 bits are fetched too, and the scale is undone where somebody else says what white is.
"""

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from sktransfer.inputs.images._dicom import is_dicom
from sktransfer.inputs.images._integrity import known_formats, load_whole
from sktransfer.inputs.images._orientation import BareFile
from sktransfer.inputs.images._tiff_header import TiffHeader, read_header
from sktransfer.inputs.images._tiff_meaning import (
    NODATA,
    PHOTOMETRIC,
    WHITE_IS_ZERO,
    with_black_as_zero,
    without_nodata,
)

_GREY = {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}
_NATIVE, _SWAPPED = ("L", "B") if sys.byteorder == "little" else ("B", "L")

# How Pillow is asked for the low byte of each colour instead of the high one.
_LOW = {
    f"{colours};16{order}": f"{colours};16{other}"
    for colours in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", _SWAPPED))
}
_GREY_ALPHA = "LA;16B"

_WHITE = 65535

# Files that end so are taken at their word; the first bytes of all others are read.
_EIGHT_BITS = (".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".bmp", ".webp", ".avif", ".ico")


def is_deep(picture: Image.Image) -> bool:
    """Tell whether a picture holds grey of more than 8 bits.

    Parameters
    ----------
    picture : PIL.Image.Image
        Of any mode.

    Returns
    -------
    bool
        Whether it does.
    """
    return picture.mode in _GREY


def has_deep_colours(picture: Image.Image) -> bool:
    """Tell whether Pillow would keep 8 bits of colours that have 16 in the file.

    Parameters
    ----------
    picture : PIL.Image.Image
        Opened, not yet decoded.

    Returns
    -------
    bool
        Whether it would.
    """
    raw = {_rawmode(tile) for tile in getattr(picture, "tile", [])}
    return picture.mode in ("RGB", "RGBA") and bool(raw) and raw <= {*_LOW, _GREY_ALPHA}


def deep_file(path: str, content: Callable[[], str | bytes]) -> np.dtype[Any] | None:
    """Tell by the first bytes of a file whether it is a picture of more than 8 bits.

    Parameters
    ----------
    path : str
        The file's name, if it has one.
    content : callable
        Returns its path on this machine, or its content.

    Returns
    -------
    numpy.dtype or None
        Of uint16 where that is all it can be, else of float32; `None` for 8 bits, and for what cannot be opened.
    """
    if path.lower().endswith(_EIGHT_BITS):
        return None
    with suppress(Exception), BareFile(content()) as file:  # whatever is wrong with it will be said when it is loaded
        head = file.read(26)
        if head.startswith(b"\x89PNG"):
            return np.dtype(np.uint16) if head[24:25] == b"\x10" else None
        if head[:2] in (b"\xff\xd8", b"GI", b"BM", b"RI"):
            return None
        header = read_header(file)
        if header is not None and header.n_samples > 1 and header.photometric <= 2:
            return _kind_of(header)
        if header is None and is_dicom(file, path):
            return np.dtype(np.uint16)
        file.seek(0)
        try:
            opened = Image.open(file, formats=known_formats())
        except UnidentifiedImageError:  # bands, for tifffile to read
            return None if header is None else _kind_of(header)
        with opened as picture:
            if has_deep_colours(picture) or (is_deep(picture) and _holds_16_bits(picture)):
                return np.dtype(np.uint16)
            return np.dtype(np.float32) if is_deep(picture) else None
    return None


def _kind_of(header: TiffHeader) -> np.dtype[Any] | None:
    """Return what `deep_file` returns for a TIFF that tifffile reads."""
    kind = header.kind
    return None if kind == np.uint8 else kind if kind == np.uint16 else np.dtype(np.float32)


def read_grey(picture: Image.Image, white: int = _WHITE, stored: tuple[float, float] | None = None) -> np.ndarray:
    """Return the values of grey of more than 8 bits.

    Parameters
    ----------
    picture : PIL.Image.Image
        Decoded.
    white : int, default=65535
        What its file states as white.
    stored : tuple of float or None, default=None
        Black and white, where a person says them. Then the values are those of the file, instead of values in which
        white is 65535 where the file states it.

    Returns
    -------
    uint16, int32, uint32 or float32 ndarray of shape (height, width, 1)
        Dark is low. Pixels without data have the smallest value of the others.

    Raises
    ------
    ValueError
        If they hold NaN or infinity.
    """
    values = np.asarray(picture)[..., None]
    if picture.mode == "I" and _holds_16_bits(picture):
        values = values.astype(np.uint16)
    elif picture.mode == "I" and _is_unsigned(picture):
        values = values.view(np.uint32)
    tags = getattr(picture, "tag_v2", {})
    if NODATA in tags:
        values = without_nodata(values, tags[NODATA])
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinity")
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        return with_black_as_zero(values, stored)
    if white == _WHITE or values.dtype.kind == "f":
        return values
    if picture.format == "PPM":
        values = np.rint(values * (white / _WHITE))
    elif picture.format == "JPEG2000":
        values = values >> 16 - white.bit_length()
    return (values if stored is not None else np.rint(values * (_WHITE / white))).astype(np.uint16)


def read_colours(picture: Image.Image, again: Callable[[], Image.Image]) -> np.ndarray:
    """Return colours of 16 bits, from a picture that holds 8 of them and from the same file opened once more.

    Parameters
    ----------
    picture : PIL.Image.Image
        Opened, not yet decoded.
    again : callable
        Opens the same file.

    Returns
    -------
    uint16 ndarray of shape (height, width, 2, 3 or 4)
        Grey or colours, with transparency where there is one.
    """
    raw = {_rawmode(tile) for tile in picture.tile}  # type: ignore[attr-defined]
    other = again()
    if raw == {_GREY_ALPHA}:  # as wide as four bytes, which are all that is wanted
        other.tile = [_with_rawmode(tile, "RGBA") for tile in other.tile]  # type: ignore[attr-defined]
        load_whole(other)
        return np.ascontiguousarray(np.asarray(other)).view(">u2").astype(np.uint16)
    other.tile = [_with_rawmode(tile, _LOW[_rawmode(tile)]) for tile in other.tile]  # type: ignore[attr-defined]
    load_whole(picture)
    load_whole(other)
    return np.asarray(picture).astype(np.uint16) << 8 | np.asarray(other)


def stated_white(picture: Image.Image, file: IO[bytes]) -> int:
    """Read which value a file states as white, where it states another than that of 16 bits.

    Parameters
    ----------
    picture : PIL.Image.Image
        Opened, not yet decoded.
    file : binary file
        Which it was opened from.

    Returns
    -------
    int
        That value, or 65535.
    """
    if picture.format == "PPM":
        codec, _, _, args = picture.tile[0]  # type: ignore[attr-defined]
        return int(args[-1]) if codec in ("ppm", "ppm_plain") and isinstance(args, tuple) else _WHITE
    if picture.format == "TIFF":
        return _WHITE >> 4 if _rawmode(picture.tile[0]) == "I;12" else _WHITE  # type: ignore[attr-defined]
    if picture.format == "JPEG2000":
        before = file.tell()
        file.seek(0)
        data = file.read(2**16)
        file.seek(before)
        start = data.find(b"\xff\x4f\xff\x51")
        if 0 <= start < len(data) - 42:
            return 2 ** ((data[start + 42] & 0x7F) + 1) - 1
    return _WHITE


def _holds_16_bits(picture: Image.Image) -> bool:
    """Tell whether grey is of 16 bits without a sign, whatever mode the installed Pillow gives it."""
    return picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM", "JPEG2000"))


def _is_unsigned(picture: Image.Image) -> bool:
    tags = getattr(picture, "tag_v2", {})
    return tuple(tags.get(258, ())) == (32,) and tuple(tags.get(339, (1,)))[:1] == (1,)


def _rawmode(tile: Any) -> str:
    args = tile[3]
    return args if isinstance(args, str) else str(args[0]) if args else ""


def _with_rawmode(tile: Any, rawmode: str) -> Any:
    args = rawmode if isinstance(tile[3], str) else (rawmode, *tile[3][1:])
    return tile._replace(args=args) if hasattr(tile, "_replace") else (*tile[:3], args)
