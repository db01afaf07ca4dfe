"""Pictures and image files, of any mode and any way up, become upright RGB or grey of 8 bits.

What cannot be decoded whole, or is suspiciously large, is refused by name: nothing half-read reaches a network.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from sktransfer.inputs._base import UnreadableSampleError
from sktransfer.inputs._whole_pictures import FORMATS, MAX_FILE_BYTES, known_formats, load_whole

# A JPEG is decoded at half, a quarter or an eighth of its size where this many times the size that is wanted is left:
# resizing then averages over what was averaged before, and the result hardly differs.
SPARE = 2


def decode(
    image: "str | os.PathLike[str] | Image.Image", name: str, channels: int, enough: int | None = None
) -> Image.Image:
    """Open, decode and convert one picture.

    Parameters
    ----------
    image : path-like or PIL.Image.Image
        A file, which is opened and closed, or a picture, which stays as it is and open.
    name : str
        What to call it in messages.
    channels : int
        3 for RGB, 1 for grey.
    enough : int or None, default=None
        Length, in pixels, that the shorter side will be resized to: a large JPEG need not be decoded at full size.

    Returns
    -------
    PIL.Image.Image
        Upright, of mode `"RGB"` or `"L"`.

    Raises
    ------
    UnreadableSampleError
        If it is no image, is truncated, or holds more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    with ExitStack() as opened:
        if isinstance(image, Image.Image):
            picture = image
        else:
            with _naming(name):
                file = opened.enter_context(Path(image).open("rb"))
                if (size := file.seek(0, os.SEEK_END)) > MAX_FILE_BYTES:
                    raise OSError(f"it has {size} bytes, and the limit is {MAX_FILE_BYTES}")
                picture = opened.enter_context(Image.open(file, formats=known_formats()))
        check_size(picture, name)
        with _naming(name):
            if enough is not None and picture.format == "JPEG":
                picture.draft(None, (SPARE * enough, SPARE * enough))
            load_whole(picture)
            return upright(picture, channels)


def upright(picture: Image.Image, channels: int) -> Image.Image:
    """Turn a decoded picture of any mode the right way up and into RGB, or into grey.

    Parameters
    ----------
    picture : PIL.Image.Image
        Decoded.
    channels : int
        3 for RGB, 1 for grey.

    Returns
    -------
    PIL.Image.Image
        Of mode `"RGB"` or `"L"`; transparency is dropped.
    """
    if picture.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        picture = _to_8_bits(picture)
    mode = "L" if channels == 1 else "RGB"
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture if picture.mode == mode else picture.convert(mode)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Name the picture in whatever Pillow raises."""
    try:
        yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableSampleError(
            f"Refused {name}: {error} Shrink the picture, or raise PIL.Image.MAX_IMAGE_PIXELS."
        ) from error
    except MemoryError as error:
        raise UnreadableSampleError(
            f"Refused {name}: decoding it takes more memory than there is. Shrink the picture, or leave its row out."
        ) from error
    except Exception as error:  # decoders raise what they please: OSError, SyntaxError, RuntimeError, AttributeError
        raise UnreadableSampleError(
            f"Got {name}, which is no whole image ({error}); expected a file that Pillow can decode, of type "
            f"{', '.join(FORMATS)}. Replace it, or leave its row out."
        ) from error


def check_size(picture: Image.Image, name: str) -> None:
    """Refuse a picture that claims more pixels than Pillow's limit, or none.

    Parameters
    ----------
    picture : PIL.Image.Image
        Not yet decoded.
    name : str
        What to call it in the message.

    Raises
    ------
    UnreadableSampleError
        If it does.
    """
    if 0 in picture.size:
        raise UnreadableSampleError(
            f"Got {name}, which has {picture.width} x {picture.height} pixels; expected some. Leave its row out."
        )
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and picture.width * picture.height > limit:
        raise UnreadableSampleError(
            f"Refused {name}: it claims {picture.width} x {picture.height} pixels, and the limit is {limit} "
            "(PIL.Image.MAX_IMAGE_PIXELS). Shrink the picture, or raise the limit if you trust its source."
        )


def _to_8_bits(picture: Image.Image) -> Image.Image:
    """Scale grey of 16 bits, 32 bits or floats to 8 bits."""
    values = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds NaN or infinity")
    white = _white(picture.mode, float(values.max(initial=0)))
    return Image.fromarray((values / white * 255).round().clip(0, 255).astype(np.uint8))


def _white(mode: str, most: float) -> float:
    """Say which value stands for white; types of 32 bits hold all kinds of scales."""
    if mode.startswith("I;16"):
        return 65535.0
    usual = (255.0, 65535.0) if mode == "I" else (1.0, 255.0, 65535.0)
    return next((white for white in usual if most <= white), most)
