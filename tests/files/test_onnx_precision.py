"""Files of fewer bits are smaller, and the result says what they change; what falls apart is told loudly."""

import logging
import sys
import warnings

import numpy as np
import pytest
import torch
from networks import rest_exhaustive, tiny_cnn, tiny_vectors
from PIL import Image
from pretrained_models import make_text_model, make_texts
from torch import nn

from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktransfer._files import _onnx_precision
from sktransfer.backbones import ImagePreprocessing

onnx = pytest.importorskip("onnx", reason="needs onnx, which writes the files")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, which runs them")

HOW = {"weights": None, "precision": "float32", "random_state": 0, "feature_cache": None}


@pytest.fixture(autouse=True)
def older_exporter(monkeypatch, request):
    """torch's older exporter is the fast one; which of them wrote a network makes no difference here."""
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    request.applymarker(pytest.mark.filterwarnings("ignore:torch's older exporter wrote"))


def wide():
    """Convolutions that hold most of the file, and a preprocessing of its own."""
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(32, 128, 3),
        nn.BatchNorm2d(128),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 4),
    )
    network.preprocessing = ImagePreprocessing(resize=20, crop=(20, 20), mean=(0.5,), std=(0.25,))
    return network


class Lopsided(nn.Module):
    """One channel is so large that one step of 8 bits is larger than all that the others hold."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1)
        with torch.no_grad():
            self.first.weight[0] = 1e4
            self.second.weight[:, 0] = 0

    def forward(self, x):
        return self.second(self.first(x).relu()).mean((2, 3))


def lopsided():
    return nn.Sequential(Lopsided())


@pytest.fixture(scope="module")
def fitted(pictures):
    return FineTunedClassifier(wide, **HOW).fit(*pictures)


def run(path, x):
    opened = onnxruntime.InferenceSession(str(path))
    return opened.run(None, {opened.get_inputs()[0].name: x})[0]


def types_in(path):
    names = onnx.TensorProto.DataType
    return {names.Name(one.data_type) for one in onnx.load(path).graph.initializer if np.prod(one.dims) > 100}


class TestFewerBits:
    @pytest.mark.parametrize(
        ("precision", "kind", "share", "apart"), [("float16", "FLOAT16", 0.6, 0.01), ("int8", "INT8", 0.5, 0.1)]
    )
    def test_make_a_smaller_file_with_nearly_the_same_results(
        self, precision, kind, share, apart, fitted, pictures, tmp_path
    ):
        whole = fitted.to_onnx(tmp_path / "whole.onnx")
        small = fitted.to_onnx(tmp_path / "small.onnx", precision=precision, calibration=pictures[0])
        assert kind in types_in(tmp_path / "small.onnx")
        assert small.megabytes < share * whole.megabytes
        assert small.megabytes == (tmp_path / "small.onnx").stat().st_size / 1e6
        assert small.largest_difference < apart
        assert small.agreement > 0.95
        onnx.checker.check_model(str(tmp_path / "small.onnx"), full_check=True)
        assert [(one.domain, one.version) for one in onnx.load(tmp_path / "small.onnx").opset_import] == [("", 18)]
        assert sorted(one.name for one in tmp_path.iterdir() if "small" in one.name) == [
            "small.onnx",
            "small.onnx.json",
        ]

    @pytest.mark.parametrize("precision", ["float16", "int8"])
    def test_go_together_with_pictures_of_any_size(self, precision, fitted, pictures, tmp_path):
        """And the network is that of the result: what is measured is what runs."""
        X = pictures[0]
        result = fitted.to_onnx(tmp_path / "x.onnx", preprocessing=True, precision=precision, calibration=X)
        found = run(tmp_path / "x.onnx", X)
        apart = np.abs(found - fitted.predict_proba(X))
        assert apart.max() == pytest.approx(result.largest_difference, abs=1e-3)
        assert apart.mean() == pytest.approx(result.mean_difference, abs=1e-3)
        larger = [Image.fromarray(one).resize((50, 33)) for one in X]
        np.testing.assert_allclose(
            run(tmp_path / "x.onnx", np.stack([np.asarray(one) for one in larger])),
            fitted.predict_proba(larger),
            atol=0.1,
        )

    @pytest.mark.exhaustive
    def test_texts_in_int8(self, tmp_path):
        pytest.importorskip("transformers", reason="only it makes networks for texts")
        X, y = make_texts()
        given = {**HOW, "weights": "DEFAULT"}
        fitted = FineTunedClassifier(make_text_model("bert", tmp_path / "bert"), **given).fit(X, y)
        result = fitted.to_onnx(tmp_path / "x.onnx", precision="int8", calibration=X)
        assert "INT8" in types_in(tmp_path / "x.onnx")
        assert result.n_samples == len(X)
        assert result.agreement > 0.9

    @pytest.mark.parametrize("kind", rest_exhaustive(["regressor", "extractor", "numbers"], "regressor"))
    def test_of_other_estimators(self, kind, pictures, tmp_path):
        X = pictures[0]
        if kind == "regressor":
            fitted = FineTunedRegressor(wide, **HOW).fit(X, X.mean((1, 2, 3)))
        elif kind == "extractor":
            fitted = PretrainedFeatureExtractor(wide, **HOW).fit(X)
        else:
            X = np.random.default_rng(0).normal(size=(24, 4)).astype(np.float32)
            fitted = PretrainedFeatureExtractor(tiny_vectors, **HOW).fit(X)
        for precision in ("float16", "int8"):
            result = fitted.to_onnx(tmp_path / "x.onnx", precision=precision, calibration=X)
            assert 0.95 < result.agreement <= 1, "R²"
            assert 0 < result.mean_difference <= result.largest_difference

    @pytest.mark.exhaustive
    def test_openvino_reads_them(self, fitted, pictures, tmp_path):
        openvino = pytest.importorskip("openvino", reason="the other runtime that is tried")
        core = openvino.Core()
        for precision, apart in (("float32", 0.02), ("float16", 0.02), ("int8", 0.1)):
            path = tmp_path / "x.onnx"
            fitted.to_onnx(path, preprocessing=True, precision=precision, calibration=pictures[0])
            compiled = core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
            (found,) = compiled({"pictures": pictures[0]}).values()
            np.testing.assert_allclose(found, fitted.predict_proba(pictures[0]), atol=apart)


class TestTheResult:
    def test_prints_as_a_table(self, fitted, pictures, tmp_path):
        result = fitted.to_onnx(tmp_path / "<x>.onnx", precision="int8", calibration=pictures[0], preprocessing=True)
        lines = str(result).splitlines()
        assert repr(result) == str(result)
        names = [line.split("  ")[0].strip() for line in lines]
        assert names == [
            "file", "precision", "MB", "ms per sample here",
            "samples compared", "agreement", "largest difference", "mean difference",
        ]  # fmt: skip
        assert result.path == tmp_path / "<x>.onnx"
        assert "for an input of 1 x 375 x 500 x 3" in lines[3]
        assert result.milliseconds > 0
        html = result._repr_html_()
        assert "&lt;x&gt;.onnx" in html
        assert html.count("<tr>") == len(lines)

    def test_without_calibration_says_nothing_of_differences(self, fitted, tmp_path):
        result = fitted.to_onnx(tmp_path / "x.onnx")
        assert (result.n_samples, result.agreement, result.largest_difference) == (0, None, None)
        assert len(str(result).splitlines()) == 4
        assert result.timed_shape == (1, 3, 20, 20)

    def test_without_onnxruntime_says_that_speed_is_not_measured(self, fitted, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        result = fitted.to_onnx(tmp_path / "x.onnx")
        assert result.milliseconds is None
        assert "onnxruntime is not installed" in str(result)

    def test_of_float32_differs_by_rounding_alone(self, fitted, pictures, tmp_path):
        result = fitted.to_onnx(tmp_path / "x.onnx", calibration=pictures[0])
        assert result.n_samples == 24
        assert result.agreement == 1
        assert result.largest_difference < 1e-5

    def test_a_large_calibration_set_is_thinned_evenly(self, pictures, tmp_path):
        X = np.random.default_rng(0).normal(size=(1300, 4)).astype(np.float32)
        fitted = PretrainedFeatureExtractor(tiny_vectors, **HOW).fit(X)
        assert fitted.to_onnx(tmp_path / "x.onnx", calibration=X).n_samples == 500

    def test_predictions_that_fall_apart_are_warned_of_with_the_share(self, pictures, tmp_path):
        fitted = FineTunedClassifier(lopsided, **HOW).fit(*pictures)
        with pytest.warns(
            UserWarning, match=r"int8 is far from the estimator: it predicts .* for \d+\.\d% of 24"
        ) as told:
            result = fitted.to_onnx(tmp_path / "x.onnx", precision="int8", calibration=pictures[0])
        assert result.agreement < 0.9
        assert [one.filename for one in told if "far from" in str(one.message)] == [__file__]
        with warnings.catch_warnings():
            warnings.filterwarnings("error", ".*far from")
            assert fitted.to_onnx(tmp_path / "x.onnx", precision="float32", calibration=pictures[0]).agreement == 1


class TestErrors:
    def test_an_unknown_precision(self, fitted, tmp_path):
        with pytest.raises(ValueError, match=r"Got precision='int4'; expected .*float32.*float16.*int8"):
            fitted.to_onnx(tmp_path / "x.onnx", precision="int4")

    def test_int8_without_calibration(self, fitted, tmp_path):
        with pytest.raises(ValueError, match=r'precision="int8" without calibration; expected calibration=X'):
            fitted.to_onnx(tmp_path / "x.onnx", precision="int8")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "wrong", [["a text", "another"], np.ones((4, 7)), np.zeros((5, 20, 24, 2), np.uint8), [], 3], ids=str
    )
    def test_calibration_of_another_kind(self, wrong, fitted, tmp_path):
        with pytest.raises((ValueError, FileNotFoundError), match=r"Got|Found"):
            fitted.to_onnx(tmp_path / "x.onnx", precision="int8", calibration=wrong)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("precision", ["float16", "int8"])
    def test_without_onnxruntime_the_extra_is_named(self, precision, fitted, pictures, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "onnxruntime", None)
        with pytest.raises(ImportError, match=r'package onnxruntime.*pip install "sktransfer\[onnx\]"'):
            fitted.to_onnx(tmp_path / "x.onnx", precision=precision, calibration=pictures[0])

    def test_values_that_float16_does_not_hold(self, pictures, tmp_path):
        def huge():
            network = tiny_cnn()
            with torch.no_grad():
                network[0].weight.mul_(1e6)
                network[0].bias.fill_(1e6)
            return nn.Sequential(*list(network)[:1], nn.Conv2d(8, 8, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())

        fitted = PretrainedFeatureExtractor(huge, **HOW).fit(pictures[0])
        with pytest.raises(ValueError, match=r"beyond what float16 holds"):
            fitted.to_onnx(tmp_path / "x.onnx", precision="float16")
        assert list(tmp_path.iterdir()) == []

    def test_what_onnxruntime_cannot_convert(self, fitted, pictures, tmp_path, monkeypatch):
        def fail(*_):
            raise RuntimeError("no such operation")

        monkeypatch.setattr(_onnx_precision, "_to_int8", fail)
        with pytest.raises(ValueError, match=r"cannot write in int8 \(no such operation\); expected operations"):
            fitted.to_onnx(tmp_path / "x.onnx", precision="int8", calibration=pictures[0])
        assert list(tmp_path.iterdir()) == []


def test_nothing_is_printed_and_the_process_is_as_before(fitted, pictures, tmp_path, capfd):
    path, handlers, level = list(sys.path), list(logging.getLogger().handlers), logging.getLogger().level
    for precision in ("float16", "int8"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted.to_onnx(tmp_path / "x.onnx", precision=precision, calibration=pictures[0])
        told = [str(one.message) for one in caught if "older exporter" not in str(one.message)]
        assert told == [], precision
    assert sys.path == path
    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, level)
    assert capfd.readouterr() == ("", "")
