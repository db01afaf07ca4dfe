"""TIFF files of any number of bands, read by tifffile: those that Pillow does not read, or whose bands it drops.

Bands lie beside each other or one after another in a page, or each has a page of its own. A file is looked at before it
is decoded: one that ends early, or claims more than it holds, is refused.
"""

import io
import logging
import math
import zlib
from typing import IO, Any

import numpy as np

from sktransfer._messages import named_extra
from sktransfer.inputs.images._integrity import check_claim
from sktransfer.inputs.images._orientation import turn_array
from sktransfer.inputs.images._shapes import MOST_CHANNELS
from sktransfer.inputs.images._tiff_meaning import NODATA, without_nodata

_ORIENTATION = 274
_PLAIN, _DEFLATE = 1, (8, 32946)

# Bytes that deflate makes of one at most, and those that any part of a file may become.
_INFLATES, _FREE_BYTES = 1032, 2**26


def read_bands(file: IO[bytes], channels: int) -> np.ndarray:
    """Read the bands of a TIFF.

    Parameters
    ----------
    file : binary file
        The whole file.
    channels : int
        How many the network takes. Pages of one size are bands where there are as many, unless the network takes 1
        or 3: then the first page is read.

    Returns
    -------
    ndarray of shape (height, width, n_bands)
        Upright, of the file's own type; of half floats as float32. Pixels without data have the smallest value of their
        band.

    Raises
    ------
    OSError
        If it is not whole, claims too much, or holds something else than an image of bands.
    ImportError
        If tifffile is not installed.
    """
    with named_extra("Got a TIFF file whose bands Pillow does not read, and the package tifffile does", "scientific"):
        import tifffile
    _be_quiet()
    file.seek(0)
    with tifffile.TiffFile(file) as opened:
        page = opened.pages.first
        if page.samplesperpixel > 1 or channels in (1, 3):
            pixels = _of_pages([page])[0]
            axes = page.axes
        else:
            pixels, axes = _of_series(opened, channels)
        tag = page.tags.get(_ORIENTATION)
        nodata = page.tags.get(NODATA)
        way = int(tag.value) if tag is not None and tag.value in range(1, 9) else 1
    if "S" in axes or "C" in axes:
        band = axes.index("S" if "S" in axes else "C")
        pixels = np.moveaxis(pixels, band, -1)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3:
        raise OSError(f"it holds an image with the axes {axes}; expected height, width and bands")
    if pixels.dtype.kind not in "uifb":
        raise OSError(f"it holds values of type {pixels.dtype}")
    if pixels.dtype == np.float16:
        pixels = pixels.astype(np.float32)
    if nodata is not None:
        pixels = without_nodata(pixels, nodata.value)
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise OSError("it holds NaN or infinity")
    return np.ascontiguousarray(turn_array(pixels.astype(pixels.dtype.newbyteorder("="), copy=False), way))


def _of_series(opened: Any, channels: int) -> tuple[np.ndarray, str]:
    """Read pages of one size as bands, each page or the last axis of each."""
    series = opened.series[0]
    sides = [(axis, side) for axis, side in zip(series.axes, series.shape, strict=True) if side > 1 or axis in "YX"]
    shape = tuple(side for _, side in sides)
    if len(shape) == 2:
        return _of_pages([opened.pages.first])[0], "YX"
    if len(shape) != 3 or channels not in (shape[0], shape[-1]):
        raise OSError(
            f"it holds {len(series)} pages, with the axes {series.axes} of shape {tuple(series.shape)}; expected one "
            f"page of {channels} bands, or {channels} pages"
        )
    pixels = np.stack(_of_pages(list(series.pages))).reshape(shape)
    return pixels, "CYX" if shape[0] == channels else "YXC"


def _of_pages(pages: list[Any]) -> list[np.ndarray]:
    if None in pages:
        raise OSError("one of its pages is missing")
    pages = [page.aspage() for page in pages]
    for page in pages:
        _check_page(page)
    return [page.asarray(maxworkers=1) for page in pages]


def _check_page(page: Any) -> None:
    """Raise unless a page is as large as it claims to be, and can be decoded."""
    size = page.parent.filehandle.size
    check_claim(page.imagewidth, page.imagelength, size)
    if page.imagedepth != 1 or page.samplesperpixel > MOST_CHANNELS or page.dtype is None:
        raise OSError(f"it claims {page.samplesperpixel} bands, or values of an unknown type")
    offsets, counts = page.dataoffsets, page.databytecounts
    bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
    if not offsets or not all(counts) or not all(offsets) or len(offsets) != len(counts):
        raise OSError("part of its pixels is not in the file")
    if any(start + length > size for start, length in zip(offsets, counts, strict=True)):
        raise OSError("it ends before its pixels do")
    needed = page.imagewidth * page.imagelength * page.samplesperpixel * bits // 8
    compression = int(page.compression)
    if compression == _PLAIN and sum(counts) < needed:
        raise OSError(f"it holds {sum(counts)} bytes of pixels, and {needed} are needed")
    if len(counts) < math.prod(page.chunked):
        raise OSError("part of its pixels is not in the file")
    if compression in _DEFLATE:
        room = math.prod(page.chunks) * max(bits // 8, 1)
        for start, length in zip(offsets, counts, strict=True):
            if length * _INFLATES > room + _FREE_BYTES:
                _check_inflated(page.parent.filehandle, start, length, room)


def _check_inflated(file: Any, start: int, length: int, room: int) -> None:
    """Raise if a part of the file becomes far more than it stands for."""
    file.seek(start)
    stream, left = zlib.decompressobj(), file.read(length)
    total = 0
    while left:
        total += len(stream.decompress(left, 2**20))
        left = stream.unconsumed_tail
        if total > room + _FREE_BYTES:
            raise OSError("a part of it unpacks to far more than its pixels")


def _be_quiet() -> None:
    """Let tifffile's notes on odd files go nowhere, unless the program has a place for them: errors are raised."""
    log = logging.getLogger("tifffile")
    if not log.handlers:
        log.addHandler(logging.NullHandler())


def open_content(image: Any) -> IO[bytes]:
    """Open a file by its path or its content.

    Parameters
    ----------
    image : path-like or bytes
        The path of a file, or the content of one.

    Returns
    -------
    binary file
        To be closed by the caller.
    """
    return io.BytesIO(image) if isinstance(image, bytes) else open(image, "rb")  # noqa: PTH123
