"""What a user may rely on when X holds images."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
import torchvision
from networks import tiny_cnn, tiny_grey_cnn
from PIL import Image, ImageFilter
from torchvision.models import get_model_weights, get_weight, list_models

from sktransfer import PretrainedFeatureExtractor
from sktransfer.inputs import ImagePreprocessing, make_reader
from sktransfer.inputs._rows import Rows
from sktransfer.inputs.images import _decoding

HEIGHT, WIDTH = 20, 26


def read(X, preprocessing=None, image_shape=None, pixel_range="auto"):
    """Prepare all of X as a network takes it; arrays at their own size unless told otherwise."""
    reader = make_reader("images", preprocessing or ImagePreprocessing(), image_shape, pixel_range)
    samples = reader.learn(Rows(X).values)
    return samples.prepare(torch.stack([samples.load(row) for row in range(len(samples))]))


def pixels_of(picture, channels=3, size=(HEIGHT, WIDTH)):
    """Read one picture or path at its own size, as uint8 (height, width, channels)."""
    reader = make_reader("images", ImagePreprocessing(crop=size, channels=channels), None, "auto")
    loaded = reader.learn([picture]).load(0).permute(1, 2, 0)
    if loaded.dtype == torch.float32:
        return (loaded * 255).numpy()
    assert loaded.dtype == torch.uint8
    return loaded.numpy()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = tiny_cnn()
    network.preprocessing = ImagePreprocessing(18, (16, 16), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    return network


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (4, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def files(pixels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    files = [folder / f"{row}.png" for row in range(len(pixels))]
    for file, image in zip(files, pixels, strict=True):
        Image.fromarray(image).save(file)
    return files


@pytest.fixture(scope="module")
def expected(network, pixels):
    return extractor_of(network).fit_transform(pixels)


def extractor_of(network, **parameters):
    """An extractor that computes: the same pixels would else be found in the cache, in whatever form."""
    return PretrainedFeatureExtractor(network, feature_cache=None, **parameters)


def flat(pixels):
    return pixels.reshape(len(pixels), -1)


def objects(values):
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def memory_mapped(pixels, folder):
    np.save(folder / "X.npy", pixels)
    return np.load(folder / "X.npy", mmap_mode="r")


def read_only(pixels):
    pixels = pixels.copy()
    pixels.flags.writeable = False
    return pixels


# The same pictures in every form

ARRAYS = {
    "channels last": lambda pixels: pixels,
    "channels first": lambda pixels: pixels.transpose(0, 3, 1, 2).copy(),
    "a view, channels first": lambda pixels: pixels.transpose(0, 3, 1, 2),
    "Fortran order": np.asfortranarray,
    "negative strides": lambda pixels: pixels[::-1, ::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1, ::-1],
    "every second of twice": lambda pixels: np.repeat(pixels, 2, axis=0)[::2],
    "read-only": read_only,
    "int64": lambda pixels: pixels.astype(np.int64),
    "int32": lambda pixels: pixels.astype(np.int32),
    "big-endian int16": lambda pixels: pixels.astype(">i2"),
    "uint16 that holds 8 bits": lambda pixels: pixels.astype(np.uint16),
    "nested lists": lambda pixels: pixels.tolist(),
    "torch tensor": torch.tensor,
    "torch tensor, channels first": lambda pixels: torch.tensor(pixels).permute(0, 3, 1, 2),
    "list of arrays": list,
    "tuple of arrays": tuple,
    "list of arrays, channels first": lambda pixels: list(pixels.transpose(0, 3, 1, 2)),
    "list of torch tensors": lambda pixels: list(torch.tensor(pixels)),
    "array of arrays": lambda pixels: objects(list(pixels)),
    "Series of arrays": lambda pixels: pd.Series(list(pixels)),
    "list of PIL images": lambda pixels: [Image.fromarray(image) for image in pixels],
    "array of PIL images": lambda pixels: objects([Image.fromarray(image) for image in pixels]),
    "list of PIL images, arrays and tensors": lambda pixels: [
        Image.fromarray(pixels[0]),
        pixels[1],
        torch.tensor(pixels[2]),
        pixels[3].astype(int),
    ],
}


@pytest.mark.parametrize("form", ARRAYS)
def test_every_form_of_the_same_pixels_gives_the_same_features(form, network, pixels, expected):
    X = ARRAYS[form](pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = extractor_of(network).fit_transform(X)
    np.testing.assert_array_equal(features, expected)


def test_memory_mapped_arrays_give_the_same_features(network, pixels, expected, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = extractor_of(network).fit_transform(memory_mapped(pixels, tmp_path))
    np.testing.assert_array_equal(features, expected)


FLAT = {
    "array": flat,
    "Fortran order": lambda pixels: np.asfortranarray(flat(pixels)),
    "read-only": lambda pixels: read_only(flat(pixels)),
    "list of lists": lambda pixels: flat(pixels).tolist(),
    "list of rows": lambda pixels: list(flat(pixels)),
    "array of objects": lambda pixels: flat(pixels).astype(object),
    "torch tensor": lambda pixels: torch.tensor(flat(pixels)),
    "pandas": lambda pixels: pd.DataFrame(flat(pixels)).rename(columns=str),
    "polars": lambda pixels: pl.DataFrame(flat(pixels)),
}


@pytest.mark.parametrize("form", FLAT)
def test_flat_rows_with_image_shape_give_the_same_features(form, network, pixels, expected):
    X = FLAT[form](pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extractor = extractor_of(network, image_shape=(HEIGHT, WIDTH, 3)).fit(X)
    if form == "array of objects":  # they become floats, which are resized as floats
        np.testing.assert_allclose(extractor.transform(X), expected, atol=0.01)
    else:
        np.testing.assert_array_equal(extractor.transform(X), expected)
    assert extractor.n_features_in_ == HEIGHT * WIDTH * 3


def test_flat_rows_of_a_table_keep_its_column_names(network, pixels):
    X = pd.DataFrame(flat(pixels)).rename(columns="pixel{}".format)
    extractor = extractor_of(network, image_shape=(HEIGHT, WIDTH, 3)).fit(X)
    assert list(extractor.feature_names_in_) == list(X.columns)
    with pytest.raises(ValueError, match="feature names should match"):
        extractor.transform(X.rename(columns={"pixel0": "other"}))


PATHS = {
    "list": list,
    "tuple": tuple,
    "array of objects": objects,
    "(n, 1) array of objects": lambda files: objects(files)[:, None],
    "Series of objects": lambda files: pd.Series(files, dtype=object),
    "one-column DataFrame": lambda files: pd.DataFrame({"file": files}),
    "one-column DataFrame of objects": lambda files: pd.DataFrame({"file": pd.Series(files, dtype=object)}),
    "polars Series": pl.Series,
    "one-column polars DataFrame": lambda files: pl.DataFrame({"file": files}),
    "list of lists": lambda files: [[file] for file in files],
}
STRINGS = {
    "unicode array": np.array,
    "(n, 1) unicode array": lambda files: np.array(files)[:, None],
    "Series": pd.Series,
    "Series with an index of its own": lambda files: pd.Series(files, index=range(100, 100 + len(files))),
    "categorical Series": lambda files: pd.Series(files, dtype="category"),
    "list of numpy strings": lambda files: list(np.array(files)),
}
if hasattr(np.dtypes, "StringDType"):  # since NumPy 2
    STRINGS["variable-width array"] = lambda files: np.array(files, dtype=np.dtypes.StringDType())


@pytest.mark.parametrize(
    ("form", "kind"), [*((form, Path) for form in PATHS), *((form, str) for form in PATHS | STRINGS)]
)
def test_every_form_of_paths_gives_exactly_the_features_of_the_arrays(form, kind, network, files, expected):
    X = (PATHS | STRINGS)[form]([kind(file) for file in files])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = extractor_of(network).fit_transform(X)
    np.testing.assert_array_equal(features, expected)


def test_paths_relative_to_the_working_folder_are_found(network, files, expected, monkeypatch):
    monkeypatch.chdir(files[0].parent)
    features = extractor_of(network).fit_transform([file.name for file in files])
    np.testing.assert_array_equal(features, expected)


def test_whoever_was_fitted_on_one_form_takes_another(network, pixels, files, expected):
    fitted_on_arrays = extractor_of(network).fit(pixels)
    fitted_on_paths = extractor_of(network).fit(files)
    for X in (pixels, files, [Image.fromarray(image) for image in pixels], list(pixels)):
        np.testing.assert_array_equal(fitted_on_arrays.transform(X), expected)
        np.testing.assert_array_equal(fitted_on_paths.transform(X), expected)


def test_reading_pictures_leaves_them_as_they_were(pixels, files):
    given = Image.fromarray(pixels[0])
    opened = Image.open(files[1])
    X = [given, opened, pixels[2], str(files[3])]
    before = list(X)
    read(X, ImagePreprocessing(crop=(8, 8)))
    assert all(now is then for now, then in zip(X, before, strict=True))
    np.testing.assert_array_equal(np.asarray(given), pixels[0])
    np.testing.assert_array_equal(np.asarray(opened), pixels[1])


# Scales

# Resizing rounds 8-bit pictures to whole levels and floats not at all: half a level a pass, two passes.
ONE_LEVEL = 1.001 / 255


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_floats_are_within_one_level_of_the_same_8_bit_pictures(dtype, scale, pixels):
    preprocessing = ImagePreprocessing(24, (24, 24))
    floats = (pixels / 255 * scale).astype(dtype)
    tolerance = ONE_LEVEL + (2e-3 if dtype == np.float16 else 0)
    np.testing.assert_allclose(read(floats, preprocessing), read(pixels, preprocessing), atol=tolerance)


def test_floats_at_their_own_size_reach_the_network_as_they_are(pixels):
    floats = (pixels / 255).astype(np.float32)
    np.testing.assert_array_equal(read(floats).permute(0, 2, 3, 1).numpy(), floats)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_floats_are_resized_as_8_bit_pictures_are(interpolation):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 97, 3), dtype=np.uint8))
    picture = np.asarray(noise.filter(ImageFilter.GaussianBlur(2)))
    preprocessing = ImagePreprocessing(37, (32, 32), interpolation)
    difference = read((picture / 255)[None], preprocessing) - read(picture[None], preprocessing)
    assert difference.abs().max() < 1.2 / 255


def test_bicubic_resizing_of_floats_stays_within_black_and_white():
    board = np.kron(np.indices((6, 6)).sum(0) % 2, np.ones((5, 5)))[None]
    prepared = read(board, ImagePreprocessing(crop=(64, 64), interpolation="bicubic", channels=1))
    assert prepared.min() == 0.0
    assert prepared.max() == 1.0


def test_16_bit_arrays_are_read_as_0_to_65535(pixels):
    prepared = read(pixels.astype(np.uint16) * 257)
    np.testing.assert_allclose(prepared, read(pixels), atol=1e-6)


def test_boolean_arrays_are_black_and_white():
    masks = np.random.default_rng(0).random((3, 8, 8)) < 0.5
    np.testing.assert_array_equal(read(masks, ImagePreprocessing(channels=1))[:, 0].numpy(), masks.astype(np.float32))


def test_a_list_of_mixed_types_is_read_on_one_scale(pixels, files):
    """A batch of 8-bit and float samples must not be mistaken for one of floats."""
    X = [str(files[0]), Image.fromarray(pixels[1]), (pixels[2] / 255).astype(np.float32)]
    prepared = read(X, ImagePreprocessing(crop=(HEIGHT, WIDTH)))
    np.testing.assert_allclose(prepared, read(pixels[:3]), atol=1e-6)


def test_grey_arrays_are_the_same_with_and_without_an_axis_for_channels(pixels, tmp_path):
    grey = pixels[..., 0]
    expected = read(grey)
    assert expected.shape == (4, 3, HEIGHT, WIDTH)
    assert torch.equal(expected[:, 0], expected[:, 1])
    assert torch.equal(expected[:, 0], expected[:, 2])
    files = [tmp_path / f"{row}.png" for row in range(len(grey))]
    for file, image in zip(files, grey, strict=True):
        Image.fromarray(image).save(file)
    own_size = ImagePreprocessing(crop=(HEIGHT, WIDTH))
    for X in (grey[..., None], grey[:, None], list(grey), np.repeat(grey[..., None], 3, axis=-1)):
        assert torch.equal(read(X), expected)
    assert torch.equal(read(files, own_size), expected)
    assert torch.equal(read(flat(grey), image_shape=(HEIGHT, WIDTH)), expected)
    assert torch.equal(read(flat(grey), image_shape=[HEIGHT, WIDTH, 1]), expected)


def test_a_grey_network_takes_colour_as_luma(pixels):
    grey = ImagePreprocessing(channels=1)
    luma = pixels @ np.array([0.299, 0.587, 0.114]) / 255
    assert read(pixels, grey).shape == (4, 1, HEIGHT, WIDTH)
    np.testing.assert_allclose(read(pixels, grey)[:, 0], luma, atol=0.6 / 255)
    np.testing.assert_allclose(read(pixels / 255, grey)[:, 0], luma, atol=1e-3)
    extractor = extractor_of(tiny_grey_cnn, random_state=0).fit(pixels)
    assert extractor.backbone_.preprocessing.channels == 1
    np.testing.assert_allclose(
        extractor.transform([Image.fromarray(image).convert("L") for image in pixels]), extractor.transform(pixels)
    )


# The size that reaches the network


def test_a_network_of_any_size_takes_arrays_of_one_size_as_they_are(pixels):
    assert read(pixels).shape == read(list(pixels)).shape == (4, 3, HEIGHT, WIDTH)
    assert torch.equal(read(pixels), read(list(pixels)))


def test_a_network_of_any_size_takes_pictures_of_many_sizes_at_224(pixels):
    for X in ([pixels[0], pixels[1, :8]], [pixels[0], Image.fromarray(pixels[1])]):
        assert read(X).shape == (2, 3, 224, 224)


def test_the_size_learned_in_fit_is_the_size_of_any_later_x(pixels, files):
    reader = make_reader("images", ImagePreprocessing(), None, "auto")
    reader.learn(pixels)
    bigger = np.repeat(np.repeat(pixels, 2, axis=1), 2, axis=2)
    for X in (pixels, bigger, files, list(bigger)):
        assert reader.read(X).load(0).shape == (3, HEIGHT, WIDTH)


def test_mean_and_deviation_of_one_value_stand_for_all_channels(pixels):
    one = read(pixels, ImagePreprocessing(mean=(0.5,), std=(0.25,)))
    assert torch.equal(one, read(pixels, ImagePreprocessing(mean=(0.5,) * 3, std=(0.25,) * 3)))
    np.testing.assert_allclose(one, (read(pixels) - 0.5) / 0.25, rtol=1e-6)


# torchvision's presets

WEIGHTS = [
    "ResNet18_Weights.IMAGENET1K_V1",
    "ResNet50_Weights.IMAGENET1K_V2",
    "MobileNet_V2_Weights.IMAGENET1K_V1",
    "MobileNet_V2_Weights.IMAGENET1K_V2",
]
SIZES = [(8, 8), (28, 28), (32, 32), (97, 61), (40, 300), (500, 375), (256, 256), (224, 224)]


@pytest.mark.parametrize("ending", ["png", "jpg"])
@pytest.mark.parametrize("name", WEIGHTS)
def test_prepared_files_are_those_of_torchvisions_preset_to_two_of_255(name, ending, tmp_path):
    preset = get_weight(name).transforms()
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{height}x{width}.{ending}" for height, width in SIZES]
    for file, size in zip(files, SIZES, strict=True):
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(file)
    prepared = read(files, ImagePreprocessing.from_torchvision(preset))
    for file, image in zip(files, prepared, strict=True):
        assert_same_but_for_rounding(image, preset(Image.open(file).convert("RGB")), preset, file.name)


def assert_same_but_for_rounding(image, expected, preset, name):
    """Only what the crop leaves is resized, so that where a pixel lies is rounded otherwise than in the whole."""
    levels = (image - expected).abs() * 255 * torch.tensor(preset.std).view(3, 1, 1)
    assert levels.max() < 2.01, name
    assert (levels > 0.5).float().mean() < 0.05, name


def test_every_classification_preset_of_torchvision_is_read():
    members = [weights for name in list_models(module=torchvision.models) for weights in get_model_weights(name)]
    assert len(members) > 100
    presets = {ImagePreprocessing.from_torchvision(member.transforms()): member.transforms() for member in members}
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 47, 3), dtype=np.uint8))
    for preprocessing, preset in presets.items():
        assert_same_but_for_rounding(read([picture], preprocessing)[0], preset(picture), preset, preprocessing)


# Modes

RGB = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
GREY = RGB[..., 1]
ALPHA = RGB[..., 2]


def in_three(grey):
    return np.repeat(grey[..., None], 3, axis=-1)


def palette_picture(transparent):
    indices, colours = GREY % 7, RGB[0, :7]
    picture = Image.frombytes("P", (WIDTH, HEIGHT), indices.tobytes())
    picture.putpalette(colours.ravel().tolist())
    if transparent:
        picture.info["transparency"] = 3
    return picture, colours[indices]


@pytest.mark.parametrize("way", ["picture", "file"])
@pytest.mark.parametrize(
    ("mode", "ending"),
    [
        ("RGB", "png"),
        ("L", "png"),
        ("LA", "png"),
        ("RGBA", "png"),
        ("RGBA", "webp"),
        ("P", "png"),
        ("P", "gif"),
        ("P transparent", "png"),
        ("P transparent", "gif"),
        ("1", "png"),
        ("CMYK", "tiff"),
        ("I;16", "png"),
        ("I;16", "tiff"),
        ("I of 8 bits", "tiff"),
        ("I of 16 bits", "tiff"),
        ("F up to 1", "tiff"),
        ("F up to 255", "tiff"),
    ],
)
def test_every_mode_becomes_rgb_of_the_right_values(mode, ending, way, tmp_path):
    wide = RGB[..., 0].astype(np.uint16) * 257
    ink = np.dstack([RGB, ALPHA // 2]).astype(float)
    picture, values, tolerance = {
        "RGB": (Image.fromarray(RGB), RGB, 0),
        "L": (Image.fromarray(GREY), in_three(GREY), 0),
        "LA": (Image.fromarray(np.dstack([GREY, ALPHA]), "LA"), in_three(GREY), 0),
        "RGBA": (Image.fromarray(np.dstack([RGB, ALPHA])), RGB, 0),
        "P": (*palette_picture(False), 0),
        "P transparent": (*palette_picture(True), 0),
        "1": (Image.fromarray(GREY > 127), in_three((GREY > 127) * 255), 0),
        "CMYK": (
            Image.frombytes("CMYK", (WIDTH, HEIGHT), ink.astype(np.uint8).tobytes()),
            (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255,
            1,
        ),
        "I;16": (Image.fromarray(wide), in_three(RGB[..., 0]), 1e-4),
        "I of 8 bits": (Image.fromarray(GREY.astype(np.int32)), in_three(GREY), 1e-4),
        "I of 16 bits": (Image.fromarray(wide.astype(np.int32)), in_three(RGB[..., 0]), 1e-4),
        "F up to 1": (Image.fromarray((GREY / 255).astype(np.float32)), in_three(GREY), 1e-4),
        "F up to 255": (Image.fromarray(GREY.astype(np.float32)), in_three(GREY), 1e-4),
    }[mode]
    if way == "file":
        extra = {"lossless": True, "exact": True} if ending == "webp" else {}
        picture.save(tmp_path / f"x.{ending}", **extra)
        picture = tmp_path / f"x.{ending}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = pixels_of(picture)
    np.testing.assert_allclose(got.astype(float), values, atol=tolerance)


def test_grey_networks_get_grey_of_every_mode(tmp_path):
    Image.fromarray(np.dstack([in_three(GREY), ALPHA])).save(tmp_path / "x.png")
    np.testing.assert_array_equal(pixels_of(tmp_path / "x.png", channels=1)[..., 0], GREY)
    np.testing.assert_array_equal(pixels_of(Image.fromarray(GREY), channels=1)[..., 0], GREY)


# How an upright picture lies in the file, for each EXIF orientation.
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


@pytest.mark.parametrize("way", ["picture", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", STORED)
def test_rotated_pictures_are_turned_upright(orientation, way, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    ending = "png" if way == "picture" else way
    extra = {"lossless": True} if way == "webp" else {}
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](RGB)))
    stored.save(tmp_path / f"x.{ending}", exif=exif, **extra)
    given = Image.open(tmp_path / "x.png") if way == "picture" else tmp_path / f"x.{ending}"
    np.testing.assert_array_equal(pixels_of(given), RGB)


def test_animations_are_read_by_their_first_frame(tmp_path):
    frames = [Image.fromarray(np.full((HEIGHT, WIDTH), level, dtype=np.uint8)) for level in (200, 100, 50)]
    for ending in ("gif", "png", "tiff", "webp"):
        extra = {"lossless": True} if ending == "webp" else {}
        frames[0].save(tmp_path / f"x.{ending}", save_all=True, append_images=frames[1:], **extra)
        assert Image.open(tmp_path / f"x.{ending}").n_frames == 3
        assert (pixels_of(tmp_path / f"x.{ending}") == 200).all()
    frames[0].save(tmp_path / "x.mpo", save_all=True, append_images=frames[1:])
    assert (tmp_path / "x.mpo").stat().st_size > 2 * (tmp_path / "x.gif").stat().st_size
    try:
        Image.open(tmp_path / "x.mpo").load()
    except OSError:
        pytest.skip("Pillow 10 writes grey MPO files that it cannot read")
    assert abs(pixels_of(tmp_path / "x.mpo").astype(int) - 200).max() <= 2


def test_a_float_picture_that_holds_nan_is_refused(tmp_path):
    values = np.full((HEIGHT, WIDTH), 0.5, dtype=np.float32)
    values[3, 4] = np.nan
    Image.fromarray(values).save(tmp_path / "x.tiff")
    with pytest.raises(ValueError, match=r"x\.tiff' \(row 0\).*NaN"):
        pixels_of(tmp_path / "x.tiff")


def test_a_broken_orientation_leaves_the_picture_as_it_lies(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "x.jpg", exif=b"Exif\0\0garbage garbage", quality=100, subsampling=0)
    assert abs(pixels_of(tmp_path / "x.jpg").astype(int) - RGB).mean() < 2


# The range of values


@pytest.mark.parametrize(
    ("X", "white"),
    [
        (np.array([0, 255], dtype=np.uint8), 255),
        (np.array([0, 40], dtype=np.uint8), 255),
        (np.array([0, 40000], dtype=np.uint16), 65535),
        (np.array([0, 200], dtype=np.uint16), 255),
        (np.array([0.0, 1.0]), 1),
        (np.array([0.2, 0.3]), 1),
        (np.array([0.0, 0.0]), 1),
        (np.array([0, 1]), 1),
        (np.array([False, True]), 1),
        (np.array([0.0, 255.0]), 255),
        (np.array([3.0, 128.0]), 255),
        (np.array([0, 255]), 255),
        (np.array([0, 40000]), 65535),
        (np.array([0.0, 65535.0]), 65535),
    ],
)
def test_usual_spans_are_recognised_without_a_warning(X, white):
    images = np.resize(X, (2, 4, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepared = read(images, ImagePreprocessing(channels=1))
    np.testing.assert_allclose(prepared[:, 0], images.astype(float) / white, rtol=1e-6)


@pytest.mark.parametrize(
    ("X", "low", "high", "named"),
    [
        (np.array([0.0, 16.0]), 0, 16, "from 0 to 16"),
        (np.array([-1.0, 1.0]), -1, 1, "from -1 to 1"),
        (np.array([0.0, 300.0]), 0, 300, "from 0 to 300"),
        (np.array([0, 4095]), 0, 4095, "from 0 to 4095"),
        (np.array([5.0, 5.0]), 5, 6, "from 5 to 5"),
        (np.array([0, 16], dtype=np.uint8), 0, 255, "almost black"),
        (np.array([0, 1], dtype=np.uint8), 0, 255, "almost black"),
        (np.array([0, 4095], dtype=np.uint16), 0, 65535, "uint16 is read as 0 to 65535.*almost black"),
    ],
)
def test_suspicious_spans_warn_and_say_what_to_do(X, low, high, named):
    images = np.resize(X, (2, 4, 4))
    with pytest.warns(UserWarning, match=rf"(?s){named}.*pixel_range=\(low, high\)"):
        prepared = read(images, ImagePreprocessing(channels=1))
    np.testing.assert_allclose(prepared[:, 0], (images.astype(float) - low) / (high - low), rtol=1e-5)


def test_the_range_is_learned_once_in_fit():
    reader = make_reader("images", ImagePreprocessing(channels=1), None, "auto")
    reader.learn(np.resize([0.0, 200.0], (2, 4, 4)))
    later = np.resize([0.5, 100.0, 300.0, -4.0], (3, 4, 4))
    for X in (later, list(later)):
        samples = reader.read(X)
        prepared = samples.prepare(torch.stack([samples.load(row) for row in range(3)]))
        np.testing.assert_allclose(prepared[:, 0], (later / 255).clip(0, 1), rtol=1e-6)


def test_the_range_comes_from_all_arrays_of_a_list():
    X = [np.full((4, 4), value) for value in (0.5, 1.0, 255.0)]
    np.testing.assert_allclose(read(X, ImagePreprocessing(channels=1))[:, 0, 0, 0], [0.5 / 255, 1 / 255, 1])


def test_an_explicit_range_is_taken_as_it_is():
    images = np.resize([0.0, 8.0, 16.0], (3, 4, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepared = read(images, ImagePreprocessing(channels=1), pixel_range=(0, 16))
        eight_bits = read(images.astype(np.uint8), ImagePreprocessing(channels=1), pixel_range=[0, 16])
        signed = read(images - 8, ImagePreprocessing(channels=1), pixel_range=(-8, 8))
    np.testing.assert_allclose(prepared[:, 0], images / 16, rtol=1e-6)
    assert torch.equal(prepared, eight_bits)
    assert torch.equal(prepared, signed)


def test_an_explicit_0_to_255_is_what_auto_makes_of_8_bits(pixels):
    preprocessing = ImagePreprocessing(24, (24, 24))
    assert torch.equal(read(pixels, preprocessing, pixel_range=(0, 255)), read(pixels, preprocessing))


def test_an_explicit_range_that_the_values_leave_far_behind_is_refused(pixels):
    with pytest.raises(ValueError, match=r"values from 0 to 255; expected about 0 to 1, as pixel_range says"):
        read(pixels, pixel_range=(0, 1))
    with pytest.raises(ValueError, match=r"values from -1 to 1; expected about 0 to 0\.5"):
        read(np.resize([-1.0, 1.0], (2, 4, 4)), pixel_range=(0, 0.5))


@pytest.mark.parametrize("form", [np.asarray, list], ids=["array", "list"])
def test_values_far_out_of_the_range_of_fit_are_refused(form, pixels):
    reader = make_reader("images", ImagePreprocessing(), None, "auto")
    reader.learn(form(pixels / 255))
    with pytest.raises(ValueError, match=r"from 0 to 255; expected about 0 to 1, as in fit\. Scale them"):
        reader.read(form(pixels))
    with pytest.raises(ValueError, match=r"from -9 to -9; expected about 0 to 1"):
        reader.read(form(np.full((2, 4, 4, 3), -9.0)))


def test_values_of_0_to_1_after_a_fit_on_0_to_255_warn(pixels):
    reader = make_reader("images", ImagePreprocessing(), None, "auto")
    reader.learn(pixels)
    with pytest.warns(UserWarning, match=r"from 0 to 1; expected about 0 to 255, as in fit.*almost black"):
        reader.read(pixels / 255)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader.read(np.zeros((1, 4, 4, 3), dtype=np.uint8))


# Shapes that are no images


@pytest.mark.parametrize(
    "shape",
    [(2, 3, 4, 5, 3), (2, 8, 8, 2), (2, 7, 8, 8), (2, 8, 0, 3), (2, 0, 8)],
    ids=str,
)
def test_arrays_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"Got X of shape \(2, .*expected images of shape \(n, height, width\)"):
        read(np.zeros(shape))


@pytest.mark.parametrize("shape", [(8, 8, 3), (30, 20, 4)], ids=str)
def test_one_picture_instead_of_several_is_refused(shape):
    with pytest.raises(ValueError, match=r"looks like one picture.*into a list"):
        read(np.zeros(shape))
    assert read([np.zeros(shape)]).shape == (1, 3, *shape[:2])


def test_small_grey_pictures_are_not_mistaken_for_one_in_colour():
    assert read(np.zeros((20, 4, 4))).shape == (20, 3, 4, 4)


@pytest.mark.parametrize("shape", [(8, 8, 2), (2, 2, 8, 8)], ids=str)
def test_a_list_names_the_row_whose_shape_is_no_image(shape):
    with pytest.raises(ValueError, match=r"Got X\[1\] of shape .*expected \(height, width\)"):
        read([np.zeros((8, 8, 3)), np.zeros(shape)])


@pytest.mark.parametrize(
    "image_shape", [(0, 8), (8,), (1, 1, 65), (2, 2, 2, 8), (8.0, 8), ("8", "8"), (-8, -8)], ids=str
)
def test_an_image_shape_that_is_none_is_refused(image_shape):
    with pytest.raises(ValueError, match=r"Got image_shape=\(.*expected \(height, width\)"):
        read(np.zeros((2, 64)), image_shape=image_shape)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "form",
    [np.asarray, list, flat, lambda X: pd.DataFrame(flat(X)), lambda X: flat(X).tolist()],
    ids=["array", "list", "flat", "table", "lists"],
)
def test_nan_and_infinity_are_refused_in_every_form(bad, form):
    X = np.zeros((3, 4, 4))
    X[1, 2, 3] = bad
    with pytest.raises(ValueError, match="contains NaN" if np.isnan(bad) else "contains infinity"):
        read(form(X), image_shape=(4, 4))


# What activations are kept by


def digest_of(image):
    return make_reader("images", ImagePreprocessing(crop=(8, 8)), None, (0, 255)).learn([image]).digest(0)


def test_a_digest_is_of_the_content_wherever_it_lies(pixels, files, tmp_path):
    image = pixels[0]
    for same in (image.copy(), np.asfortranarray(image), image[::-1].copy()[::-1], read_only(image)):
        assert digest_of(same) == digest_of(image)
    assert digest_of(Image.fromarray(image)) == digest_of(Image.fromarray(image.copy()))
    (tmp_path / "copy.dat").write_bytes(files[0].read_bytes())
    assert digest_of(tmp_path / "copy.dat") == digest_of(files[0]) == digest_of(str(files[0]))


def test_a_digest_differs_where_the_picture_does(pixels, files):
    turned = Image.fromarray(pixels[0])
    turned.getexif()[0x0112] = 3
    see_through, opaque = palette_picture(True)[0], palette_picture(False)[0]
    other_colours = palette_picture(False)[0]
    other_colours.putpalette([9] * 21)
    pictures = [
        pixels[0],
        pixels[1],
        pixels[0].swapaxes(0, 1),
        pixels[0].astype(np.int16),
        pixels[0].astype(np.float32),
        pixels[0].reshape(WIDTH, HEIGHT, 3),
        Image.fromarray(pixels[0]),
        Image.fromarray(pixels[0]).convert("L"),
        turned,
        see_through,
        opaque,
        other_colours,
        files[0],
        files[1],
    ]
    assert len({digest_of(picture) for picture in pictures}) == len(pictures)


def test_a_recipe_differs_where_the_reading_does(pixels):
    recipes = [
        make_reader("images", preprocessing, None, pixel_range).learn(X).recipe
        for preprocessing, pixel_range, X in [
            (ImagePreprocessing(crop=(8, 8)), "auto", pixels),
            (ImagePreprocessing(crop=(8, 9)), "auto", pixels),
            (ImagePreprocessing(9, crop=(8, 8)), "auto", pixels),
            (ImagePreprocessing(crop=(8, 8), interpolation="bicubic"), "auto", pixels),
            (ImagePreprocessing(crop=(8, 8), mean=(0.5,)), "auto", pixels),
            (ImagePreprocessing(crop=(8, 8), std=(0.5,)), "auto", pixels),
            (ImagePreprocessing(crop=(8, 8), channels=1), "auto", pixels),
            (ImagePreprocessing(crop=(8, 8)), (0, 200), pixels),
            (ImagePreprocessing(crop=(8, 8)), "auto", [pixels[0], pixels[1] / 2]),
        ]
    ]
    assert len(set(recipes)) == len(recipes)
    assert make_reader("images", ImagePreprocessing(crop=(8, 8)), None, "auto").learn(pixels[2:]).recipe == recipes[0]


# Large JPEGs


@pytest.mark.parametrize("size", [(1100, 1500), (2300, 2100), (4200, 5000)])
def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same(size, tmp_path):
    few = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    path = tmp_path / "large.jpg"
    few.resize(size[::-1], Image.Resampling.BICUBIC).save(path, quality=90)
    preprocessing = ImagePreprocessing(resize=256, crop=(224, 224))
    small = _decoding.decode(path, "it", 3, preprocessing.shorter_side)
    assert 2 * 256 <= min(small.size) < min(size)
    (image,) = read([path], preprocessing)
    whole = preprocessing.fit_size(Image.open(path).convert("RGB"))
    levels = np.abs(image.numpy() * 255 - np.asarray(whole).transpose(2, 0, 1))
    assert levels.mean() < 0.5
    assert levels.max() <= 6


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_what_is_not_four_times_as_large_is_decoded_whole(ending, tmp_path):
    path = tmp_path / f"photo.{ending}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (1000, 1400, 3), dtype=np.uint8)).save(path)
    assert _decoding.decode(path, "it", 3, 256).size == (1400, 1000)
    assert _decoding.decode(path, "it", 3).size == (1400, 1000)
