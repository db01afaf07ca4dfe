"""Decode image files and PIL images of any mode into upright RGB or grey; more than 8 bits become arrays.

Files that Pillow does not read, or not with all bands, are given to the readers of TIFF and DICOM.

What cannot be decoded whole, or is suspiciously large, is refused by name: nothing half-read reaches a network.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from sktransfer.inputs._base import UnreadableSampleError
from sktransfer.inputs._encoded_files import EncodedFile, name_of_path
from sktransfer.inputs.images._deep_pictures import has_deep_colours, is_deep, read_colours, read_grey, stated_white
from sktransfer.inputs.images._dicom import is_dicom, read_dicom
from sktransfer.inputs.images._integrity import FORMATS, MAX_FILE_BYTES, known_formats, load_whole
from sktransfer.inputs.images._orientation import BareFile, orientation, turn, turn_array
from sktransfer.inputs.images._picture_locks import alone_with
from sktransfer.inputs.images._tiff_bands import open_content, read_bands
from sktransfer.inputs.images._tiff_header import TiffHeader, read_header
from sktransfer.inputs.images._tiff_meaning import WHITE_IS_ZERO, with_black_as_zero

COLOURS = {1: "L", 3: "RGB", 4: "RGBA"}

# A JPEG is decoded at half, a quarter or an eighth of its size where this many times the size that is wanted is left:
# resizing then averages over what was averaged before, and the result hardly differs.
SPARE = 2

# The most bands of a TIFF that Pillow opens.
_MOST_OF_PILLOW = 6

# How files begin that are Pillow's, whatever else is in them: JPEG, PNG, GIF, BMP, WebP.
_OF_PILLOW = (b"\xff\xd8", b"\x89P", b"GI", b"BM", b"RI")


def decode(
    image: "str | os.PathLike[str] | bytes | Image.Image",
    name: str,
    channels: int,
    enough: int | None = None,
    stored: tuple[float, float] | None = None,
) -> "Image.Image | np.ndarray":
    """Open, decode and convert one picture.

    Parameters
    ----------
    image : path-like, bytes or PIL.Image.Image
        The path of a file, which is opened and closed, the content of one, or a picture, which stays as it is and open.
    name : str
        What to call it in messages.
    channels : int
        3 for RGB, 1 for grey, 4 for RGB and transparency, or the bands of a TIFF.
    enough : int or None, default=None
        Length, in pixels, that the shorter side will be resized to: a large JPEG need not be decoded at full size.
    stored : tuple of float or None, default=None
        Black and white, where a person says them: then values of more than 8 bits are those that the file holds, even
        if it states what white is.

    Returns
    -------
    PIL.Image.Image or ndarray of shape (height, width, 1, 3, 4 or channels)
        Upright. Of 8 bits a picture of mode `"RGB"`, `"L"` or `"RGBA"`, or an array of the bands of a TIFF; of more an
        array of their values.

    Raises
    ------
    UnreadableSampleError
        If it is not an image, is truncated, has other channels, or holds more pixels than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    with ExitStack() as opened:
        if isinstance(image, Image.Image):
            opened.enter_context(alone_with(image))
            check_open(image, name)
            check_size(image, name)
            with _naming(name):
                load_whole(image)
                return _upright(image, orientation(image), channels, stored=stored)
        with _naming(name):
            values = _by_other_readers(image, opened, channels, stored)
            if values is not None:
                return _convert_array(values, channels)
            try:
                file, picture = _open(image, opened)
            except UnidentifiedImageError:
                bands = opened.enter_context(open_content(image))
                if (header := read_header(bands)) is None:
                    raise
                return _convert_array(_bands(bands, header, channels, stored), channels)
        check_size(picture, name)
        with _naming(name):
            if has_deep_colours(picture):
                pixels = read_colours(picture, lambda: _open(image, opened)[1])
                return _convert_array(turn_array(pixels, orientation(picture)), channels)
            white = stated_white(picture, file) if is_deep(picture) else None
            if enough is not None and picture.format == "JPEG":
                picture.draft(None, (SPARE * enough, SPARE * enough))
            load_whole(picture)
            way = orientation(picture) if file.says is None else file.says
            return _upright(picture, way, channels, white, stored)


def _by_other_readers(
    image: "str | os.PathLike[str] | bytes", opened: ExitStack, channels: int, stored: tuple[float, float] | None
) -> np.ndarray | None:
    """Return what a file holds that Pillow does not read, or would leave out a part of; `None` leaves it to Pillow."""
    file = opened.enter_context(open_content(image))
    if file.read(2) in _OF_PILLOW:
        return None
    header = read_header(file)  # DICOM may begin like a TIFF, and hold none
    if header is not None:
        if not _has_bands_for(header, channels):
            return None
        _check_length(file)
        return _bands(file, header, channels, stored)
    if is_dicom(file, "" if isinstance(image, bytes) else os.fspath(image)):
        _check_length(file)
        return read_dicom(file, stored)
    return None


def _bands(file: IO[bytes], header: TiffHeader, channels: int, stored: tuple[float, float] | None) -> np.ndarray:
    pixels = read_bands(file, channels)
    turned = header.n_samples == 1 and header.photometric == WHITE_IS_ZERO
    return with_black_as_zero(pixels, stored) if turned else pixels


def _has_bands_for(header: TiffHeader, channels: int) -> bool:
    """Tell whether a TIFF holds what Pillow would not give to a network of so many channels."""
    if header.n_samples > _MOST_OF_PILLOW or header.is_halved:
        return True
    if channels in (1, 3) or header.are_inks or (channels == 4 and header.is_coloured_and_transparent):
        return False
    return header.n_samples > 3 or header.n_samples == channels or header.n_pages > 1


def _check_length(file: IO[bytes]) -> None:
    if (size := file.seek(0, os.SEEK_END)) > MAX_FILE_BYTES:
        raise OSError(f"it has {size} bytes, and the limit is {MAX_FILE_BYTES}")


def _open(image: "str | os.PathLike[str] | bytes", opened: ExitStack) -> tuple[BareFile, Image.Image]:
    file = opened.enter_context(BareFile(image))
    if (size := file.seek(0, os.SEEK_END)) > MAX_FILE_BYTES:
        raise OSError(f"it has {size} bytes, and the limit is {MAX_FILE_BYTES}")
    return file, opened.enter_context(Image.open(file, formats=known_formats()))


def _upright(
    picture: Image.Image,
    way: int,
    channels: int,
    white: int | None = None,
    stored: tuple[float, float] | None = None,
) -> "Image.Image | np.ndarray":
    if is_deep(picture):
        values = read_grey(picture, stored=stored) if white is None else read_grey(picture, white, stored)
        return _convert_array(turn_array(values, way), channels)
    return convert(turn(picture, way), channels)


def convert(picture: Image.Image, channels: int) -> Image.Image:
    """Turn a decoded picture of 8 bits into the colours that a network takes.

    Parameters
    ----------
    picture : PIL.Image.Image
        Decoded, of any mode of 8 bits.
    channels : int
        3 for RGB, 1 for grey, 4 for RGB and transparency.

    Returns
    -------
    PIL.Image.Image
        Of mode `"RGB"`, `"L"` or `"RGBA"`; a transparency that is not asked for is dropped.

    Raises
    ------
    ValueError
        If it has not as many channels.
    """
    see_through = picture.has_transparency_data
    if channels not in COLOURS or (channels == 4 and not see_through):
        raise WrongChannelsError(f"a picture of mode {picture.mode}", channels)
    if picture.mode == "P" and see_through:
        picture = picture.convert("RGBA")
    mode = COLOURS[channels]
    return picture if picture.mode == mode else picture.convert(mode)


def _convert_array(pixels: np.ndarray, channels: int) -> np.ndarray:
    """As `convert`, for arrays of shape (height, width, 1, 2, 3 or 4); 2 are grey and transparency."""
    bands = pixels.shape[-1]
    if channels == bands:
        return pixels
    if bands > 4:
        raise WrongChannelsError(f"a file of {bands} bands", channels, bands)
    if channels not in COLOURS or (channels == 4 and bands in (1, 3)):
        kind, depth = "grey" if bands < 3 else "colours", "8 bits" if pixels.dtype == np.uint8 else "more than 8 bits"
        raise WrongChannelsError(f"a picture of {kind} of {depth}", channels)
    if pixels.shape[-1] == 2:
        pixels = pixels[..., [0, 0, 0, 1]] if channels == 4 else pixels[..., :1]
    return pixels if channels == 4 else pixels[..., :3]


class WrongChannelsError(ValueError):
    """A picture has not the channels that a network takes.

    Parameters
    ----------
    got : str
        What it is.
    channels : int
        What the network takes.
    bands : int or None, default=None
        How many a file has, where pictures have none of as many.
    """

    def __init__(self, got: str, channels: int, bands: int | None = None):
        if bands is not None:
            advice = f"Set n_channels={bands} and fit again, or give files of {channels}."
            super().__init__(f"{got}; expected {channels}, for a network that takes {channels} channels. {advice}")
            return
        wanted = "a picture with transparency (RGBA)" if channels == 4 else f"an array of {channels} channels"
        super().__init__(
            f"{got}; expected {wanted}, for a network that takes {channels} channels. Give arrays, or TIFF files, of "
            f"{channels} channels, or a network that takes 3."
        )


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
    except UnidentifiedImageError as error:  # its text holds the path once more
        raise _not_whole(name, "Pillow cannot tell its format, or does not read this kind of it") from error
    except WrongChannelsError as error:
        raise UnreadableSampleError(f"Got {name}, {error}") from error
    except ImportError:  # a package that is missing says so itself
        raise
    except Exception as error:  # decoders raise what they please: OSError, SyntaxError, RuntimeError, AttributeError
        raise _not_whole(name, str(error)[:150]) from error


def _not_whole(name: str, why: str) -> UnreadableSampleError:
    return UnreadableSampleError(
        f"Got {name}, which is not a whole image ({why}); expected a file that Pillow can decode, of type "
        f"{', '.join(FORMATS)}, a TIFF of bands, or DICOM. Replace it, or leave its row out."
    )


def row_name(image: "str | EncodedFile | Image.Image", row: int) -> str:
    """Say what to call a row in messages.

    Parameters
    ----------
    image : str, EncodedFile or PIL.Image.Image
        A path, a file or a picture.
    row : int
        Its row.

    Returns
    -------
    str
        Its name; of a very long path both ends.
    """
    if isinstance(image, EncodedFile):
        return image.name(row)
    return name_of_path(image, row) if isinstance(image, str) else f"the picture in row {row}"


def opened_by(image: "str | EncodedFile | Image.Image", row: int) -> "str | bytes | Image.Image":
    """Return what `decode` takes.

    Parameters
    ----------
    image : str, EncodedFile or PIL.Image.Image
        A path, a file or a picture.
    row : int
        Its row.

    Returns
    -------
    str, bytes or PIL.Image.Image
        The content of a file; a path and a picture as they are.

    Raises
    ------
    UnreadableSampleError
        If the file cannot be read.
    """
    return image.read(row) if isinstance(image, EncodedFile) else image


def check_open(picture: Image.Image, name: str) -> None:
    """Refuse a picture that is not decoded yet and whose file is closed.

    Parameters
    ----------
    picture : PIL.Image.Image
        Given by a person.
    name : str
        What to call it in the message.

    Raises
    ------
    UnreadableSampleError
        If it is.
    """
    file = getattr(picture, "fp", None)
    if getattr(picture, "tile", []) and (file is None or getattr(file, "closed", False)):
        raise UnreadableSampleError(
            f"Got {name}, whose file is closed before its pixels were read; expected an open picture. Call its load() "
            "while the file is open, or give the path."
        )


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
            f"Got {name}, which has {picture.width} x {picture.height} pixels; expected at least one. Leave its row "
            "out."
        )
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and picture.width * picture.height > limit:
        raise UnreadableSampleError(
            f"Refused {name}: it claims {picture.width} x {picture.height} pixels, and the limit is {limit} "
            "(PIL.Image.MAX_IMAGE_PIXELS). Shrink the picture, or raise the limit if you trust its source."
        )


def header_of(image: "str | EncodedFile", row: int) -> TiffHeader | None:
    """Read what a TIFF says of its bands; pixels are left alone.

    Parameters
    ----------
    image : str or EncodedFile
        A path or a file.
    row : int
        Its row.

    Returns
    -------
    TiffHeader or None
        `None` if it is not a TIFF, or cannot be read. Loading it then says so.
    """
    with suppress(Exception), open_content(opened_by(image, row)) as file:
        return read_header(file)
    return None
