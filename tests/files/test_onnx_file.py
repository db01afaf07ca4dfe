"""A fitted network, written for other runtimes, computes there what it computes here; a file beside says how to ask.

Each test runs with either of torch's exporters, with the newer one, which is slow, where a run is to be exhaustive.
"""

import json
import pickle
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import rest_exhaustive, tiny_cnn, tiny_vectors
from PIL import Image
from pretrained_models import make_text_model, make_texts
from sklearn.exceptions import NotFittedError
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import ImagePreprocessing
from sktransfer.inputs._base import load_batch

onnx = pytest.importorskip("onnx", reason="needs onnx, which writes the files")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, which runs them")

NEWER, OLDER = "torch.export", "TorchScript"
NEWER_IS_PREFERRED = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 9)


@pytest.fixture(autouse=True, params=rest_exhaustive([NEWER, OLDER], OLDER))
def exporter(request, monkeypatch):
    """The exporter that writes the file; where the older one would do it unasked, the test fails."""
    if request.param == OLDER:
        hide("onnxscript", monkeypatch)
        request.applymarker(pytest.mark.filterwarnings("ignore:torch's older exporter wrote"))
    else:
        if not NEWER_IS_PREFERRED or find_spec("onnxscript") is None:
            pytest.skip("torch's newer exporter needs torch 2.9 and onnxscript")
        request.applymarker(pytest.mark.filterwarnings("error:torch's older exporter wrote"))
    return request.param


def hide(package, monkeypatch):
    """Make a package look as if it were not installed."""
    monkeypatch.setitem(sys.modules, package, None)


def after_writing(change, monkeypatch, *, newer=True, older=True):
    """Call `change` with the path of each file that torch has written."""
    save, export = torch.onnx.ONNXProgram.save, torch.onnx.export

    def newer_save(program, destination, **how):
        save(program, destination, **how)
        change(destination)

    def older_export(network, args, f=None, **how):
        program = export(network, args, f, **how)
        if f is not None:
            change(f)
        return program

    if newer:
        monkeypatch.setattr(torch.onnx.ONNXProgram, "save", newer_save)
    if older:
        monkeypatch.setattr(torch.onnx, "export", older_export)


def described(path):
    """What the file beside an ONNX file says."""
    return json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of `tiny_cnn` whose BatchNorms scale and shift, as those of a trained network do."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.manual_seed(3)
    network = tiny_cnn()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.uniform_(0.5, 1.5)
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture
def rows():
    X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    return X, np.where(X[:, 0] > 0, "leaf", "stone")


def tiny_vit():
    """Attention, whose fast path torch's exporter cannot write."""
    network = VisionTransformer(24, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32)
    network.preprocessing = ImagePreprocessing()  # of the size that they are
    return network


def tiny_swin():
    """Windows that are shifted, and maps whose channels are their last axis."""
    network = SwinTransformer([2, 2], 8, depths=[2, 1], num_heads=[1, 2], window_size=[4, 4])
    network.preprocessing = ImagePreprocessing()
    return network


def tiny_cropped():
    """A network that wants pictures resized, cropped and normalised."""
    network = tiny_cnn()
    network.preprocessing = ImagePreprocessing(resize=16, crop=(12, 14), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    return network


class Baked(nn.Module):
    """Takes the number of samples from Python."""

    def forward(self, x):
        return x.reshape(int(x.shape[0]), -1)


class Unwritable(nn.Module):
    """Has an operation that ONNX knows nothing of."""

    def forward(self, x):
        return torch.erfinv(x.tanh())


class Picky(nn.Module):
    """Looks at values, which only the older exporter allows."""

    def forward(self, x):
        if not bool(x.isfinite().all()):
            raise ValueError("Got values that are not finite.")
        return x.relu()


def picky():
    return nn.Sequential(nn.Linear(4, 8), Picky())


def baked():
    return nn.Sequential(nn.Linear(4, 8), Baked())


def unwritable():
    return nn.Sequential(nn.Linear(4, 8), Unwritable())


def classifier(backbone=tiny_cnn, **parameters):
    given = {"weights": None, "precision": "float32", "max_epochs": 2, "lr": 1e-4, "random_state": 0}
    return FineTunedClassifier(backbone, **{**given, "feature_cache": None, **parameters})


def extractor(backbone=tiny_cnn, **parameters):
    given = {"weights": None, "precision": "float32", "random_state": 0, "feature_cache": None}
    return PretrainedFeatureExtractor(backbone, **{**given, **parameters})


def prepared(estimator, X):
    samples = estimator._read(X)
    return samples.prepare(load_batch(samples, range(len(X)))).numpy()


def run(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (entry,), (exit_,) = session.get_inputs(), session.get_outputs()
    assert entry.name == "prepared"
    return exit_.name, session.run(None, {"prepared": x})[0]


def check_same(estimator, X, path):
    """Export, and compare batches of several sizes with what the estimator says; return the largest difference."""
    estimator.to_onnx(path)
    ask = estimator.predict_proba if hasattr(estimator, "predict_proba") else estimator.transform
    name = "probabilities" if hasattr(estimator, "predict_proba") else "features"
    everything = ask(X)
    assert np.ptp(everything, axis=0).max() > 1e-3, "all samples alike: nothing would be compared"
    for n in (1, 3, 7):
        found_name, found = run(path, prepared(estimator, X[:n]))
        assert found_name == name
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, everything[:n], atol=2e-5, rtol=2e-5)


class TestItComputesTheSameThere:
    @pytest.mark.parametrize("freeze_depth", ["all", 0, 1, 0.5, 3])
    def test_classifier_at_each_depth(self, freeze_depth, weights, pictures, tmp_path):
        X, y = pictures
        check_same(classifier(weights=weights, freeze_depth=freeze_depth).fit(X, y), X, tmp_path / "model.onnx")

    @pytest.mark.parametrize(
        "parameters",
        [
            {"train_bn": True, "freeze_depth": 1},
            {"hidden_layer_sizes": (16, 8), "dropout": 0.2, "layer": 2, "freeze_depth": 1, "pooling": "flatten"},
            {"dropout": 0.5},
            {"layer": 2, "freeze_depth": 1, "pooling": "max"},
            {"layer": 2, "pooling": "flatten"},
            {"strategy": "gradual", "freeze_depth": 2},
        ],
        ids=lambda parameters: " ".join(parameters),
    )
    def test_classifier_with_each_parameter_that_shapes_it(self, parameters, weights, pictures, tmp_path):
        X, y = pictures
        check_same(classifier(weights=weights, **parameters).fit(X, y), X, tmp_path / "model.onnx")

    @pytest.mark.parametrize(
        "parameters",
        [{}, {"layer": 1}, {"layer": [3, 1]}, {"layer": [2, 4], "pooling": "max"}, {"layer": 1, "pooling": "flatten"}],
        ids=str,
    )
    def test_features_of_each_layer(self, parameters, weights, pictures, tmp_path):
        check_same(extractor(weights=weights, **parameters).fit(pictures[0]), pictures[0], tmp_path / "model.onnx")

    @pytest.mark.parametrize("freeze_depth", ["all", 0, 1])
    def test_rows_of_numbers(self, freeze_depth, rows, tmp_path):
        X, y = rows
        check_same(classifier(tiny_vectors, freeze_depth=freeze_depth).fit(X, y), X, tmp_path / "model.onnx")
        check_same(extractor(tiny_vectors).fit(X), X, tmp_path / "features.onnx")

    @pytest.mark.parametrize("backbone", rest_exhaustive([tiny_vit, tiny_swin], tiny_vit))
    def test_transformers(self, backbone, pictures, tmp_path):
        X, y = np.pad(pictures[0], ((0, 0), (2, 2), (0, 0), (0, 0))), pictures[1]
        check_same(extractor(backbone, layer=[1, None]).fit(X), X, tmp_path / "features.onnx")
        check_same(classifier(backbone, freeze_depth=1).fit(X, y), X, tmp_path / "model.onnx")

    @pytest.mark.parametrize("backbone", rest_exhaustive(["squeezenet1_1", "resnet18"], "squeezenet1_1"))
    def test_torchvision_networks_tuned_in_part(self, backbone, pictures, tmp_path):
        X, y = pictures[0][:8], pictures[1][:8]
        check_same(classifier(backbone, freeze_depth=0.8, max_epochs=1).fit(X, y), X, tmp_path / "model.onnx")

    def test_after_a_pickle_that_left_the_weights_out(self, weights, pictures, tmp_path):
        X, y = pictures
        fitted = classifier(weights=weights, freeze_depth=1, store_backbone=False).fit(X, y)
        check_same(pickle.loads(pickle.dumps(fitted)), X, tmp_path / "model.onnx")

    def test_trained_in_bfloat16_it_is_written_in_float32(self, weights, pictures, tmp_path):
        X, y = pictures
        fitted = classifier(weights=weights, freeze_depth=1, precision="bfloat16").fit(X, y)
        fitted.predict(X)
        fitted.to_onnx(tmp_path / "model.onnx")
        assert fitted.net_.module_.in_bfloat16
        found = run(tmp_path / "model.onnx", prepared(fitted, X))[1]
        np.testing.assert_allclose(found, fitted.set_params(precision="float32").predict_proba(X), atol=1e-4)


class TestTheFileBeside:
    def test_says_what_the_network_takes_and_gives(self, weights, pictures, tmp_path):
        X, y = pictures
        classifier(weights=weights).fit(X, y).to_onnx(tmp_path / "model.onnx")
        said = described(tmp_path / "model.onnx")
        written = onnx.load(tmp_path / "model.onnx")
        onnx.checker.check_model(written, full_check=True)
        assert [opset.version for opset in written.opset_import] == [said["opset"]]
        for found, expected in ((written.graph.input, said["input"]), (written.graph.output, said["output"])):
            (found,) = found
            shape = [axis.dim_param or axis.dim_value for axis in found.type.tensor_type.shape.dim]
            assert {"name": found.name, "type": "float32", "shape": shape} == expected
        assert said["input"]["shape"] == ["batch", 3, 20, 24]
        assert said["output"]["shape"] == ["batch", 2]
        assert said["preprocessing"]["crop"] == [20, 24]
        assert (said["kind"], said["channel_order"], said["value_range"]) == ("images", "RGB", [0, 255])
        assert said["classes"] == ["leaf", "stone"]

    def test_suffices_to_classify_a_picture_without_sktransfer(self, paths, pictures, tmp_path):
        fitted = classifier(tiny_cropped, freeze_depth=1).fit(list(paths), pictures[1])
        fitted.to_onnx(tmp_path / "model.onnx")
        said = described(tmp_path / "model.onnx")
        how = said["preprocessing"]
        batch = []
        for path in paths:
            with Image.open(path) as picture:
                scale = how["resize"] / min(picture.size)
                size = round(picture.width * scale), round(picture.height * scale)
                picture = picture.convert(said["channel_order"])
                picture = picture.resize(size, Image.Resampling[how["interpolation"].upper()])
            height, width = how["crop"]
            left, top = (picture.width - width) // 2, (picture.height - height) // 2
            pixels = np.asarray(picture.crop((left, top, left + width, top + height)), dtype=np.float32) / 255
            batch.append(((pixels - how["mean"]) / how["std"]).transpose(2, 0, 1))
        x = np.stack(batch).astype(np.float32)
        assert list(x.shape[1:]) == said["input"]["shape"][1:]
        probabilities = run(tmp_path / "model.onnx", x)[1]
        np.testing.assert_allclose(probabilities, fitted.predict_proba(list(paths)), atol=0.05)
        labels = [said["classes"][column] for column in probabilities.argmax(axis=1)]
        np.testing.assert_array_equal(labels, fitted.predict(list(paths)))

    @pytest.mark.parametrize(
        ("labels", "expected"),
        [
            (np.array(["a", "ä"]), ["a", "ä"]),
            (np.array(["a", "b"], dtype=object), ["a", "b"]),
            (np.array([7, 2**40]), [7, 2**40]),
            (np.array([False, True]), [False, True]),
            (np.array([1.0, 2.0], dtype=np.float32), [1.0, 2.0]),
        ],
        ids=["text", "objects", "integers", "booleans", "floats"],
    )
    def test_holds_the_labels_with_their_type(self, labels, expected, rows, tmp_path):
        fitted = classifier(tiny_vectors).fit(rows[0], labels[np.arange(12) % 2])
        fitted.to_onnx(tmp_path / "model.onnx")
        said = described(tmp_path / "model.onnx")
        assert said["classes"] == expected
        assert [type(label) for label in said["classes"]] == [type(label) for label in expected]
        assert "classes_note" not in said
        assert (said["kind"], said["preprocessing"]) == ("vectors", None)
        assert "channel_order" not in said

    def test_says_so_where_labels_are_no_json(self, rows, tmp_path):
        fitted = classifier(tiny_vectors).fit(*rows)
        fitted.classes_ = np.array(["2024-01-01", "2025-01-01"], dtype="datetime64[ns]")
        fitted.to_onnx(tmp_path / "model.onnx")
        said = described(tmp_path / "model.onnx")
        assert [label[:10] for label in said["classes"]] == ["2024-01-01", "2025-01-01"]
        assert "datetime64" in said["classes_note"]

    def test_of_an_extractor_names_no_classes(self, weights, pictures, tmp_path):
        extractor(weights=weights).fit(pictures[0] / 255).to_onnx(tmp_path / "model.onnx")
        said = described(tmp_path / "model.onnx")
        assert "classes" not in said
        assert said["output"] == {"name": "features", "type": "float32", "shape": ["batch", 16]}
        assert said["value_range"] == [0, 1]

    def test_names_the_exporter(self, exporter, rows, tmp_path):
        extractor(tiny_vectors).fit(rows[0]).to_onnx(tmp_path / "model.onnx")
        assert described(tmp_path / "model.onnx")["exporter"] == exporter

    def test_of_texts_suffices_to_fill_up_the_shorter_ones(self, tmp_path):
        pytest.importorskip("transformers", reason="only it makes networks for texts")
        tokenizers = pytest.importorskip("tokenizers", reason="only it reads them")
        texts = ["a good film", "a film that is not so good at all", "bad"]
        fitted = extractor(make_text_model("bert", tmp_path / "bert"), max_length=6).fit(make_texts()[0])
        fitted.to_onnx(tmp_path / "model.onnx")
        said = described(tmp_path / "model.onnx")
        assert (said["kind"], said["max_length"], said["padding"]) == ("texts", 6, -1)
        assert said["input"] == {"name": "prepared", "type": "int64", "shape": ["batch", "tokens"]}
        tokenizer = tokenizers.Tokenizer.from_str(said["preprocessing"]["tokenizer"])
        tokenizer.enable_truncation(said["max_length"])
        tokens = [tokenizer.encode(text).ids for text in texts]
        longest = max(map(len, tokens))
        assert min(map(len, tokens)) < longest
        filled = np.array([row + [said["padding"]] * (longest - len(row)) for row in tokens])
        np.testing.assert_allclose(run(tmp_path / "model.onnx", filled)[1], fitted.transform(texts), atol=1e-5)

    def test_of_an_extractor_without_onnxruntime_is_the_same(self, rows, tmp_path, monkeypatch):
        fitted = extractor(tiny_vectors).fit(rows[0])
        fitted.to_onnx(tmp_path / "with.onnx")
        hide("onnxruntime", monkeypatch)
        fitted.to_onnx(tmp_path / "without.onnx")
        assert (tmp_path / "with.onnx").read_bytes() == (tmp_path / "without.onnx").read_bytes()


class TestNothingElseChanges:
    @pytest.mark.parametrize("make", [classifier, extractor])
    def test_the_estimator_is_as_before(self, make, weights, pictures, tmp_path):
        X, y = pictures
        fitted = make(weights=weights, **({"freeze_depth": 1} if make is classifier else {})).fit(X, y)
        before, bits = fitted.backbone_.fingerprint, fitted.transform(X)
        keys = set(vars(fitted))
        fitted.to_onnx(tmp_path / "model.onnx")
        assert set(vars(fitted)) == keys
        assert fitted.backbone_.fingerprint == before
        assert not any(module.training for module in fitted.backbone_.network.modules())
        assert make is extractor or not any(module.training for module in fitted.net_.module_.modules())
        np.testing.assert_array_equal(fitted.transform(X), bits)

    def test_the_user_is_told_of_the_older_exporter_and_nothing_else(self, exporter, pictures, tmp_path, capfd):
        fitted = extractor(tiny_swin).fit(pictures[0])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted.to_onnx(tmp_path / "model.onnx")
        caught = [one for one in caught if one.category is not ResourceWarning]
        if exporter == NEWER or not NEWER_IS_PREFERRED:
            assert [str(one.message) for one in caught] == []
        else:
            (only,) = caught
            assert (only.category, only.filename) == (UserWarning, __file__)
            assert "torch plans to remove that exporter" in str(only.message)
            assert 'pip install "sktransfer[onnx]"' in str(only.message)
        assert capfd.readouterr() == ("", "")

    def test_torch_is_left_as_it_was_found(self, rows, tmp_path):
        def state():
            return torch.backends.mha.get_fastpath_enabled(), torch.get_rng_state().tolist()

        fitted = extractor(tiny_vectors).fit(rows[0])
        before = state()
        fitted.to_onnx(tmp_path / "model.onnx")
        assert state() == before

    def test_no_function_of_torch_is_replaced_even_for_a_while(self, rows, tmp_path, monkeypatch):
        before, replaced, whole = dict(vars(torch._C)), [], torch.onnx.export

        def watched(*args, **how):
            replaced.extend(name for name, value in before.items() if vars(torch._C).get(name) is not value)
            return whole(*args, **how)

        fitted = extractor(tiny_vectors).fit(rows[0])
        monkeypatch.setattr(torch.onnx, "export", watched)
        fitted.to_onnx(tmp_path / "model.onnx")
        assert replaced == []

    def test_importing_sktransfer_imports_no_onnx(self):
        code = "import sys, sktransfer; print([name for name in sys.modules if name.startswith('onnx')])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"

    def test_several_threads_may_export_at_once(self, rows, tmp_path):
        X, y = rows
        fitted = classifier(tiny_vectors, freeze_depth=0).fit(X, y)
        places = [tmp_path / f"{number}.onnx" for number in range(4)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(fitted.to_onnx, places))
        assert len({place.read_bytes() for place in places}) == 1

    def test_another_thread_may_predict_meanwhile(self, weights, pictures, tmp_path):
        X, y = pictures
        fitted = classifier(weights=weights, freeze_depth=1).fit(X, y)
        expected = fitted.predict_proba(X)
        with ThreadPoolExecutor(1) as pool:
            written = pool.submit(fitted.to_onnx, tmp_path / "model.onnx")
            while not written.done():
                # torch.export switches oneDNN off meanwhile, for the whole process: others round differently.
                np.testing.assert_allclose(fitted.predict_proba(X), expected, atol=1e-5)
            written.result()


class TestFiles:
    def test_are_two_and_take_the_place_of_older_ones(self, rows, tmp_path):
        fitted = extractor(tiny_vectors).fit(rows[0])
        (tmp_path / "model.onnx").write_text("old")
        (tmp_path / "model.onnx.json").write_text("old")
        fitted.to_onnx(str(tmp_path / "model.onnx"))
        assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.onnx.json"]
        assert run(tmp_path / "model.onnx", rows[0])[1].shape == (12, 16)

    def test_may_have_a_name_without_a_folder(self, rows, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        extractor(tiny_vectors).fit(rows[0]).to_onnx("model")
        assert sorted(file.name for file in tmp_path.iterdir()) == ["model", "model.json"]

    def test_older_ones_stay_where_writing_is_interrupted(self, rows, tmp_path, monkeypatch):
        fitted = extractor(tiny_vectors).fit(rows[0])
        fitted.to_onnx(tmp_path / "model.onnx")
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

        def interrupt(file):
            Path(file).write_bytes(b"half")
            raise KeyboardInterrupt

        after_writing(interrupt, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            fitted.to_onnx(tmp_path / "model.onnx")
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before

    def test_a_full_disk_is_called_that(self, rows, tmp_path, monkeypatch):
        def fill(file):
            raise OSError(28, "No space left on device")

        after_writing(fill, monkeypatch)
        with pytest.raises(OSError, match="No space left"):
            extractor(tiny_vectors).fit(rows[0]).to_onnx(tmp_path / "model.onnx")
        assert list(tmp_path.iterdir()) == []

    def test_large_weights_are_one_more(self, rows, tmp_path, monkeypatch):
        """What torch does above 1.5 or 2 GB, which would take minutes here."""
        X, y = rows
        fitted = classifier(tiny_vectors, freeze_depth=0).fit(X, y)
        save = torch.onnx.ONNXProgram.save

        def scatter(file):
            how = {"save_as_external_data": True, "all_tensors_to_one_file": False, "size_threshold": 0}
            onnx.save_model(onnx.load(file), file, **how)

        after_writing(scatter, monkeypatch, newer=False)
        monkeypatch.setattr(torch.onnx.ONNXProgram, "save", lambda *args: save(*args, external_data=True))
        check_same(fitted, X, tmp_path / "model.onnx")
        names = sorted(file.name for file in tmp_path.iterdir())
        assert names == ["model.onnx", "model.onnx.data", "model.onnx.json"]
        assert len((tmp_path / "model.onnx.data").read_bytes()) > 100

    def test_hold_no_path_of_this_machine(self, pictures, tmp_path):
        extractor(tiny_swin).fit(pictures[0]).to_onnx(tmp_path / "model.onnx")
        for file in tmp_path.iterdir():
            content = file.read_bytes()
            for word in (".py", "site-packages", "tests", str(Path.home()), str(tmp_path)):
                assert word.encode() not in content, word


class TestTheOlderExporter:
    """It writes what the newer one cannot."""

    def test_writes_what_the_newer_one_cannot(self, exporter, rows, tmp_path):
        fitted = extractor(picky).fit(rows[0])
        why = "the newer one failed" if exporter == NEWER else "the newer one needs the package onnxscript"
        if NEWER_IS_PREFERRED:
            with pytest.warns(UserWarning, match=rf"older exporter wrote 'model\.onnx', because {why} \(.*correct"):
                check_same(fitted, rows[0], tmp_path / "model.onnx")
        else:
            check_same(fitted, rows[0], tmp_path / "model.onnx")
        assert described(tmp_path / "model.onnx")["exporter"] == OLDER
        assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.onnx.json"]

    def test_writes_what_the_newer_one_writes_wrongly(self, exporter, rows, tmp_path, monkeypatch):
        if exporter == OLDER:
            pytest.skip("nothing was tried before")

        def spoil(file):
            model = onnx.load(file)
            negated = onnx.helper.make_node("Neg", ["before"], [model.graph.node[-1].output[0]])
            model.graph.node[-1].output[0] = "before"
            model.graph.node.append(negated)
            onnx.save_model(model, file)
            Path(f"{file}.left").write_text("behind")

        fitted = extractor(tiny_vectors).fit(rows[0])
        after_writing(spoil, monkeypatch, older=False)
        with pytest.warns(UserWarning, match=r"the newer one failed \(the file computes something else"):
            check_same(fitted, rows[0], tmp_path / "model.onnx")
        assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.onnx.json"]


class TestErrors:
    def test_an_unfitted_estimator_is_refused(self, tmp_path):
        for estimator in (classifier(), extractor()):
            with pytest.raises(NotFittedError):
                estimator.to_onnx(tmp_path / "model.onnx")

    def test_a_folder_that_is_not_there_is_named(self, rows, tmp_path):
        fitted = extractor(tiny_vectors).fit(rows[0])
        with pytest.raises(FileNotFoundError, match=r"nowhere.*whose folder does not exist"):
            fitted.to_onnx(tmp_path / "nowhere" / "model.onnx")

    def test_a_path_that_is_a_folder_is_refused(self, rows, tmp_path):
        fitted = extractor(tiny_vectors).fit(rows[0])
        with pytest.raises(IsADirectoryError, match=r"expected the name of a file"):
            fitted.to_onnx(tmp_path)

    def test_what_to_install_is_named(self, rows, tmp_path, monkeypatch):
        fitted = extractor(tiny_vectors).fit(rows[0])
        monkeypatch.setitem(sys.modules, "onnx", None)
        with pytest.raises(ImportError, match=r'pip install "sktransfer\[onnx\]"'):
            fitted.to_onnx(tmp_path / "model.onnx")

    def test_an_operation_that_onnx_lacks_is_named_and_nothing_printed(self, rows, tmp_path, capfd):
        fitted = extractor(unwritable).fit(rows[0])
        with pytest.raises(ValueError, match=r"Got a network that .*erfinv.*; expected operations that opset 18 has"):
            fitted.to_onnx(tmp_path / "model.onnx")
        assert list(tmp_path.iterdir()) == []
        assert capfd.readouterr() == ("", "")

    def test_a_network_that_counts_its_samples_is_right_or_refused(self, rows, tmp_path, exporter):
        fitted = extractor(baked).fit(rows[0])
        if exporter == NEWER:  # which notes the count as what it is
            fitted.to_onnx(tmp_path / "model.onnx")
            for n in (1, 5, 12):
                found = run(tmp_path / "model.onnx", rows[0][:n])[1]
                np.testing.assert_allclose(found, fitted.transform(rows[0][:n]), atol=1e-5)
            return
        with pytest.raises(ValueError, match="depend on how many samples a batch has"):
            fitted.to_onnx(tmp_path / "model.onnx")
        assert list(tmp_path.iterdir()) == []

    def test_a_file_that_torch_wrote_wrongly_is_refused(self, rows, tmp_path, monkeypatch):
        def spoil(file):
            model = onnx.load(file)
            model.graph.node[-1].op_type = "Nonsense"
            onnx.save_model(model, file)

        after_writing(spoil, monkeypatch)
        with pytest.raises(ValueError, match=r"writes as ONNX wrongly \(.*Nonsense"):
            extractor(tiny_vectors).fit(rows[0]).to_onnx(tmp_path / "model.onnx")
        assert list(tmp_path.iterdir()) == []


def test_the_recipe_of_the_guide_gives_the_same_probabilities(paths, pictures, tmp_path):
    """docs/guide/saving.md: pictures, prepared without an estimator, through another runtime."""
    guide = Path(__file__).parents[2] / "docs" / "guide" / "saving.md"
    code = next(
        block for block in guide.read_text().split("```python\n") if "import numpy as np, onnxruntime" in block
    ).split("```")[0]
    how = {"weights": None, "random_state": 0, "precision": "float32"}
    model = FineTunedClassifier("squeezenet1_1", **how).fit(list(paths), pictures[1])
    model.to_onnx(tmp_path / "model.onnx")
    names = {"model": model, "paths": paths}
    exec(code.replace('"model.onnx"', repr(str(tmp_path / "model.onnx"))), names)
    np.testing.assert_allclose(names["probabilities"], model.predict_proba(list(paths)), atol=1e-4)
