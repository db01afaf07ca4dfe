"""What a user may rely on when pictures have more than 8 bits: they become what arrays of the same values become."""

import io
import json
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from networks import tiny_cnn
from picture_corpus import encode, png_chunk, tiff, turned
from PIL import Image

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.inputs import ImagePreprocessing, make_reader, restore_reader
from sktransfer.inputs._base import UnreadableSampleError
from sktransfer.inputs.images import _deep_pictures, _pixel_range

HEIGHT, WIDTH = 20, 26
SMALL = ImagePreprocessing(resize=16, crop=(14, 14))
GREY = np.random.default_rng(0).random((HEIGHT, WIDTH))
COLOURS = np.random.default_rng(1).random((HEIGHT, WIDTH, 4))


def samples_of(X, pixel_range="auto", fitted_on=None, preprocessing=SMALL, tolerant=False):
    """Samples of X, and what was warned of, after a fit on it or on something else."""
    reader = make_reader("images", preprocessing, None, pixel_range)
    if fitted_on is None:
        return reader.learn(X)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader.learn(fitted_on)
    return reader.read(X, tolerant)


def prepared(X, pixel_range="auto", fitted_on=None, preprocessing=SMALL):
    samples = samples_of(X, pixel_range, fitted_on, preprocessing)
    return samples.prepare(torch.stack([samples.load(row) for row in range(len(samples))]))


def in_silence(call, *args, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return call(*args, **more)


def to_type(values, most, dtype=np.uint16):
    return (values * most).round().astype(dtype)


def png_of_16_bits(pixels, colours):
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colours, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels.astype(">u2"))
    data = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(data)


def pgm(values, most, plain=False):
    data = b" ".join(b"%d" % value for value in values.ravel()) if plain else values.astype(">u2").tobytes()
    return b"P%d\n%d %d\n%d\n" % (2 if plain else 5, WIDTH, HEIGHT, most) + data


def tiff_of(values, **tags):
    return tiff(values, rows=HEIGHT, **tags)


def write(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return str(path)


# Each way to write grey: a file, and the array that it holds.
GREYS = {
    "PNG": lambda most: (encode(to_type(GREY, most), "PNG"), to_type(GREY, most)),
    "TIFF": lambda most: (encode(to_type(GREY, most), "TIFF"), to_type(GREY, most)),
    "deflated TIFF": lambda most: (
        encode(to_type(GREY, most), "TIFF", compression="tiff_adobe_deflate"),
        to_type(GREY, most),
    ),
    "TIFF of 32 bits": lambda most: (encode(to_type(GREY, most, np.int32), "TIFF"), to_type(GREY, most, np.int32)),
    "TIFF of floats": lambda most: (encode(to_type(GREY, most, np.float32), "TIFF"), to_type(GREY, most, np.float32)),
    "turned TIFF": lambda most: (
        encode(np.rot90(to_type(GREY, most)).copy(), "TIFF", exif=turned(6)),
        to_type(GREY, most),
    ),
    "turned PNG": lambda most: (
        encode(np.rot90(to_type(GREY, most)).copy(), "PNG", exif=turned(6)),
        to_type(GREY, most),
    ),
    "PGM": lambda most: (pgm(to_type(GREY, most), most), to_type(GREY, most)),
    "plain PGM": lambda most: (pgm(to_type(GREY, most), most, plain=True), to_type(GREY, most)),
}


@pytest.mark.parametrize("most", [1023, 4095, 65535])
@pytest.mark.parametrize("kind", GREYS)
def test_what_a_person_says_white_is_holds_for_files_as_for_arrays(kind, most, tmp_path):
    data, values = GREYS[kind](most)
    found = in_silence(prepared, [write(tmp_path, "x", data)], (0, most))
    assert torch.equal(found, prepared(values[None], (0, most)))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "deflated TIFF", "TIFF of 32 bits", "TIFF of floats", "turned PNG"])
def test_what_a_person_says_white_is_holds_for_opened_pictures(kind):
    data, values = GREYS[kind](4095)
    picture = Image.open(io.BytesIO(data))
    for _ in range(2):  # opened, and decoded already
        assert torch.equal(in_silence(prepared, [picture], (0, 4095)), prepared(values[None], (0, 4095)))


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_every_order_of_bytes_in_memory_is_read(mode):
    values = to_type(GREY, 4095)
    order = ">" if mode == "I;16B" else "=" if mode == "I;16N" else "<"
    picture = Image.frombytes(mode, (WIDTH, HEIGHT), values.astype(f"{order}u2").tobytes())
    assert torch.equal(prepared([picture], (0, 4095)), prepared(values[None], (0, 4095)))


SIGNED = {
    "16 bits": (lambda values: tiff_of(values.astype(np.int16), format=2), np.int16),
    "32 bits": (lambda values: encode(values.astype(np.int32), "TIFF"), np.int32),
    "floats": (lambda values: encode(values.astype(np.float32), "TIFF"), np.float32),
}


@pytest.mark.parametrize("kind", SIGNED)
def test_values_below_zero_are_read(kind, tmp_path):
    make, dtype = SIGNED[kind]
    values = (GREY * 2000 - 1000).round()
    path = write(tmp_path, "ct.tif", make(values))
    expected = prepared(values[None].astype(dtype), (-1000, 1000))
    assert torch.equal(in_silence(prepared, [path], (-1000, 1000)), expected)


def test_32_bits_without_a_sign_are_read(tmp_path):
    values = to_type(GREY, 2**32 - 1, np.uint32)
    path = write(tmp_path, "x.tif", tiff_of(values, format=1))
    assert torch.equal(prepared([path], (0, 2**32 - 1)), prepared(values[None], (0, 2**32 - 1)))


DEEP_COLOURS = {
    "RGB PNG": lambda values: (png_of_16_bits(values[..., :3], 2), values[..., :3]),
    "RGBA PNG": lambda values: (png_of_16_bits(values, 6), values[..., :3]),
    "LA PNG": lambda values: (png_of_16_bits(values[..., :2], 4), values[..., :1]),
    "RGB TIFF": lambda values: (tiff_of(values[..., :3].copy()), values[..., :3]),
}


@pytest.mark.parametrize("kind", DEEP_COLOURS)
@pytest.mark.parametrize("most", [4095, 65535])
def test_colours_of_16_bits_keep_all_of_them(kind, most, tmp_path):
    data, values = DEEP_COLOURS[kind](to_type(COLOURS, most))
    found = in_silence(prepared, [write(tmp_path, "x", data)], (0, most))
    assert torch.equal(found, prepared(values[None], (0, most)))


def test_a_white_that_the_file_states_is_white_without_a_word(tmp_path):
    bits = np.unpackbits(to_type(GREY, 4095).astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)[:, 4:]
    packed = np.packbits(bits.ravel()).reshape(HEIGHT, -1)
    files = {
        "PGM of 4095": pgm(to_type(GREY, 4095), 4095),
        "PGM of 1000": pgm(to_type(GREY, 1000), 1000),
        "TIFF of 12 bits": tiff(packed, bits=[12], width=WIDTH, height=HEIGHT, samples=1, rows=HEIGHT),
    }
    expected = prepared(GREY[None])
    for name, data in files.items():
        found = in_silence(prepared, [write(tmp_path, "x", data)])
        assert (found - expected).abs().max() < 1 / 1000, name


# What "auto" learns

AUTO = {
    "16 bits": (lambda: to_type(GREY, 65535), (0, 65535), None),
    "12 bits in 16": (lambda: to_type(GREY, 4095), (0, 65535), "almost black"),
    "floats up to 1": (lambda: GREY.astype(np.float32), (0, 1), None),
    "floats up to 255": (lambda: to_type(GREY, 255, np.float32), (0, 255), None),
    "floats up to 1.2": (lambda: (GREY * 1.2).astype(np.float32), "span", "read as black and white"),
    "floats below 0": (lambda: (GREY * 2 - 1).astype(np.float32), "span", "read as black and white"),
    "integers of 8 bits": (lambda: to_type(GREY, 255, np.int32), (0, 255), None),
    "integers of 16 bits": (lambda: to_type(GREY, 65535, np.int32), (0, 65535), None),
    "integers of 12 bits": (lambda: to_type(GREY, 4095, np.int32), "span", "read as black and white"),
}


@pytest.mark.parametrize("way", ["file", "picture"])
@pytest.mark.parametrize("kind", AUTO)
def test_auto_learns_from_files_and_pictures_what_it_learns_from_arrays(kind, way, tmp_path):
    make, span, told = AUTO[kind]
    values = make()
    path = write(tmp_path, "x.tif", encode(values, "TIFF"))
    low, high = (float(values.min()), float(values.max())) if span == "span" else span
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        found = prepared([path if way == "file" else Image.open(path)])
    # Integers of 8 bits in an array are resized as pictures of 8 bits are.
    expected = prepared(values[None].astype(np.float32) if kind == "integers of 8 bits" else values[None], (low, high))
    assert torch.equal(found, expected)
    assert [told in str(w.message) for w in heard] == ([True] if told else [])


def test_there_is_one_white_for_all_pictures_of_a_data_set(tmp_path):
    paths = [
        write(tmp_path, f"{row}.tif", encode((GREY * most).astype(np.float32), "TIFF"))
        for row, most in enumerate((1.0, 1.2, 0.5))
    ]
    with pytest.warns(UserWarning, match=r"values from .* to 1\.19"):
        found = prepared(paths)
    np.testing.assert_allclose(found[2] / found[0], np.full(found[0].shape, 0.5), rtol=1e-2)
    np.testing.assert_allclose(found[1] / found[0], np.full(found[0].shape, 1.2), rtol=1e-2)


def test_what_was_learned_in_fit_holds_for_each_later_picture_alone_and_in_a_batch(tmp_path):
    paths = [
        write(tmp_path, f"{row}.tif", encode((GREY * most).astype(np.float32), "TIFF"))
        for row, most in enumerate((200.0, 0.9, 100.0))
    ]
    together = prepared(paths, fitted_on=paths[:1])
    for row, path in enumerate(paths):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert torch.equal(prepared([path], fitted_on=paths[:1])[0], together[row])
    np.testing.assert_allclose(together[1] / together[0], np.full(together[0].shape, 0.9 / 200), rtol=1e-2)


def test_pictures_of_8_bits_say_themselves_what_white_is_beside_others(tmp_path):
    shallow = write(tmp_path, "8.png", encode(to_type(GREY, 255, np.uint8), "PNG"))
    deep = write(tmp_path, "12.png", encode(to_type(GREY, 4095), "PNG"))
    mixed = prepared([shallow, deep, Image.open(shallow)], (0, 4095))
    assert torch.equal(mixed[0], prepared([shallow])[0])
    assert torch.equal(mixed[2], mixed[0])
    assert torch.equal(mixed[1], prepared([deep], (0, 4095))[0])
    assert (mixed[0] - mixed[1]).abs().max() < 2 / 255


def test_arrays_of_8_bits_keep_their_white_beside_deep_pictures(tmp_path):
    deep = write(tmp_path, "16.png", encode(to_type(GREY, 65535), "PNG"))
    for fitted_on in (None, [deep]):
        found = in_silence(
            prepared, [to_type(GREY, 255, np.uint8)] + ([deep] if fitted_on is None else []), "auto", fitted_on
        )
        np.testing.assert_allclose(found[0], prepared(GREY[None])[0], atol=1.5 / 255)


def test_after_a_fit_on_8_bits_the_type_of_a_picture_tells(tmp_path):
    shallow = [write(tmp_path, "8.png", encode(to_type(GREY, 255, np.uint8), "PNG"))]
    wide = write(tmp_path, "16.png", encode(to_type(GREY, 65535), "PNG"))
    floats = write(tmp_path, "1.tif", encode(GREY.astype(np.float32), "TIFF"))
    found = in_silence(prepared, [wide, floats, *shallow], "auto", shallow)
    np.testing.assert_allclose(found[0], found[2], atol=1.5 / 255)
    np.testing.assert_allclose(found[1], found[2], atol=1.5 / 255)
    assert torch.equal(prepared([wide], "auto", shallow)[0], found[0])
    assert torch.equal(prepared([shallow[0]], "auto", shallow)[0], found[2])
    unknown = write(tmp_path, "unknown.tif", encode(to_type(GREY, 300, np.float32), "TIFF"))
    with pytest.raises(ValueError, match=r"which fit did not see.*pixel_range=\(low, high\).*unknown\.tif"):
        prepared([unknown], "auto", shallow)


def test_auto_learns_the_same_whatever_the_order_of_bytes(tmp_path):
    values = to_type(GREY, 65535)
    picture = Image.frombytes("I;16B", (WIDTH, HEIGHT), values.astype(">u2").tobytes())
    path = tmp_path / "x.tif"
    picture.save(path)
    assert Image.open(path).mode == "I;16B"
    expected = prepared(values[None])
    for X in ([picture], [str(path)], [Image.open(path)], values[None].astype(">u2"), [values.astype(">u2")]):
        assert torch.equal(in_silence(prepared, X), expected)
    with pytest.warns(UserWarning, match="almost black"):
        prepared(to_type(GREY, 4095)[None].astype(">u2"))


# What is far from what is known


@pytest.mark.parametrize("way", ["file", "picture"])
def test_values_far_out_of_the_range_are_refused_by_name(way, tmp_path):
    path = write(tmp_path, "far.tif", encode(to_type(GREY, 9, np.float32), "TIFF"))
    picture = path if way == "file" else Image.open(path)
    name = r"far\.tif' \(row 0\)" if way == "file" else "the picture in row 0"
    with pytest.raises(ValueError, match=rf"from 0 to 9; expected about 0 to 1, as pixel_range says.*{name}"):
        prepared([picture], (0, 1))
    fine = write(tmp_path, "fine.tif", encode(GREY.astype(np.float32), "TIFF"))
    with pytest.raises(ValueError, match=rf"from 0 to 9; expected about 0 to 1, as in fit.*{name}"):
        prepared([picture], "auto", [fine])
    samples = samples_of([picture, fine], "auto", [fine], tolerant=True)
    with pytest.raises(UnreadableSampleError):
        samples.load(0)
    samples.load(1)


def test_pictures_that_become_almost_black_are_told_once(tmp_path):
    fitted = [write(tmp_path, "255.tif", encode(to_type(GREY, 255, np.float32), "TIFF"))]
    dark = [write(tmp_path, f"{row}.tif", encode((GREY * 0.99).astype(np.float32), "TIFF")) for row in range(5)]
    samples = samples_of(dark, "auto", fitted)
    with pytest.warns(UserWarning, match=r"expected about 0 to 255, as in fit.*almost black") as heard:
        list(map(samples.load, range(5)))
    assert len(heard) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_floats_that_are_no_numbers_are_refused_by_name(bad, tmp_path):
    values = GREY.astype(np.float32)
    values[3, 4] = bad
    path = write(tmp_path, "x.tif", encode(values, "TIFF"))
    for pixel_range in ("auto", (0, 1)):
        with pytest.raises(ValueError, match=r"x\.tif' \(row 0\).*NaN or infinity"):
            prepared([path], pixel_range)


# What it costs


def test_files_of_8_bits_are_not_decoded_for_what_white_is(tmp_path, monkeypatch):
    rgb = to_type(COLOURS[..., :3], 255, np.uint8)
    paths = [write(tmp_path, f"x.{kind}", encode(rgb, kind)) for kind in ("JPEG", "PNG", "TIFF", "BMP", "GIF", "PPM")]
    paths.append(write(tmp_path, "x.jpg", b"not even opened"))
    monkeypatch.setattr(_pixel_range, "decode", None)
    monkeypatch.setattr(_deep_pictures, "load_whole", None)
    reader = make_reader("images", SMALL, None, "auto")
    reader.learn(paths)
    assert reader.picture_range is None


def counting(monkeypatch):
    really, asked = _pixel_range.decode, []

    def decode(image, *args):
        asked.append(image)
        return really(image, *args)

    monkeypatch.setattr(_pixel_range, "decode", decode)
    return asked


def test_where_the_first_pictures_tell_the_others_are_not_decoded_for_it(tmp_path, monkeypatch):
    paths = [write(tmp_path, f"{row}.png", encode(to_type(GREY, 65535 - row), "PNG")) for row in range(5)]
    asked = counting(monkeypatch)
    samples_of(paths)
    assert len(asked) == 1
    samples_of(paths, (0, 65535))
    assert len(asked) == 1


def test_another_fit_does_not_decode_the_same_files_for_it_again(tmp_path, monkeypatch):
    paths = [write(tmp_path, f"{row}.tif", encode((GREY / (row + 1)).astype(np.float32), "TIFF")) for row in range(3)]
    asked = counting(monkeypatch)
    for _ in range(3):
        assert torch.equal(prepared(paths), prepared(paths))
    assert len(asked) == 3
    write(tmp_path, "0.tif", encode(to_type(GREY, 255, np.float32), "TIFF"))
    reader = make_reader("images", SMALL, None, "auto")
    reader.learn(paths)
    assert reader.picture_range == (0.0, 255.0)
    assert len(asked) == 4


def test_what_cannot_be_read_is_passed_over_only_where_that_is_tolerated(tmp_path):
    good = write(tmp_path, "good.tif", encode((GREY * 200).astype(np.float32), "TIFF"))
    data = encode(GREY.astype(np.float32), "TIFF")
    bad = write(tmp_path, "bad.tif", data[: len(data) // 2])
    cut = encode(to_type(GREY, 60000), "PNG")
    rows = [bad, write(tmp_path, "cut.png", cut[: len(cut) // 2]), good, UnreadableSampleError("no")]
    assert _pixel_range.learn_pictures(rows, "auto", 3, tolerant=True) == (True, (0.0, 255.0))
    with pytest.raises(ValueError, match=r"bad\.tif' \(row 0\)"):
        _pixel_range.learn_pictures(rows, "auto", 3)


# What is kept and saved


def test_the_recipe_holds_the_range_of_pictures(tmp_path):
    path = write(tmp_path, "x.tif", encode(to_type(GREY, 200, np.float32), "TIFF"))
    shallow = write(tmp_path, "8.png", encode(to_type(GREY, 255, np.uint8), "PNG"))
    pgm_path = write(tmp_path, "x.pgm", pgm(to_type(GREY, 4095), 4095))
    wide = write(tmp_path, "16.png", encode(to_type(GREY, 65535), "PNG"))
    recipes = [
        samples_of([path]).recipe,
        samples_of([path], (0, 200)).recipe,
        samples_of([path], (0, 300)).recipe,
        samples_of([shallow]).recipe,
        samples_of([pgm_path]).recipe,
        samples_of([pgm_path], (0, 65535)).recipe,
    ]
    assert len(set(recipes)) == len(recipes)
    assert samples_of([wide]).recipe == samples_of([pgm_path]).recipe


def test_a_reader_is_restored_with_its_range_and_an_earlier_record_without(tmp_path):
    path = write(tmp_path, "x.tif", encode((GREY * 1.5).astype(np.float32), "TIFF"))
    reader = make_reader("images", SMALL, None, "auto")
    with pytest.warns(UserWarning, match="read as black and white"):
        expected = reader.learn([path]).load(0)
    record = json.loads(json.dumps(reader.record))
    assert torch.equal(restore_reader("images", record).read([path]).load(0), expected)
    earlier = {key: value for key, value in record.items() if key not in ("picture_range", "deep_pictures")}
    wide = write(tmp_path, "16.png", encode(to_type(GREY, 65535), "PNG"))
    assert restore_reader("images", earlier).read([wide]).load(0).dtype == torch.uint8


@pytest.fixture
def files(tmp_path):
    levels = [0.2, 0.9] * 6
    return [
        write(tmp_path, f"{row}.tif", encode(to_type(GREY * level, 4095), "TIFF")) for row, level in enumerate(levels)
    ], np.array([0, 1] * 6)


def network():
    made = tiny_cnn()
    made.preprocessing = SMALL
    return made


def test_probabilities_are_the_same_alone_in_a_batch_and_after_saving(files, tmp_path):
    X, y = files
    classifier = FineTunedClassifier(network, pixel_range=(0, 4095), random_state=0, precision="float32").fit(X, y)
    together = classifier.predict_proba(X)
    np.testing.assert_allclose(classifier.predict_proba(X[3:4]), together[3:4], rtol=1e-5)
    arrays = [np.asarray(Image.open(path)) for path in X]
    np.testing.assert_allclose(classifier.set_params(feature_cache=None).predict_proba(arrays), together, rtol=1e-4)
    sktransfer.save(classifier, tmp_path / "model")
    again = sktransfer.load(tmp_path / "model", backbone=network)
    np.testing.assert_allclose(again.predict_proba(X), together, rtol=1e-5)


def test_folds_and_estimators_of_other_ranges_do_not_share_features(files):
    X, _ = files
    narrow = PretrainedFeatureExtractor(network, pixel_range=(0, 4095), random_state=0).fit(X).transform(X)
    wide = PretrainedFeatureExtractor(network, pixel_range=(0, 65535), random_state=0).fit(X).transform(X)
    assert np.abs(narrow - wide).max() > 1e-3


def test_the_description_beside_an_onnx_file_says_the_range(files, tmp_path):
    pytest.importorskip("onnx", reason="only it writes them")
    extractor = PretrainedFeatureExtractor(network, pixel_range=(0, 4095), random_state=0).fit(files[0])
    extractor.to_onnx(tmp_path / "x.onnx")
    assert json.loads((tmp_path / "x.onnx.json").read_text())["value_range"] == [0, 4095]
