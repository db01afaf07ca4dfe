"""A saved model is data: it comes back as it was, is written whole or not at all, and runs nobody's code."""

import hashlib
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import tiny_cnn, tiny_vectors
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier, VotingClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import LRScheduler
from torchvision.transforms import v2

import sktransfer
from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor

TESTS = Path(__file__).parent
SMALL = {"weights": None, "random_state": 0}


def extractor(**parameters):
    return PretrainedFeatureExtractor("squeezenet1_1", **{**SMALL, **parameters})


def classifier(**parameters):
    return FineTunedClassifier("squeezenet1_1", **{**SMALL, **parameters})


def output(estimator, X):
    return (estimator.predict_proba if hasattr(estimator, "predict_proba") else estimator.transform)(X)


def saved(estimator, path, **how):
    sktransfer.save(estimator, path)
    return sktransfer.load(path, **how)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


# It comes back


KINDS = {
    "features": (PretrainedFeatureExtractor, {}),
    "layers": (PretrainedFeatureExtractor, {"layer": [1, 3], "pooling": "max", "pixel_range": (0, 255)}),
    "solved head": (FineTunedClassifier, {}),
    "tuned": (FineTunedClassifier, {"freeze_depth": 1, "max_epochs": 2, "lr": 0.01, "head_epochs": 2}),
    "batch norm": (FineTunedClassifier, {"freeze_depth": 0.5, "max_epochs": 1, "train_bn": True, "lr": 0.01}),
    "hidden layers": (FineTunedClassifier, {"hidden_layer_sizes": [8, 4], "dropout": 0.5, "head_epochs": 2}),
    "dropout": (FineTunedClassifier, {"dropout": 0.5, "head_epochs": 2, "layer": 2, "augment": "light"}),
    "stopped early": (
        FineTunedClassifier,
        {"freeze_depth": 2, "early_stopping": True, "validation_fraction": 0.25, "max_epochs": 3},
    ),
}


@pytest.mark.parametrize("store_backbone", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_fit_comes_back_with_its_bits_parameters_and_attributes(
    kind, store_backbone, pictures, path, tmp_path
):
    torch.manual_seed(0)
    torch.save(tiny_cnn().state_dict(), tmp_path / "tiny.pth")
    estimator_class, parameters = KINDS[kind]
    estimator = estimator_class(
        tiny_cnn, weights=tmp_path / "tiny.pth", random_state=0, store_backbone=store_backbone, **parameters
    ).fit(*pictures)
    again = saved(estimator, path, backbone=tiny_cnn)
    np.testing.assert_array_equal(output(again, pictures[0]), output(estimator, pictures[0]))
    assert again.get_params() == estimator.get_params()
    assert set(vars(again)) == set(vars(estimator))
    assert again.backbone_.fingerprint == estimator.backbone_.fingerprint
    assert again.backbone_.blocks == estimator.backbone_.blocks
    assert repr(again.backbone_.summary()) == repr(estimator.backbone_.summary())
    if estimator_class is FineTunedClassifier:
        assert again.history_ == estimator.history_
        assert list(again.net_.history) == list(estimator.net_.history)
        assert again.n_iter_ == estimator.n_iter_
        np.testing.assert_array_equal(again.transform(pictures[0]), estimator.transform(pictures[0]))
        assert again.net_.module_.freeze_depth == estimator.net_.module_.freeze_depth
    twice = saved(again, path, backbone=tiny_cnn)
    np.testing.assert_array_equal(output(twice, pictures[0]), output(estimator, pictures[0]))


def test_a_loaded_model_can_be_trained_further_pickled_and_cloned(pictures, path):
    X, y = pictures
    first = FineTunedClassifier(tiny_cnn, freeze_depth=2, max_epochs=1, lr=0.01, random_state=0, warm_start=True)
    first.fit(X, y)
    again = saved(first, path, backbone=tiny_cnn)
    np.testing.assert_array_equal(again.fit(X, y).predict_proba(X), first.fit(X, y).predict_proba(X))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(again)).predict_proba(X), first.predict_proba(X))


def test_a_network_of_torchvision_needs_nothing_but_the_file(pictures, path):
    estimator = classifier(freeze_depth=6, max_epochs=1).fit(*pictures)
    again = saved(estimator, path)
    np.testing.assert_array_equal(again.predict_proba(pictures[0]), estimator.predict_proba(pictures[0]))


def test_equal_models_are_equal_files(pictures, path):
    sktransfer.save(extractor().fit(pictures[0]), path)
    before = path.read_bytes()
    sktransfer.save(sktransfer.load(path), path)
    assert path.read_bytes() == before


def test_an_unfitted_estimator_comes_back_unfitted(path):
    estimator = classifier(freeze_depth="features.6", class_weight={"a": 1.0, 2: np.float32(0.5)}, lr=np.float64(1e-5))
    again = saved(estimator, path)
    assert again.get_params() == estimator.get_params()
    assert type(again.lr) is np.float64
    with pytest.raises(NotFittedError):
        check_is_fitted(again)


PARAMETERS = [
    {"optimizer": torch.optim.SGD},
    {"random_state": np.int64(3)},
    {"pixel_range": (0, np.float32(1.5))},
    {"image_shape": [4, 4, np.int8(3)]},
    {"feature_cache": Path("some") / "where", "weights": "some/file.pth"},
    {"class_weight": {True: 1.0, b"\x00\xff": 2, (1, "a"): np.inf, None: -0.0}},
    {"hidden_layer_sizes": (), "callbacks": [], "n_jobs": None, "device": "cuda:1"},
    {"class_weight": {"\u00e4\n\U0001f600": float("nan")}},
]


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_parameters_come_back_with_value_and_type(parameters, path):
    again = saved(FineTunedClassifier("resnet18", **parameters), path).get_params()
    for name, value in parameters.items():
        assert repr(again[name]) == repr(value)


def test_a_random_state_goes_on_where_it_was(path):
    estimator = classifier(random_state=np.random.RandomState(5))
    estimator.random_state.normal(size=3)
    again = saved(estimator, path)
    np.testing.assert_array_equal(again.random_state.normal(size=5), estimator.random_state.normal(size=5))


LABELS = {
    "bool": [False, True],
    "int8": np.array([-3, 7], dtype=np.int8),
    "uint64": np.array([1, 2**63 + 5], dtype=np.uint64),
    "int64": [-(2**62), 4],
    "float": [1.0, 3.0],
    "float32": np.array([-1.0, 2.0], dtype=np.float32),
    "str": ["ant", "bee"],
    "long str": ["", "\u00e4\u4e2d\n\x00x\U0001f600" * 50],
    "object str": np.array(["ant", "bee"], dtype=object),
    "big-endian": np.array([5, 1000], dtype=">i4"),
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_labels_of_every_type_come_back_as_they_were(labels, path):
    X = np.random.default_rng(0).normal(size=(8, 4))
    y = np.asarray(labels)[[0, 1] * 4]
    estimator = FineTunedClassifier(tiny_vectors, random_state=0).fit(X, y)
    again = saved(estimator, path, backbone=tiny_vectors)
    assert again.classes_.dtype == estimator.classes_.dtype
    assert [type(one) for one in again.classes_.tolist()] == [type(one) for one in estimator.classes_.tolist()]
    np.testing.assert_array_equal(again.classes_, estimator.classes_)
    np.testing.assert_array_equal(again.predict(X), estimator.predict(X))


def test_names_of_columns_come_back(path):
    pd = pytest.importorskip("pandas")
    X = pd.DataFrame(np.random.default_rng(0).normal(size=(8, 4)), columns=["a", "b", "\u00e4", "d"])
    estimator = PretrainedFeatureExtractor(tiny_vectors).fit(X)
    again = saved(estimator, path, backbone=tiny_vectors)
    assert again.n_features_in_ == 4
    np.testing.assert_array_equal(again.feature_names_in_, estimator.feature_names_in_)
    with pytest.raises(ValueError, match="feature names"):
        again.transform(X.rename(columns={"a": "z"}))


def test_a_head_on_a_large_backbone_is_small_without_it(pictures, path, tmp_path):
    from torchvision.models import resnet50

    torch.save(resnet50().state_dict(), tmp_path / "resnet50.pth")
    X, y = pictures
    estimator = FineTunedClassifier("resnet50", weights=tmp_path / "resnet50.pth", store_backbone=False)
    sktransfer.save(estimator.fit(X[:4], y[:4]), path)
    assert path.stat().st_size < 100_000


@pytest.mark.exhaustive
def test_a_new_process_with_another_number_of_threads_gives_the_same_to_rounding(pictures, path, tmp_path):
    estimator = classifier(precision="float32").fit(*pictures)
    sktransfer.save(estimator, path)
    np.save(tmp_path / "X.npy", pictures[0])
    code = (
        "import sys, numpy as np, torch, sktransfer; torch.set_num_threads(int(sys.argv[3]))\n"
        "np.save(sys.argv[2] + '.npy', sktransfer.load(sys.argv[1]).predict_proba(np.load(sys.argv[2])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "X.npy"), "2"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "X.npy.npy")
    np.testing.assert_allclose(found, estimator.predict_proba(pictures[0]), atol=1e-6)


# A network of one's own is code


def test_without_the_network_of_ones_own_the_message_asks_for_it(pictures, path):
    sktransfer.save(FineTunedClassifier(tiny_cnn, random_state=0).fit(*pictures), path)
    with pytest.raises(ValueError, match=r"your own network, 'tiny_cnn'.*sktransfer.load\(path, backbone=...\)"):
        sktransfer.load(path)


def test_another_network_is_refused(pictures, path):
    sktransfer.save(FineTunedClassifier(tiny_cnn, random_state=0).fit(*pictures), path)
    with pytest.raises(ValueError, match="do not match the backbone"):
        sktransfer.load(path, backbone=lambda: tiny_cnn(width=4))
    with pytest.raises(ValueError, match="missing"):
        sktransfer.load(path, backbone=lambda: torch.nn.Sequential(*tiny_cnn(), torch.nn.Linear(5, 5)))


def test_a_module_comes_back_with_the_weights_of_the_file(pictures, path):
    module = tiny_cnn()
    estimator = FineTunedClassifier(module, freeze_depth=2, max_epochs=1, random_state=0).fit(*pictures)
    sktransfer.save(estimator, path)
    for other in (tiny_cnn(), tiny_cnn):
        again = sktransfer.load(path, backbone=other)
        np.testing.assert_array_equal(again.predict_proba(pictures[0]), estimator.predict_proba(pictures[0]))


# Around them


def composites():
    return {
        "pipeline": make_pipeline(extractor(), StandardScaler(), LogisticRegression()),
        "union": make_pipeline(make_union(extractor(), extractor(layer=3)), LogisticRegression()),
        "search": GridSearchCV(classifier(max_epochs=1), {"freeze_depth": [6, "all"]}, cv=2),
        "search of a pipeline": GridSearchCV(
            make_pipeline(extractor(), LogisticRegression()),
            {"logisticregression__C": [0.1, 1]},
            cv=2,
            scoring="f1_macro",
        ),
        "vote": VotingClassifier([("a", classifier()), ("b", make_pipeline(extractor(), LogisticRegression()))]),
    }


@pytest.mark.parametrize("kind", composites())
def test_scikit_learn_around_ours_comes_back(kind, pictures, path):
    X, y = pictures[0].reshape(24, -1), pictures[1]
    estimator = composites()[kind]
    shapes = {name: (20, 24, 3) for name in estimator.get_params() if name.split("__")[-1] == "image_shape"}
    estimator.set_params(**shapes).fit(X, y)
    again = saved(estimator, path)
    assert type(again) is type(estimator)
    np.testing.assert_array_equal(again.predict(X), estimator.predict(X))
    again.fit(X, y)


def test_a_table_of_paths_and_numbers_comes_back(paths, path):
    pd = pytest.importorskip("pandas")
    X = pd.DataFrame({"file": paths, "weight": np.arange(24.0)})
    estimator = make_column_transformer((extractor(), ["file"]), (StandardScaler(), ["weight"]))
    estimator.fit(X)
    np.testing.assert_array_equal(saved(estimator, path).transform(X), estimator.transform(X))


def test_several_networks_of_ones_own_are_told_apart_by_name(path):
    X = np.random.default_rng(0).normal(size=(8, 4))
    estimator = make_union(PretrainedFeatureExtractor(tiny_vectors), PretrainedFeatureExtractor(torch.nn.Linear(4, 3)))
    estimator.fit(X)
    again = saved(estimator, path, backbone={"tiny_vectors": tiny_vectors, "Linear": torch.nn.Linear(4, 3)})
    np.testing.assert_array_equal(again.transform(X), estimator.transform(X))


def test_without_skops_a_pipeline_names_the_extra_and_ours_alone_are_saved(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skops", None)
    monkeypatch.setitem(sys.modules, "skops.io", None)
    with pytest.raises(ImportError, match=r'pip install "sktransfer\[skops\]"'):
        sktransfer.save(make_pipeline(extractor()), path)
    assert not path.exists()
    saved(extractor(), path)


# What is refused when saving


class Own(TransformerMixin, BaseEstimator):
    """A transformer of one's own."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"callbacks": [LRScheduler()]}, "callbacks"),
        ({"augment": v2.RandomHorizontalFlip()}, "augment"),
        ({"optimizer": type("Own", (torch.optim.SGD,), {})}, "optimizer"),
        ({"class_weight": {"a": len}}, "class_weight"),
    ],
)
def test_parameters_that_are_code_are_refused_by_name_and_nothing_is_written(parameters, named, path):
    with pytest.raises(TypeError, match=rf"whose {named} holds .*set_params before saving, or use joblib\.dump"):
        sktransfer.save(classifier(**parameters), path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("around", "named"),
    [
        (lambda: make_pipeline(Own(), extractor()), "Own"),
        (lambda: make_pipeline(extractor(), RandomForestClassifier(2)), "Tree"),
    ],
)
def test_what_cannot_be_vouched_for_is_refused_when_saving_not_when_loading(around, named, pictures, path):
    with pytest.raises(TypeError, match=rf"that holds .*{named}.*joblib"):
        sktransfer.save(around().fit(*pictures), path)
    assert not path.exists()


@pytest.mark.parametrize("thing", [None, 3, "model", FineTunedClassifier, torch.nn.Linear(2, 2), [1]])
def test_what_is_no_estimator_is_refused(thing, path):
    with pytest.raises(TypeError, match=r"expected a scikit-learn estimator"):
        sktransfer.save(thing, path)


def test_a_place_that_cannot_be_is_refused(path):
    with pytest.raises(FileNotFoundError, match="whose folder does not exist"):
        sktransfer.save(extractor(), path.parent / "nowhere" / "model")
    with pytest.raises(IsADirectoryError, match="which is a folder; expected the name of a file"):
        sktransfer.save(extractor(), path.parent)


# Damage and other versions


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small model in a file, its samples and its output."""
    file = tmp_path_factory.mktemp("saved") / "model.safetensors"
    X = np.random.default_rng(0).normal(size=(8, 4))
    estimator = FineTunedClassifier(tiny_vectors, freeze_depth=1, max_epochs=1, random_state=0).fit(X, ["a", "b"] * 4)
    sktransfer.save(estimator, file)
    return file, X, estimator.predict_proba(X)


def parts_of(file):
    with safe_open(file, "pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118


def load_vectors(file):
    return sktransfer.load(file, backbone=tiny_vectors)


def test_every_flipped_byte_is_refused_or_harmless(whole, path):
    """No byte of the file can change what the model says."""
    file, X, expected = whole
    content = file.read_bytes()
    assert len(content) < 20_000
    refused = 0
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x11]) + content[place + 1 :])
        try:
            found = load_vectors(path).predict_proba(X)
        except ValueError:
            refused += 1
        else:
            np.testing.assert_array_equal(found, expected)
    assert refused > 0.99 * len(range(0, len(content), 7))


def test_every_truncation_is_refused(whole, path):
    content = whole[0].read_bytes()
    for length in range(0, len(content), 29):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="which is not a whole safetensors file"):
            load_vectors(path)


def test_a_missing_and_a_damaged_tensor_are_named(whole, path):
    tensors, header = parts_of(whole[0])
    name = "0.backbone_.0.weight"
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, path, header)
    with pytest.raises(ValueError, match=rf"1 of \d+ tensors are missing: '{name}'"):
        load_vectors(path)
    tensors[name] = tensors[name] * 1.0001
    save_file(tensors, path, header)
    with pytest.raises(ValueError, match=rf"1 of \d+ tensors are damaged: '{name}'"):
        load_vectors(path)


def test_a_newer_and_an_unknown_version_are_told(whole, path):
    tensors, header = parts_of(whole[0])
    ((name, text),) = header.items()
    for version, match in (("2", "A newer sktransfer wrote it: upgrade"), ("x", "There is no such version")):
        save_file(tensors, path, {name: text.replace("1", version, 1)})
        with pytest.raises(ValueError, match=rf"of format version '{version}'; expected 1. {match}"):
            load_vectors(path)


def test_files_of_other_kinds_are_told_apart(path, tmp_path):
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(ValueError, match=r"not a model that sktransfer\.save wrote.*weights=PATH"):
        sktransfer.load(path)
    path.write_bytes(pickle.dumps(extractor()))
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        sktransfer.load(path)
    for gone in (tmp_path / "gone", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"which is (not a file|a folder)"):
            sktransfer.load(gone)


DESCRIPTIONS = {
    "no JSON": "models",
    "empty": "",
    "half": '{"tensors": {',
    "a huge whole number": '{"tensors": {}, "models": ' + "9" * 100_000 + "}",
    "a huge number": '{"tensors": {}, "models": [1e999]}',
    "no number": '{"tensors": {}, "models": [NaN]}',
    "an infinite number": '{"tensors": {}, "models": [-Infinity]}',
    "a name twice": '{"tensors": {}, "models": [], "models": []}',
    "deep": '{"tensors": {}, "models": ' + "[" * 200_000 + "]" * 200_000 + "}",
    "a list": "[1, 2]",
    "tensors that are a list": '{"tensors": []}',
}


@pytest.mark.parametrize("text", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_a_description_that_is_no_json_of_ours_gets_a_sentence(text, whole, path):
    digest = hashlib.sha256(text.encode()).hexdigest()
    save_file(parts_of(whole[0])[0], path, {"sktransfer model": f"1 {digest}\n{text}"})
    with pytest.raises(ValueError, match=r"whose description (is not JSON|does not list)") as caught:
        load_vectors(path)
    assert len(str(caught.value)) < 600


def rewritten(file, path, change):
    """A file whose description was changed by somebody who knows the format: with right checksums."""
    from sktransfer._files._model_file import write_model

    tensors, header = parts_of(file)
    description = json.loads(header["sktransfer model"].partition("\n")[2])
    del description["tensors"]
    change(description, tensors)
    write_model(path, description, tensors)


CHANGES = {
    "class": (lambda d, t: d["models"][0].update({"class": "os.system"}), "unknown class 'os.system'"),
    "optimizer": (
        lambda d, t: d["models"][0]["parameters"].update(optimizer={"type": "optimizer", "value": "lr_scheduler"}),
        "no optimizer 'lr_scheduler'",
    ),
    "type": (lambda d, t: d["models"][0]["parameters"].update(lr={"type": "os.system", "value": "ls"}), "unknown type"),
    "unhashable type": (lambda d, t: d["models"][0]["parameters"].update(lr={"type": [1]}), "unknown type"),
    "parameter": (lambda d, t: d["models"][0]["parameters"].update(nonsense=1), "nonsense"),
    "dtype": (
        lambda d, t: d["models"][0]["attributes"]["classes_"].update(dtype="V8"),
        "an array of dtype 'V8'",
    ),
    "half a value": (lambda d, t: d["models"][0]["attributes"]["classes_"].pop("items"), "that is not whole"),
    "no models": (lambda d, t: d.pop("models"), "KeyError: 'models'"),
    "kind of backbone": (
        lambda d, t: d["models"][0]["attributes"]["backbone_"]["items"][0].__setitem__(1, "evil"),
        "unknown kind of backbone 'evil'",
    ),
    "head": (lambda d, t: t.update({"0.net_.head.0.weight": torch.zeros(7, 7)}), "tensors of the head do not match"),
    "a pickle beside": (
        lambda d, t: t.update(around=torch.frombuffer(bytearray(pickle.dumps(Own())), dtype=torch.uint8)),
        "Could not load",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_description_that_somebody_made_up_is_refused(change, whole, path):
    how, match = CHANGES[change]
    rewritten(whole[0], path, how)
    with pytest.raises(ValueError, match=match):
        load_vectors(path)


@pytest.mark.parametrize("name", ["_target_mean", "_target_scale"])
def test_numbers_whose_units_somebody_made_up_are_refused(name, path):
    X = np.random.default_rng(0).normal(size=(8, 4))
    estimator = FineTunedRegressor(tiny_vectors, random_state=0).fit(X, X[:, :2])
    setattr(estimator, name, getattr(estimator, name)[:1])
    sktransfer.save(estimator, path)
    with pytest.raises(ValueError, match="mean and scale of the targets do not have one number per output"):
        load_vectors(path)


class Malice:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_no_code_runs_from_what_is_around(whole, path, tmp_path):
    """A skops archive that names a function to be called, and one that holds a pickle."""
    import skops.io

    good = skops.io.dumps(make_pipeline(StandardScaler()))
    for change in ("__class__", "pickle"):
        with zipfile.ZipFile(io.BytesIO(good)) as archive:
            schema = json.loads(archive.read("schema.json"))
        target = schema["content"]["content"]["steps"]["content"][0]["content"][1]
        if change == "__class__":
            target.update({"__class__": "system", "__module__": "os", "__loader__": "FunctionNode"})
            target["content"] = {"module_path": "os", "function": "system"}
        else:
            target.update({"__loader__": "NdArrayNode", "__class__": "ndarray", "__module__": "numpy", "type": "numpy"})
            target["file"] = "x.npy"
        evil = io.BytesIO()
        with zipfile.ZipFile(evil, "w") as archive:
            archive.writestr("schema.json", json.dumps(schema))
            array = io.BytesIO()
            np.save(array, np.array([Malice(tmp_path / "was_run")], dtype=object), allow_pickle=True)
            archive.writestr("x.npy", array.getvalue())
        around = torch.frombuffer(bytearray(evil.getvalue()), dtype=torch.uint8)
        rewritten(whole[0], path, lambda d, t, around=around: t.update(around=around))
        with pytest.raises(ValueError, match="Could not load"):
            load_vectors(path)
        assert not (tmp_path / "was_run").exists()


def test_loading_asks_no_network_and_looks_for_no_weights(path, monkeypatch, pictures):
    estimator = classifier(store_backbone=False).fit(*pictures)
    sktransfer.save(estimator, path)
    monkeypatch.setattr("socket.socket.connect", None)
    monkeypatch.setattr("torch.hub.urlopen", None)
    np.testing.assert_array_equal(sktransfer.load(path).predict(pictures[0]), estimator.predict(pictures[0]))


# Whole or not at all

SAVER = textwrap.dedent(
    """
    import sys
    import numpy as np
    import sktransfer
    models = [sktransfer.load(sys.argv[1] + name) for name in ("/a", "/b")]
    print("ready", flush=True)
    while True:
        for model in models:
            sktransfer.save(model, sys.argv[1] + "/model")
    """
)


@pytest.mark.exhaustive
def test_a_kill_in_mid_save_leaves_a_whole_model(pictures, tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        sktransfer.save(extractor(random_state=seed).fit(pictures[0]), tmp_path / name)
    whole = [(tmp_path / name).read_bytes() for name in "ab"]
    shutil.copy(tmp_path / "a", tmp_path / "model")
    halves = 0
    for _ in range(5):
        worker = subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert worker.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob(".sktransfer-*")) and time.monotonic() < deadline:
            pass
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        assert (tmp_path / "model").read_bytes() in whole
        left = list(tmp_path.glob(".sktransfer-*"))
        halves += len(left)
        for folder in left:
            shutil.rmtree(folder)
    assert halves, "no kill came in the middle, so the test has shown nothing"


FULL = textwrap.dedent(
    """
    import resource, sys
    import sktransfer
    model = sktransfer.load(sys.argv[1] + "/other")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        sktransfer.save(model, sys.argv[1] + "/model")
    except OSError as error:
        print(type(error).__name__, error)
    """
)


@pytest.mark.exhaustive
def test_a_disk_that_fills_up_leaves_the_old_model_and_nothing_else(pictures, tmp_path):
    pytest.importorskip("resource")
    sktransfer.save(extractor().fit(pictures[0]), tmp_path / "other")
    (tmp_path / "model").write_bytes(b"the old model")
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("OSError Could not write"), done.stdout + done.stderr
    assert (tmp_path / "model").read_bytes() == b"the old model"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model", "other"]


def test_ctrl_c_in_mid_save_leaves_the_old_model_and_nothing_else(path, monkeypatch):
    path.write_bytes(b"the old model")

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("sktransfer._files._whole_files.os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sktransfer.save(extractor(), path)
    assert path.read_bytes() == b"the old model"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_may_be_read_by_whom_the_umask_lets(path):
    sktransfer.save(extractor(), path)
    path.with_name("plain").touch()
    assert path.stat().st_mode == path.with_name("plain").stat().st_mode


def test_a_link_stays_a_link(path, tmp_path):
    (tmp_path / "real").write_bytes(b"the old model")
    path.symlink_to(tmp_path / "real")
    saved(extractor(), path)
    assert path.is_symlink()
    assert sktransfer.load(tmp_path / "real").backbone == "squeezenet1_1"
