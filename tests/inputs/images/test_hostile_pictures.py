"""What a user may rely on when files are hostile or none at all: the right picture, or an error that names it, at once.

Nothing that a file claims of itself, and nothing that a path leads to, may hang, crash or be run.
"""

import io
import os
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from networks import tiny_cnn
from picture_corpus import (
    GREY,
    HEIGHT,
    KINDS,
    LONG,
    PILLOW_MAY_WARN,
    PIXELS,
    SECONDS,
    SHORT,
    WIDTH,
    make_pixels,
    pixels_of,
    png,
    png_chunk,
    small_cnn,
    stated,
    tiff,
)
from PIL import EpsImagePlugin, Image

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import ImagePreprocessing

pytestmark = PILLOW_MAY_WARN


def within(seconds, call):
    """Return or raise what a call does, or fail where it hangs."""
    outcome = []

    def run():
        try:
            outcome.append((call(), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert outcome, f"still at it after {seconds} s"
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


# Hostile files


def webp_that_claims(width, height):
    """An empty canvas of up to 2**24 a side, on which a small frame lies."""
    frame = KINDS["lossless WebP"][0][12:]
    sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    canvas = b"VP8X" + struct.pack("<I", 10) + bytes([2, 0, 0, 0]) + sides
    loop = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    small = struct.pack("<I", WIDTH - 1)[:3] + struct.pack("<I", HEIGHT - 1)[:3]
    frame = b"ANMF" + struct.pack("<I", 16 + len(frame)) + bytes(6) + small + bytes(4) + frame
    body = b"WEBP" + canvas + loop + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp_that_claims(width, height, kind="BMP"):
    data = KINDS[kind][0]
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


def gif_that_claims(width, height, frame=None):
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, *(frame or (width, height)), 0) + b"\x02\x02\x4c\x01\0;"


def jpeg_that_claims(width, height):
    data = KINDS["JPEG"][0]
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + struct.pack(">HH", height, width) + data[start + 4 :]


def png_with(kind, head, before):
    """A whole PNG with a chunk that is 100 KB packed and 100 MB unpacked."""
    data = KINDS["PNG"][0]
    place = data.index(b"IDAT") - 4 if before else len(data) - 12
    return data[:place] + png_chunk(kind, head + zlib.compress(bytes(100_000_000))) + data[place:]


def big_tiff(*entries, count=None):
    head = b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, len(entries) if count is None else count)
    return head + b"".join(struct.pack("<HHQQ", *entry) for entry in entries) + bytes(8)


HOSTILE = {
    "PNG that claims 100,000 x 100,000": lambda: png(100_000, 100_000),
    "PNG that claims one row of 2**31 - 1": lambda: png(2**31 - 1, 1),
    "PNG that claims a little more than the limit": lambda: png(9460, 9460),
    "PNG that claims a little less than the limit": lambda: png(9459, 9459),
    "PNG that claims no width": lambda: png(0, 10),
    "GIF that claims 65,535 x 65,535": lambda: gif_that_claims(65_535, 65_535),
    "BMP that claims 100,000 x 100,000": lambda: bmp_that_claims(100_000, 100_000),
    "BMP that claims no height": lambda: bmp_that_claims(12, 0),
    "BMP that claims a height of -2**31": lambda: bmp_that_claims(12, -(2**31)),
    "JPEG that claims 65,500 x 65,500": lambda: jpeg_that_claims(65_500, 65_500),
    "TIFF that claims 100,000 x 100,000": lambda: tiff(PIXELS, width=100_000, height=100_000),
    "deflated TIFF that claims 100,000 x 100,000": lambda: tiff(
        PIXELS, width=100_000, height=100_000, pack=zlib.compress
    ),
    "deflated TIFF that claims 9,000 x 9,000": lambda: tiff(PIXELS, width=9_000, height=9_000, pack=zlib.compress),
    "WebP that claims 65,535 x 65,535": lambda: webp_that_claims(65_535, 65_535),
    "PNG with a text bomb": lambda: png_with(b"zTXt", b"key\0\0", before=True),
    "PNG with a text bomb behind the picture": lambda: png_with(b"zTXt", b"key\0\0", before=False),
    "PNG with an international text bomb": lambda: png_with(b"iTXt", b"key\0\1\0\0\0", before=True),
    "PNG with a colour profile bomb": lambda: png_with(b"iCCP", b"key\0\0", before=True),
    "BigTIFF with a tag of 2**60 values": lambda: big_tiff((256, SHORT, 2**60, 8), (257, SHORT, 1, 8)),
    "BigTIFF with 2**63 tags": lambda: big_tiff((256, SHORT, 1, 8), count=2**63),
    "deflated TIFF of which half the strips are not there": lambda: tiff(PIXELS, height=2 * HEIGHT, pack=zlib.compress),
    "TIFF of which half the strips are not there": lambda: tiff(PIXELS, height=2 * HEIGHT),
    "TIFF of which nearly all strips are not there": lambda: tiff(PIXELS, height=1_000_000),
    "text named .jpg": lambda: b"no picture at all\n" * 40,
    "a web page named .jpg": lambda: b"<!DOCTYPE html><html><body>404</body></html>",
    "nothing named .jpg": lambda: b"",
    "zeros named .jpg": lambda: bytes(10_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_name_and_at_once(name, good, fitted, tolerant, tmp_path):
    file = tmp_path / "x.jpg"
    file.write_bytes(HOSTILE[name]())
    start = time.thread_time()
    with pytest.raises(ValueError, match=stated(file, 1)):
        fitted[0].transform([good[0], file])
    assert time.thread_time() - start < SECONDS
    with pytest.warns(UserWarning, match="^1 of 2 samples could not be read"):
        features = tolerant.transform([good[0], file])
    assert np.isnan(features[1]).all()
    assert np.isfinite(features[0]).all()


def tiff_whose_exif_is_itself():
    return tiff(np.rot90(PIXELS).copy(), rows=WIDTH, orientation=6, exif=8, directory="first")


MAZES = {
    "TIFF whose directory is followed by itself": lambda: tiff(PIXELS, directory="first", next_directory=8),
    "TIFF whose EXIF directory is itself": tiff_whose_exif_is_itself,
    "TIFF with strips of 2**31 - 1 rows": lambda: tiff(PIXELS, directory="first").replace(
        struct.pack("<HHLL", 278, LONG, 1, HEIGHT), struct.pack("<HHLL", 278, LONG, 1, 2**31 - 1)
    ),
}


@pytest.mark.parametrize("name", MAZES)
def test_a_file_that_leads_in_circles_is_read(name, tmp_path):
    file = tmp_path / "x.tif"
    file.write_bytes(MAZES[name]())
    np.testing.assert_array_equal(within(SECONDS, lambda: pixels_of(file)), PIXELS)


def test_a_program_that_calls_itself_a_picture_is_not_run(tmp_path, monkeypatch):
    """PostScript is a language, whose programs may well run for ever; Pillow hands them to Ghostscript."""
    ran = tmp_path / "ran"
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\n[ $1 = --version ] || touch {ran}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    file = tmp_path / "x.jpg"
    file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 12 10\n%%EndComments\n{} loop\nshowpage\n%%EOF\n")
    with pytest.raises(ValueError, match=stated(file, 0)):
        pixels_of(file)
    assert not ran.exists()


@pytest.mark.parametrize("kind", ["", "PNG", "WebP", "TIFF"])
def test_a_file_larger_than_memory_costs_its_row_and_no_time(kind, good, tmp_path):
    """It need not be read whole to be judged."""
    if kind and kind not in KINDS:
        pytest.skip(f"Pillow here has no {kind}")
    file = tmp_path / "x.jpg"
    file.write_bytes(KINDS[kind][0] if kind else b"")
    try:
        os.truncate(file, 2**42)
    except OSError:
        pytest.skip("no sparse files here")
    extractor = PretrainedFeatureExtractor(small_cnn, on_bad_sample="nan", random_state=0).fit(good)
    expected = extractor.transform(good[:1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        features = within(20, lambda: extractor.transform([good[0], file]))
    np.testing.assert_allclose(features[:1], expected, rtol=1e-5, atol=1e-5)
    if not kind:
        assert np.isnan(features[1]).all()
        with pytest.raises(ValueError, match=stated(file, 1)):
            within(20, lambda: extractor.set_params(on_bad_sample="raise").transform([good[0], file]))


BLINDS = {
    "BMP of runs": lambda: bmp_that_claims(8_900_000, 10, kind="BMP of runs"),
    "GIF": lambda: gif_that_claims(9_459, 9_459, frame=(1, 1)),
    "TIFF of floats": lambda: tiff((GREY / 255).astype(np.float32), format=3, height=7_400_000),
    "WebP": lambda: webp_that_claims(5_000, 5_000),
}


@pytest.mark.parametrize("name", BLINDS)
def test_a_few_bytes_that_claim_as_many_pixels_as_are_allowed_take_no_long(name, good, tolerant, tmp_path):
    file = tmp_path / "x"
    file.write_bytes(BLINDS[name]())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        start = time.thread_time()
        features = tolerant.transform([good[0], file])
        assert time.thread_time() - start < SECONDS
    assert np.isfinite(features[0]).all()


SHRINKING = """
import os, sys
from sktransfer.inputs import ImagePreprocessing, make_reader
from sktransfer.inputs.images import _decoding

file = sys.argv[1]
unchanged = _decoding.orientation

def orientation(picture):
    os.truncate(file, 2000)
    return unchanged(picture)

_decoding.orientation = orientation
samples = make_reader("images", ImagePreprocessing(crop=(300, 300)), None, "auto").read([file])
try:
    print(samples.load(0).shape)
except ValueError as error:
    print(error)
assert os.stat(file).st_size == 2000
"""


@pytest.mark.exhaustive
def test_a_file_that_shrinks_while_it_is_read_does_not_end_the_process(tmp_path):
    """Pillow maps uncompressed files into memory, and whoever touches a page that is gone is killed by a signal."""
    file = tmp_path / "x.bmp"
    Image.fromarray(make_pixels(0, 300, 300)[..., 0]).save(file)
    done = subprocess.run([sys.executable, "-c", SHRINKING, file], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done


def test_files_that_could_not_be_opened_for_a_moment_are_not_taken_for_others(good, tmp_path, monkeypatch):
    """A network drive that answers a second later, a program out of file handles."""
    parameters = {"on_bad_sample": "nan", "random_state": 0, "precision": "float32"}
    expected = PretrainedFeatureExtractor(small_cnn, feature_cache=None, **parameters).fit(good).transform(good)
    extractor = PretrainedFeatureExtractor(small_cnn, **parameters).fit(good[:1])
    out_of_reach = {str(good[2]), str(good[3])}
    really_open = io.open

    def open_soon(file, *args, **kwargs):
        if str(file) in out_of_reach:
            out_of_reach.remove(str(file))
            raise OSError(24, "Too many open files")
        return really_open(file, *args, **kwargs)

    with monkeypatch.context() as patched, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a row of NaN would do as well as the right one
        patched.setattr(io, "open", open_soon)
        patched.setattr("builtins.open", open_soon)
        found = extractor.transform(good)
    assert not out_of_reach
    for row in range(len(good)):
        if not np.isnan(found[row]).all():
            np.testing.assert_allclose(found[row], expected[row], rtol=1e-5, atol=1e-5, err_msg=f"row {row}")
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.warns(UserWarning, match="^1 of 1 samples could not be read"):
        extractor.transform([tmp_path / "empty.png"])


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
@pytest.mark.parametrize("resize", [None, 16])
def test_a_picture_without_pixels_is_refused_by_its_row(size, resize, good):
    def network():
        made = tiny_cnn()
        made.preprocessing = ImagePreprocessing(resize, (HEIGHT, WIDTH))
        return made

    extractor = PretrainedFeatureExtractor(network, random_state=0).fit(good)
    X = [good[0], Image.new("RGB", size)]
    with pytest.raises(ValueError, match=r"^(Got|Refused) the picture in row 1"):
        extractor.transform(X)
    with pytest.warns(UserWarning, match="^1 of 2 samples could not be read"):
        features = extractor.set_params(on_bad_sample="nan").transform(X)
    assert np.isnan(features[1]).all()


# What is no file, and files with odd names


def linked(link, target):
    link.symlink_to(target)
    return link


def made_fifo(path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("no FIFOs on this system")
    os.mkfifo(path)
    return path


def folder(path):
    path.mkdir()
    return path


NO_FILES = {
    "missing": lambda here: here / "gone.jpg",
    "a folder": lambda here: folder(here / "x.jpg"),
    "a FIFO": lambda here: made_fifo(here / "x.jpg"),
    "/dev/zero": lambda here: Path("/dev/zero"),
    "/dev/null": lambda here: Path("/dev/null"),
    "a link that leads nowhere": lambda here: linked(here / "x.jpg", here / "gone.jpg"),
    "a link to itself": lambda here: linked(here / "x.jpg", here / "x.jpg"),
    "a link to a folder": lambda here: linked(here / "x.jpg", here),
    "a link to a FIFO": lambda here: linked(here / "x.jpg", made_fifo(here / "fifo")),
    "an empty path": lambda here: "",
    "a path with a NUL": lambda here: "x\0.jpg",
    "a path of 100,000 letters": lambda here: "x" * 100_000,
    "a path of 10,000 folders": lambda here: "x/" * 10_000,
    "a missing path that is no UTF-8": lambda here: os.fsdecode(b"gone\xff.jpg"),
    "a path that no file can have": lambda here: "\ud800.jpg",
    "a file as a folder": lambda here: f"{__file__}/x.jpg",
    "an address": lambda here: "memory://nowhere/x.jpg",
}


def is_named(path, message):
    """Tell whether a message of bounded length names a path, whole, or by its beginning where it is long."""
    name = repr(str(path))
    return len(message) < 600 and (name in message if len(name) < 150 else name[:30] in message)


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_file_is_a_file_not_found_and_never_hangs(name, good, fitted, tmp_path):
    path = NO_FILES[name](tmp_path)
    X = [*good[:3], path, good[3]]
    extractor, classifier = fitted
    for result_of in (
        extractor.transform,
        PretrainedFeatureExtractor(small_cnn).fit,
        classifier.predict,
        classifier.predict_proba,
        lambda X: FineTunedClassifier(small_cnn).fit(X, [0, 1, 0, 1, 0]),
    ):
        with pytest.raises(FileNotFoundError, match=r"^Got 1 of 5 paths that are not files") as caught:
            within(20, lambda result_of=result_of: result_of(X))
        assert is_named(path, str(caught.value))


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_file_is_a_row_of_nan_where_that_is_wanted(name, good, tmp_path):
    path = NO_FILES[name](tmp_path)
    extractor = PretrainedFeatureExtractor(small_cnn, on_bad_sample="nan", random_state=0).fit(good)
    expected = extractor.transform(good)
    with pytest.warns(UserWarning, match="could not be read") as caught:
        features = within(20, lambda: extractor.transform([*good[:3], path, good[3]]))
    assert len(caught) == 1
    message = str(caught[0].message)
    assert message.startswith("1 of 5 samples could not be read; their rows are NaN. The first: Got ")
    assert is_named(path, message)
    assert " (row 3), which is not a file" in message
    assert np.isnan(features[3]).all()
    np.testing.assert_allclose(features[[0, 1, 2, 4]], expected[:4], rtol=1e-5, atol=1e-5)


def test_a_file_that_may_not_be_read_is_named(good, fitted, tolerant, tmp_path):
    file = tmp_path / "x.png"
    file.write_bytes(KINDS["PNG"][0])
    file.chmod(0)
    if os.access(file, os.R_OK):
        pytest.skip("whoever runs this, such as root, may read files that forbid it")
    with pytest.raises(ValueError, match=stated(file, 1)):
        fitted[0].transform([good[0], file])
    with pytest.warns(UserWarning, match="Permission denied"):
        assert np.isnan(tolerant.transform([good[0], file])[1]).all()


NAMES = {
    "spaces": b"a photo  of mine .png",
    "unicode": "Fußgänger 写真 🙂.png".encode(),
    "a combining accent": "e\u0301.png".encode(),
    "a new line": b"two\nlines.png",
    "a tab and a return": b"a\tb\rc.png",
    "quotes and braces": b"'\"{0}%s$HOME`x`.png",
    "bytes that are not valid UTF-8": b"caf\xe9\xff.png",
    "a star": b"*.png",
    "a leading dash": b"--help",
    "no ending": b"picture",
    "another format's ending": b"x.jpg",
    "another file's ending": b"x.txt",
    "255 bytes": b"x" * 251 + b".png",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_of_any_name_is_read_or_named(kind, name, good, tolerant, fitted, tmp_path):
    path = kind(os.fsdecode(os.path.join(os.fsencode(tmp_path), NAMES[name])))  # noqa: PTH118
    Path(path).write_bytes(KINDS["PNG"][0])
    np.testing.assert_array_equal(pixels_of(path), PIXELS)
    Path(path).write_bytes(KINDS["PNG"][0][:200])
    with pytest.raises(ValueError, match=stated(path, 1)):
        fitted[0].transform([good[0], path])
    with pytest.warns(UserWarning, match="could not be read") as caught:
        assert np.isnan(tolerant.transform([good[0], path])[1]).all()
    assert len(caught) == 1
    message = str(caught[0].message)
    assert is_named(path, message)
    assert "Rows: 1." in message
    assert message.isprintable()
    message.encode()


@pytest.mark.parametrize(
    ("kind", "ending"),
    [("JPEG", "png"), ("PNG", "jpg"), ("GIF", "webp"), ("BMP", "tif"), ("TIFF", "gif"), ("lossless WebP", "bmp")],
)
def test_a_picture_under_the_ending_of_another_format_is_read(kind, ending, tmp_path):
    if kind not in KINDS:
        pytest.skip(f"Pillow here has no {kind}")
    data, expected, off = KINDS[kind]
    (tmp_path / f"x.{ending}").write_bytes(data)
    assert abs(pixels_of(tmp_path / f"x.{ending}").astype(int) - expected).mean() <= off


def test_links_to_good_files_are_followed(tmp_path):
    (tmp_path / "x.png").write_bytes(KINDS["PNG"][0])
    first = linked(tmp_path / "first.png", tmp_path / "x.png")
    second = linked(tmp_path / "second.png", Path("first.png"))
    for link in (first, second):
        np.testing.assert_array_equal(pixels_of(link), PIXELS)
