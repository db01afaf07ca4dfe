"""What a user may rely on where a sample has several labels: columns of 0 and 1, each with a head of its own."""

import copy
import json
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import sklearn
import torch
from networks import rest_exhaustive, tiny_cnn, tiny_vectors
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score, cross_validate
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer, StandardScaler
from skorch.callbacks import Callback

import sktransfer
from sktransfer import FineTunedClassifier
from sktransfer._training import _penalty_choice, _solved_head

STRATEGIES = ["linear_probe", "fine_tune", "lp_ft", "gradual"]


@pytest.fixture(scope="module")
def rows():
    """Rows of numbers with three labels: one is easy, one is hard, one is rare."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(80, 4)).astype(np.float32)
    noise = rng.normal(size=(80, 3))
    return X, np.column_stack(
        [X[:, 0] + 0.2 * noise[:, 0] > 0, X[:, 1] + 2 * noise[:, 1] > 0, X[:, 2] + 0.3 * noise[:, 2] > 0.9]
    ).astype(int)


@pytest.fixture(scope="module")
def images(pictures):
    X, y = pictures
    return X, np.column_stack([y == "leaf", y == "stone", np.arange(24) % 3 == 0]).astype(int)


def tuned(parameters, **more):
    """Return what there is to say where blocks are tuned and nothing else was said."""
    is_frozen = parameters.get("freeze_depth", "all") == "all" or parameters.get("strategy") == "linear_probe"
    return {} if is_frozen else {name: value for name, value in more.items() if name not in parameters}


def on_images(**parameters):
    return FineTunedClassifier(tiny_cnn, random_state=0, **tuned(parameters, max_epochs=2), **parameters)


def on_rows(**parameters):
    return FineTunedClassifier(tiny_vectors, random_state=0, **tuned(parameters, max_epochs=3, lr=1e-3), **parameters)


# What is given and what comes back


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(lambda y: y.astype(np.uint8), id="small integers"),
        pytest.param(lambda y: y.astype(bool), id="booleans"),
        pytest.param(lambda y: y.astype(float), id="floats"),
        pytest.param(lambda y: y.astype(object), id="objects"),
        pytest.param(lambda y: y.tolist(), id="list of lists"),
        pytest.param(lambda y: [tuple(row) for row in y], id="list of tuples"),
        pytest.param(list, id="list of arrays"),
        pytest.param(lambda y: pd.DataFrame(y, columns=["a", "b", "c"]), id="table"),
        pytest.param(lambda y: pd.DataFrame(y > 0).astype("boolean"), id="nullable table"),
        pytest.param(torch.tensor, id="tensor"),
        pytest.param(np.asfortranarray, id="columns first"),
        pytest.param(scipy.sparse.csr_matrix, id="sparse matrix"),
        pytest.param(lambda y: scipy.sparse.csc_array(y.astype(bool)), id="sparse array of booleans"),
        pytest.param(scipy.sparse.coo_array, id="coordinates"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_columns_of_0_and_1_in_any_form(rows, form):
    X, y = rows
    model = on_rows().fit(X, form(y))
    probabilities = model.predict_proba(X)
    np.testing.assert_array_equal(probabilities, on_rows().fit(X, y).predict_proba(X))
    assert probabilities.shape == (80, 3)
    assert probabilities.dtype == np.float64
    predicted = model.predict(X)
    assert predicted.dtype.kind == "i"
    np.testing.assert_array_equal(predicted, probabilities > 0.5)
    np.testing.assert_array_equal(model.classes_, [0, 1, 2])
    assert model.score(X, y) == (predicted == y).all(axis=1).mean()


def test_names_through_a_binarizer(rows):
    X, y = rows
    names = [[name for name, has in zip("abc", row, strict=True) if has] for row in y]
    binarizer = MultiLabelBinarizer()
    model = on_rows().fit(X, binarizer.fit_transform(names))
    found = binarizer.inverse_transform(model.predict(X))
    assert np.mean([set(one) == set(other) for one, other in zip(found, names, strict=True)]) > 0.5


def test_a_sparse_column_is_one_label(rows):
    X, y = rows
    model = on_rows().fit(X, scipy.sparse.csr_array(y[:, :1]))
    assert model.predict(X).shape == model.predict_proba(X).shape == (80, 1)
    alone = on_rows().fit(X, y[:, 0])
    np.testing.assert_allclose(model.predict_proba(X)[:, 0], alone.predict_proba(X)[:, 1], atol=1e-4)


# The head is solved


@pytest.mark.parametrize("C", ["auto", 3.0])
@pytest.mark.parametrize("layer", [None, "stages"])
@pytest.mark.parametrize("weighted", [False, True])
def test_each_label_has_the_head_of_a_classifier_of_its_own(rows, C, layer, weighted):
    X, y = rows
    weights = np.linspace(0.1, 2, 80) if weighted else None
    model = on_rows(head_C=C, layer=layer).fit(X, y, weights)
    for label in range(3):
        alone = on_rows(head_C=C, layer=layer).fit(X, y[:, label], weights)
        np.testing.assert_allclose(model.predict_proba(X)[:, label], alone.predict_proba(X)[:, 1], atol=2e-3)
        assert model.head_C_[label] == alone.head_C_
        assert model.earlier_weight_[label] == alone.earlier_weight_
        np.testing.assert_allclose(model.head_C_path_[label]["log_loss"], alone.head_C_path_["log_loss"], rtol=1e-3)
    if C == "auto":
        assert len(set(model.head_C_)) > 1, "a test of labels that all want the same penalty shows little"


def test_a_fixed_penalty_is_that_of_logistic_regression(images):
    X, y = images
    model = on_images(head_C=2.0).fit(X, y)
    with torch.no_grad():
        scaled = model.net_.module_.head[0](torch.from_numpy(model.transform(X))).double().numpy()
    for label in range(3):
        # A difference of two logits, each penalised, is penalised half.
        expected = LogisticRegression(C=2.0, tol=1e-9, max_iter=2000).fit(scaled, y[:, label]).predict_proba(scaled)
        alone = on_images(head_C=2.0).fit(X, y[:, label])
        np.testing.assert_allclose(model.predict_proba(X)[:, label], alone.predict_proba(X)[:, 1], atol=1e-3)
        np.testing.assert_allclose(model.predict_proba(X)[:, label], expected[:, 1], atol=2e-3)


def test_a_weight_is_how_often_a_sample_is_there(rows):
    X, y = rows
    times = np.arange(80) % 3
    weighed = on_rows().fit(X, y, sample_weight=times).predict_proba(X)
    repeated = on_rows().fit(X.repeat(times, axis=0), y.repeat(times, axis=0)).predict_proba(X)
    np.testing.assert_allclose(weighed, repeated, atol=5e-3)
    assert abs(weighed - on_rows().fit(X, y).predict_proba(X)).max() > 0.02


@pytest.mark.parametrize("C", ["auto", 5.0])
def test_many_samples_choose_by_a_part_of_them(rows, monkeypatch, C):
    X, y = rows
    whole = on_rows(head_C=C, layer=None).fit(X, y)
    used = []
    choose = _solved_head.choose

    def watched(problem, widths):
        used.append(len(problem(0.3).labels))
        return choose(problem, widths)

    monkeypatch.setattr(_penalty_choice, "LARGE", 80 * 16 * 2 // 4)
    monkeypatch.setattr(_solved_head, "choose", watched)
    model = on_rows(head_C=C, layer=None).fit(X, y)
    assert all(number < 80 for number in used)
    assert len(used) == (3 if C == "auto" else 0)
    np.testing.assert_allclose(model.predict_proba(X), whole.predict_proba(X), atol=0.35 if C == "auto" else 1e-3)
    assert log_loss(y[:, 0], model.predict_proba(X)[:, 0]) < 0.4


# Weights of labels


@pytest.mark.parametrize("parameters", [{}, {"freeze_depth": 0, "max_epochs": 15, "lr": 0.01, "head_lr": 0.01}])
def test_class_weights_move_each_label_by_itself(rows, parameters):
    X, y = rows
    plain = on_rows(**parameters).fit(X, y).predict_proba(X).mean(axis=0)
    for given in ({1: 20}, {0: 1, 1: 20}, [{0: 1, 1: 20}, {0: 1, 1: 1}, {0: 20, 1: 1}]):
        found = on_rows(**parameters, class_weight=given).fit(X, y).predict_proba(X).mean(axis=0)
        moved = found - plain
        assert moved[0] > 0.02
        if isinstance(given, list):
            assert abs(moved[1]) < 0.05
            assert moved[2] < -0.02
        else:
            assert moved[1] > 0.1
            assert moved[2] > 0.02
    balanced = on_rows(**parameters, class_weight="balanced").fit(X, y).predict_proba(X).mean(axis=0)
    assert balanced[2] > plain[2] + 0.02
    assert abs(balanced[0] - plain[0]) < 0.1


def test_a_class_weight_of_a_label_is_that_of_a_classifier_of_its_own(rows):
    X, y = rows
    model = on_rows(class_weight="balanced", head_C=3.0, layer=None).fit(X, y)
    for label in range(3):
        counts = np.bincount(y[:, label])
        weights = (80 / (2 * counts))[y[:, label]]
        with torch.no_grad():
            scaled = model.net_.module_.head[0](torch.from_numpy(model.transform(X))).double().numpy()
        expected = LogisticRegression(C=3.0, tol=1e-9, max_iter=2000).fit(scaled, y[:, label], weights)
        np.testing.assert_allclose(model.predict_proba(X)[:, label], expected.predict_proba(scaled)[:, 1], atol=2e-3)


@pytest.mark.parametrize(
    ("class_weight", "match"),
    [
        ([{0: 1, 1: 2}], "^Got class_weight with 1 dicts for 3 labels; expected one dict per label"),
        ({"a": 1}, "^Got class_weight={'a': 1} for a label .*; expected the keys 0 and 1"),
        ([{0: 1, 7: 2}] * 3, "^Got class_weight={0: 1, 7: 2} for a label"),
        ({0: 0, 1: 0}, "^Got sample weights, with class_weight=.* all zero"),
        ([{0: 0, 1: 0}, {}, {}], "^Got sample weights, with class_weight=.* all zero"),
        (["balanced"] * 3, r"^Got class_weight=\['balanced'.*; expected one dict per label"),
    ],
)
def test_wrong_class_weights_get_a_sentence(rows, class_weight, match):
    with pytest.raises(ValueError, match=match):
        on_rows(class_weight=class_weight).fit(*rows)


# Labels that all samples have, or none


@pytest.mark.parametrize("parameters", [{}, {"freeze_depth": 0}, {"freeze_depth": 0, "interpolation": "auto"}])
@pytest.mark.parametrize("class_weight", rest_exhaustive([None, "balanced", {0: 1, 1: 5}], None, "balanced"), ids=str)
@pytest.mark.filterwarnings("error")
def test_constant_labels_stay_constant(rows, parameters, class_weight):
    X, y = rows
    y = np.column_stack([y[:, 0], np.zeros(80), np.ones(80)]).astype(int)
    model = on_rows(**parameters, class_weight=class_weight).fit(X, y)
    probabilities = model.predict_proba(X * 3)
    assert np.isfinite(probabilities).all()
    # Of 80 samples without a label: as good as never. Tuning learns little more of it.
    np.testing.assert_allclose(probabilities[:, 1:], [[1 / 162, 161 / 162]] * 80, atol=0.02 if parameters else 1e-6)
    np.testing.assert_array_equal(model.predict(X)[:, 1:], y[:, 1:])
    assert (model.predict(X)[:, 0] == y[:, 0]).mean() > 0.8


@pytest.mark.parametrize("value", [0, 1])
def test_labels_that_are_all_constant_are_learned_with_a_warning(rows, value):
    y = np.full((80, 3), value)
    with pytest.warns(UserWarning, match='^Got head_C="auto", but no label that at least two samples have'):
        model = on_rows().fit(rows[0], y)
    np.testing.assert_array_equal(model.predict(rows[0]), y)


def test_a_label_that_one_fold_lacks(rows):
    X, y = rows
    y = y.copy()
    y[:, 2] = np.arange(80) < 3  # in the first fold alone
    for parameters in ({}, {"freeze_depth": 0}):
        found = cross_val_predict(on_rows(**parameters), X, y, cv=4, method="predict_proba")
        assert found.shape == (80, 3)
        np.testing.assert_allclose(found[:20, 2], 1 / 122, atol=0.02 if parameters else 1e-6)  # of 60 samples
        assert np.isfinite(found).all()


@pytest.mark.parametrize("parameters", [{}, {"freeze_depth": 0}, {"freeze_depth": 0, "interpolation": "auto"}])
def test_one_and_two_samples_are_enough(rows, parameters):
    X, y = rows
    for n in (1, 2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            np.testing.assert_array_equal(on_rows(**parameters).fit(X[:n], y[:n]).predict(X[:n]), y[:n])


# Tuning


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_strategy_learns_what_no_linear_head_can(strategy):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4)).astype(np.float32)
    y = np.column_stack([X[:, 0] * X[:, 1] > 0, abs(X[:, 2]) > 0.7]).astype(int)
    how = {"lr": 0.02, "head_lr": 0.02, "max_epochs": 30} if strategy != "linear_probe" else {}
    model = on_rows(freeze_depth=0 if how else "all", strategy=strategy, layer=None, **how).fit(X, y)
    accuracy = (model.predict(X) == y).mean()
    assert accuracy > 0.9 if how else accuracy < 0.9
    if how:
        losses = [entry["train_loss"] for entry in model.history_ if entry["phase"] == "fine_tune"]
        assert losses[-1] < losses[0]


def test_the_loss_is_binary_cross_entropy(rows):
    X, y = rows
    still = {"freeze_depth": 0, "lr": 1e-12, "head_lr": 1e-12, "weight_decay": 0.0, "max_epochs": 1}
    model = on_rows(**still).fit(X, y, X_val=X, y_val=y)
    probabilities = model.predict_proba(X)
    expected = -np.log(np.where(y, probabilities, 1 - probabilities)).mean()
    solved, entry = model.history_
    assert entry["train_loss"] == pytest.approx(expected, rel=1e-3)
    assert entry["valid_loss"] == pytest.approx(expected, rel=1e-3)
    assert solved["valid_loss"] == pytest.approx(expected, rel=1e-3)
    assert solved["valid_accuracy"] == entry["valid_accuracy"] == pytest.approx(model.score(X, y))


@pytest.mark.parametrize("parameters", [{"head_epochs": 60, "head_lr": 0.1}, {"freeze_depth": 0, "max_epochs": 60}])
def test_label_smoothing_keeps_probabilities_from_0_and_1(rows, parameters):
    X, y = rows[0], np.column_stack([rows[0][:, 0] > 0, rows[0][:, 0] <= 0]).astype(int)
    sharp, smooth = (
        on_rows(label_smoothing=smoothing, **parameters).fit(X, y).predict_proba(X) for smoothing in (0.0, 0.4)
    )
    assert abs(smooth - 0.5).mean() < abs(sharp - 0.5).mean() - 0.05
    assert abs(smooth - 0.5).mean() < 0.38  # targets are 0.2 and 0.8


def test_frozen_stays_bit_identical(images):
    X, y = images
    torch.manual_seed(0)
    network = tiny_cnn()
    loaded = copy.deepcopy(network.state_dict())
    model = FineTunedClassifier(network, freeze_depth=2, max_epochs=2, train_bn=True, lr=0.01).fit(X, y)
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in model.backbone_.network.state_dict().items())
    tail = model.net_.module_.tail.state_dict()
    assert not model.backbone_.frozen_names(2) & set(tail)
    assert any(not torch.equal(tensor, loaded[name]) for name, tensor in tail.items())


def test_early_stopping_by_loss(rows):
    X, y = rows
    y = np.random.default_rng(3).permutation(y)
    how = {"freeze_depth": 0, "lr": 0.03, "head_lr": 0.03, "max_epochs": 60, "n_iter_no_change": 3}
    model = on_rows(early_stopping=True, validation_fraction=0.3, **how).fit(X, y)
    epochs = [entry for entry in model.history_ if entry["phase"] == "fine_tune"]
    assert 3 < len(epochs) < 60
    assert all({"valid_loss", "valid_accuracy"} <= set(entry) for entry in model.history_)
    watched = on_rows(early_stopping=True, **how).fit(X[:50], y[:50], X_val=X[50:], y_val=y[50:])
    best = min(entry["valid_loss"] for entry in watched.history_ if entry["phase"] == "fine_tune")
    solved = watched.history_[0]["valid_loss"]
    probabilities = watched.predict_proba(X[50:])
    found = -np.log(np.where(y[50:], probabilities, 1 - probabilities)).mean()
    assert found < max(best, solved) * 1.05


def test_interpolation_by_number_and_by_samples(rows):
    X, y = rows
    how = {"freeze_depth": 0, "lr": 0.01, "max_epochs": 5}
    solved = on_rows(head_C="auto").fit(X, y).predict_proba(X)
    np.testing.assert_allclose(on_rows(**how, interpolation=0).fit(X, y).predict_proba(X), solved, atol=1e-4)
    end = on_rows(**how).fit(X, y).predict_proba(X)
    half = on_rows(**how, interpolation=0.5).fit(X, y)
    half.interpolation_ = 1.0
    np.testing.assert_allclose(half.predict_proba(X), end, atol=1e-5)
    noise = np.random.default_rng(1).permutation(y)
    how = {"freeze_depth": 0, "interpolation": "auto", "lr": 0.02, "max_epochs": 30, "layer": None}
    known = on_rows(**how).fit(X[:50], noise[:50], X_val=X[:50], y_val=noise[:50]).interpolation_
    unknown = on_rows(**how).fit(X[:50], noise[:50], X_val=X[50:], y_val=noise[50:]).interpolation_
    assert known > unknown
    assert 0 <= on_rows(**how).fit(X, noise).interpolation_ <= 1


def test_callbacks_let_the_net_predict(rows):
    X, y = rows
    seen = []

    class Watch(Callback):
        def on_epoch_end(self, net, dataset_train=None, **kwargs):
            seen.append((net.predict(dataset_train), net.predict_proba(dataset_train)))

    on_rows(freeze_depth=0, max_epochs=1, callbacks=[Watch()]).fit(X, y)
    ((predicted, probabilities),) = seen
    np.testing.assert_array_equal(predicted, probabilities > 0.5)
    assert probabilities.shape == (80, 3)


def test_samples_without_weight_do_not_matter(rows):
    X, y = rows
    weights = np.linspace(0, 2, 80)
    wrong = np.where(weights[:, None] > 0, y, 1 - y)
    for parameters in ({}, {"freeze_depth": 0, "optimizer": "sgd"}):
        expected = on_rows(**parameters).fit(X, y, weights).predict_proba(X)
        np.testing.assert_allclose(on_rows(**parameters).fit(X, wrong, weights).predict_proba(X), expected, atol=1e-5)
        scaled = on_rows(**parameters).fit(X, y, 1e9 * weights).predict_proba(X)
        np.testing.assert_allclose(scaled, expected, atol=1e-4)


# The same estimator, fitted again


def test_from_several_labels_to_one_and_back(rows):
    X, y = rows
    model = on_rows()
    several = model.fit(X, y).predict_proba(X)
    names = np.array(["no", "yes"])[y[:, 0]]
    assert set(model.fit(X, names).predict(X)) == {"no", "yes"}
    assert model.predict_proba(X).shape == (80, 2)
    assert isinstance(model.head_C_, float)
    np.testing.assert_array_equal(model.fit(X, y).predict_proba(X), several)
    np.testing.assert_array_equal(model.fit(X, y[:, :2]).predict(X).shape, (80, 2))


def test_warm_start_goes_on_with_the_same_labels_alone(rows):
    X, y = rows
    model = on_rows(warm_start=True, freeze_depth=0).fit(X, y)
    before = model.predict_proba(X)
    for other in (y[:, 0], y[:, :2], np.arange(80) % 3):
        with pytest.raises(ValueError, match=r"^Got warm_start=True, but other .*; expected the same\."):
            model.fit(X, other)
        np.testing.assert_array_equal(model.predict_proba(X), before)
    model.set_params(lr=1e-12, head_lr=1e-12, weight_decay=0.0).fit(X, y)
    np.testing.assert_allclose(model.predict_proba(X), before, atol=1e-4)


# Kept


@pytest.mark.parametrize("freeze_depth", ["all", 2])
def test_kept_models_predict_the_same(images, tmp_path, freeze_depth):
    X, y = images
    model = on_images(freeze_depth=freeze_depth).fit(X, y, X_val=X, y_val=y)
    expected = model.predict_proba(X)
    sktransfer.save(model, tmp_path / "model.safetensors")
    joblib.dump(model, tmp_path / "model.joblib")
    others = [
        sktransfer.load(tmp_path / "model.safetensors", backbone=tiny_cnn),
        joblib.load(tmp_path / "model.joblib"),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
    ]
    for other in others:
        np.testing.assert_array_equal(other.predict_proba(X), expected)
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
        assert other.history_ == model.history_
        np.testing.assert_array_equal(other.head_C_, model.head_C_)
        assert type(other.net_) is type(model.net_)
        assert set(vars(other)) == set(vars(model))
        other.fit(X, y)


@pytest.mark.parametrize("freeze_depth", ["all", 0])
def test_another_runtime_computes_the_same(rows, tmp_path, freeze_depth):
    pytest.importorskip("onnx", reason="needs onnx, which writes the files")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, which runs them")
    X, y = rows
    y = np.column_stack([y, np.zeros(80, dtype=int)])
    model = on_rows(freeze_depth=freeze_depth, precision="float32").fit(X, y)
    model.to_onnx(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [one.name for one in session.get_outputs()] == ["probabilities"]
    for n in (1, 7):
        (found,) = session.run(None, {"prepared": X[:n]})
        np.testing.assert_allclose(found, model.predict_proba(X[:n]), atol=1e-4)
    said = json.loads((tmp_path / "model.onnx.json").read_text())
    assert said["output"] == {"name": "probabilities", "type": "float32", "shape": ["batch", 4]}
    assert said["classes"] == [0, 1, 2, 3]


def test_summary_and_html_show_what_is_trained(images):
    model = on_images(freeze_depth=2).fit(*images)
    assert [row.state for row in model.backbone_.summary().rows] == ["frozen", "frozen", "trained", "trained"]
    assert "FineTunedClassifier" in model._repr_html_()


# In scikit-learn's tools


@pytest.mark.parametrize("scoring", ["f1_samples", "average_precision", "roc_auc", "accuracy"])
@pytest.mark.filterwarnings("ignore:F-score is ill-defined")
def test_scorers(rows, scoring):
    X, y = rows
    scores = cross_val_score(on_rows(), X, y, cv=3, scoring=scoring, error_score="raise")
    assert np.isfinite(scores).all()
    assert scores.mean() > 0.3


def test_each_sample_passes_the_frozen_part_once_in_a_search(images):
    X, y = images
    sktransfer.clear_cache()
    grid = {"freeze_depth": [1, 2], "lr": [1e-4, 1e-3]}
    search = GridSearchCV(on_images(), grid, cv=3, scoring="average_precision", error_score="raise").fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    info = sktransfer.cache_info()
    assert info.misses == info.continued == len(X)


@pytest.mark.parametrize("n_jobs", rest_exhaustive([1, 2], 1))
def test_chains_and_one_classifier_per_label(rows, n_jobs):
    X, y = rows
    chain = ClassifierChain(on_rows(), random_state=0).fit(X, y)
    apart = MultiOutputClassifier(on_rows(), n_jobs=n_jobs).fit(X, y)
    together = on_rows().fit(X, y)
    for model in (chain, apart):
        assert model.predict(X).shape == y.shape
        assert (model.predict(X) == y).mean() > 0.7
    columns = np.column_stack([one[:, 1] for one in apart.predict_proba(X)])
    np.testing.assert_allclose(together.predict_proba(X), columns, atol=2e-3)


def test_pipelines_and_paths(rows, images, paths):
    X, y = rows
    assert (cross_val_predict(make_pipeline(StandardScaler(), on_rows()), X, y, cv=3) == y).mean() > 0.6
    assert (cross_val_predict(on_images(), paths, images[1], cv=3)[:, :2] == images[1][:, :2]).mean() > 0.8
    flat = images[0].reshape(24, -1)
    assert (on_images(image_shape=(20, 24, 3)).fit(flat, images[1]).predict(flat) == images[1]).mean() > 0.7


# Held-out samples of a person's own


def test_validation_samples_are_recorded_and_routed(rows):
    X, y = rows
    model = on_rows(freeze_depth=0).fit(X[:50], y[:50], X_val=X[50:], y_val=scipy.sparse.csr_array(y[50:]))
    assert model.history_[-1]["valid_accuracy"] == pytest.approx(model.score(X[50:], y[50:]))
    np.testing.assert_array_equal(on_rows(freeze_depth=0).fit(X[:50], y[:50]).predict_proba(X), model.predict_proba(X))
    with sklearn.config_context(enable_metadata_routing=True):
        routed = on_rows().set_fit_request(X_val=True, y_val=True)
        given = {"X_val": X[:9], "y_val": y[:9]}
        done = cross_validate(routed, X, y, cv=2, params=given, return_estimator=True, error_score="raise")
    assert all(len(one.history_) == 1 for one in done["estimator"])


@pytest.mark.parametrize(
    ("several", "y_val", "match"),
    [
        (True, lambda y: y[:, :2], "^Got y_val with 2 columns; expected 3 columns of 0 and 1, as y has"),
        (True, lambda y: y[:, 0], "^Got y_val with one label per sample; expected 3 columns"),
        (True, lambda y: 2 * y, r"^Got y_val of shape \(80, 3\) with y_val\[0, 0\] = 2; expected"),
        (True, lambda y: y[:5], r": 80 in X_val and 5 in y_val"),
        (False, lambda y: y, r"^Got y_val of shape \(80, 3\); y_val should be a 1d array"),
        (False, scipy.sparse.csr_array, "^Got y_val as a sparse matrix; expected one label per sample"),
        (False, lambda y: np.full(80, 7), r"^Got 7 in y_val; expected only labels of y: \[0, 1\]"),
        (False, lambda y: ["a"] * 80, r"^Got 'a' in y_val; expected only labels of y"),
        (False, lambda y: [None] * 80, r"^Got y_val\[0\] = None; expected one label per sample"),
        (False, lambda y: [b"a"] * 80, r"^Got y_val\[0\] = b'a' of type bytes"),
        (False, lambda y: [0, "a"] * 40, r"^Got labels of mixed types: y_val\[0\] = 0 and y_val\[1\] = 'a'"),
        (False, lambda y: y[:5, 0], r": 80 in X_val and 5 in y_val"),
    ],
)
def test_wrong_validation_labels_get_a_sentence(rows, several, y_val, match):
    X, y = rows[0], rows[1].copy()
    y[0, 0] = 1
    model = on_rows()
    with pytest.raises(ValueError, match=match):
        model.fit(X, y if several else y[:, 0], X_val=X, y_val=y_val(y))
    assert not hasattr(model, "net_")


def test_validation_samples_of_one_label_per_sample(rows):
    X, y = rows
    names = np.array(["no", "yes"])[y[:, 0]]
    model = on_rows(freeze_depth=0).fit(X[:50], names[:50], X_val=X[50:], y_val=names[50:])
    assert model.history_[-1]["valid_accuracy"] == pytest.approx(model.score(X[50:], names[50:]))
    weighed = on_rows(freeze_depth=0, class_weight={"no": 1, "yes": 9}).fit(
        X[:50], names[:50], X_val=X[50:], y_val=names[50:]
    )
    loss = log_loss(names[50:], weighed.predict_proba(X[50:]))
    assert weighed.history_[-1]["valid_loss"] == pytest.approx(loss, rel=0.05)


# Bad labels


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (np.full((80, 2), 0.5), r"^Got y of shape \(80, 2\) with y\[0, 0\] = 0.5; .* use FineTunedRegressor\."),
        (np.linspace(0, 1, 80), "^Unknown label type: continuous.* use FineTunedRegressor"),
        (np.eye(80, dtype=int)[:, :3] * 2, r"with y\[0, 0\] = 2; expected labels: .* columns of 0 and 1"),
        (np.eye(80, dtype=int)[:, :3] * -1, r"with y\[0, 0\] = -1; expected labels"),
        (np.where(np.eye(80)[:, :3], np.nan, 0), r"with y\[0, 0\] = nan; expected labels"),
        (np.where(np.eye(80)[:, :3], np.inf, 0), r"with y\[0, 0\] = inf; expected labels"),
        (np.where(np.eye(80)[:, :3], None, 0), r"with y\[0, 0\] = None; expected labels"),
        (np.where(np.eye(80)[:, :3], "a", "b"), r"with y\[0, 0\] = 'a'; .*MultiLabelBinarizer"),
        ([["a", "b"], ["a"]] * 40, r"^Got y\[0\] = \['a', 'b'\] among labels that are lists.*MultiLabelBinarizer"),
        ([[0, 1]] * 79 + [[1]], r"^Got y\[0\] = \[0, 1\] among labels that are lists"),
        ([{"a"}] * 80, r"^Got y\[0\] = \{'a'\} of type set"),
        (np.zeros((80, 2, 2)), r"^Got y of shape \(80, 2, 2\); y should be"),
        (np.zeros((80, 0)), r"^Got y of shape \(80, 0\); y should be"),
        (scipy.sparse.csr_array((80, 0)), r"^Got y of shape \(80, 0\); expected columns of 0 and 1"),
        (scipy.sparse.csr_array(np.eye(80)[:, :3] * 2), r"with y\[0, 0\] = 2.0; expected labels"),
        (np.eye(80)[:, :3] * 1j, "^Complex data not supported: got y"),
        (np.ma.masked_array(np.eye(80)[:, :3], mask=np.eye(80)[:, :3]), "^Got y as a masked array in which 3 values"),
        (np.eye(80)[:, :3].astype(int).astype("M8[D]"), r"^Got y of type datetime64\[D\] with several columns"),
        (np.eye(79)[:, :3], r"inconsistent numbers of samples: 80 in X and 79 in y"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_wrong_labels_get_a_sentence(rows, y, match):
    model = on_rows()
    with pytest.raises(ValueError, match=match):
        model.fit(rows[0], y)
    assert not hasattr(model, "net_")


def test_another_number_of_columns_in_score_gets_a_sentence(rows):
    X, y = rows
    model = on_rows().fit(X, y)
    with pytest.raises(ValueError, match="different numbers of labels"):
        model.score(X, y[:, :2])
