"""What a user may rely on about TIFF files of several bands: all are read, or a sentence says why not."""

import io
import re
import struct
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from networks import rest_exhaustive, tiny_cnn
from PIL import Image

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import ImagePreprocessing
from sktransfer.inputs.images._decoding import decode

tifffile = pytest.importorskip("tifffile")

BANDS = np.random.default_rng(0).integers(0, 256, (24, 16, 13), dtype=np.uint8)
HERE = "'x.tif' (row 3)"


def tiff(pixels, **how):
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **how)
    return file.getvalue()


def first(pixels):
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def contiguous(pixels=BANDS, **how):
    return tiff(pixels, **{"photometric": "minisblack", "planarconfig": "contig", **how})


def by_hand(pixels, photometric=2, extra=0):
    """A TIFF as its specification of 1992 has it: one strip, plain, with four 16-bit samples beside each other."""
    height, width, bands = pixels.shape
    bits, extras = struct.pack(f">{bands}H", *[16] * bands), bands - 3
    data = pixels.astype(">u2").tobytes()
    entries = [
        (256, 4, 1, struct.pack(">L", width)), (257, 4, 1, struct.pack(">L", height)),
        (258, 3, bands, struct.pack(">L", 8)), (259, 3, 1, struct.pack(">HH", 1, 0)),
        (262, 3, 1, struct.pack(">HH", photometric, 0)), (273, 4, 1, struct.pack(">L", 8 + len(bits))),
        (277, 3, 1, struct.pack(">HH", bands, 0)), (278, 4, 1, struct.pack(">L", height)),
        (279, 4, 1, struct.pack(">L", len(data))), (284, 3, 1, struct.pack(">HH", 1, 0)),
        (338, 3, extras, struct.pack(">HH", extra, 0)), (339, 3, 1, struct.pack(">HH", 1, 0)),
    ]  # fmt: skip
    directory = struct.pack(">H", len(entries)) + b"".join(
        struct.pack(">HHL", tag, kind, count) + value for tag, kind, count, value in entries
    )
    start = 8 + len(bits) + len(data)
    return b"MM\0*" + struct.pack(">L", start) + bits + data + directory + b"\0" * 4


# Layouts


LAYOUTS = {
    "beside each other": (BANDS, contiguous()),
    "one after another": (BANDS, tiff(first(BANDS), photometric="minisblack", planarconfig="separate")),
    "a page each": (BANDS, tiff(first(BANDS))),
    "rows as pages": (BANDS, tiff(BANDS)),
    "OME": (BANDS, tiff(first(BANDS), ome=True, metadata={"axes": "CYX"})),
    "ImageJ": (BANDS, tiff(first(BANDS), imagej=True, metadata={"axes": "CYX"})),
    "BigTIFF": (BANDS, contiguous(bigtiff=True)),
    "tiles": (BANDS, contiguous(tile=(16, 16), compression="zlib")),
    "deflate": (BANDS, contiguous(compression="zlib", predictor=True)),
    "strips": (BANDS, contiguous(rowsperstrip=5)),
    "LZMA": (BANDS, contiguous(compression="lzma")),
    "uint16": (BANDS * np.uint16(150), contiguous(BANDS * np.uint16(150))),
    "big endian": (BANDS * np.uint16(150), contiguous(BANDS * np.uint16(150), byteorder=">")),
    "int16": (BANDS.astype(np.int16) - 99, contiguous(BANDS.astype(np.int16) - 99)),
    "float32": (BANDS / np.float32(255), contiguous(BANDS / np.float32(255), compression="zlib")),
    "float64": (BANDS / 255.0, contiguous(BANDS / 255.0)),
    "two": (BANDS[..., :2], contiguous(BANDS[..., :2].copy())),
    "near infrared": (BANDS[..., :4], tiff(BANDS[..., :4].copy(), photometric="rgb", extrasamples=["unspecified"])),
    "near infrared, planes": (BANDS[..., :4], tiff(first(BANDS[..., :4]), photometric="rgb", planarconfig="separate",
                                                   extrasamples=["unspecified"])),
    "four grey": (BANDS[..., :4], contiguous(BANDS[..., :4].copy())),
    "transparency": (BANDS[..., :4], tiff(BANDS[..., :4].copy(), photometric="rgb", extrasamples=["unassalpha"])),
    "by hand": (BANDS[..., :4] * np.uint16(99), by_hand(BANDS[..., :4] * np.uint16(99))),
    "colours of floats": (BANDS[..., :3] / np.float32(255), tiff(BANDS[..., :3] / np.float32(255), photometric="rgb")),
    "colours of 16 bits in planes": (
        BANDS[..., :3].astype(np.uint16), tiff(first(BANDS[..., :3]).astype(np.uint16), photometric="rgb",
                                               planarconfig="separate"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_all_bands_are_read_bit_for_bit(layout):
    expected, content = LAYOUTS[layout]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = np.asarray(decode(content, HERE, expected.shape[-1]))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("way", range(1, 9))
def test_bands_are_turned_upright_as_pillow_turns_colours(way):
    colours = np.ascontiguousarray(BANDS[..., :3])
    more = tiff(BANDS, photometric="minisblack", planarconfig="contig", extratags=[(274, 3, 1, way, True)])
    three = tiff(colours, photometric="rgb", extratags=[(274, 3, 1, way, True)])
    np.testing.assert_array_equal(decode(more, HERE, 13)[..., :3], np.asarray(decode(three, HERE, 3)))


@pytest.mark.parametrize("channels", [1, 3])
def test_files_that_pillow_reads_stay_with_pillow(channels, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    for pixels in (BANDS[..., :3].copy(), BANDS[..., 0].copy()):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "TIFF")
        assert isinstance(decode(file.getvalue(), HERE, channels), Image.Image)


def test_of_pages_a_network_of_pictures_reads_the_first():
    found = np.asarray(decode(tiff(first(BANDS)), HERE, 1))
    np.testing.assert_array_equal(found, BANDS[..., 0])


# Estimators


def files_of(folder, pixels, **how):
    paths = [str(folder / f"{number}.tif") for number in range(len(pixels))]
    for path, image in zip(paths, pixels, strict=True):
        tifffile.imwrite(path, image, **how)
    return paths


def test_files_give_the_features_of_the_arrays_in_them(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 10000, (6, 16, 16, 13), dtype=np.uint16)
    paths = files_of(tmp_path, pixels, photometric="minisblack", planarconfig="contig")
    contents = [Path(path).read_bytes() for path in paths]

    def features(X):
        extractor = PretrainedFeatureExtractor(tiny_sized, pixel_range=(0, 10000), random_state=0)
        return extractor.fit_transform(X)

    expected = features(pixels)
    for X in (paths, np.array(paths, dtype=object), contents, [{"bytes": content} for content in contents]):
        np.testing.assert_allclose(features(X), expected, rtol=1e-5, atol=1e-5)


def tiny_sized():
    from sktransfer.inputs import ImagePreprocessing

    network = tiny_cnn()
    network.preprocessing = ImagePreprocessing(crop=(16, 16))
    return network


def test_what_only_the_near_infrared_tells_is_learned_from_files_with_n_channels_alone(tmp_path):
    y = np.arange(24) % 2
    pixels = np.random.default_rng(0).integers(0, 255, (24, 16, 16, 4), dtype=np.uint8)
    pixels[..., 3] = np.where(y == 1, 150, 100)[:, None, None] + pixels[..., 3] // 8
    paths = files_of(tmp_path, pixels, photometric="rgb", extrasamples=["unspecified"])
    four = FineTunedClassifier(tiny_sized, n_channels=4, random_state=0).fit(paths[:16], y[:16])
    assert four.score(paths[16:], y[16:]) == 1.0
    with pytest.warns(UserWarning, match=r"^Got .*0\.tif' \(row 0\), a TIFF of 4 bands; .*dropped.*set n_channels=4"):
        three = FineTunedClassifier(tiny_sized, random_state=0).fit(paths[:16], y[:16])
    assert three.score(paths[16:], y[16:]) < 0.9


@pytest.mark.parametrize("bands", [3, 4])
def test_further_pages_of_colours_are_told(bands, tmp_path):
    pages = np.stack([BANDS[..., :bands]] * 3)
    extra = {} if bands == 3 else {"extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "x.tif", pages, photometric="rgb", **extra)
    extractor = PretrainedFeatureExtractor(tiny_cnn, weights=None)
    if bands == 4:  # a fourth band that is marked as transparency is no reason for another warning
        extractor.set_params(n_channels=3)
    paths = [str(tmp_path / "x.tif")] * 2
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        extractor.fit(paths)
    told = [str(one.message) for one in told if "pages" in str(one.message)]
    if bands == 4:
        assert not told
    else:
        (sentence,) = told
        assert "a TIFF of 3 pages of colours; expected one page: only the first is read." in sentence
        assert "save each page as a file; if not, say n_channels=3" in sentence


def test_pages_are_told_and_taken_as_bands_where_n_channels_says_so(tmp_path):
    paths = files_of(tmp_path, np.stack([first(BANDS)] * 3))
    with pytest.warns(UserWarning, match="a TIFF of 13 pages; .*only the first is read.*set n_channels=13"):
        PretrainedFeatureExtractor(tiny_sized).fit(paths)
    assert PretrainedFeatureExtractor(tiny_sized, n_channels=13).fit(paths).transform(paths).shape == (3, 16)


@pytest.mark.parametrize("form", ["paths", "bytes"])
def test_the_bands_of_the_first_file_are_what_auto_takes(form, tmp_path):
    paths = files_of(tmp_path, np.stack([BANDS] * 3), photometric="minisblack", planarconfig="contig")
    X = paths if form == "paths" else [Path(path).read_bytes() for path in paths]
    extractor = PretrainedFeatureExtractor(tiny_sized).fit(X)
    assert extractor.backbone_.preprocessing.channels == 13
    np.testing.assert_allclose(extractor._reader.preprocessing.mean[3:], BANDS[..., 3:].mean((0, 1)) / 255, rtol=1e-4)


# What is refused


def read_or_refused(content, channels):
    with warnings.catch_warnings():  # of Pillow, on files that are damaged
        warnings.simplefilter("ignore")
        try:
            return np.asarray(decode(content, HERE, channels))
        except ValueError as error:
            return str(error)


def refused(content, channels=13):
    with pytest.raises(ValueError, match=r"^(Got|Refused) 'x\.tif' \(row 3\)") as caught:
        decode(content, HERE, channels)
    assert len(str(caught.value)) < 700
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "channels", "why"),
    [
        (contiguous(), 12, "a file of 13 bands; expected 12.*Set n_channels=13"),
        (contiguous(), 3, "a file of 13 bands; expected 3.*Set n_channels=13"),
        (tiff(first(BANDS)), 12, "it holds 13 pages.*expected one page of 12 bands, or 12 pages"),
        (tiff(BANDS[..., :3].copy(), photometric="rgb"), 13, "a picture of mode RGB; expected an array of 13 channels"),
        (contiguous(np.where(BANDS == 7, np.nan, BANDS).astype(np.float32)), 13, "it holds NaN or infinity"),
        (contiguous(BANDS.astype(np.complex64)), 13, "it holds values of type complex64"),
        (tiff(np.stack([first(BANDS[..., :4])] * 3), photometric="minisblack"), 13, "it holds .* pages, with the axes"),
    ],
    ids=["12", "3", "pages", "RGB", "NaN", "complex", "two axes"],
)
def test_what_does_not_fit_is_refused_with_its_row(content, channels, why):
    assert re.search(why, refused(content, channels), re.DOTALL)


def test_a_codec_that_is_not_installed_is_named():
    if "imagecodecs" in sys.modules or _can_lzw():
        pytest.skip("imagecodecs is installed")
    content = bytearray(contiguous(compression="zlib"))
    at = content.find(struct.pack("<HHL", 259, 3, 1))
    content[at + 8 : at + 10] = struct.pack("<H", 5)
    assert "imagecodecs" in refused(bytes(content))


def _can_lzw():
    try:
        import imagecodecs  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.parametrize("layout", rest_exhaustive(list(LAYOUTS), "beside each other", "deflate", "a page each"))
def test_a_file_that_ends_early_is_refused_or_whole(layout):
    expected, content = LAYOUTS[layout]
    channels = expected.shape[-1]
    whole = np.asarray(decode(content, HERE, channels))
    for end in {*range(4, len(content), max(1, len(content) // 40)), len(content) - 1}:
        found = read_or_refused(content[:end], channels)
        if isinstance(found, str):
            assert found.startswith((f"Got {HERE}", f"Refused {HERE}"))
        else:
            np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize("seed", rest_exhaustive(range(20), 0))
def test_a_file_with_one_wrong_byte_is_read_or_refused_in_one_sentence(seed):
    rng = np.random.default_rng(seed)
    for content in (LAYOUTS["deflate"][1], LAYOUTS["a page each"][1], LAYOUTS["OME"][1]):
        for _ in range(20):
            damaged = bytearray(content)
            damaged[rng.integers(len(content)) if rng.random() < 0.3 else rng.integers(400)] = rng.integers(256)
            found = read_or_refused(bytes(damaged), 13)
            assert not isinstance(found, str) or len(found) < 800


def test_a_file_that_claims_too_many_pixels_is_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    assert "claims 16 x 24 pixels, and the limit is 200" in refused(contiguous())


def test_a_part_that_unpacks_to_far_more_than_it_stands_for_is_refused():
    content = contiguous(compression="zlib")
    bomb = zlib.compress(bytes(2**27), 9)
    with tifffile.TiffFile(io.BytesIO(content)) as opened:
        page = opened.pages.first
        offset, count = (page.tags[name].valueoffset for name in ("StripOffsets", "StripByteCounts"))
        kinds = [page.tags[name].dtype for name in ("StripOffsets", "StripByteCounts")]
    assert all(kind in (3, 4) for kind in kinds)
    damaged = bytearray(content)
    for place, kind, value in ((offset, kinds[0], len(content)), (count, kinds[1], len(bomb))):
        if kind == 3:  # a short cannot hold it: make it a long
            head = place - 8
            damaged[head + 2 : head + 4] = struct.pack("<H", 4)
        damaged[place : place + 4] = struct.pack("<L", value)
    assert "unpacks to far more than its pixels" in refused(bytes(damaged) + bomb)


def test_where_tifffile_is_missing_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(ImportError, match=r'tifffile.*pip install "sktransfer\[scientific\]"'):
        decode(contiguous(), HERE, 13)


def test_a_bad_file_among_others_costs_its_row_alone(tmp_path):
    paths = files_of(tmp_path, np.stack([BANDS] * 3), photometric="minisblack", planarconfig="contig")
    Path(paths[1]).write_bytes(Path(paths[1]).read_bytes()[:500])
    extractor = PretrainedFeatureExtractor(tiny_sized, on_bad_sample="nan").fit(paths)
    with pytest.warns(UserWarning, match=r"1 of 3 samples could not be read.*1\.tif"):
        found = extractor.transform(paths)
    np.testing.assert_array_equal(np.isnan(found).all(axis=1), [False, True, False])


# Open files, and values that Pillow does not know


class Unseekable(io.BytesIO):
    def seekable(self):
        return False

    def seek(self, *_):
        raise OSError("it cannot seek")


def test_open_files_that_can_seek_say_how_many_bands_they_have():
    content = contiguous()
    X = [io.BytesIO(content), io.BytesIO(content)]
    assert PretrainedFeatureExtractor(tiny_cnn).fit(X).backbone_.preprocessing.channels == 13
    assert X[0].tell() == 0
    fitted = PretrainedFeatureExtractor(tiny_cnn, n_channels=13).fit([Unseekable(content)])
    np.testing.assert_array_equal(fitted.transform([Unseekable(content)]), fitted.transform(X[:1]))


@pytest.mark.filterwarnings("ignore:Got image values")
@pytest.mark.parametrize("kind", ["uint64", "int64", "float64", "float16"])
def test_grey_of_types_that_pillow_does_not_read_says_in_fit_what_black_and_white_are(kind):
    pixels = (np.random.default_rng(0).uniform(-1 if kind[0] in "if" else 0, 1, (2, 24, 16)) * 2000).astype(kind)
    files = [tiff(image, photometric="minisblack") for image in pixels]
    network = tiny_cnn()
    network.preprocessing = ImagePreprocessing(crop=(24, 16))
    given, read = (
        PretrainedFeatureExtractor(network, precision="float32").fit_transform(X) for X in (list(pixels), files)
    )
    np.testing.assert_allclose(read, given, rtol=1e-4, atol=1e-5)


def test_pages_of_colours_are_not_called_deep():
    pages = io.BytesIO()
    colours = Image.fromarray(np.ascontiguousarray(BANDS[..., :3]))
    colours.save(pages, "TIFF", save_all=True, append_images=[colours])
    with pytest.raises(ValueError, match="a picture of colours of 8 bits; expected an array of 6 channels"):
        PretrainedFeatureExtractor(tiny_cnn, n_channels=6).fit([pages.getvalue()])
