"""A fitted estimator goes where it is needed: into a pickle, another process, another thread."""

import copy
import io
import os
import pickle
import pickletools
import subprocess
import sys
import warnings
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from networks import tiny_cnn, tiny_vectors
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import load_backbone

TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    torch.manual_seed(3)
    torch.save(tiny_cnn().state_dict(), path)
    return path


def make(kind, weights, **parameters):
    if kind == "extractor":
        return PretrainedFeatureExtractor(tiny_cnn, weights=weights, random_state=0, **parameters)
    return FineTunedClassifier(
        tiny_cnn, weights=weights, freeze_depth=2, max_epochs=2, lr=0.01, random_state=0, **parameters
    )


def output(estimator, X):
    return (estimator.predict_proba if hasattr(estimator, "predict_proba") else estimator.transform)(X)


def in_new_process(code, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["extractor", "classifier"])
class TestBoth:
    def test_unfitted_goes_through_each_way(self, kind, weights):
        estimator = make(kind, weights)
        for other in (pickle.loads(pickle.dumps(estimator)), copy.deepcopy(estimator)):
            assert other.get_params() == estimator.get_params()

    def test_fitted_gives_the_same_bits_each_way(self, kind, weights, pictures, tmp_path):
        X, y = pictures
        estimator = make(kind, weights).fit(X, y)
        expected = output(estimator, X)
        joblib.dump(estimator, tmp_path / "model.joblib")
        others = [
            pickle.loads(pickle.dumps(estimator)),
            joblib.load(tmp_path / "model.joblib"),
            copy.deepcopy(estimator),
            pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(estimator)))),
        ]
        for other in others:
            np.testing.assert_array_equal(output(other, X), expected)

    def test_new_process_gives_the_same_bits(self, kind, weights, pictures, tmp_path):
        X, y = pictures
        estimator = make(kind, weights).fit(X, y)
        joblib.dump(estimator, tmp_path / "model.joblib")
        np.save(tmp_path / "X.npy", X)
        method = "predict_proba" if kind == "classifier" else "transform"
        code = (
            "import sys, joblib, numpy as np, torch; torch.set_num_threads(int(sys.argv[3]))\n"
            "model, X = joblib.load(sys.argv[1] + '/model.joblib'), np.load(sys.argv[1] + '/X.npy')\n"
            f"np.save(sys.argv[2], model.{method}(X))"
        )
        in_new_process(code, tmp_path, tmp_path / "out.npy", torch.get_num_threads())
        np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), output(estimator, X))

    @pytest.mark.exhaustive
    def test_new_process_with_other_threads_gives_the_same_to_rounding(self, kind, weights, pictures, tmp_path):
        X, y = pictures
        estimator = make(kind, weights, precision="float32").fit(X, y)
        joblib.dump(estimator, tmp_path / "model.joblib")
        np.save(tmp_path / "X.npy", X)
        method = "predict_proba" if kind == "classifier" else "transform"
        code = (
            "import sys, joblib, numpy as np, torch; torch.set_num_threads(3)\n"
            "model, X = joblib.load(sys.argv[1] + '/model.joblib'), np.load(sys.argv[1] + '/X.npy')\n"
            f"np.save(sys.argv[1] + '/out.npy', model.{method}(X))"
        )
        in_new_process(code, tmp_path)
        np.testing.assert_allclose(np.load(tmp_path / "out.npy"), output(estimator, X), atol=1e-5)

    def test_pickle_holds_no_graph_no_data_and_no_optimiser(self, kind, weights, pictures):
        X, y = pictures
        estimator = make(kind, weights).fit(X, y)
        size = len(pickle.dumps(estimator))
        more = make(kind, weights).fit(np.concatenate([X] * 20), np.concatenate([y] * 20))
        assert abs(len(pickle.dumps(more)) - size) < 500
        names = " ".join(
            str(argument) for _, argument, _ in pickletools.genops(pickle.dumps(estimator)) if isinstance(argument, str)
        )
        for word in ("torch.fx", "ActivationDataset", "KeptActivations", "_rebuild_optimizer"):
            assert word not in names
        if kind == "classifier":
            assert estimator.net_.optimizer_ is None
            assert pickle.loads(pickle.dumps(estimator)).net_.optimizer_ is None

    def test_without_the_backbone_it_is_found_again(self, kind, weights, pictures, tmp_path):
        X, y = pictures
        whole, light = make(kind, weights).fit(X, y), make(kind, weights, store_backbone=False).fit(X, y)
        assert len(pickle.dumps(light)) < len(pickle.dumps(whole))
        other = pickle.loads(pickle.dumps(light))
        np.testing.assert_array_equal(output(other, X), output(whole, X))
        again = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(light))))
        np.testing.assert_array_equal(output(again, X), output(whole, X))

    def test_other_weights_in_the_same_place_are_refused(self, kind, pictures, tmp_path):
        X, y = pictures
        path = tmp_path / "weights.pth"
        torch.save(tiny_cnn().state_dict(), path)
        data = pickle.dumps(make(kind, path, store_backbone=False).fit(X, y))
        torch.save(tiny_cnn().state_dict(), path)
        other = pickle.loads(data)  # loading looks for nothing; using does
        with pytest.raises(ValueError, match="fingerprint"):
            output(other, X)


def test_solved_head_on_a_large_backbone_is_small_without_it(pictures, tmp_path):
    from torchvision.models import resnet50

    path = tmp_path / "resnet50.pth"
    torch.manual_seed(0)
    torch.save(resnet50().state_dict(), path)
    X, y = pictures
    classifier = FineTunedClassifier("resnet50", weights=path, store_backbone=False).fit(X[:4], y[:4])
    assert len(pickle.dumps(classifier)) < 100_000


def test_pickled_tensors_are_on_the_cpu(weights, pictures):
    X, y = pictures
    classifier = make("classifier", weights).fit(X, y)
    tensors = [*classifier.net_.module_.state_dict().values(), *classifier.backbone_.network.state_dict().values()]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_trained_on_the_gpu_loads_on_the_cpu(weights, pictures, tmp_path):
    X, y = pictures
    classifier = make("classifier", weights, device="cuda", precision="float32").fit(X, y)
    joblib.dump(classifier, tmp_path / "model.joblib")
    np.save(tmp_path / "X.npy", X)
    code = (
        "import sys, joblib, numpy as np, torch; assert not torch.cuda.is_available()\n"
        "model = joblib.load(sys.argv[1] + '/model.joblib').set_params(device='auto')\n"
        "np.save(sys.argv[1] + '/out.npy', model.predict_proba(np.load(sys.argv[1] + '/X.npy')))"
    )
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        in_new_process(code, tmp_path)
    finally:
        del os.environ["CUDA_VISIBLE_DEVICES"]
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), classifier.predict_proba(X), atol=1e-3)
    held = {*classifier.net_.module_.state_dict().values(), *classifier.backbone_.network.state_dict().values()}
    assert {tensor.device.type for tensor in held} == {"cpu"}


@pytest.mark.exhaustive
def test_two_processes_fit_to_the_same_bits(pictures, tmp_path):
    X, y = pictures
    np.savez(tmp_path / "data.npz", X=X, y=y)
    code = (
        "import sys, numpy as np\n"
        "from networks import tiny_cnn\n"
        "from sktransfer import FineTunedClassifier\n"
        "data = np.load(sys.argv[1])\n"
        "model = FineTunedClassifier(tiny_cnn, freeze_depth=1, max_epochs=2, augment='standard', random_state=4,\n"
        "    hidden_layer_sizes=(8,), dropout=0.2, head_epochs=2, early_stopping=True, validation_fraction=0.25)\n"
        "np.save(sys.argv[2], model.fit(data['X'], data['y']).predict_proba(data['X']))"
    )
    for number in (1, 2):
        in_new_process(code, tmp_path / "data.npz", tmp_path / f"{number}.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "1.npy"), np.load(tmp_path / "2.npy"))


def test_net_predicts_from_activations_after_a_pickle(weights, pictures):
    X, y = pictures
    classifier = make("classifier", weights).fit(X, y)
    features = PretrainedFeatureExtractor(tiny_cnn, weights=weights, layer="stages").fit_transform(X)
    probe = make("classifier", weights).set_params(freeze_depth="all").fit(X, y)
    np.testing.assert_allclose(probe.net_.predict_proba(features), probe.predict_proba(X), atol=1e-5)
    buffer = io.BytesIO()
    pickle.dump(classifier.net_, buffer)
    assert buffer.tell() > 0


def test_model_survives_the_folder_of_its_training_images(weights, tmp_path):
    files = []
    for number in range(4):
        files.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(np.full((8, 8, 3), 60 * number, dtype=np.uint8)).save(files[-1])
    classifier = make("classifier", weights).fit(files, [0, 1, 0, 1])
    data = pickle.dumps(classifier)
    for file in files[1:]:
        Path(file).unlink()
    assert pickle.loads(data).predict(files[:1]).shape == (1,)


# skops, which keeps data alone, and MLflow, which asks it


def through_skops(model, expected_types):
    skops = pytest.importorskip("skops.io", reason="needs the extra skops")
    data = skops.dumps(model)
    types = skops.get_untrusted_types(data=data)
    assert {name.rpartition(".")[2] for name in types} == set(expected_types)
    return skops.loads(data, trusted=types)


def with_rare_tensors():
    network = tiny_vectors()
    rare = {"half": torch.float16, "brain": torch.bfloat16, "flag": torch.bool, "eight": torch.float8_e4m3fn}
    for name, dtype in rare.items():
        network.register_buffer(f"{name}_", torch.ones(3).to(dtype))
    network.register_buffer("number_", torch.tensor(3))
    return network


@pytest.mark.parametrize("kind", ["extractor", "classifier"])
@pytest.mark.parametrize("store_backbone", [True, False])
def test_skops_takes_an_estimator_as_data(kind, store_backbone, weights, pictures):
    X, y = pictures
    for fitted in (False, True):
        model = make(kind, str(weights), store_backbone=store_backbone)
        again = through_skops(model.fit(X, y) if fitted else model, [type(model).__name__, "tiny_cnn"])
        assert again.get_params() == model.get_params()
    np.testing.assert_array_equal(output(again, X), output(model, X))


@pytest.mark.parametrize("how", [pickle.dumps, "skops"], ids=["pickle", "skops"])
def test_tensors_of_types_that_numpy_lacks_come_back(how):
    X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    model = PretrainedFeatureExtractor(with_rare_tensors).fit(X)
    names = ["PretrainedFeatureExtractor", "with_rare_tensors"]
    again = through_skops(model, names) if how == "skops" else pickle.loads(pickle.dumps(model))
    found, expected = again.backbone_.network.state_dict(), model.backbone_.network.state_dict()
    assert {name: tensor.dtype for name, tensor in found.items()} == {n: one.dtype for n, one in expected.items()}
    assert again.backbone_.fingerprint == model.backbone_.fingerprint


def test_skops_takes_pipelines_and_searches_around_ours(weights, pictures):
    X, y = pictures
    pipeline = make_pipeline(make("extractor", str(weights)), LogisticRegression()).fit(X, y)
    again = through_skops(pipeline, ["PretrainedFeatureExtractor", "tiny_cnn"])
    np.testing.assert_array_equal(again.predict_proba(X), pipeline.predict_proba(X))
    search = GridSearchCV(make("classifier", str(weights)), {"freeze_depth": ["all", 2]}, cv=2).fit(X, y)
    types = ["FineTunedClassifier", "tiny_cnn", "StratifiedKFold", "_PassthroughScorer"]
    np.testing.assert_array_equal(through_skops(search, types).predict_proba(X), search.predict_proba(X))


@pytest.mark.parametrize("backbone", [tiny_vectors(), lambda: tiny_vectors()], ids=["module", "lambda"])
def test_code_without_a_name_is_refused_by_skops_in_a_sentence_and_taken_by_copies(backbone):
    skops = pytest.importorskip("skops.io", reason="needs the extra skops")
    X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    model = PretrainedFeatureExtractor(backbone)
    for _ in ("unfitted", "fitted"):
        with pytest.raises(
            TypeError,
            match=r"a function that can be imported, because files of skops contain no code.*sktransfer\.save",
        ):
            skops.dumps(model)
        model.fit(X)
    for other in (copy.copy(model), copy.deepcopy(model)):
        np.testing.assert_array_equal(other.transform(X), model.transform(X))
    assert copy.copy(model).backbone is backbone


def test_the_state_of_an_estimator_is_words_numbers_and_arrays(weights, pictures):
    plain = (str, int, float, bool, type(None), np.ndarray)

    def walk(value):
        if isinstance(value, dict | list | tuple):
            for one in [*value.keys(), *value.values()] if isinstance(value, dict) else value:
                walk(one)
        else:
            assert isinstance(value, plain) or value is tiny_cnn, type(value)

    walk(make("classifier", str(weights)).fit(*pictures).__getstate__())


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_a_model_whose_arrays_are_in_a_file_is_not_written_to_by_training(mode, weights, pictures, tmp_path):
    X, y = pictures
    model = make("classifier", weights, warm_start=True).fit(X, y)
    joblib.dump(model, tmp_path / "model.joblib")
    before = (tmp_path / "model.joblib").read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = joblib.load(tmp_path / "model.joblib", mmap_mode=mode)
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    again.fit(X, y)
    del again
    assert (tmp_path / "model.joblib").read_bytes() == before


def test_a_backbone_by_itself_is_pickled_by_a_public_name(weights):
    backbone = load_backbone(tiny_cnn, weights)
    data = pickle.dumps(backbone)
    assert b"sktransfer.backbones._" not in data
    for other in (pickle.loads(data), copy.deepcopy(backbone)):
        assert other.fingerprint == backbone.fingerprint
        assert other.blocks == backbone.blocks


def test_mlflow_logs_a_model_with_the_types_that_skops_names(pictures, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    skops = pytest.importorskip("skops.io", reason="needs the extra skops")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    X, y = pictures
    model = FineTunedClassifier("squeezenet1_1", weights=None, random_state=0).fit(X, y)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/runs.db")
    trusted = skops.get_untrusted_types(data=skops.dumps(model))
    with mlflow.start_run():
        info = mlflow.sklearn.log_model(model, name="model", skops_trusted_types=trusted, pip_requirements=[])
    np.testing.assert_array_equal(mlflow.sklearn.load_model(info.model_uri).predict_proba(X), model.predict_proba(X))


def modules_named_in(held):
    """Return the modules of this package that a pickle names, by its operations alone."""
    operations = pickletools.genops(pickle.dumps(held, protocol=3))  # in which each name stands whole
    named = {argument.partition(" ")[0] for operation, argument, _ in operations if operation.name == "GLOBAL"}
    return {name for name in named if name.split(".")[0] == "sktransfer"}


@pytest.mark.parametrize("kind", ["extractor", "classifier"])
def test_pickles_name_no_module_of_ours_but_those_of_the_estimators(kind, weights, pictures):
    X, y = pictures
    own = {"extractor": "sktransfer._feature_extractor", "classifier": "sktransfer._fine_tuned_classifier"}[kind]
    fitted = make(kind, weights).fit(X, y)
    estimator = type(fitted)
    named = estimator("squeezenet1_1", weights=None).fit(X, y)
    on_rows = estimator(tiny_vectors).fit(X.reshape(len(X), -1)[:, :7], y)
    for model in (fitted, named, on_rows, make_pipeline(named), copy.deepcopy(fitted)):
        assert modules_named_in(model) == {own}
    assert modules_named_in(fitted.backbone_) == {"sktransfer.backbones"}
    if kind == "classifier":
        assert modules_named_in(fitted.net_.module_) == {"sktransfer"}
    for part in (fitted._reader, on_rows._reader, fitted.backbone_.preprocessing):
        assert modules_named_in(part) == {"sktransfer.inputs"}
