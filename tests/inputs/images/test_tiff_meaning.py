"""White as zero is turned round, and a value for no data begins no range, in TIFF files of more than 8 bits."""

import io

import numpy as np
import pytest
from networks import tiny_cnn
from PIL import Image

from sktransfer import PretrainedFeatureExtractor
from sktransfer.inputs.images._decoding import decode

tifffile = pytest.importorskip("tifffile")

GREY = np.random.default_rng(0).integers(100, 4000, (24, 16))


def tiff(pixels, **how):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **{"photometric": "minisblack", **how})
    return file.getvalue()


def without_data(pixels, text, **how):
    return tiff(pixels, extratags=[(42113, "s", 0, text, True)], **how)


def read(content, channels=1, **how):
    return np.asarray(decode(content, "'x.tif' (row 3)", channels, **how))


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
@pytest.mark.parametrize("layout", [{}, {"tile": (16, 16)}, {"byteorder": ">"}, {"bigtiff": True}])
def test_white_as_zero_is_turned_round(layout, dtype):
    pixels = GREY.astype(dtype)
    found = read(tiff(pixels, photometric="miniswhite", **layout))[..., 0]
    np.testing.assert_array_equal(found, np.iinfo(dtype).max - pixels)
    assert found.dtype == dtype


def test_16_bits_are_turned_round_as_8_bits_are():
    few = (GREY // 16).astype(np.uint8)
    narrow = read(tiff(few, photometric="miniswhite"))
    wide = read(tiff(few.astype(np.uint16) * 257, photometric="miniswhite"))[..., 0]
    np.testing.assert_array_equal(narrow, wide // 257)


def test_an_open_picture_and_pages_as_bands_are_turned_round_too():
    pixels = GREY.astype(np.uint16)
    content = tiff(pixels, photometric="miniswhite")
    with Image.open(io.BytesIO(content)) as picture:
        np.testing.assert_array_equal(read(picture), read(content))
    bands = read(tiff(np.stack([pixels] * 5), photometric="miniswhite"), 5)
    np.testing.assert_array_equal(bands, np.stack([65535 - pixels] * 5, axis=-1))


def test_white_as_zero_keeps_to_the_black_and_white_that_a_person_says():
    content = tiff(GREY.astype(np.uint16), photometric="miniswhite")
    np.testing.assert_array_equal(read(content, stored=(0, 4095))[..., 0], 4095 - GREY)
    with Image.open(io.BytesIO(content)) as picture:
        np.testing.assert_array_equal(read(picture, stored=(0, 4095))[..., 0], 4095 - GREY)


def test_floats_have_no_white_and_stay_as_they_are():
    pixels = GREY.astype(np.float32)
    np.testing.assert_array_equal(read(tiff(pixels, photometric="miniswhite"))[..., 0], pixels)


NODATA = [
    (np.uint16, 0, "0"), (np.uint16, 65535, "65535"), (np.int16, -9999, "-9999"), (np.int16, -32768, "-32768.0"),
    (np.uint32, 4294967295, "4294967295"), (np.float32, -9999, "-9999"), (np.float32, np.nan, "nan"),
    (np.float32, np.finfo(np.float32).min, "-3.4028234663852886e+38"), (np.float64, -1.7e308, "-1.7e+308"),
]  # fmt: skip


@pytest.mark.parametrize("bands", [1, 5])
@pytest.mark.parametrize(("dtype", "value", "text"), NODATA)
def test_pixels_without_data_get_the_smallest_value_of_their_band(dtype, value, text, bands):
    pixels = np.stack([GREY + 10 * band for band in range(bands)], axis=-1).astype(dtype)
    expected = pixels.copy()
    pixels[:3] = value
    expected[:3] = expected[3:].min(axis=(0, 1))
    content = without_data(pixels[..., 0] if bands == 1 else pixels, text, **({} if bands == 1 else PLANAR))
    np.testing.assert_array_equal(read(content, bands), expected)


PLANAR = {"planarconfig": "contig"}


def test_a_value_that_no_pixel_has_and_a_text_that_is_no_number_change_nothing():
    for text in ("-9999", "0", "nothing", "", "0.5"):
        np.testing.assert_array_equal(read(without_data(GREY.astype(np.uint16), text))[..., 0], GREY)


def test_8_bits_stay_as_they_are():
    pixels = (GREY // 16).astype(np.uint8)
    np.testing.assert_array_equal(read(without_data(pixels, str(pixels[0, 0]))), pixels)


def test_a_file_without_any_data_is_a_bad_sample(tmp_path):
    content = without_data(np.full((24, 16), -9999, np.int16), "-9999")
    with pytest.raises(ValueError, match=r"'x\.tif' \(row 3\).*a band without data: all pixels are -9999"):
        read(content)
    (tmp_path / "none.tif").write_bytes(content)
    (tmp_path / "some.tif").write_bytes(tiff(GREY.astype(np.int16)))
    paths = [str(tmp_path / name) for name in ("some.tif", "none.tif")]
    extractor = PretrainedFeatureExtractor(tiny_cnn, weights=None, on_bad_sample="nan", pixel_range=(0, 4000))
    with pytest.warns(UserWarning, match="1 "):
        features = extractor.fit(paths[:1]).transform(paths)
    assert np.isnan(features).all(axis=1).tolist() == [False, True]


def test_no_range_begins_with_what_was_not_measured(tmp_path):
    pixels = GREY.astype(np.int16)
    masked = np.where(np.arange(16) < 4, -9999, pixels).astype(np.int16)
    (tmp_path / "masked.tif").write_bytes(without_data(masked, "-9999"))
    (tmp_path / "plain.tif").write_bytes(tiff(np.where(masked == -9999, pixels[:, 4:].min(), masked).astype(np.int16)))
    paths = [str(tmp_path / name) for name in ("masked.tif", "plain.tif")]
    one, other = PretrainedFeatureExtractor(tiny_cnn, weights=None, pixel_range=(0, 4000)).fit_transform(paths)
    np.testing.assert_array_equal(one, other)
