"""Small pictures of every kind that Pillow reads, made on the spot, and what is asked of the files they become."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from networks import tiny_cnn
from PIL import Image, features

from sktransfer.backbones import ImagePreprocessing
from sktransfer.inputs import make_reader

# What Pillow itself says of a damaged file is its own to say, and noise here.
PILLOW_MAY_WARN = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]

HEIGHT, WIDTH = 10, 12
SECONDS = 5.0  # of the processor, for any one file
ORIENTATION = 0x0112


def make_pixels(seed, height=HEIGHT, width=WIDTH):
    """A slope that survives lossy formats, under a little noise in which no two rows are the same."""
    y, x = np.mgrid[:height, :width]
    slope = np.stack([x * 200 / width, y * 200 / height, (x + y) * 200 / (height + width)], axis=-1)
    return (slope + np.random.default_rng(seed).integers(0, 40, slope.shape)).astype(np.uint8)


PIXELS = make_pixels(0)
GREY = np.ascontiguousarray(PIXELS[..., 1])
LARGE = make_pixels(1, 8 * HEIGHT, 8 * WIDTH)


def small_cnn():
    network = tiny_cnn()
    network.preprocessing = ImagePreprocessing(crop=(HEIGHT, WIDTH))
    return network


def samples_of(paths):
    return make_reader("images", ImagePreprocessing(crop=(HEIGHT, WIDTH)), None, "auto").read(list(paths))


def pixels_of(path):
    return samples_of([path]).load(0).permute(1, 2, 0).numpy()


def in_three(grey):
    return np.repeat(grey[..., None], 3, axis=-1)


def stated(path, row):
    """The only two things that may be said of a file, as a pattern."""
    named = re.escape(f"{str(path)!r} (row {row})")
    damaged = rf"Got {named}, which is not a whole image \(.*\); expected a file that Pillow can decode"
    return rf"(?s)^({damaged}|Refused {named}: )"


def encode(pixels, form, **parameters):
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    picture.save(buffer, form, **parameters)
    return buffer.getvalue()


def with_palette(pixels):
    """A picture of 64 colours, and what these colours are."""
    picture = Image.fromarray(pixels).quantize(64)
    return picture, np.asarray(picture.convert("RGB"))


def turned(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, rows=b"", interlaced=False, pieces=1):
    """A PNG of RGB rows, each behind its filter byte, in several chunks."""
    packed = zlib.compress(rows)
    size = -(-len(packed) // pieces)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlaced)
    data = [png_chunk(b"IDAT", packed[start : start + size]) for start in range(0, len(packed), size)]
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + b"".join(data) + png_chunk(b"IEND", b"")


def interlaced_rows(pixels):
    """The seven passes of Adam7."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    return b"".join(b"\0" + row.tobytes() for y, x, down, across in passes for row in pixels[y::down, x::across])


SHORT, LONG = 3, 4
TAGS = {"width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262, "offsets": 273}
TAGS |= {"orientation": 274, "samples": 277, "rows": 278, "sizes": 279, "planes": 284, "format": 339, "exif": 34665}


def tiff(pixels, *, directory="last", rows=HEIGHT, pack=bytes, next_directory=0, **tags):
    """A TIFF in strips of so many rows; its directory stands in front, as Pillow writes it, or behind, as others do."""
    strips = [pack(pixels[start : start + rows].tobytes()) for start in range(0, len(pixels), rows)]
    depth = pixels.shape[2] if pixels.ndim == 3 else 1
    tags = {
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "bits": [8 * pixels.itemsize] * depth,
        "compression": 1 if pack is bytes else 8,
        "photometric": 2 if depth == 3 else 1,
        "samples": depth,
        "rows": rows,
        "sizes": list(map(len, strips)),
        "planes": 1,
        "offsets": [0] * len(strips),
    } | tags
    length = 2 + 12 * len(tags) + 4
    aside = sum(4 * len(v) for v in tags.values() if isinstance(v, list) and len(v) > 1)
    whole = sum(map(len, strips))
    start = {"first": 8, "last": 8 + whole + aside, "last but for its values": 8 + whole}[directory]
    first_strip = 8 + length + aside if directory == "first" else 8
    tags["offsets"] = [first_strip + sum(map(len, strips[:number])) for number in range(len(strips))]
    place = start - aside if directory == "last" else start + length
    entries, more = b"", b""
    for name in sorted(tags, key=TAGS.get):
        values = tags[name] if isinstance(tags[name], list) else [tags[name]]
        data = struct.pack(f"<{len(values)}L", *values)
        if len(values) > 1:
            more, data = more + data, struct.pack("<L", place + len(more))
        entries += struct.pack("<HHL", TAGS[name], LONG, len(values)) + data
    entries = struct.pack("<H", len(tags)) + entries + struct.pack("<L", next_directory)
    head, data = b"II*\0" + struct.pack("<L", start), b"".join(strips)
    return head + b"".join(
        {
            "first": (entries, more, data),
            "last": (data, more, entries),
            "last but for its values": (data, entries, more),
        }[directory]
    )


def upside_down_bmp():
    rows = PIXELS[..., ::-1].tobytes()
    return (
        b"BM"
        + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, WIDTH, -HEIGHT, 1, 24, 0, len(rows), 0, 0, 0, 0)
        + rows
    )


def bmp_of_runs():
    """Runs of length one of 64 levels of grey."""
    runs = b"".join(b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in GREY[::-1] // 4) + b"\0\1"
    colours = b"".join(bytes([4 * level, 4 * level, 4 * level, 0]) for level in range(64))
    start = 54 + len(colours)
    return (
        b"BM"
        + struct.pack("<IHHI", start + len(runs), 0, 0, start)
        + struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 8, 1, len(runs), 0, 0, 64, 0)
        + colours
        + runs
    )


def make_kinds():
    """Bytes of a picture of each kind, its pixels, and by how much of 255 these may be off on average."""
    indexed, colours = with_palette(PIXELS)
    other = Image.fromarray(make_pixels(2))
    wide = GREY.astype(np.uint16) * 257
    shrunk = np.asarray(Image.fromarray(LARGE).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
    ink = np.dstack([255 - PIXELS, np.zeros_like(GREY)])
    kinds = {
        "JPEG": (encode(PIXELS, "JPEG", quality=95, subsampling=0), PIXELS, 6),
        "progressive JPEG": (encode(PIXELS, "JPEG", quality=95, subsampling=0, progressive=True), PIXELS, 6),
        "JPEG decoded at a quarter": (encode(LARGE, "JPEG", quality=40), shrunk, 6),
        "grey JPEG": (encode(GREY, "JPEG", quality=95), in_three(GREY), 6),
        "CMYK JPEG": (
            encode(Image.frombytes("CMYK", (WIDTH, HEIGHT), ink.tobytes()), "JPEG", quality=95),
            PIXELS,
            6,
        ),
        "turned JPEG": (encode(np.rot90(PIXELS).copy(), "JPEG", quality=95, subsampling=0, exif=turned(6)), PIXELS, 6),
        "PNG": (encode(PIXELS, "PNG"), PIXELS, 0),
        "interlaced PNG": (png(WIDTH, HEIGHT, interlaced_rows(PIXELS), True, 5), PIXELS, 0),
        "16-bit PNG": (encode(wide, "PNG"), in_three(GREY), 0),
        "PNG with a palette": (encode(indexed, "PNG", transparency=bytes(range(64))), colours, 0),
        "GIF": (encode(indexed, "GIF"), colours, 0),
        "animated GIF": (encode(indexed, "GIF", save_all=True, append_images=[other]), colours, 0),
        "BMP": (encode(PIXELS, "BMP"), PIXELS, 0),
        "BMP from the top": (upside_down_bmp(), PIXELS, 0),
        "BMP of runs": (bmp_of_runs(), in_three(GREY // 4 * 4), 0),
        "TIFF": (encode(PIXELS, "TIFF"), PIXELS, 0),
        "TIFF, directory last": (tiff(PIXELS), PIXELS, 0),
        "TIFF in strips, directory last": (tiff(GREY, rows=3), in_three(GREY), 0),
        "TIFF in strips, values last": (tiff(PIXELS, rows=3, directory="last but for its values"), PIXELS, 0),
        "TIFF of floats, directory last": (tiff((GREY / 255).astype(np.float32), format=3), in_three(GREY), 0),
        "turned TIFF, directory last": (tiff(np.rot90(GREY).copy(), orientation=6, rows=WIDTH), in_three(GREY), 0),
        "deflated TIFF in strips": (tiff(PIXELS, rows=3, pack=zlib.compress, directory="first"), PIXELS, 0),
    }
    if features.check("libtiff"):
        for packed in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
            kinds[f"TIFF, {packed}"] = (encode(PIXELS, "TIFF", compression=packed), PIXELS, 0)
        bits = Image.fromarray(GREY > 100)
        kinds["TIFF, group4"] = (encode(bits, "TIFF", compression="group4"), in_three(np.asarray(bits) * 255), 0)
    if features.check("webp"):
        animated = {"save_all": True, "append_images": [other], "lossless": True}
        kinds["WebP"] = (encode(PIXELS, "WEBP", quality=95), PIXELS, 20)
        kinds["lossless WebP"] = (encode(PIXELS, "WEBP", lossless=True), PIXELS, 0)
        kinds["animated WebP"] = (encode(PIXELS, "WEBP", **animated), PIXELS, 0)
    if features.check("jpg_2000"):
        kinds["JPEG 2000"] = (encode(LARGE, "JPEG2000", quality_layers=[60]), shrunk, 9)
        kinds["JPEG 2000 of tiles"] = (encode(LARGE, "JPEG2000", tile_size=(48, 40), quality_layers=[60]), shrunk, 9)
    return kinds


KINDS = make_kinds()
