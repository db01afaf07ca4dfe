"""Pictures are resized, cropped and normalised in an ONNX file to the bit as the package does it, in any runtime."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import rest_exhaustive, tiny_cnn, tiny_vectors
from PIL import Image
from pretrained_models import make_sound_model, make_sounds, make_text_model, make_texts

from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktransfer._files._onnx_pictures import check_preprocessing, preparing_model
from sktransfer.backbones import ImagePreprocessing

onnx = pytest.importorskip("onnx", reason="needs onnx, which writes the files")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, which runs them")

# Larger, smaller, flat, tall (Pillow 13 begins with their height), a single pixel, and of the size that is wanted.
SIZES = [(100, 75), (31, 57), (40, 300), (300, 40), (24, 32), (1, 1), (64, 48), (44, 40)]
WAYS = [
    {"resize": 44, "crop": (40, 40)},
    {"resize": 43, "crop": (40, 33)},
    {"crop": (40, 44)},
    {"resize": (50, 60), "crop": (41, 33)},
    {"resize": 44, "crop": (41, 40), "manner": "transformers"},
    {"resize": 30, "crop": (41, 38)},
    {"resize": 30, "crop": (41, 38), "manner": "transformers"},
]


@pytest.fixture(autouse=True)
def older_exporter(monkeypatch, request):
    """torch's older exporter is the fast one; which of them wrote a network makes no difference here."""
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    request.applymarker(pytest.mark.filterwarnings("ignore:torch's older exporter wrote"))


def random_picture(size, channels=3, seed=0):
    """Noise and an edge, of (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], channels), dtype=np.uint8)
    pixels[: size[1] // 3] = 255
    return pixels


def session(file):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file if isinstance(file, bytes) else str(file), options)


def run(path, pictures):
    """Run pictures of any sizes one by one."""
    opened = session(path)
    return np.concatenate([opened.run(None, {"pictures": one[None]})[0] for one in pictures])


def prepared_by_the_package(preprocessing, pixels):
    bands = [np.asarray(preprocessing.fit_size(Image.fromarray(band))) for band in np.moveaxis(pixels, -1, 0)]
    if pixels.shape[-1] == 3:
        bands = np.moveaxis(np.asarray(preprocessing.fit_size(Image.fromarray(pixels))), -1, 0)
    return preprocessing.normalise(torch.from_numpy(np.array(bands))[None]).numpy()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("way", rest_exhaustive(WAYS, *WAYS[:1], *WAYS[-2:]), ids=str)
def test_each_value_is_pillows_to_the_bit(way, interpolation):
    for channels in (3, 1, 5):
        mean, std = np.linspace(0.3, 0.6, channels), np.linspace(0.2, 0.3, channels)
        wanted = ImagePreprocessing(**way, interpolation=interpolation, channels=channels, mean=mean, std=std)
        opened = session(preparing_model(wanted.record, "prepared"))
        for size in SIZES:
            pixels = random_picture(size, channels)
            expected = prepared_by_the_package(wanted, pixels)
            (found,) = opened.run(None, {"pictures": pixels[None]})
            np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=f"{size}, {channels} channels")


def test_openvino_computes_the_same_but_for_rounding():
    """Its own reading of ONNX's Resize would be off by up to 70 of 255."""
    openvino = pytest.importorskip("openvino", reason="the other runtime that is tried")
    wanted = ImagePreprocessing(resize=44, crop=(40, 40), interpolation="bicubic")
    core = openvino.Core()
    in_float32 = {"INFERENCE_PRECISION_HINT": "f32"}  # by itself it takes bfloat16 on some processors
    compiled = core.compile_model(core.read_model(preparing_model(wanted.record, "prepared")), "CPU", in_float32)
    for size in SIZES[:4]:
        pixels = random_picture(size)
        (found,) = compiled({"pictures": pixels[None]}).values()
        apart = np.abs(found - prepared_by_the_package(wanted, pixels)) * 255
        assert apart.max() < 4
        assert (apart > 0.5).mean() < 0.05


def of_pictures(channels=3, **how):
    """Make a function that returns a small network with a preprocessing of its own."""

    def network():
        made = tiny_cnn()
        if channels != 3:
            made[0] = torch.nn.Conv2d(channels, made[0].out_channels, 3, padding=1)
        usual = {"resize": 24, "crop": (20, 22), "mean": (0.4,), "std": (0.25,)}
        made.preprocessing = ImagePreprocessing(**{**usual, **how}, channels=channels)
        return made

    return network


def classifier(backbone, **parameters):
    given = {"weights": None, "precision": "float32", "random_state": 0, "feature_cache": None}
    return FineTunedClassifier(backbone, **{**given, **parameters})


def described(path):
    return json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))


class TestPicturesGoIn:
    def test_probabilities_are_those_of_predict_proba(self, paths, pictures, tmp_path):
        fitted = classifier(of_pictures(interpolation="bicubic"), freeze_depth=1, max_epochs=1).fit(
            list(paths), pictures[1]
        )
        fitted.to_onnx(tmp_path / "model.onnx", preprocessing=True)
        many = [random_picture(size, seed=number) for number, size in enumerate(SIZES)]
        found = run(tmp_path / "model.onnx", many)
        np.testing.assert_allclose(found, fitted.predict_proba([Image.fromarray(one) for one in many]), atol=1e-5)
        np.testing.assert_allclose(found, fitted.predict_proba(many), atol=1e-5)
        assert np.ptp(found, axis=0).max() > 1e-3, "all samples alike: nothing would be compared"
        stacked = np.stack([random_picture((33, 29), seed=number) for number in range(5)])
        (together,) = session(tmp_path / "model.onnx").run(None, {"pictures": stacked})
        np.testing.assert_allclose(together, fitted.predict_proba(stacked), atol=1e-5)
        onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)

    def test_the_file_beside_says_so(self, pictures, tmp_path):
        fitted = classifier(of_pictures()).fit(*pictures)
        fitted.to_onnx(tmp_path / "model.onnx", preprocessing=True)
        said = described(tmp_path / "model.onnx")
        assert said["input"] == {"name": "pictures", "type": "uint8", "shape": ["batch", "height", "width", 3]}
        assert said["preprocessing_inside"]
        assert (said["channel_order"], said["classes"]) == ("RGB", ["leaf", "stone"])
        (taken,) = session(tmp_path / "model.onnx").get_inputs()
        assert (taken.name, taken.shape) == ("pictures", said["input"]["shape"])
        fitted.to_onnx(tmp_path / "model.onnx")
        assert "preprocessing_inside" not in described(tmp_path / "model.onnx")
        assert session(tmp_path / "model.onnx").get_inputs()[0].name == "prepared"

    @pytest.mark.parametrize("channels", [1, 5])
    def test_other_channels(self, channels, tmp_path):
        X = np.stack([random_picture((32, 30), channels, seed) for seed in range(8)])
        X[::2] //= 3
        fitted = classifier(of_pictures(channels)).fit(X, np.arange(8) % 2)
        fitted.to_onnx(tmp_path / "model.onnx", preprocessing=True)
        np.testing.assert_allclose(run(tmp_path / "model.onnx", X), fitted.predict_proba(X), atol=1e-5)
        assert described(tmp_path / "model.onnx")["input"]["shape"][-1] == channels

    def test_after_a_fit_on_values_from_0_to_1_white_is_255(self, pictures, tmp_path):
        fitted = classifier(of_pictures()).fit(pictures[0] / 255, pictures[1])
        fitted.to_onnx(tmp_path / "model.onnx", preprocessing=True)
        expected = fitted.predict_proba([Image.fromarray(one) for one in pictures[0]])
        np.testing.assert_allclose(run(tmp_path / "model.onnx", pictures[0]), expected, atol=1e-5)

    def test_the_block_of_the_guide(self, paths, pictures, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        fitted = classifier(of_pictures()).fit(list(paths), pictures[1])
        fitted.to_onnx("model.onnx", preprocessing=True)
        names = {"paths": paths}
        exec(block_of_guide('"pictures": picture[None]'), names)
        np.testing.assert_allclose(names["probabilities"], fitted.predict_proba(list(paths[:1])), atol=1e-5)
        names |= {"model": fitted, "paths": list(paths)}
        exec(block_of_guide('"small.onnx"'), names)
        assert names["result"].agreement > 0.9

    def test_regressors_and_extractors(self, pictures, tmp_path):
        how = {"weights": None, "precision": "float32", "random_state": 0, "feature_cache": None}
        extractor = PretrainedFeatureExtractor(of_pictures(), **how).fit(pictures[0])
        extractor.to_onnx(tmp_path / "features.onnx", preprocessing=True)
        found = run(tmp_path / "features.onnx", pictures[0])
        np.testing.assert_allclose(found, extractor.transform(pictures[0]), atol=1e-5)
        y = np.arange(24.0)
        regressor = FineTunedRegressor(of_pictures(), **how).fit(pictures[0], y)
        regressor.to_onnx(tmp_path / "numbers.onnx", preprocessing=True)
        found = run(tmp_path / "numbers.onnx", pictures[0])
        np.testing.assert_allclose(found[:, 0], regressor.predict(pictures[0]), atol=1e-3)

    def test_rows_of_numbers_need_no_preparation(self, tmp_path):
        X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
        fitted = classifier(tiny_vectors).fit(X, np.arange(12) % 2)
        fitted.to_onnx(tmp_path / "model.onnx", preprocessing=True)
        (found,) = session(tmp_path / "model.onnx").run(None, {"prepared": X})
        np.testing.assert_allclose(found, fitted.predict_proba(X), atol=1e-5)

    @pytest.mark.exhaustive
    def test_real_photos_and_weights(self, assets, tmp_path):
        photos = sorted((assets / "data" / "hymenoptera" / "val").glob("*/*.jpg"))[::6]
        given = {"n_jobs": 1, "strategy": "linear_probe"}
        weights = assets / "weights" / "squeezenet1_1-float16-rounded.pth"
        fitted = classifier("squeezenet1_1", weights=weights, **given).fit(
            [str(photo) for photo in photos], [photo.parent.name for photo in photos]
        )
        fitted.to_onnx(tmp_path / "model.onnx", preprocessing=True)
        for size in (None, (150, 200), (224, 300), (96, 64)):
            opened = [Image.open(photo).convert("RGB") for photo in photos]
            resized = [one if size is None else one.resize(size) for one in opened]
            found = run(tmp_path / "model.onnx", [np.asarray(one) for one in resized])
            np.testing.assert_allclose(found, fitted.predict_proba(resized), atol=1e-5)


class TestTexts:
    def test_their_tokenizer_lies_beside(self, tmp_path):
        pytest.importorskip("transformers", reason="only it makes networks for texts")
        X, y = make_texts()
        fitted = classifier(make_text_model("bert", tmp_path / "bert"), weights="DEFAULT", max_length=6).fit(X, y)
        fitted.to_onnx(tmp_path / "model.onnx", preprocessing=True)
        said = described(tmp_path / "model.onnx")
        assert said["tokenizer_file"] == "model.onnx.tokenizer.json"
        assert "tokenizer" not in said["preprocessing"]
        texts = ["a good film", "a film that is not so good at all", "bad"]
        found = with_tokenizers_alone(tmp_path / "model.onnx", texts)
        np.testing.assert_allclose(found, fitted.predict_proba(texts), atol=1e-5)


def with_tokenizers_alone(path, texts):
    """Run the block of docs/guide/onnx.md, which uses neither torch nor this package."""
    pytest.importorskip("tokenizers", reason="only it reads the tokenizer")
    names, code = {"texts": texts}, block_of_guide("from tokenizers import Tokenizer")
    assert "torch" not in code
    assert "sktransfer" not in code
    exec(code.replace('"texts.onnx', f'"{path.as_posix()}'), names)
    return names["probabilities"]


def block_of_guide(words):
    """Return the block of docs/guide/onnx.md that holds some words."""
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "onnx.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in guide.split("```python\n")[1:]]
    return next(block for block in blocks if words in block)


class TestWhatCannotBe:
    def test_another_filter_is_refused(self, pictures, tmp_path):
        fitted = classifier(of_pictures(interpolation="nearest")).fit(*pictures)
        with pytest.raises(
            ValueError, match=r"interpolation='nearest'; expected one of bilinear, .*preprocessing=False"
        ):
            fitted.to_onnx(tmp_path / "model.onnx", preprocessing=True)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.filterwarnings("ignore:Got image values")
    def test_values_of_another_range_are_refused(self, pictures, tmp_path):
        fitted = classifier(of_pictures()).fit(pictures[0] // 16, pictures[1])
        fitted._reader.value_range = (0.0, 16.0)
        with pytest.raises(ValueError, match=r"fitted on values from 0 to 16; expected pictures of 8 bits"):
            fitted.to_onnx(tmp_path / "model.onnx", preprocessing=True)

    @pytest.mark.exhaustive
    def test_sounds_are_refused(self, tmp_path):
        pytest.importorskip("transformers", reason="only it makes networks for sounds")
        X, y = make_sounds()
        backbone = make_sound_model("wav2vec2", tmp_path / "sounds")
        fitted = classifier(backbone, weights="DEFAULT", sampling_rate=1000).fit(X, y)
        with pytest.raises(ValueError, match=r"an estimator of sounds; expected one of pictures, texts or numbers"):
            fitted.to_onnx(tmp_path / "model.onnx", preprocessing=True)
        assert not (tmp_path / "model.onnx").exists()

    def test_kinds_that_are_refused_are_told_apart_without_a_network(self):
        with pytest.raises(ValueError, match=r"Got preprocessing=True for an estimator of sounds"):
            check_preprocessing({"kind": "sounds", "preprocessing": {}})
        check_preprocessing({"kind": "vectors", "preprocessing": None})

    def test_anything_but_true_and_false_is_refused(self, pictures, tmp_path):
        fitted = classifier(of_pictures()).fit(*pictures)
        with pytest.raises(ValueError, match=r"Got preprocessing='yes'; expected True or False"):
            fitted.to_onnx(tmp_path / "model.onnx", preprocessing="yes")
