"""What bad input gets: an error that says what was got, what was expected and what to do, and nothing half-fitted.

The rows of section 6 of the design, each through both estimators, but for the memory of CUDA devices.
"""

import re
import struct
import warnings
import zlib
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest
import torch
from networks import tiny_cnn, tiny_vectors
from PIL import Image
from safetensors.torch import save_file
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted
from torchvision.transforms import v2

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import ImagePreprocessing

both = pytest.mark.parametrize("estimator_class", [PretrainedFeatureExtractor, FineTunedClassifier])


def labels(X):
    return np.arange(len(X)) % 2


def small_cnn():
    network = tiny_cnn()
    network.preprocessing = ImagePreprocessing(crop=(16, 16))
    return network


def results_of(estimator):
    return [getattr(estimator, name) for name in ("predict", "predict_proba", "transform") if hasattr(estimator, name)]


def assert_not_fitted(estimator, X):
    for result_of in results_of(estimator):
        with pytest.raises(NotFittedError):
            result_of(X)
    for name in ("backbone_", "net_", "classes_", "history_", "n_iter_", "n_features_out_"):
        assert not hasattr(estimator, name)


def refused(estimator, X, y=None, *, match, error=ValueError):
    """Assert that `fit` refuses X and y in these words and leaves nothing behind; return the message."""
    before = estimator.get_params()
    with pytest.raises(error, match=match) as caught:
        estimator.fit(X, labels(X) if y is None else y)
    assert_not_fitted(estimator, X)
    assert estimator.get_params() == before
    return str(caught.value)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (8, 12, 14, 3), dtype=np.uint8)


@pytest.fixture
def files(images, tmp_path):
    """Eight good PNG files, which a test may spoil."""
    files = [tmp_path / f"{row}.png" for row in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    return files


# Files


@both
@pytest.mark.parametrize("form", [list, np.array, pd.Series, lambda X: pd.DataFrame({"file": X})])
def test_missing_files_are_counted_and_the_first_five_named(estimator_class, form, files, tmp_path):
    gone = [tmp_path / f"gone{number}.png" for number in range(7)]
    X = form([str(file) for pair in zip(files, gone, strict=False) for file in pair])
    message = refused(
        estimator_class(small_cnn), X, match="Got 7 of 14 paths that are not files", error=FileNotFoundError
    )
    assert all(f"{file.name}'" in message for file in gone[:5])  # the middle of a long path is left out
    assert not any(file.name in message for file in gone[5:])
    assert "expected paths of images" in message


@both
def test_files_missing_later_are_refused_too(estimator_class, files):
    fitted = estimator_class(small_cnn).fit(files, labels(files))
    for result_of in results_of(fitted):
        with pytest.raises(FileNotFoundError, match=r"Got 1 of 2 paths that are not files.*nowhere\.png"):
            result_of([files[0], "nowhere.png"])


@both
def test_a_folder_among_paths_is_refused(estimator_class, files, tmp_path):
    (tmp_path / "folder").mkdir()
    refused(
        estimator_class(small_cnn),
        [files[0], tmp_path / "folder"],
        match=r"Got 1 of 2 paths that are not files.*folder'",
        error=FileNotFoundError,
    )


def cut_short(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


SPOILT = {
    "empty": lambda file: file.write_bytes(b""),
    "text": lambda file: file.write_text("no picture"),
    "truncated": cut_short,
    "header alone": lambda file: file.write_bytes(file.read_bytes()[:40]),
    "flipped bits": lambda file: file.write_bytes(file.read_bytes()[:60] + bytes(file.stat().st_size - 60)),
}


@both
@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_file_that_is_no_whole_image_is_named_with_its_row(estimator_class, spoil, files):
    spoil(files[0])
    wanted = (
        r"Got '.*0\.png' \(row 0\), which is not a whole image .*; expected a file that Pillow can decode, of type "
        r".*JPEG.*\. Replace it"
    )
    refused(estimator_class(small_cnn), files, match=wanted)


@both
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_later_row_that_is_no_image_is_named_too(estimator_class, n_jobs, files):
    good = [files[row] for row in (0, 1, 2, 3)]
    fitted = estimator_class(small_cnn, n_jobs=n_jobs, batch_size=2).fit(good, labels(good))
    cut_short(files[5])
    for result_of in results_of(fitted):
        with pytest.raises(ValueError, match=r"Got '.*5\.png' \(row 5\), which is not a whole image"):
            result_of(files)


@pytest.mark.parametrize("parameters", [{}, {"strategy": "fine_tune", "freeze_depth": 0, "augment": "light"}])
def test_training_with_a_broken_file_leaves_nothing_behind(parameters, files):
    cut_short(files[6])
    refused(FineTunedClassifier(small_cnn, **parameters), files, match=r"6\.png' \(row 6\), which is not a whole image")


@both
def test_an_opened_picture_that_is_truncated_is_named_by_its_row(estimator_class, files):
    cut_short(files[1])
    X = [Image.open(file) for file in files]
    estimator = estimator_class(small_cnn)
    with pytest.raises(ValueError, match=r"Got the picture in row 1, which is not a whole image"):
        estimator.fit(X, labels(X)).transform(X)


def png_that_claims(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@both
def test_a_decompression_bomb_is_refused_with_the_limit(estimator_class, files):
    files[0].write_bytes(png_that_claims(100_000, 100_000))
    message = refused(estimator_class(small_cnn), files, match=r"Refused '.*0\.png' \(row 0\)")
    assert "10000000000 pixels" in message
    assert "MAX_IMAGE_PIXELS" in message
    assert re.search(r"limit of \d{9} pixels", message)


@both
@pytest.mark.parametrize("way", ["file", "picture", "opened"])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pillows_limit_is_ours_and_not_only_twice_it(estimator_class, way, files, images, monkeypatch):
    X = {
        "file": files,
        "picture": [Image.fromarray(image) for image in images],
        "opened": [Image.open(file) for file in files],
    }[way]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12 * 14 - 1)
    message = refused(estimator_class(small_cnn), X, match=r"Refused .*row 0.*12|Refused .*row 0.*14 x 12 pixels")
    assert "the limit is 167" in message
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12 * 14)
    estimator_class(small_cnn).fit(X, labels(X))


@both
def test_a_bomb_is_refused_by_name_where_warnings_are_errors(estimator_class, files, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(estimator_class(small_cnn), files, match=r"Refused '.*0\.png' \(row 0\)")


# X


def image_forms(images):
    return {
        "array": images,
        "list": list(images),
        "table": pd.DataFrame(images.reshape(len(images), -1)),
    }


@both
@pytest.mark.parametrize("form", ["array", "list", "table"])
@pytest.mark.parametrize(("bad", "named"), [(np.nan, "contains NaN"), (np.inf, "contains infinity")])
def test_nan_and_infinity_are_refused(estimator_class, bad, named, form, images):
    spoilt = images / 255
    spoilt[5, 3, 2, 1] = bad
    shape = (12, 14, 3) if form == "table" else None
    refused(estimator_class(small_cnn, image_shape=shape), image_forms(spoilt)[form], match=named)
    X = image_forms(images / 255)[form]
    fitted = estimator_class(small_cnn, image_shape=shape).fit(X, labels(X))
    for result_of in results_of(fitted):
        with pytest.raises(ValueError, match=named):
            result_of(image_forms(spoilt)[form])


@both
@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.parametrize("empty", [[], np.zeros((0, 8, 8, 3)), np.array([], dtype=object), pd.DataFrame({"file": []})])
def test_an_empty_x_is_refused_by_fit(estimator_class, empty):
    refused(estimator_class(small_cnn), empty, match=r"Found array with 0 sample\(s\)")


@both
@pytest.mark.parametrize(
    ("X", "match"),
    [
        (np.zeros((2, 3, 4, 5, 3)), r"Got X of shape \(2, 3, 4, 5, 3\); expected images of shape \(n, height, width\)"),
        (np.zeros((2, 80, 80, 77)), r"Got X of shape \(2, 80, 80, 77\); expected images with 1 to 64 channels"),
        (np.zeros(5), "Expected 2D array, got 1D array instead"),
        (
            np.zeros((20, 30, 3), dtype=np.uint8),
            "looks like one picture; expected several. Put a single one into a list",
        ),
        ([np.zeros((8, 8, 3)), np.zeros((8, 8, 2))], r"Got X\[1\] of shape \(8, 8, 2\); expected \(height, width\)"),
        ([np.zeros((8, 8, 3)), np.zeros(8)], r"Got X\[1\] = .*; expected a path, a PIL image or an array"),
        (None, "Got X of type NoneType; expected several samples"),
    ],
    ids=["5-D", "7 channels", "1-D", "one picture", "2 channels", "a row of numbers", "None"],
)
def test_an_x_of_another_shape_is_refused(estimator_class, X, match):
    refused(estimator_class(small_cnn), X, [0, 1], match=match)


@both
def test_rows_that_do_not_fit_image_shape_are_refused(estimator_class, images):
    rows = images.reshape(len(images), -1)
    for X in (rows, pd.DataFrame(rows), rows.tolist()):
        refused(
            estimator_class(small_cnn, image_shape=(12, 14)),
            X,
            match=r"Got rows of 504 values that do not fit image_shape=\(12, 14\), which needs 168",
        )
    refused(
        estimator_class(small_cnn, image_shape=(12, 21, 65)), rows, match=r"Got image_shape=\(12, 21, 65\); expected"
    )
    fitted = estimator_class(small_cnn, image_shape=(12, 14, 3)).fit(rows, labels(rows))
    for result_of in results_of(fitted):
        with pytest.raises(ValueError, match=r"X has 503 features, but .* is expecting 504 features"):
            result_of(rows[:, 1:])


@both
@pytest.mark.parametrize("backbone", ["resnet18", "vit_b_16"])
def test_rows_of_numbers_for_an_image_network_ask_for_image_shape(estimator_class, backbone):
    message = refused(
        estimator_class(backbone, weights=None), np.zeros((4, 784)), match="Got X with 784 columns of numb"
    )
    assert f"backbone={backbone!r} takes images" in message
    assert "image_shape=(height, width)" in message


@both
def test_rows_of_numbers_after_a_fit_on_images_are_refused(estimator_class, images):
    fitted = estimator_class(small_cnn).fit(images, labels(images))
    for result_of in results_of(fitted):
        with pytest.raises(ValueError, match="Got X that holds vectors; expected images, as in fit"):
            result_of(images.reshape(len(images), -1))


@both
def test_a_table_with_words_after_a_fit_on_numbers_is_told_where_it_belongs(estimator_class):
    numbers = np.random.default_rng(0).normal(size=(6, 3))
    fitted = estimator_class(tiny_vectors).fit(numbers, labels(numbers))
    words = numbers.astype(object)
    words[:, 1] = "red"
    for result_of in results_of(fitted):
        with pytest.raises(ValueError, match=r"Got X of 3 columns that are not all numbers.*ColumnTransformer"):
            result_of(words)


@both
def test_samples_that_the_network_cannot_run_are_refused(estimator_class):
    X = np.random.default_rng(0).normal(size=(6, 5))
    message = refused(estimator_class(small_cnn), X, match=r"The backbone could not run samples of shape \(5,\)")
    assert "Give X in a shape that it takes" in message
    refused(estimator_class(tiny_vectors(4)), X, match=r"could not run samples of shape \(5,\)")


@both
def test_other_channels_than_at_fit_are_refused(estimator_class, images):
    fitted = estimator_class(small_cnn).fit(images, labels(images))
    for result_of in results_of(fitted):
        for X, channels in ((images[..., 0], 1), (images[..., [0, 1, 2, 0]], 4)):
            with pytest.raises(
                ValueError, match=rf"Got images of {channels} channels; expected 3, as in fit\. Convert"
            ):
                result_of(X)


@both
def test_values_far_from_those_of_fit_are_refused(estimator_class, images):
    fitted = estimator_class(small_cnn).fit(images / 255, labels(images))
    for result_of in results_of(fitted):
        with pytest.raises(ValueError, match="Got image values from 0 to 255; expected about 0 to 1, as in fit"):
            result_of(images)


@both
def test_values_far_from_pixel_range_are_refused(estimator_class, images):
    refused(
        estimator_class(small_cnn, pixel_range=(0, 1)),
        images,
        match="from 0 to 255; expected about 0 to 1, as pixel_range",
    )


@both
@pytest.mark.parametrize("form", [list, tuple, lambda X: np.array(X, dtype=object), pd.Series])
@pytest.mark.parametrize("row", [0, 3])
def test_a_missing_path_is_named_by_its_row(estimator_class, row, form, files):
    X = [str(file) for file in files]
    X[row] = None
    refused(
        estimator_class(small_cnn),
        form(X),
        match=rf"Got X\[{row}\] = (None|nan); expected a path, a PIL image or an array.*Leave out rows",
    )


@both
def test_one_path_instead_of_a_list_is_refused(estimator_class, files):
    for X in (str(files[0]), files[0], Image.open(files[0])):
        refused(
            estimator_class(small_cnn),
            X,
            [0],
            match="expected several samples. Put a single path, image or text into a list",
        )
    fitted = estimator_class(small_cnn).fit(files, labels(files))
    for result_of in results_of(fitted):
        with pytest.raises(ValueError, match=r"expected several samples. Put a single path, image or text into a list"):
            result_of(str(files[0]))


# Parameters


@both
@pytest.mark.parametrize(
    ("parameters", "got", "closest"),
    [
        ({"backbone": "resnet81"}, "Got backbone='resnet81'", "'resnet18'"),
        ({"backbone": "mobilnet_v2"}, "Got backbone='mobilnet_v2'", "'mobilenet_v2'"),
        (
            {"backbone": "resnet18", "weights": "IMAGENET_V1"},
            "Got weights='IMAGENET_V1' for 'resnet18'",
            "'IMAGENET1K_V1'",
        ),
        ({"layer": "6x"}, "Got layer='6x'", "'6'"),
        ({"backbone": "squeezenet1_1", "layer": "featurs.12"}, "Got layer='featurs.12'", "'features.12'"),
        ({"layer": 77}, "Got layer=77; expected a block from 1 to", ""),
        ({"layer": 0}, "Got layer=0; expected a block from 1 to", ""),
        ({"layer": True}, "Got layer=True", ""),
        ({"pooling": "average"}, "Got pooling='average'", "'avg'"),
        ({"pooling": "maxi"}, "Got pooling='maxi'", "'max'"),
        ({"precision": "float16"}, "Got precision='float16'", "'bfloat16'"),
        ({"device": "gpu"}, "Got device='gpu'", "'cuda'"),
        ({"device": "cuda:99"}, "Got device='cuda:99'; torch finds", 'device="auto"'),
        ({"pixel_range": (1, 0)}, r"Got pixel_range=\(1, 0\)", '"auto" or two numbers'),
        ({"pixel_range": (0, np.nan)}, r"Got pixel_range=\(0, nan\)", '"auto" or two numbers'),
        ({"pixel_range": (0, 1, 2)}, r"Got pixel_range=\(0, 1, 2\)", '"auto" or two numbers'),
        ({"pixel_range": ("0", "1")}, r"Got pixel_range=\('0', '1'\)", '"auto" or two numbers'),
        ({"n_jobs": 0}, "Got n_jobs=0", "-1"),
        ({"batch_size": 0}, "The 'batch_size' parameter", "an int in the range"),
        ({"backbone": 18}, "Got backbone=18 of type int", "a torch.nn.Module"),
    ],
    ids=str,
)
def test_an_unknown_choice_is_answered_with_what_there_is(estimator_class, parameters, got, closest, images):
    parameters = {"backbone": small_cnn, "weights": None, **parameters}
    message = refused(estimator_class(**parameters), images, match=got)
    assert closest in message
    if message.startswith("Got"):
        assert any(words in message for words in ("expected", "torch finds", "Its 4 blocks are", "Its 9 blocks are"))


@pytest.mark.parametrize(
    ("parameters", "got", "closest"),
    [
        ({"strategy": "finetune"}, "Got strategy='finetune'", "'fine_tune'"),
        ({"strategy": "lpft"}, "Got strategy='lpft'", "'lp_ft'"),
        ({"optimizer": "adamww"}, "Got optimizer='adamww'", "'adamw'"),
        ({"optimizer": dict}, "Got optimizer=<class 'dict'>", "a class of torch.optim"),
        ({"augment": "standart"}, "Got augment='standart'", "'standard'"),
        ({"freeze_depth": "6x"}, "Got freeze_depth='6x'", "'6'"),
        ({"freeze_depth": 99}, "Got freeze_depth=99", "a number of blocks from 0 to"),
        ({"freeze_depth": 1.5}, "Got freeze_depth=1.5", "from 0.0 to 1.0"),
        ({"freeze_depth": -9}, "Got freeze_depth=-9", "a number of blocks from 0 to"),
        ({"freeze_depth": True}, "Got freeze_depth=True", "a number of blocks from 0 to"),
        ({"hidden_layer_sizes": (0,)}, r"Got hidden_layer_sizes=\(0,\)", "such as (256,)"),
        ({"lr": 0}, "The 'lr' parameter", "(0.0"),
        ({"class_weight": {0: 1.0, 7: 2.0}}, r"The classes, \[1\], are not in class_weight", ""),
        ({"class_weight": "even"}, "The 'class_weight' parameter", "balanced"),
        (
            {"augment": v2.Resize((4, 4)), "strategy": "fine_tune"},
            "Got an augment callable that returns",
            "as it takes",
        ),
    ],
    ids=str,
)
def test_an_unknown_choice_of_the_classifier_is_answered_with_what_there_is(parameters, got, closest, images):
    message = refused(FineTunedClassifier(small_cnn, **parameters), images, match=got)
    assert closest in message


def test_augmentation_of_rows_of_numbers_is_refused():
    X = np.random.default_rng(0).normal(size=(6, 4))
    refused(FineTunedClassifier(tiny_vectors, augment="light"), X, match="Got augment='light' for X that holds vectors")


@both
def test_a_function_that_returns_no_network_is_refused(estimator_class, images):
    refused(estimator_class(dict), images, match="function that returns a dict; expected a torch.nn.Module")


# Weights


@pytest.fixture(params=["pth", "safetensors"])
def save(request, tmp_path):
    def save(state):
        file = tmp_path / f"weights.{request.param}"
        (torch.save if request.param == "pth" else save_file)(state, file)
        return file

    return save


@both
@pytest.mark.parametrize("backbone", [small_cnn, "squeezenet1_1"])
def test_weights_of_another_network_name_missing_and_unexpected_keys(estimator_class, backbone, save, images):
    file = save({"other.weight": torch.zeros(3), "another.bias": torch.zeros(3)})
    message = refused(
        estimator_class(backbone, weights=file), images, match="that do not match the backbone (Sequential|SqueezeNet)"
    )
    assert str(file) in message
    assert re.search(r"\d+ missing keys \((0|features\.0)\.weight, ", message)
    assert re.search(r"2 unexpected keys \((other\.weight, another\.bias|another\.bias, other\.weight)\)", message)
    assert "Give the weights of this very architecture" in message


@both
def test_weights_of_other_shapes_are_named(estimator_class, save, images):
    file = save(tiny_cnn(width=4).state_dict())
    message = refused(estimator_class(small_cnn, weights=str(file)), images, match="0 missing keys; 0 unexpected keys")
    assert "0.weight (4, 3, 3, 3) for (8, 3, 3, 3)" in message


@both
def test_a_single_missing_key_is_named(estimator_class, save, images):
    state = small_cnn().state_dict()
    del state["4.conv1.weight"]
    refused(
        estimator_class(small_cnn, weights=save(state)),
        images,
        match=r"1 missing key \(4\.conv1\.weight\); 0 unexpected",
    )


@both
def test_matching_weights_are_taken(estimator_class, save, images):
    network = small_cnn()
    fitted = estimator_class(small_cnn, weights=save(network.state_dict())).fit(images, labels(images))
    own = fitted.backbone_.network.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in network.state_dict().items())


class Malice:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (__import__("os").mkdir, (str(self.folder),))


@both
@pytest.mark.parametrize("backbone", [small_cnn, "squeezenet1_1"])
@pytest.mark.parametrize("ending", ["pth", "pt", "bin"])
def test_a_weights_file_that_wants_to_run_code_is_refused_and_not_run(
    estimator_class, ending, backbone, images, tmp_path
):
    file = tmp_path / f"weights.{ending}"
    torch.save({"0.weight": torch.zeros(3), "run": Malice(tmp_path / "was_run")}, file)
    message = refused(estimator_class(backbone, weights=file), images, match=f"Refused to load {str(file)!r}")
    assert "run code" in message
    assert "weights_only=True" in message
    assert "state_dict() alone" in message
    assert not (tmp_path / "was_run").exists()
    torch.load(file, weights_only=False)
    assert (tmp_path / "was_run").exists(), "the file does nothing, so that the test shows nothing"


@both
def test_a_whole_network_in_the_weights_file_is_refused(estimator_class, images, tmp_path):
    torch.save(tiny_cnn(), tmp_path / "weights.pth")
    message = refused(estimator_class(small_cnn, weights=tmp_path / "weights.pth"), images, match="Refused to load")
    assert "state_dict() alone" in message


@both
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", bytes(1000)], ids=["empty", "text", "zeros"])
def test_a_weights_file_that_is_damaged_is_refused_by_name(estimator_class, content, ending, images, tmp_path):
    file = tmp_path / f"weights.{ending}"
    file.write_bytes(content)
    refused(estimator_class(small_cnn, weights=file), images, match=re.escape(repr(str(file))))


@both
@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(3)], ids=["list", "numbers", "tensor"])
def test_a_weights_file_without_a_state_dict_is_refused(estimator_class, content, images, tmp_path):
    torch.save(content, tmp_path / "weights.pth")
    refused(
        estimator_class(small_cnn, weights=tmp_path / "weights.pth"),
        images,
        match="expected a state_dict: tensors by name",
    )


@both
@pytest.mark.parametrize("backbone", [small_cnn, "squeezenet1_1"])
def test_a_weights_file_that_is_not_there_is_refused(estimator_class, backbone, images, tmp_path):
    refused(
        estimator_class(backbone, weights=tmp_path / "gone.pth"),
        images,
        match=r"Got weights='.*gone\.pth', which is not a file \(No such file.*\); expected a path",
        error=FileNotFoundError,
    )


@both
def test_a_download_without_a_network_says_what_to_fetch_and_where_to_put_it(
    estimator_class, images, tmp_path, monkeypatch
):
    def no_network(*args, **kwargs):
        raise URLError("Temporary failure in name resolution")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    message = refused(
        estimator_class("squeezenet1_1"), images, match="Could not download the weights", error=ConnectionError
    )
    assert "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth" in message
    assert repr(str(tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth")) in message
    assert "weights=PATH" in message
    assert "name resolution" in message


@both
def test_a_damaged_download_says_what_to_delete(estimator_class, images, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    file = tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    file.parent.mkdir()
    file.write_bytes(b"half a file")
    message = refused(estimator_class("squeezenet1_1"), images, match="is damaged")
    assert repr(str(file)) in message
    assert "Delete it" in message


# Training and labels


@pytest.mark.parametrize(
    ("parameters", "rates"),
    [
        ({"strategy": "fine_tune", "lr": 1e30}, "head_lr=0.001 and lr=1e+30"),
        ({"strategy": "lp_ft", "lr": 1e30}, "head_lr=0.001 and lr=1e+30"),
        ({"strategy": "gradual", "lr": 1e30}, "head_lr=0.001 and lr=1e+30"),
        ({"strategy": "linear_probe", "head_epochs": 5, "head_lr": 1e38}, "head_lr=1e+38"),
        ({"strategy": "lp_ft", "hidden_layer_sizes": (8,), "head_lr": 1e38}, "head_lr=1e+38"),
    ],
    ids=str,
)
def test_a_loss_that_is_no_number_stops_training_and_names_the_learning_rate(parameters, rates, images):
    classifier = FineTunedClassifier(
        small_cnn, freeze_depth=0, optimizer="sgd", weight_decay=0, batch_size=4, random_state=0, **parameters
    )
    message = refused(classifier, images, match=r"Training stopped: the loss became NaN or infinite in epoch \d+ with")
    assert rates in message
    assert "Try a learning rate ten times smaller" in message


def test_one_class_is_refused_as_scikit_learn_does(images):
    refused(FineTunedClassifier(small_cnn), images, ["cat"] * 8, match=r"needs samples of at least 2 classes.*'cat'")


@pytest.mark.parametrize("length", [7, 9, 1])
def test_a_y_of_another_length_is_refused(length, images):
    refused(
        FineTunedClassifier(small_cnn),
        images,
        [0, 1, 0, 1, 0, 1, 0, 1, 0][:length],
        match=r"inconsistent numbers of samples|at least 2 classes"
        if length == 1
        else "inconsistent numbers of samples",
    )


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (np.linspace(0, 1, 8), "Unknown label type"),
        (np.full((8, 2), 2), "y should be a 1d array"),
        ([0, 1, 0, 1, np.nan, 1, 0, 1], "contains NaN"),
        ([0, 1, 0, 1, None, 1, 0, 1], "NaN|None|not supported|Unknown label"),
    ],
    ids=["continuous", "2-D", "NaN", "None"],
)
def test_labels_that_are_no_classes_are_refused(y, match, images):
    classifier = FineTunedClassifier(small_cnn)
    with pytest.raises((ValueError, TypeError), match=match):
        classifier.fit(images, y)
    assert_not_fitted(classifier, images)


def test_a_missing_y_is_refused(images):
    classifier = FineTunedClassifier(small_cnn)
    with pytest.raises(ValueError, match="requires y to be passed, but the target y is None"):
        classifier.fit(images, None)
    assert_not_fitted(classifier, images)


@pytest.mark.parametrize(
    ("weight", "match"),
    [
        ([1.0] * 7, "sample_weight.shape"),
        ([-1.0] * 8, "[Nn]egative"),
        ([0.0] * 8, "at least one non-zero number|sum is 0"),
        ([np.nan] * 8, "NaN"),
    ],
    ids=["short", "negative", "zero", "NaN"],
)
def test_sample_weights_that_are_none_are_refused(weight, match, images):
    classifier = FineTunedClassifier(small_cnn)
    with pytest.raises(ValueError, match=match):
        classifier.fit(images, labels(images), sample_weight=weight)
    assert_not_fitted(classifier, images)


# Before and after a fit


@both
@pytest.mark.parametrize("backbone", [small_cnn, "resnet18"])
def test_results_before_fit_are_refused_as_scikit_learn_does(estimator_class, backbone, images):
    estimator = estimator_class(backbone)
    with pytest.raises(NotFittedError):
        check_is_fitted(estimator)
    assert_not_fitted(estimator, images)


@both
@pytest.mark.parametrize(
    "bad",
    [lambda X: X[:, 0, 0, 0], lambda X: X / np.nan, lambda X: [], lambda X: ["gone.png"] * 8],
    ids=["one side", "NaN", "nothing", "missing files"],
)
def test_a_failed_second_fit_leaves_the_first_as_it_was(estimator_class, bad, images):
    fitted = estimator_class(small_cnn, random_state=0).fit(images, labels(images))
    attributes = {name: value for name, value in vars(fitted).items() if name.endswith("_")}
    before = [result_of(images) for result_of in results_of(fitted)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        spoilt = bad(images)
    with pytest.raises((ValueError, FileNotFoundError)):
        fitted.fit(spoilt, labels(images))
    assert {name: value for name, value in vars(fitted).items() if name.endswith("_")} == attributes
    for result_of, expected in zip(results_of(fitted), before, strict=True):
        np.testing.assert_array_equal(result_of(images), expected)


def test_a_diverged_second_fit_leaves_the_first_as_it_was(images):
    fitted = FineTunedClassifier(small_cnn, freeze_depth=0, optimizer="sgd", random_state=0, max_epochs=2)
    before = fitted.fit(images, labels(images)).predict_proba(images)
    with pytest.raises(ValueError, match="Training stopped"):
        fitted.set_params(lr=1e30, max_epochs=9).fit(images, labels(images))
    np.testing.assert_array_equal(fitted.predict_proba(images), before)
