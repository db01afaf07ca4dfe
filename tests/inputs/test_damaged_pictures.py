"""What a user may rely on when files are damaged, hostile or none at all: the right picture, or an error that names it.

A corpus of thousands of damaged pictures is made on the spot; nothing of it may crash, hang or pass for a whole one.
"""

import io
import os
import re
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import tiny_cnn
from PIL import EpsImagePlugin, Image, features

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import ImagePreprocessing
from sktransfer.inputs import make_reader

# What Pillow itself says of a damaged file is its own to say, and noise here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]

HEIGHT, WIDTH = 10, 12
CHANGES = 100  # random ones, of each kind of picture
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


def samples_of(paths, size=(HEIGHT, WIDTH)):
    return make_reader("images", ImagePreprocessing(crop=size), None, "auto").read(list(paths))


def pixels_of(path, size=(HEIGHT, WIDTH)):
    return samples_of([path], size).load(0).permute(1, 2, 0).numpy()


def in_three(grey):
    return np.repeat(grey[..., None], 3, axis=-1)


# Undamaged pictures


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
# Those whose decoders stop where the picture ends.
ENDED = [kind for kind in KINDS if "2000" not in kind]
# Of relatives of others every fourth length will do.
RELATIVES = {
    *("JPEG decoded at a quarter", "grey JPEG", "CMYK JPEG", "turned JPEG", "PNG with a palette", "animated GIF"),
    *("BMP from the top", "TIFF, directory last", "deflated TIFF in strips", "TIFF, packbits", "animated WebP"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_undamaged_picture_of_each_kind_is_read(kind, tmp_path):
    data, expected, off = KINDS[kind]
    (tmp_path / "x").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = pixels_of(tmp_path / "x")
    assert abs(got.astype(int) - expected).mean() <= off


STORED = {
    1: lambda image: image,
    2: np.fliplr,
    3: lambda image: np.rot90(image, 2),
    4: np.flipud,
    5: lambda image: image.swapaxes(0, 1),
    6: np.rot90,
    7: lambda image: np.rot90(image.swapaxes(0, 1), 2),
    8: lambda image: np.rot90(image, -1),
}


@pytest.mark.parametrize("orientation", STORED)
def test_a_photo_of_any_orientation_is_turned_upright(orientation, tmp_path):
    stored = np.ascontiguousarray(STORED[orientation](PIXELS))
    (tmp_path / "x.jpg").write_bytes(encode(stored, "JPEG", quality=95, subsampling=0, exif=turned(orientation)))
    assert abs(pixels_of(tmp_path / "x.jpg").astype(int) - PIXELS).mean() <= 6


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("way", [Path, Image.open], ids=["file", "picture"])
def test_an_uncompressed_tiff_of_any_orientation_is_turned_upright(way, mode, orientation, tmp_path):
    pixels, expected = {
        "RGB": (PIXELS, PIXELS),
        "L": (GREY, in_three(GREY)),
        "RGBA": (np.dstack([PIXELS, GREY]), PIXELS),
        "CMYK": (np.dstack([255 - PIXELS, np.zeros_like(GREY)]), PIXELS),
        "I;16": (GREY.astype(np.uint16) * 257, in_three(GREY)),
    }[mode]
    stored = np.ascontiguousarray(STORED[orientation](pixels))
    picture = Image.frombytes(mode, (stored.shape[1], stored.shape[0]), stored.tobytes())
    picture.save(tmp_path / "x.tif", exif=turned(orientation))
    np.testing.assert_array_equal(pixels_of(way(tmp_path / "x.tif")), expected)


def odd_modes():
    indexed, colours = with_palette(PIXELS)
    wide = GREY.astype(np.uint16) * 257
    bits = GREY > 100
    grey = in_three(GREY)
    return {
        "LA PNG": (encode(np.dstack([GREY, PIXELS[..., 0]]), "PNG"), grey),
        "PNG with one transparent colour": (encode(indexed, "PNG", transparency=3), colours),
        "PNG with an alpha for each colour": (encode(indexed, "PNG", transparency=bytes(range(64))), colours),
        "GIF with one transparent colour": (encode(indexed, "GIF", transparency=3), colours),
        "1-bit PNG": (encode(bits, "PNG"), in_three(bits * 255)),
        "1-bit BMP": (encode(bits, "BMP"), in_three(bits * 255)),
        "16-bit PNG": (encode(wide, "PNG"), grey),
        "I TIFF of 8 bits": (encode(GREY.astype(np.int32), "TIFF"), grey),
        "I TIFF of 16 bits": (encode(wide.astype(np.int32), "TIFF"), grey),
        "F TIFF up to 1": (encode((GREY / 255).astype(np.float32), "TIFF"), grey),
        "F TIFF up to 255": (encode(GREY.astype(np.float32), "TIFF"), grey),
    }


@pytest.mark.parametrize("mode", odd_modes())
def test_a_picture_of_an_odd_mode_is_read(mode, tmp_path):
    data, expected = odd_modes()[mode]
    (tmp_path / "x").write_bytes(data)
    np.testing.assert_array_equal(pixels_of(tmp_path / "x"), expected)


# Damage


@dataclass
class Damaged:
    """A damaged file; how it may end: `"whole"` is refused or not a pixel off, `"same"` not a pixel off."""

    kind: str
    damage: str
    data: bytes
    may_be: str


def cut_short(kind, data):
    for length in range(0, len(data), 4 if kind in RELATIVES else 1):
        yield Damaged(kind, f"the first {length} of {len(data)} bytes", data[:length], "whole")


def gone_on(kind, data):
    rubbish = np.random.default_rng(0).bytes(500)
    for name, more in {"itself": data, "rubbish": rubbish, "zeros": bytes(5000), "text": b"GIF89a <html>"}.items():
        yield Damaged(kind, f"followed by {name}", data + more, "same" if kind in ENDED else "changed")


def changed(kind, data):
    rng = np.random.default_rng(zlib.crc32(kind.encode()))

    def place():
        """Headers are hit as often as all the rest: there it hurts."""
        return int(rng.integers(len(data) if rng.random() < 0.5 else min(len(data), 120)))

    for number in range(CHANGES):
        spoilt = bytearray(data)
        way = ("bits flipped", "bytes changed", "a stretch of zeros", "a stretch left out", "a stretch put in")[
            int(rng.choice(5, p=[0.4, 0.3, 0.1, 0.1, 0.1]))
        ]
        start, length = place(), int(rng.integers(1, 60))
        if way == "bits flipped":
            for _ in range(int(rng.choice([1, 1, 2, 8]))):
                spoilt[place()] ^= 1 << int(rng.integers(8))
        elif way == "bytes changed":
            for _ in range(int(rng.choice([1, 1, 2, 8]))):
                spoilt[place()] = int(rng.integers(256))
        elif way == "a stretch of zeros":
            spoilt[start : start + length] = bytes(len(spoilt[start : start + length]))
        elif way == "a stretch left out":
            del spoilt[start : start + length]
        else:
            spoilt[start:start] = rng.bytes(length)
        yield Damaged(kind, f"{way} ({number})", bytes(spoilt), "changed")


@cache
def damaged(kind):
    data = KINDS[kind][0]
    return [*cut_short(kind, data), *gone_on(kind, data), *changed(kind, data)]


class Corpus:
    """All damaged files, each loaded once by itself: what came of it, and how long it took.

    Attributes
    ----------
    files : list of Damaged
    paths : list of Path
    outcomes : list of Tensor or Exception
    seconds : list of float
        Of the processor.
    """

    def __init__(self, folder):
        self.files = [file for kind in KINDS for file in damaged(kind)]
        self.paths, self.outcomes, self.seconds = [], [], []
        for number, file in enumerate(self.files):
            self.paths.append(folder / f"{number}.jpg")
            self.paths[-1].write_bytes(file.data)
        samples = samples_of(self.paths)
        for row in range(len(samples)):
            start = time.thread_time()
            try:
                self.outcomes.append(samples.load(row))
            except Exception as error:
                self.outcomes.append(error)
            self.seconds.append(time.thread_time() - start)

    def of(self, kind):
        """Rows, files and outcomes of one kind."""
        rows = [row for row, file in enumerate(self.files) if file.kind == kind]
        return [(row, self.files[row], self.outcomes[row]) for row in rows]

    def refused(self, row):
        return isinstance(self.outcomes[row], ValueError)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Corpus(tmp_path_factory.mktemp("damaged"))


def stated(path, row):
    """The only two things that may be said of a file, as a pattern."""
    named = re.escape(f"{str(path)!r} (row {row})")
    return (
        rf"(?s)^(Got {named}, which is no whole image \(.*\); expected a file that Pillow can decode|Refused {named}: )"
    )


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory):
    """The pixels of each kind, as they are loaded."""
    file = tmp_path_factory.mktemp("undamaged") / "x"
    pixels = {}
    for kind, (data, *_) in KINDS.items():
        file.write_bytes(data)
        pixels[kind] = samples_of([file]).load(0)
    return pixels


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short_anywhere_is_refused_or_not_a_pixel_off(kind, corpus, undamaged):
    cut = [(file, outcome) for _, file, outcome in corpus.of(kind) if file.may_be == "whole"]
    assert len(cut) == -(-len(KINDS[kind][0]) // (4 if kind in RELATIVES else 1))
    assert any(isinstance(outcome, ValueError) for _, outcome in cut)
    loaded = [(file, outcome) for file, outcome in cut if isinstance(outcome, torch.Tensor)]
    other = [file.damage for file, outcome in loaded if not torch.equal(outcome, undamaged[kind])]
    assert not other, f"{len(other)} lengths give other pixels, without a word: {other}"


@pytest.mark.parametrize("kind", ENDED)
def test_what_follows_a_whole_picture_does_not_matter(kind, corpus, undamaged):
    followed = [(file, outcome) for _, file, outcome in corpus.of(kind) if file.may_be == "same"]
    assert len(followed) == 4
    for file, outcome in followed:
        assert isinstance(outcome, torch.Tensor), f"{file.damage}: {outcome!r}"
        assert torch.equal(outcome, undamaged[kind]), file.damage


@pytest.mark.parametrize("kind", KINDS)
def test_damage_ends_in_a_picture_or_in_an_error_that_names_row_and_file(kind, corpus):
    counts = Counter()
    for row, file, outcome in corpus.of(kind):
        counts[type(outcome).__name__] += 1
        if isinstance(outcome, torch.Tensor):
            assert outcome.dtype == torch.uint8
            assert tuple(outcome.shape) == (3, HEIGHT, WIDTH)
        else:
            assert isinstance(outcome, ValueError), f"{file.damage}: {outcome!r}"
            assert re.search(stated(corpus.paths[row], row), str(outcome)), f"{file.damage}: {outcome}"
    assert counts["Tensor"]
    assert counts["UnreadableSampleError"]


def test_no_damaged_file_takes_long(corpus):
    slow = [
        f"{s:.1f} s: {f.kind}, {f.damage}" for s, f in zip(corpus.seconds, corpus.files, strict=True) if s > SECONDS
    ]
    assert not slow, slow


# All at once


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """Five undamaged files to fit on."""
    folder = tmp_path_factory.mktemp("good")
    files = [folder / f"{number}.png" for number in range(5)]
    for number, file in enumerate(files):
        Image.fromarray(make_pixels(100 + number)).save(file)
    return files


@pytest.fixture
def tolerant(good):
    return PretrainedFeatureExtractor(
        small_cnn, on_bad_sample="nan", random_state=0, precision="float32", feature_cache=None
    ).fit(good)


def test_thousands_of_damaged_files_cost_their_rows_and_nothing_else(corpus, good, tmp_path, capsys):
    rng = np.random.default_rng(0)
    controls = []
    for number in range(200):
        controls.append(tmp_path / f"{number}.{('png', 'bmp', 'gif', 'tif', 'jpg')[number % 5]}")
        Image.fromarray(make_pixels(1000 + number)).save(controls[-1])
    order = rng.permutation(len(corpus.paths) + len(controls))
    X = [(corpus.paths + controls)[row] for row in order]
    place = np.argsort(order)
    of_damaged, of_controls = place[: len(corpus.paths)], place[len(corpus.paths) :]
    extractor = PretrainedFeatureExtractor(small_cnn, on_bad_sample="nan", random_state=0, precision="float32")

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = extractor.fit(good).transform(X)

    refused = np.array([corpus.refused(row) for row in range(len(corpus.paths))])
    count = int(refused.sum())
    slowest = int(np.argmax(corpus.seconds))
    with capsys.disabled():
        print(
            f"\ndamaged pictures: {len(refused):,} inputs, {count:,} refused, {len(refused) - count:,} decoded; the "
            f"slowest took {corpus.seconds[slowest]:.2f} s ({corpus.files[slowest].kind})"
        )
    assert len(refused) >= 5_000
    assert count >= 2_000
    ours = [w for w in caught if "could not be read" in str(w.message)]
    assert len(ours) == 1
    assert issubclass(ours[0].category, UserWarning)
    assert all(Path(Image.__file__).parent in Path(w.filename).parents for w in caught if w is not ours[0])
    assert str(ours[0].message).startswith(f"{count} of {len(X)} samples could not be read; their rows are NaN.")
    np.testing.assert_array_equal(np.isnan(found[of_damaged]).all(axis=1), refused)
    assert np.isfinite(found[of_damaged][~refused]).all()
    alone = extractor.set_params(feature_cache=None)
    expected = np.concatenate([alone.transform([control]) for control in controls])
    np.testing.assert_allclose(found[of_controls], expected, rtol=1e-5, atol=1e-5)
    assert len(np.unique(expected.round(4), axis=0)) == len(controls)


def test_the_warning_points_at_the_line_that_called_transform(good, tolerant):
    with pytest.warns(UserWarning, match="^1 of 2 samples could not be read") as caught:
        tolerant.transform([good[0], "gone.jpg"])
    assert [w.filename for w in caught] == [__file__]


@pytest.fixture(scope="module")
def fitted(good):
    labels = np.arange(len(good)) % 2
    return [
        PretrainedFeatureExtractor(small_cnn, random_state=0).fit(good),
        FineTunedClassifier(small_cnn, random_state=0).fit(good, labels),
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_one_damaged_file_of_each_kind_stops_transform_fit_and_predict_by_name(kind, corpus, good, fitted):
    early = len(KINDS[kind][0]) // 12 * 4
    ways = ("the first 0 of", "the first 8 of", f"the first {early} of", "bits flipped", "bytes changed", "a stretch")
    refused = [(row, file.damage) for row, file, _ in corpus.of(kind) if corpus.refused(row)]
    sample = [next((row for row, damage in refused if damage.startswith(way)), None) for way in ways]
    assert None not in sample[:3]
    extractor, classifier = fitted
    for row in (row for row in sample if row is not None):
        path = corpus.paths[row]
        X = [*good[:3], path, good[3]]
        for result_of in (
            extractor.transform,
            PretrainedFeatureExtractor(small_cnn, on_bad_sample="nan").fit if row == sample[0] else extractor.transform,
            classifier.predict,
            lambda X: FineTunedClassifier(small_cnn, random_state=0).fit(X, [0, 1, 0, 1, 0]),
        ):
            with pytest.raises(ValueError, match=stated(path, 3)):
                result_of(X)


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


def bmp_that_claims(width, height):
    data = KINDS["BMP"][0]
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


def bmp_of_runs_that_claims(width, height):
    data = KINDS["BMP of runs"][0]
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


BLINDS = {
    "BMP of runs": lambda: bmp_of_runs_that_claims(8_900_000, 10),
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
from PIL import Image
from sktransfer.inputs import ImagePreprocessing, make_reader

file = sys.argv[1]
unchanged = Image.Image.getexif

def getexif(picture):
    os.truncate(file, 2000)
    return unchanged(picture)

Image.Image.getexif = getexif
samples = make_reader("images", ImagePreprocessing(crop=(300, 300)), None, "auto").read([file])
try:
    print(samples.load(0).shape)
except ValueError as error:
    print(error)
assert os.stat(file).st_size == 2000
"""


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
    "an address": lambda here: "https://example.org/x.jpg",
}


@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_file_is_a_file_not_found_and_never_hangs(name, good, fitted, tmp_path):
    path = NO_FILES[name](tmp_path)
    X = [*good[:3], path, good[3]]
    extractor, classifier = fitted
    for result_of in (
        extractor.transform,
        PretrainedFeatureExtractor(small_cnn, on_bad_sample="nan").fit,
        classifier.predict,
        classifier.predict_proba,
        lambda X: FineTunedClassifier(small_cnn).fit(X, [0, 1, 0, 1, 0]),
    ):
        with pytest.raises(FileNotFoundError, match=r"^Got 1 of 5 paths that are no files") as caught:
            within(20, lambda result_of=result_of: result_of(X))
        assert repr(str(path)) in str(caught.value)


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
    assert f"{str(path)!r} (row 3), which is no file" in message
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
    "bytes that are no UTF-8": b"caf\xe9\xff.png",
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
    assert repr(str(path)) in message
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
