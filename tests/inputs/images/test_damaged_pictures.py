"""What a user may rely on when picture files are damaged: the right picture, or an error that names the file.

A corpus of thousands of damaged pictures is made on the spot; nothing of it may crash, hang or pass for a whole one.
"""

import re
import time
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from picture_corpus import (
    GREY,
    HEIGHT,
    KINDS,
    PILLOW_MAY_WARN,
    PIXELS,
    SECONDS,
    WIDTH,
    encode,
    in_three,
    make_pixels,
    pixels_of,
    samples_of,
    small_cnn,
    stated,
    turned,
    with_palette,
)
from PIL import Image

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor

pytestmark = PILLOW_MAY_WARN

CHANGES = 100  # random ones, of each kind of picture
# Those whose decoders stop where the picture ends.
ENDED = [kind for kind in KINDS if "2000" not in kind]
# Of relatives of others every fourth length will do.
RELATIVES = {
    *("JPEG decoded at a quarter", "grey JPEG", "CMYK JPEG", "turned JPEG", "PNG with a palette", "animated GIF"),
    *("BMP from the top", "TIFF, directory last", "deflated TIFF in strips", "TIFF, packbits", "animated WebP"),
}


# Undamaged pictures


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
        "F TIFF up to 1": (encode((GREY / 255).astype(np.float32), "TIFF"), grey),
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


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory):
    """The pixels of each kind, as they are loaded."""
    file = tmp_path_factory.mktemp("undamaged") / "x"
    pixels = {}
    for kind, (data, *_) in KINDS.items():
        file.write_bytes(data)
        pixels[kind] = samples_of([file]).load(0)
    return pixels


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short_anywhere_is_refused_or_not_a_pixel_off(kind, corpus, undamaged):
    cut = [(file, outcome) for _, file, outcome in corpus.of(kind) if file.may_be == "whole"]
    assert len(cut) == -(-len(KINDS[kind][0]) // (4 if kind in RELATIVES else 1))
    assert any(isinstance(outcome, ValueError) for _, outcome in cut)
    loaded = [(file, outcome) for file, outcome in cut if isinstance(outcome, torch.Tensor)]
    other = [file.damage for file, outcome in loaded if not torch.equal(outcome, undamaged[kind])]
    assert not other, f"{len(other)} lengths give other pixels, without a word: {other}"


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", ENDED)
def test_what_follows_a_whole_picture_does_not_matter(kind, corpus, undamaged):
    followed = [(file, outcome) for _, file, outcome in corpus.of(kind) if file.may_be == "same"]
    assert len(followed) == 4
    for file, outcome in followed:
        assert isinstance(outcome, torch.Tensor), f"{file.damage}: {outcome!r}"
        assert torch.equal(outcome, undamaged[kind]), file.damage


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", KINDS)
def test_damage_ends_in_a_picture_or_in_an_error_that_names_row_and_file(kind, corpus):
    counts = Counter()
    for row, file, outcome in corpus.of(kind):
        counts[type(outcome).__name__] += 1
        if isinstance(outcome, torch.Tensor):
            assert outcome.dtype in (torch.uint8, torch.float32), "of more than 8 bits are floats"
            assert tuple(outcome.shape) == (3, HEIGHT, WIDTH)
        else:
            assert isinstance(outcome, ValueError), f"{file.damage}: {outcome!r}"
            named = f"The picture: {str(corpus.paths[row])!r} (row {row})." in str(outcome)  # whose values are strange
            assert named or re.search(stated(corpus.paths[row], row), str(outcome)), f"{file.damage}: {outcome}"
    assert counts["Tensor"]
    assert counts["UnreadableSampleError"]


@pytest.mark.exhaustive
def test_no_damaged_file_takes_long(corpus):
    slow = [
        f"{s:.1f} s: {f.kind}, {f.damage}" for s, f in zip(corpus.seconds, corpus.files, strict=True) if s > SECONDS
    ]
    assert not slow, slow


# All at once


@pytest.mark.exhaustive
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


@pytest.mark.exhaustive
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
            PretrainedFeatureExtractor(small_cnn).fit if row == sample[0] else extractor.transform,
            classifier.predict,
            lambda X: FineTunedClassifier(small_cnn, random_state=0).fit(X, [0, 1, 0, 1, 0]),
        ):
            with pytest.raises(ValueError, match=stated(path, 3)):
                result_of(X)
