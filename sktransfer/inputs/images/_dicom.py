"""Pictures in DICOM files, read by pydicom as a viewer shows them: rescaled, windowed, black as black.

Only the tags that describe pixels are read of a file: nothing that says whose picture it is comes into memory or into a
message.
"""

import logging
import os
import warnings
import zlib
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from sktransfer._messages import named_extra
from sktransfer._process._locks import Lock
from sktransfer.inputs.images._integrity import check_claim

# What files without the mark of DICOM are called, which are believed to be such.
ENDINGS = (".dcm", ".dicom")

# The tags that are read.
_TAGS = [
    "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
    "VOILUTSequence", "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData", "SegmentedBluePaletteColorLookupTableData", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths", "PixelData", "FloatPixelData", "DoubleFloatPixelData",
]  # fmt: skip

_WHITE = 65535

# Where a file of more than 8 bits has no window, the values between these shares of all become black and white.
_BLACKEST, _WHITEST = 0.5, 99.5

# Bytes that a packed file may become.
_UNPACKED = 2**30
_DEFLATED = "1.2.840.10008.1.2.1.99"

# One file at a time, as Python has one list of filters of warnings for all threads.
_READING = Lock()


def is_dicom(file: IO[bytes], name: str) -> bool:
    """Tell whether a file is of DICOM, by its mark or, where that lacks, by its name.

    Parameters
    ----------
    file : binary file
        Its position does not matter.
    name : str
        What it is called; empty where it has no name.

    Returns
    -------
    bool
        Whether it is.
    """
    file.seek(128)
    return file.read(4) == b"DICM" or name.lower().endswith(ENDINGS)


def read_dicom(file: IO[bytes], span: tuple[float, float] | None = None) -> np.ndarray:
    """Read the picture of a DICOM file.

    Parameters
    ----------
    file : binary file
        The whole file.
    span : tuple of float or None, default=None
        The values, in the units of the file (after its slope and intercept), that stand for black and white. `None`
        takes the first window of the file whose width DICOM allows, or of grey of more than 8 bits without one the
        values between the 0.5th and the 99.5th percentile.

    Returns
    -------
    uint8 or uint16 ndarray of shape (height, width, 1 or 3), or float64 where a span is given
        Grey in which black is 0 and white is 65535, or values within the span; colours as RGB.

    Raises
    ------
    OSError
        If there is no picture, more than one, or it cannot be decoded.
    ImportError
        If pydicom is not installed.

    Warns
    -----
    UserWarning
        If it has windows, and none of an allowed width.
    """
    with named_extra("Got a DICOM file, for which the package pydicom is needed", "scientific"):
        import pydicom
        from pydicom.pixels.processing import apply_color_lut
    with _READING, _silence():
        found = _dataset(pydicom, file)
        pixels = _decoded(found)
        if pixels.ndim == 3:
            return _colours(found, pixels)
        if found.PhotometricInterpretation == "PALETTE COLOR":
            return _colours(found, apply_color_lut(pixels, found))
        values = _windowed(found, pixels) if span is None else _in_units(found, pixels, span)
        ignored = span is None and not _has_table(found) and _window(found) is None and _says_window(found)
    if ignored:
        warnings.warn(
            "Got a DICOM file whose window has a width that DICOM does not allow; expected at least 1, or for exact "
            "and sigmoid windows more than 0. The file is read as one without a window. Or say black and white: "
            "pixel_range=(low, high).",
            UserWarning,
            stacklevel=2,
        )
    return values[..., None]


@contextmanager
def _silence() -> Iterator[None]:
    """Let nothing be said of what is read, by warnings or in logs, which quote the file."""
    log = logging.getLogger("pydicom")
    before = log.disabled
    try:
        log.disabled = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.disabled = before


def _dataset(pydicom: Any, file: IO[bytes]) -> Any:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        _check_unpacked(file)
        file.seek(0)
        found = pydicom.dcmread(file, force=True, specific_tags=_TAGS)
    except OSError:
        raise
    except Exception as error:  # a damaged file may stop it anywhere; its words may hold values of the file
        raise OSError(f"it is not a whole DICOM file ({type(error).__name__})") from None
    if not any(name in found for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise OSError("it is a DICOM file without pixel data")
    try:
        rows, columns, frames = int(found.Rows), int(found.Columns), int(found.get("NumberOfFrames") or 1)
    except (AttributeError, TypeError, ValueError):
        raise OSError("it is a DICOM file that does not say its rows and columns") from None
    check_claim(columns, rows, size)
    if frames != 1:
        raise OSError(f"it is a DICOM file of {frames} frames; expected one: save the frame that you want as a file")
    if not getattr(found.file_meta, "TransferSyntaxUID", None):  # from before there was a header that says it
        little, implicit = found.original_encoding[1], found.original_encoding[0]
        syntax = "ImplicitVRLittleEndian" if implicit else "ExplicitVRLittleEndian" if little else "ExplicitVRBigEndian"
        found.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    return found


def _check_unpacked(file: IO[bytes]) -> None:
    """Refuse a packed file that becomes far more than pictures are."""
    head = file.read(2**12)
    if head[128:132] != b"DICM" or _DEFLATED.encode() not in head:
        return
    file.seek(_end_of_meta(head))
    stream, left, total = zlib.decompressobj(-zlib.MAX_WBITS), file.read(), 0
    while left:
        total += len(stream.decompress(left, 2**20))
        left = stream.unconsumed_tail
        if total > _UNPACKED:
            raise OSError("it unpacks to far more than a picture")


def _end_of_meta(head: bytes) -> int:
    """Return where the packed part begins: behind the group of meta information, whose length is its first element."""
    at = head.find(b"\x02\x00\x00\x00UL\x04\x00", 132)
    return at + 12 + int.from_bytes(head[at + 8 : at + 12], "little") if at >= 0 else 132


def _decoded(found: Any) -> np.ndarray:
    try:
        return np.asarray(found.pixel_array)
    except RuntimeError:  # no decoder, or none that could
        name = str(getattr(found.file_meta.TransferSyntaxUID, "name", "unknown"))[:60]
        raise OSError(
            f"its pixels are packed as {name}, which no installed decoder reads; install pylibjpeg with its plugins, "
            "or store it unpacked"
        ) from None
    except Exception:  # decoders raise what they please, and may quote the file
        raise OSError("its pixels are cut short or damaged") from None


def _colours(found: Any, pixels: np.ndarray) -> np.ndarray:
    """Return colours of 8 bits, or of 16 in which white is 65535."""
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype.kind != "u":
        raise OSError(f"it is a DICOM file whose pixels have the shape {pixels.shape}")
    if pixels.dtype == np.uint8:
        return pixels
    stored = int(found.get("BitsStored") or 16) if found.PhotometricInterpretation != "PALETTE COLOR" else 16
    return np.rint(pixels.astype(np.float64) * (_WHITE / (2**stored - 1))).astype(np.uint16)


def _in_units(found: Any, pixels: np.ndarray, span: tuple[float, float]) -> np.ndarray:
    """Return values in the file's units, as far as they lie within a span; as a window, it hides the others."""
    values, (low, high) = _rescaled(found, pixels), span
    if values.max() >= low and values.min() <= high:  # else they have another scale, which is reported
        values = values.clip(low, high)
    return low + high - values if found.PhotometricInterpretation == "MONOCHROME1" else values


def _windowed(found: Any, pixels: np.ndarray) -> np.ndarray:
    """Return grey as a viewer shows it: 0 is black, 65535 is white."""
    values = _rescaled(found, pixels)
    try:
        window = _window(found)
    except Exception:
        raise OSError("it is a DICOM file whose window cannot be read") from None
    if _has_table(found) or window is not None:
        try:
            low, high, shown = _by_window(found, values, window or 0)
        except Exception:  # numbers of anybody's making
            raise OSError("it is a DICOM file whose window cannot be read") from None
    elif pixels.dtype == np.uint8 and (values == pixels).all():
        low, high, shown = 0.0, float(2 ** int(found.get("BitsStored") or 8) - 1), values
    else:
        kept = values[~_is_padding(found, pixels)]
        low, high = np.percentile(kept if kept.size else values, (_BLACKEST, _WHITEST)).tolist()
        shown = values
    light = (np.asarray(shown, dtype=np.float64) - low) / ((high - low) or 1.0)
    light = light.clip(0.0, 1.0)
    if found.PhotometricInterpretation == "MONOCHROME1":
        light = 1.0 - light
    return np.rint(light * _WHITE).astype(np.uint16)


def _says_window(found: Any) -> bool:
    return None not in (found.get("WindowCenter"), found.get("WindowWidth"))


def _window(found: Any) -> int | None:
    """Return which window of a file is the first whose width DICOM allows; `None` where there is none."""
    if not _says_window(found):
        return None
    widths = found.WindowWidth
    exact = str(found.get("VOILUTFunction") or "LINEAR").upper() in ("LINEAR_EXACT", "SIGMOID")
    for index, width in enumerate(widths if isinstance(widths, MutableSequence) else [widths]):
        if float(width) > 0 if exact else float(width) >= 1:
            return index
    return None


def _by_window(found: Any, values: np.ndarray, index: int) -> tuple[float, float, np.ndarray]:
    """Return black, white and all values of one window of a file, or of its table where it has one."""
    from pydicom.pixels.processing import apply_voi_lut

    if _has_table(found):
        bits = int(found.VOILUTSequence[0].LUTDescriptor[2])
        return 0.0, float(2**bits - 1), apply_voi_lut(np.rint(values).astype(np.int64), found)
    # What is far below a window is black, and far above it white: so the ends of its scale are known.
    low, high = apply_voi_lut(np.array([[-1e15, 1e15]]), found, index)[0].tolist()
    return low, high, apply_voi_lut(values, found, index)


def _rescaled(found: Any, pixels: np.ndarray) -> np.ndarray:
    from pydicom.pixels.processing import apply_modality_lut

    if found.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise OSError(f"its photometric interpretation is not known: {str(found.PhotometricInterpretation)[:16]!r}")
    try:
        values = np.asarray(apply_modality_lut(pixels, found), dtype=np.float64)
    except Exception:  # tables and numbers of anybody's making
        raise OSError("it is a DICOM file whose slope or table cannot be read") from None
    if not np.isfinite(values).all():
        raise OSError("it holds NaN or infinity")
    return values


def _has_table(found: Any) -> bool:
    tables = found.get("VOILUTSequence")
    return bool(tables) and None not in (tables[0].get("LUTDescriptor"), tables[0].get("LUTData"))


def _is_padding(found: Any, pixels: np.ndarray) -> np.ndarray:
    """Tell which pixels lie outside of what was seen, as scanners fill the corners of a round field."""
    padding, limit = found.get("PixelPaddingValue"), found.get("PixelPaddingRangeLimit")
    if not isinstance(padding, int):
        return np.zeros(pixels.shape, dtype=bool)
    other = limit if isinstance(limit, int) else padding
    return (pixels >= min(padding, other)) & (pixels <= max(padding, other))
