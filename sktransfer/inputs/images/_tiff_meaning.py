"""What values of a TIFF mean: white may be zero, and one value may stand for pixels that were not measured.

Pillow and tifffile return both as they lie. Grey of 8 bits is Pillow's, which turns it round itself.
"""

from typing import Any

import numpy as np

# Tags: how grey is to be understood, and the value that GDAL writes where there is no data, as text.
PHOTOMETRIC, NODATA = 262, 42113
WHITE_IS_ZERO = 0


def with_black_as_zero(values: np.ndarray, span: tuple[float, float] | None) -> np.ndarray:
    """Turn grey round that is stored with white as zero.

    Parameters
    ----------
    values : ndarray
        Of more than 8 bits, as they lie.
    span : tuple of float or None
        Black and white, where a person says them. Then white lies as far from the one end as it lay from the other.

    Returns
    -------
    ndarray of the same shape
        Of the same type, or float64 where a span is given. Floats without a span stay as they are: no white is known.
    """
    if span is not None:
        return span[0] + span[1] - values.astype(np.float64)
    return values if values.dtype.kind == "f" else np.invert(values)  # 65535 - value; of signed types -1 - value


def without_nodata(pixels: np.ndarray, stated: Any) -> np.ndarray:
    """Give pixels without data the smallest value that was measured in their band, so that no range begins with them.

    Parameters
    ----------
    pixels : ndarray of shape (height, width, n_bands)
        As they lie.
    stated : object
        What the tag of the file holds; a text, where GDAL wrote it.

    Returns
    -------
    ndarray of the same shape and type
        The same one where nothing is to be changed, and where pixels are of 8 bits.

    Raises
    ------
    OSError
        If a band holds no data at all.
    """
    try:
        value = float(str(stated).strip("\0 "))
    except ValueError:
        return pixels
    if pixels.dtype.itemsize == 1 or (pixels.dtype.kind != "f" and not value.is_integer()):
        return pixels
    with np.errstate(over="ignore"):  # the text has more digits than the type
        rounded = float(pixels.dtype.type(value)) if pixels.dtype.kind == "f" else value
    lacks = np.isnan(pixels) if np.isnan(value) else pixels == rounded
    if not lacks.any():
        return pixels
    if lacks.all(axis=(0, 1)).any():
        raise OSError(f"it holds a band without data: all pixels are {value:g}, which it states as nodata")
    changed = pixels.copy()
    for band in range(pixels.shape[-1]):
        without = lacks[..., band]
        changed[without, band] = pixels[~without, band].min()
    return changed
