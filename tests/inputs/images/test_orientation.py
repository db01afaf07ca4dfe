"""What a user may rely on when photos lie on their side: the orientation tag turns them, whatever else is damaged."""

import io
import struct
import warnings

import numpy as np
import pytest
from picture_corpus import (
    GREY,
    HEIGHT,
    PIXELS,
    WIDTH,
    encode,
    make_pixels,
    pixels_of,
    png_chunk,
    samples_of,
    tiff,
    turned,
)
from PIL import Image, features

from sktransfer.inputs import ImagePreprocessing, make_reader

ORIENTATION, SHORT, LONG, RATIONAL, SIGNED_RATIONAL, TEXT = 0x112, 3, 4, 5, 10, 2
ON_ITS_SIDE = np.rot90(PIXELS).copy()  # 6 turns it upright

FAR = 2**31
# A tag, its type, its number of values, and the four bytes that hold them or say where they are.
DAMAGED = {
    "a negative rational": (0x11A, SIGNED_RATIONAL, 1, struct.pack("<L", 38)),
    "a rational with nothing below": (0x11A, RATIONAL, 1, struct.pack("<L", 46)),
    "a width that is a fraction": (0x100, RATIONAL, 1, struct.pack("<L", 38)),
    "a resolution that is a text": (0x11A, TEXT, 4, b"abc\0"),
    "a value behind the end": (0x10F, TEXT, 100, struct.pack("<L", FAR)),
    "more values than bytes": (0x10F, SHORT, FAR, struct.pack("<L", 38)),
    "two values instead of one": (0x128, SHORT, 2, struct.pack("<HH", 2, 2)),
    "a type that there is not": (0x10F, 99, 1, bytes(4)),
    "an EXIF directory behind the end": (0x8769, LONG, 1, struct.pack("<L", FAR)),
    "an EXIF directory that is itself": (0x8769, LONG, 1, struct.pack("<L", 8)),
    "a GPS directory that is a text": (0x8825, TEXT, 4, b"abc\0"),
    "no other tag": (0x131, TEXT, 4, b"abc\0"),
}


def exif_of(*entries, order="<"):
    """A directory of entries whose last field is packed already, with two rationals behind it."""
    entries = sorted(entries)
    body = b"".join(struct.pack(f"{order}HHL", *entry[:3]) + entry[3] for entry in entries)
    head = b"II*\0" if order == "<" else b"MM\0*"
    count = struct.pack(f"{order}H", len(entries))
    return head + struct.pack(f"{order}L", 8) + count + body + bytes(4) + struct.pack(f"{order}llll", -1, 0, 7, 0)


def says(way, order="<"):
    return (ORIENTATION, SHORT, 1, struct.pack(f"{order}HH", way, 0))


def jpeg_with(*segments, pixels=ON_ITS_SIDE):
    data = encode(pixels, "JPEG", quality=95, subsampling=0)
    packed = b"".join(b"\xff" + bytes([kind]) + struct.pack(">H", len(more) + 2) + more for kind, more in segments)
    return data[:2] + packed + data[2:]


def in_jpeg(exif):
    return jpeg_with((0xE1, b"Exif\0\0" + exif))


def in_png(exif):
    data = encode(ON_ITS_SIDE, "PNG")
    return data[:33] + png_chunk(b"eXIf", exif) + data[33:]


def in_png_behind_the_pixels(exif):
    return encode(ON_ITS_SIDE, "PNG")[:-12] + png_chunk(b"eXIf", exif) + png_chunk(b"IEND", b"")


def in_png_as_text(exif):
    profile = f"\nexif\n{len(exif) + 6}\n{(b'Exif' + bytes(2) + exif).hex()}\n"
    data = encode(ON_ITS_SIDE, "PNG")
    return data[:33] + png_chunk(b"tEXt", b"Raw profile type exif\0" + profile.encode()) + data[33:]


def in_webp(exif):
    if not features.check("webp"):
        pytest.skip("Pillow here has no WebP")
    return encode(ON_ITS_SIDE, "WEBP", lossless=True, exif=exif)


CARRIERS = [in_jpeg, in_png, in_png_behind_the_pixels, in_png_as_text, in_webp]


def read(data, folder):
    """Read a file, which may not warn of anything."""
    path = folder / "photo"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return pixels_of(path).astype(int)


def is_upright(pixels):
    return abs(pixels - PIXELS).mean() <= 6


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("carrier", CARRIERS)
def test_a_photo_is_turned_whatever_other_tag_is_damaged(carrier, damage, tmp_path):
    assert is_upright(read(carrier(exif_of(says(6), DAMAGED[damage])), tmp_path))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("carrier", CARRIERS)
def test_both_orders_of_bytes_are_read(carrier, order, tmp_path):
    assert is_upright(read(carrier(exif_of(says(6, order), order=order)), tmp_path))


NONE = {
    "0": says(0),
    "9": says(9),
    "65535": says(65535),
    "a text": (ORIENTATION, TEXT, 2, b"6\0\0\0"),
    "a rational": (ORIENTATION, RATIONAL, 1, struct.pack("<L", 30)),
    "no value": (ORIENTATION, SHORT, 0, struct.pack("<HH", 6, 0)),
    "a million values": (ORIENTATION, SHORT, 10**6, struct.pack("<L", 30)),
}


@pytest.mark.parametrize("value", NONE)
@pytest.mark.parametrize("carrier", CARRIERS)
def test_an_orientation_that_is_none_leaves_the_picture_as_it_lies(carrier, value, tmp_path):
    found = read(carrier(exif_of(NONE[value])), tmp_path)
    expected = np.asarray(Image.fromarray(ON_ITS_SIDE).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
    assert abs(found - expected).mean() <= 6


@pytest.mark.parametrize("length", range(0, 26, 3))
def test_metadata_that_is_cut_short_leaves_the_picture_as_it_lies(length, tmp_path):
    assert read(in_jpeg(exif_of(says(6))[:length]), tmp_path).shape == PIXELS.shape


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def test_an_orientation_in_xmp_holds_where_exif_has_none(tmp_path):
    xmp = (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP)
    assert is_upright(read(jpeg_with(xmp), tmp_path))
    assert is_upright(read(jpeg_with((0xE1, b"Exif\0\0" + exif_of(DAMAGED["a negative rational"])), xmp), tmp_path))
    upright = jpeg_with((0xE1, b"Exif\0\0" + exif_of(says(1))), xmp, pixels=PIXELS)
    assert is_upright(read(upright, tmp_path))


def test_a_damaged_list_of_further_pictures_is_passed_over(tmp_path):
    exif = (0xE1, b"Exif\0\0" + exif_of(says(6)))
    assert is_upright(read(jpeg_with(exif, (0xE2, b"MPF\0" + exif_of(DAMAGED["a type that there is not"]))), tmp_path))
    assert is_upright(read(jpeg_with((0xE2, b"MPF\0garbage"), exif), tmp_path))


@pytest.mark.parametrize("damage", [damage for damage in DAMAGED if "width" not in damage])
def test_a_tiff_is_turned_whatever_other_tag_is_damaged(damage, tmp_path):
    stored = np.rot90(GREY).copy()
    plain = tiff(stored, orientation=6, rows=WIDTH, directory="last")
    (start,) = struct.unpack("<L", plain[4:8])
    (count,) = struct.unpack("<H", plain[start : start + 2])
    entries = [plain[start + 2 + 12 * number :][:12] for number in range(count)]
    entries = sorted([*entries, struct.pack("<HHL", *DAMAGED[damage][:3]) + DAMAGED[damage][3]])
    data = plain[:start] + struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    np.testing.assert_array_equal(read(data, tmp_path), np.repeat(GREY[..., None], 3, axis=-1))


def test_a_large_photo_on_its_side_is_decoded_smaller_all_the_same(tmp_path):
    large = make_pixels(3, 600, 720)
    path = tmp_path / "photo.jpg"
    exif = exif_of(says(6), DAMAGED["a negative rational"])
    path.write_bytes(jpeg_with((0xE1, b"Exif\0\0" + exif), pixels=np.rot90(large).copy()))
    shrunk = np.asarray(Image.fromarray(large).resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR))
    assert abs(pixels_of(path).astype(int) - shrunk).mean() <= 6


# Pictures that a person opened, or changed in memory


def loaded(picture):
    reader = make_reader("images", ImagePreprocessing(crop=(HEIGHT, WIDTH)), None, "auto")
    return reader.learn([picture]).load(0).permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("carrier", [in_png, in_png_behind_the_pixels, in_webp])
def test_an_opened_picture_is_turned_whatever_other_tag_is_damaged(carrier, tmp_path):
    picture = Image.open(io.BytesIO(carrier(exif_of(says(6), DAMAGED["a negative rational"]))))
    before = dict(picture.info)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_upright(loaded(picture))
    assert picture.size == ON_ITS_SIDE.shape[1::-1]
    assert before.items() <= picture.info.items()


def test_what_was_said_in_memory_holds():
    picture = Image.fromarray(ON_ITS_SIDE)
    picture.getexif()[ORIENTATION] = 6
    assert is_upright(loaded(picture))
    opened = Image.open(io.BytesIO(encode(PIXELS, "PNG", exif=turned(3))))
    del opened.getexif()[ORIENTATION]
    assert is_upright(loaded(opened))


def test_a_picture_remembers_what_was_said_in_memory_under_the_name_that_is_asked_for():
    """A private name of Pillow's: should it go, orientations that are set in memory are no longer seen."""
    picture = Image.new("L", (1, 1))
    exif = picture.getexif()
    assert picture._exif is exif


def test_samples_are_turned_in_predict_as_in_fit(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(in_jpeg(exif_of(says(6), DAMAGED["a negative rational"])))
    assert is_upright(samples_of([path]).load(0).permute(1, 2, 0).numpy().astype(int))
