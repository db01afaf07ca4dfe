"""What a user of the regressor may rely on."""

import copy
import json
import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from networks import rest_exhaustive, tiny_cnn, tiny_vectors
from scipy.sparse import csr_array
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.ensemble import BaggingRegressor, StackingRegressor, VotingRegressor
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_validate
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

import sktransfer
from sktransfer import FineTunedRegressor, PretrainedFeatureExtractor

LOSSES = ["squared_error", "absolute_error", "huber"]
STRATEGIES = ["linear_probe", "fine_tune", "lp_ft", "gradual"]


@pytest.fixture(scope="module")
def images(pictures):
    """Images of noise at several levels of light, and that level."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.linspace(10.0, 40.0, 24))
    X = rng.integers(0, 120, size=(24, 20, 24, 3)) * y[:, None, None, None] / 40
    return X.astype(np.uint8), y


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4)).astype(np.float32)
    return X, X @ [1.0, -2.0, 0.5, 0.0] + 0.1 * rng.normal(size=60) + 3


def tuned(parameters, **more):
    """Return what there is to say where blocks are tuned and nothing else was said."""
    is_frozen = parameters.get("freeze_depth", "all") == "all" or parameters.get("strategy") == "linear_probe"
    return {} if is_frozen else {name: value for name, value in more.items() if name not in parameters}


def on_images(**parameters):
    return FineTunedRegressor(tiny_cnn, random_state=0, **tuned(parameters, max_epochs=2), **parameters)


def on_rows(**parameters):
    return FineTunedRegressor(tiny_vectors, random_state=0, **tuned(parameters, max_epochs=3, lr=1e-3), **parameters)


def spread(y):
    return np.ptp(y, axis=0).max()


# Numbers come back as they were given


@pytest.mark.parametrize("loss", rest_exhaustive(LOSSES, "squared_error"))
@pytest.mark.parametrize("freeze_depth", ["all", 0])
@pytest.mark.parametrize("shape", [(60,), (60, 1), (60, 3)], ids=str)
def test_predictions_have_the_shape_and_units_of_y(rows, loss, freeze_depth, shape):
    X, y = rows
    y = y if shape == (60,) else np.stack([y, 1e3 * X[:, 0], -X[:, 1] - 7], axis=1)[:, : shape[1]]
    found = on_rows(loss=loss, freeze_depth=freeze_depth).fit(X, y).predict(X)
    assert found.shape == shape
    assert found.dtype == np.float64
    assert (abs(found - y).mean(axis=0) < 0.3 * y.std(axis=0)).all()


@pytest.mark.parametrize("loss", rest_exhaustive(LOSSES, "huber"))
@pytest.mark.parametrize("freeze_depth", ["all", 0])
@pytest.mark.parametrize(
    ("factor", "offset"), [(1.0, 1e6), (1e-9, 0.0), (1e-9, 1.0), (1e300, 0.0), (-1e-300, 0.0)], ids=str
)
def test_units_do_not_matter(rows, loss, freeze_depth, factor, offset):
    X, y = rows
    expected = on_rows(loss=loss, freeze_depth=freeze_depth).fit(X, y).predict(X)
    found = on_rows(loss=loss, freeze_depth=freeze_depth).fit(X, factor * y + offset).predict(X)
    # Of 1e-9 beside 1, float64 keeps seven digits.
    np.testing.assert_allclose((found - offset) / factor, expected, atol=5e-3)


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(lambda y: y.tolist(), id="list"),
        pytest.param(pd.Series, id="series"),
        pytest.param(lambda y: pd.Series(y, dtype="Float64"), id="nullable series"),
        pytest.param(torch.tensor, id="tensor"),
        pytest.param(lambda y: y.astype(object), id="objects"),
        pytest.param(np.ma.masked_array, id="masked array without a mask"),
        pytest.param(lambda y: [np.float32(value) for value in y], id="NumPy's numbers"),
    ],
)
def test_y_may_come_in_any_form(rows, form):
    X, y = rows
    found = on_rows().fit(X, form(y)).predict(X)
    assert found.shape == y.shape
    np.testing.assert_allclose(found, on_rows().fit(X, y).predict(X), atol=1e-5)


def test_a_table_of_numbers_is_several_outputs(rows):
    X, y = rows
    table = pd.DataFrame({"price": y, "size": X[:, 0]})
    np.testing.assert_allclose(
        on_rows().fit(X, table).predict(X), on_rows().fit(X, table.to_numpy()).predict(X), atol=1e-6
    )


# The head is solved


@pytest.mark.parametrize("strategy", ["linear_probe", "lp_ft"])
@pytest.mark.parametrize("kind", ["images", "rows"])
def test_a_frozen_backbone_gives_ridge_regression_on_its_features(request, kind, strategy):
    X, y = request.getfixturevalue(kind)
    model = (on_images if kind == "images" else on_rows)(strategy=strategy, head_C=5.0).fit(X, y)
    features = model.transform(X)
    backbone = tiny_cnn if kind == "images" else tiny_vectors
    own = PretrainedFeatureExtractor(backbone, layer="stages", random_state=0).fit_transform(X)
    np.testing.assert_array_equal(features, own)
    with torch.no_grad():
        scaled = model.net_.module_.head[0](torch.from_numpy(features)).double().numpy()
    assert (scaled**2).sum(axis=1).mean() == pytest.approx(1, rel=1e-4)
    expected = Ridge(alpha=1 / 5.0, solver="svd").fit(scaled, y).predict(scaled)
    np.testing.assert_allclose(model.predict(X), expected, atol=1e-4 * spread(y))
    assert (model.head_C_, model.history_, model.n_iter_) == (5.0, [], 1)


def test_each_output_has_a_penalty(rows):
    X, y = rows
    Y = np.stack([y, np.random.default_rng(3).normal(size=60)], axis=1)
    model = on_rows().fit(X, Y)
    assert model.head_C_.shape == (2,)
    assert model.head_C_[0] > model.head_C_[1]
    assert model.head_C_path_["squared_error"].shape == (len(model.head_C_path_["C"]), 2)
    alone = on_rows().fit(X, y)
    assert isinstance(alone.head_C_, float)
    assert alone.head_C_path_["squared_error"].shape == alone.head_C_path_["C"].shape


def test_an_outlier_pulls_a_robust_loss_less(rows):
    X, y = rows
    moved = y.copy()
    moved[5] += 300
    clean = np.arange(60) != 5
    off = {loss: abs(on_rows(loss=loss, head_C=10.0).fit(X, moved).predict(X) - y)[clean].mean() for loss in LOSSES}
    assert off["absolute_error"] < 0.5 * off["squared_error"]
    assert off["huber"] < 0.8 * off["squared_error"]


def test_constant_numbers_are_predicted_with_a_warning(rows):
    X, _ = rows
    for y in (np.full(60, 3.5), np.full((60, 2), -1e9), np.zeros(60)):
        for parameters in ({}, {"freeze_depth": 0}):
            with pytest.warns(
                UserWarning, match="^Got y that is .* for all samples: every prediction will be the same"
            ):
                found = on_rows(**parameters).fit(X, y).predict(X)
            np.testing.assert_allclose(found, y, rtol=0.1 if parameters else 1e-6, atol=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = on_rows().fit(X, np.stack([X[:, 0], np.full(60, 3.5)], axis=1)).predict(X)
    np.testing.assert_allclose(found[:, 1], 3.5)


# Weights


def test_a_weight_is_how_often_a_sample_is_there(rows):
    X, y = rows
    times = np.arange(60) % 3
    for loss in LOSSES:
        weighed = on_rows(loss=loss).fit(X, y, sample_weight=times).predict(X)
        repeated = on_rows(loss=loss).fit(X.repeat(times, axis=0), y.repeat(times)).predict(X)
        np.testing.assert_allclose(weighed, repeated, atol=2e-3 * spread(y))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("parameters", [{}, {"freeze_depth": 0, "strategy": "fine_tune", "lr": 0.01, "max_epochs": 20}])
def test_weights_are_honoured_solved_and_tuned(rows, parameters, loss):
    X, _ = rows
    y = np.where(np.arange(60) % 2 == 0, 1.0, -1.0) + 0.1 * X[:, 0]  # which nothing in X tells apart
    weights = np.where(np.arange(60) % 2 == 0, 20.0, 1.0)
    model = on_rows(loss=loss, head_lr=0.01, **parameters)
    up, down = model.fit(X, y, weights).predict(X).mean(), model.fit(X, y, 21 - weights).predict(X).mean()
    assert up > 0.5
    assert down < -0.5


@pytest.mark.parametrize("parameters", [{}, {"freeze_depth": 0, "optimizer": "sgd"}])
def test_samples_without_weight_and_the_scale_of_weights_do_not_matter(rows, parameters):
    X, y = rows
    weights = np.linspace(0, 2, 60)
    wrong = np.where(weights > 0, y, 1e5)
    expected = on_rows(**parameters).fit(X, y, weights).predict(X)
    np.testing.assert_allclose(on_rows(**parameters).fit(X, wrong, weights).predict(X), expected, atol=1e-3)
    np.testing.assert_allclose(on_rows(**parameters).fit(X, y, weights * 1e9).predict(X), expected, atol=1e-3)


def test_weights_are_seen_by_score(rows):
    X, y = rows
    model = on_rows().fit(X, y)
    weights = np.linspace(0, 3, 60)
    assert model.score(X, y, weights) == pytest.approx(
        sklearn.metrics.r2_score(y, model.predict(X), sample_weight=weights)
    )


# Tuning


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("freeze_depth", rest_exhaustive([0, 2, "all"], 2))
def test_frozen_parameters_and_buffers_stay_bit_identical(images, strategy, freeze_depth):
    X, y = images
    torch.manual_seed(0)
    network = tiny_cnn()
    loaded = copy.deepcopy(network.state_dict())
    model = FineTunedRegressor(
        network, freeze_depth=freeze_depth, strategy=strategy, max_epochs=2, train_bn=True, lr=0.01
    ).fit(X, y)
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in model.backbone_.network.state_dict().items())
    tail = model.net_.module_.tail
    if strategy == "linear_probe" or freeze_depth == "all":
        assert tail is None
    else:
        assert not model.backbone_.frozen_names(freeze_depth) & set(tail.state_dict())
        assert any(not torch.equal(tensor, loaded[name]) for name, tensor in tail.state_dict().items())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("strategy", rest_exhaustive(STRATEGIES[1:], "lp_ft"))
def test_each_strategy_and_loss_learns_what_no_linear_head_can(loss, strategy):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4)).astype(np.float32)
    y = 100 + 50 * abs(X[:, 0] * X[:, 1])
    how = {"loss": loss, "layer": None, "lr": 0.02, "head_lr": 0.02, "max_epochs": 30}
    head = on_rows(layer=None, loss=loss).fit(X, y)
    model = on_rows(freeze_depth=0, strategy=strategy, **how).fit(X, y)
    error = {name: abs(one.predict(X) - y).mean() for name, one in (("head", head), ("tuned", model))}
    assert error["tuned"] < 0.8 * error["head"]
    losses = [entry["train_loss"] for entry in model.history_ if entry["phase"] == "fine_tune"]
    assert len(losses) == 30
    assert losses[-1] < losses[0]


def test_lp_ft_starts_from_the_solved_head(images):
    X, y = images
    solved = on_images(strategy="linear_probe").fit(X, y)
    barely = on_images(freeze_depth=2, lr=1e-12, head_lr=1e-12, weight_decay=0.0).fit(X, y)
    np.testing.assert_allclose(barely.predict(X), solved.predict(X), atol=1e-4 * spread(y))


@pytest.mark.parametrize("loss", LOSSES)
def test_hidden_layers_are_trained_in_epochs(rows, loss):
    X, y = rows
    model = on_rows(hidden_layer_sizes=(16, 8), head_lr=0.02, loss=loss).fit(X, np.stack([y, X[:, 0]], axis=1))
    assert len(model.history_) == 30
    assert model.head_C_ is None
    assert model.score(X, np.stack([y, X[:, 0]], axis=1)) > 0.8


def test_early_stopping_holds_out_a_part_spread_over_the_numbers(rows):
    X, y = rows
    seen = []

    class Watch(Callback):
        def on_train_begin(self, net, X=None, y=None, **kwargs):
            seen.append((X.y.ravel(), net.train_split(X)[1].y.ravel()))

    model = on_rows(freeze_depth=0, early_stopping=True, validation_fraction=0.2, callbacks=[Watch()])
    for state in range(5):
        model.set_params(random_state=state).fit(X, y)
        training, held_out = seen.pop()
        assert (len(training), len(held_out)) == (48, 12)
        assert not set(training) & set(held_out)
        tenths = np.quantile((y - y.mean()) / y.std(), np.linspace(0, 1, 11)[1:-1])
        assert len(set(np.searchsorted(tenths, held_out))) == 10
    assert all(np.isfinite([entry["valid_loss"], entry["valid_r2"]]).all() for entry in model.history_)
    assert [(entry["phase"], entry["epoch"]) for entry in model.history_][:2] == [("head", 0), ("fine_tune", 1)]


def test_early_stopping_ends_training_and_restores_the_best_epoch(rows):
    X, noise = rows[0], np.random.default_rng(1).normal(size=60)
    how = {"freeze_depth": 0, "lr": 0.03, "head_lr": 0.03, "max_epochs": 60, "early_stopping": True}
    model = on_rows(**how, validation_fraction=0.3, n_iter_no_change=3).fit(X, noise)
    losses = [entry["valid_loss"] for entry in model.history_ if entry["phase"] == "fine_tune"]
    assert 3 < len(losses) < 60
    watched = on_rows(**how, validation_fraction=0.3, n_iter_no_change=3).fit(X, noise, X_val=X[:20], y_val=noise[:20])
    best = min(entry["valid_loss"] for entry in watched.history_ if entry["phase"] == "fine_tune")
    off = (watched.predict(X[:20]) - noise[:20]) / noise.std()
    assert (off**2).mean() == pytest.approx(best, rel=1e-3)


def test_one_held_out_sample_has_a_loss_but_no_r2(rows):
    X, y = rows
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = on_rows(freeze_depth=0, early_stopping=True, max_epochs=1).fit(X[:5], y[:5])
    assert all("valid_loss" in entry and "valid_r2" not in entry for entry in model.history_)


def test_losses_in_the_history_are_means_over_outputs(rows):
    X, y = rows
    Y = np.stack([y, X[:, 0] ** 2, X[:, 1]], axis=1)
    how = {"freeze_depth": 0, "lr": 1e-12, "head_lr": 1e-12, "weight_decay": 0.0, "max_epochs": 1}
    for parameters in ({"early_stopping": True, "validation_fraction": 0.3}, {}):
        given = {} if parameters else {"X_val": X[:20], "y_val": Y[:20]}
        model = on_rows(**how, **parameters).fit(X, Y, np.linspace(0, 1, 60), **given)
        solved, tuned = model.history_
        assert solved["valid_loss"] == pytest.approx(tuned["valid_loss"], rel=1e-4)
        assert solved["valid_r2"] == pytest.approx(tuned["valid_r2"], rel=1e-4)
    differences = (model.predict(X[:20]) - Y[:20]) / model._target_scale
    assert tuned["valid_loss"] == pytest.approx((differences**2).mean(), rel=1e-4)


@pytest.mark.parametrize("loss", rest_exhaustive(LOSSES, "absolute_error"))
def test_interpolation_by_number_and_by_held_out_samples(rows, loss):
    X, y = rows
    how = {"freeze_depth": 0, "lr": 0.01, "loss": loss, "max_epochs": 2}
    start = on_rows(strategy="linear_probe", loss=loss).fit(X, y).predict(X)
    end = on_rows(**how).fit(X, y)
    np.testing.assert_allclose(on_rows(**how, interpolation=0).fit(X, y).predict(X), start, atol=2e-3 * spread(y))
    half = on_rows(**how, interpolation=0.5).fit(X, y)
    assert half.interpolation_ == 0.5
    halved = half.predict(X)
    np.testing.assert_array_equal(half.set_params().predict(X), halved)
    half.interpolation_ = 1.0
    np.testing.assert_allclose(half.predict(X), end.predict(X), atol=1e-5 * spread(y))
    half.interpolation_ = 0.5
    np.testing.assert_allclose(half.predict(X), halved, atol=1e-5 * spread(y))
    # Where tuning only learns noise, it is better not to go all the way.
    noise = np.random.default_rng(1).normal(size=60)
    learned_by_heart = {"freeze_depth": 0, "layer": None, "lr": 0.01, "max_epochs": 20}
    chosen = on_rows(**learned_by_heart, interpolation="auto").fit(X, noise)
    assert 0 <= chosen.interpolation_ < 0.5


def test_warm_start_goes_on_in_the_units_of_the_first_fit(rows):
    X, y = rows
    model = on_rows(warm_start=True, freeze_depth=0).fit(X, y)
    units = model._target_mean.copy(), model._target_scale.copy()
    before = model.predict(X)
    model.set_params(lr=1e-12, head_lr=1e-12, weight_decay=0.0).fit(X[:30], y[:30] * 5 + 100)
    np.testing.assert_array_equal((model._target_mean, model._target_scale), units)
    np.testing.assert_allclose(model.predict(X), before, atol=1e-5 * spread(y))
    with pytest.raises(ValueError, match=r"^Got warm_start=True, but other .*; expected the same\."):
        model.fit(X, np.stack([y, y], axis=1))
    np.testing.assert_allclose(model.predict(X), before, atol=1e-5 * spread(y))


@pytest.mark.parametrize("freeze_depth", ["all", 2])
def test_augmented_views_pass_the_frozen_part_once(images, freeze_depth):
    X, y = images
    sktransfer.clear_cache()
    how = {"augment": "light", "augment_views": 3, "freeze_depth": freeze_depth}
    model = on_images(**how).fit(X, y)
    first = sktransfer.cache_info().misses
    again = on_images(**how).fit(X, y)
    assert sktransfer.cache_info().misses <= first + 1  # one sample is looked at to see what the layers give
    np.testing.assert_allclose(again.predict(X), model.predict(X), atol=1e-3 * spread(y))
    assert model.score(X, y) > 0.5
    if freeze_depth == "all":
        assert len(model.head_C_path_["C"])  # solved on all views


# Held-out samples of a person's own


def test_validation_samples_are_recorded_without_early_stopping(rows):
    X, y = rows
    model = on_rows(freeze_depth=0).fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
    assert len(model.history_) == 4
    assert all({"valid_loss", "valid_r2"} <= set(entry) for entry in model.history_)
    assert model.history_[-1]["valid_r2"] == pytest.approx(model.score(X[40:], y[40:]), abs=1e-4)
    plain = on_rows(freeze_depth=0).fit(X[:40], y[:40])
    np.testing.assert_array_equal(plain.predict(X), model.predict(X))
    solved = on_rows().fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
    (entry,) = solved.history_
    assert entry["valid_r2"] == pytest.approx(solved.score(X[40:], y[40:]), abs=1e-6)


def test_validation_samples_take_the_place_of_a_held_out_part(rows):
    X, y = rows
    seen = []

    class Watch(Callback):
        def on_train_begin(self, net, X=None, y=None, **kwargs):
            seen.append((len(X), len(net.train_split(X)[1])))

    how = {"freeze_depth": 0, "early_stopping": True, "callbacks": [Watch()]}
    on_rows(**how).fit(X[:40], y[:40], X_val=X[40:], y_val=y[40:])
    assert seen == [(40, 20)]
    # Samples that are what tuning has learned by heart ask for all of it, and others for less.
    noise = np.random.default_rng(1).normal(size=60)
    how = {"freeze_depth": 0, "interpolation": "auto", "lr": 0.05, "max_epochs": 20, "layer": None}
    known = on_rows(**how).fit(X[:40], noise[:40], X_val=X[:40], y_val=noise[:40]).interpolation_
    unknown = on_rows(**how).fit(X[:40], noise[:40], X_val=X[40:], y_val=noise[40:]).interpolation_
    assert known > unknown


def test_validation_samples_are_routed(rows):
    X, y = rows
    with sklearn.config_context(enable_metadata_routing=True, transform_output="default"):
        model = on_rows(freeze_depth=0).set_fit_request(X_val=True, y_val=True)
        given = {"X_val": X[:7] + 1, "y_val": y[:7]}
        done = cross_validate(model, X, y, cv=2, params=given, return_estimator=True, error_score="raise")
        models = done["estimator"]
        search = GridSearchCV(model, {"lr": [1e-3]}, cv=2, error_score="raise").fit(X, y, **given)
        models.append(search.best_estimator_)
        pipeline = make_pipeline(StandardScaler(), model, transform_input=["X_val"]).fit(X, y, **given)
        models.append(pipeline[-1])
    assert all("valid_r2" in entry for one in models for entry in one.history_)
    # What the pipeline looked at went through its scaler.
    expected = pipeline.score(given["X_val"], given["y_val"])
    assert pipeline[-1].history_[-1]["valid_r2"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (lambda X, y: {"X_val": X}, r"^Got X_val without y_val; expected both, or neither"),
        (lambda X, y: {"y_val": y}, r"^Got y_val without X_val; expected both, or neither"),
        (lambda X, y: {"X_val": X, "y_val": y[:5]}, r": 60 in X_val and 5 in y_val"),
        (lambda X, y: {"X_val": X, "y_val": np.stack([y, y], 1)}, "^Got y_val with 2 columns; expected 1, as y has"),
        (lambda X, y: {"X_val": X, "y_val": y * np.nan}, r"^Input y_val contains NaN: got y_val\[0\] = nan"),
        (lambda X, y: {"X_val": X, "y_val": ["a"] * 60}, r"^Got y_val\[0\] = 'a'.*FineTunedClassifier"),
        (lambda X, y: {"X_val": X[:, :3], "y_val": y}, "^Got X_val that cannot be read as X is: X has 3 features"),
        (lambda X, y: {"X_val": np.zeros((60, 8, 8, 3)), "y_val": y}, "^Got X_val that cannot be read as X is"),
        (lambda X, y: {"X_val": X[:0], "y_val": y[:0]}, "^Got X_val that cannot be read as X is.*0 sample"),
    ],
)
def test_wrong_validation_samples_get_a_sentence(rows, given, match):
    X, y = rows
    model = on_rows()
    with pytest.raises(ValueError, match=match):
        model.fit(X, y, **given(X, y))
    assert not hasattr(model, "net_")


def test_validation_samples_of_another_kind_get_a_sentence(images, rows, paths):
    X, y = images
    with pytest.raises(ValueError, match=r"^Got X_val that .*\."):
        on_images().fit(X, y, X_val=rows[0][:24], y_val=y)
    model = on_images().fit(X, y, X_val=paths, y_val=y)  # images too
    assert model.history_


# Bad numbers


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (["a", "b"] * 30, r"^Got y\[0\] = 'a' of type str; expected one number .* use FineTunedClassifier\."),
        (np.array(["1", "2"] * 30), r"^Got y\[0\] = '1' of type str.* use FineTunedClassifier\."),
        (np.where(np.arange(60) == 3, np.nan, 1.0), r"^Input y contains NaN: got y\[3\] = nan; expected a finite"),
        (
            np.where(np.arange(60) > 50, np.inf, 1.0),
            r"^Input y contains infinity: got y\[51\].*\(9 are NaN or infinite",
        ),
        (np.where(np.eye(60)[:, :2], np.nan, 1.0), r"got y\[0, 0\] = nan"),
        (np.array([[1.0, 2.0]] * 59 + [[1.0, None]], dtype=object), r"^Input y contains NaN: got y\[59, 1\] = None"),
        (np.array([[1.0, 2.0]] * 59 + [[1.0, "x"]], dtype=object), r"^Got y\[59, 1\] = 'x' of type str"),
        (np.ma.masked_array(np.arange(60.0), mask=np.arange(60) < 2), "^Got y as a masked array in which 2 values"),
        ([[1, 2]] * 59 + [[1]], "^Got y whose rows are of different lengths; expected one number"),
        (np.zeros((60, 2, 2)), r"^Got y of shape \(60, 2, 2\); expected one number"),
        (np.zeros((60, 0)), r"^Got y of shape \(60, 0\); expected one number"),
        (np.float64(3), "^Got y .*expected one number"),
        (np.arange(60) + 1j, "^Complex data not supported: got y of type complex128"),
        (np.array([1j] + [1.0] * 59, dtype=object), r"^Got y\[0\] = 1j of type complex; expected"),
        (csr_array(np.ones((60, 1))), r"^Got y as a sparse matrix; expected .* Give y\.toarray\(\)"),
        (np.arange(60).astype("M8[ns]"), r"^Got y of type datetime64\[ns\]; expected .* Give times as numbers"),
        (np.arange(60).astype("m8[s]"), r"^Got y of type timedelta64\[s\]; expected"),
        ([10**400] + [1] * 59, "^Input y contains a number that float64 cannot hold; .* larger unit"),
        ({"a": 1}, "^Got y of type dict; expected one number"),
        (None, "requires y to be passed"),
        (np.zeros(59), r"inconsistent numbers of samples: 60 in X and 59 in y"),
        (np.zeros(dtype=[("a", "f4")], shape=60), r"^Got y of type 'void32' with the fields \['a'\].* Give y\['a'\]"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_wrong_numbers_get_a_sentence(rows, y, match):
    model = on_rows()
    with pytest.raises(ValueError, match=match):
        model.fit(rows[0], y)
    assert not hasattr(model, "net_")


def test_one_row_and_another_number_of_columns_get_a_sentence(rows):
    X, y = rows
    with pytest.raises(ValueError, match=r"^Got y with 1 sample; expected at least two samples"):
        on_rows().fit(X[:1], y[:1])
    model = on_rows().fit(X, y)
    with pytest.raises(ValueError, match="different number of output"):
        model.score(X, np.stack([y, y], axis=1))


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("parameters", [{}, {"freeze_depth": 0}, {"freeze_depth": 0, "interpolation": "auto"}])
def test_two_samples_are_enough(rows, parameters, n_outputs):
    X, y = rows[0][:2], np.array([[1.0, 5.0], [2.0, -5.0]])[:, :n_outputs]
    assert on_rows(**parameters).fit(X, y).predict(X).shape == y.shape


# Kept


@pytest.mark.parametrize("n_outputs", [0, 2])
@pytest.mark.parametrize("freeze_depth", ["all", 2])
def test_kept_models_predict_the_same(images, tmp_path, n_outputs, freeze_depth):
    X, y = images
    y = np.stack([y, y**2], axis=1) if n_outputs else y
    model = on_images(freeze_depth=freeze_depth).fit(X, y, X_val=X, y_val=y)
    expected = model.predict(X)
    sktransfer.save(model, tmp_path / "model.safetensors")
    joblib.dump(model, tmp_path / "model.joblib")
    others = [
        sktransfer.load(tmp_path / "model.safetensors", backbone=tiny_cnn),
        joblib.load(tmp_path / "model.joblib"),
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
    ]
    for other in others:
        np.testing.assert_array_equal(other.predict(X), expected)
        assert other.history_ == model.history_
        np.testing.assert_array_equal(other.head_C_, model.head_C_)
        assert set(vars(other)) == set(vars(model))
        assert type(other.net_) is type(model.net_)
        other.fit(X, y)


def test_a_pipeline_is_kept(images, tmp_path):
    pytest.importorskip("skops.io", reason="needs the extra skops")
    X, y = images
    flat = X.reshape(len(X), -1)
    own = FineTunedRegressor("squeezenet1_1", weights=None, random_state=0, image_shape=(20, 24, 3))
    model = TransformedTargetRegressor(make_pipeline("passthrough", own), transformer=StandardScaler()).fit(flat, y)
    sktransfer.save(model, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(sktransfer.load(tmp_path / "model.safetensors").predict(flat), model.predict(flat))


@pytest.mark.parametrize(("freeze_depth", "factor", "offset"), [("all", 1.0, 1e6), (0, 1e-9, 1e-3)], ids=str)
def test_another_runtime_predicts_the_same(rows, tmp_path, freeze_depth, factor, offset):
    pytest.importorskip("onnx", reason="needs onnx, which writes the files")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs onnxruntime, which runs them")
    X, y = rows
    Y = np.stack([y, 5 * X[:, 0]], axis=1) * factor + offset
    model = on_rows(freeze_depth=freeze_depth, precision="float32").fit(X, Y)
    model.to_onnx(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert [one.name for one in session.get_outputs()] == ["predictions"]
    for n in (1, 7):
        (found,) = session.run(None, {"prepared": X[:n]})
        np.testing.assert_allclose(found, model.predict(X[:n]), rtol=0, atol=1e-4 * np.ptp(Y, axis=0).min())
    said = json.loads((tmp_path / "model.onnx.json").read_text())
    assert said["output"] == {"name": "predictions", "type": "float64", "shape": ["batch", 2]}
    assert "classes" not in said


def test_summary_and_html_show_what_is_trained(images):
    model = on_images(freeze_depth=2).fit(*images)
    summary = model.backbone_.summary()
    assert [row.state for row in summary.rows] == ["frozen", "frozen", "trained", "trained"]
    assert "FineTunedRegressor" in model._repr_html_()
    assert "FineTunedRegressor" in repr(model)


# In scikit-learn's tools


@pytest.mark.parametrize("scoring", rest_exhaustive(["r2", "neg_mean_absolute_error"], "r2"))
@pytest.mark.parametrize("n_jobs", rest_exhaustive([1, 2], 1))
def test_each_sample_passes_the_frozen_part_once_in_a_search(images, scoring, n_jobs):
    X, y = images
    sktransfer.clear_cache()
    grid = {"freeze_depth": [1, 2], "lr": [1e-4, 1e-3]}
    search = GridSearchCV(on_images(), grid, cv=3, scoring=scoring, n_jobs=n_jobs, error_score="raise").fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    if n_jobs == 1:
        info = sktransfer.cache_info()
        assert info.misses == len(X)
        assert info.continued == len(X)


@pytest.fixture(params=["images", "flat rows", "paths", "path column", "vectors"])
def searched(request, images, paths, rows, tmp_path):
    """X, y, and what makes an estimator of it."""
    if request.param == "vectors":
        return *rows, on_rows
    X, y = images
    if request.param == "images":
        return X, y, on_images
    if request.param == "flat rows":
        return X.reshape(len(X), -1), y, lambda **more: on_images(image_shape=(20, 24, 3), **more)
    # Of the two classes of these files, one is redder.
    y = np.where(np.arange(24) % 2, 10.0, 20.0) + np.linspace(0, 1, 24)
    return (paths if request.param == "paths" else paths[:, None]), y, on_images


def test_cross_validation_and_meta_estimators(searched):
    X, y, make = searched
    predicted = cross_val_predict(make(), X, y, cv=3)
    assert np.corrcoef(predicted, y)[0, 1] > 0.5
    logarithm = TransformedTargetRegressor(make(), func=np.arcsinh, inverse_func=np.sinh)
    vote = VotingRegressor([("a", make()), ("b", make(loss="huber"))])
    stack = StackingRegressor([("a", make())], final_estimator=Ridge(), cv=2)
    for model in (logarithm, vote, stack):
        if np.ndim(X) > 2 and model is vote:
            continue  # images go through these tools as rows or as paths
        assert model.fit(X, y).score(X, y) > 0.4, model
    if np.ndim(X) == 2:
        assert BaggingRegressor(make(), n_estimators=2, random_state=0).fit(X, y).score(X, y) > 0.3
        several = MultiOutputRegressor(make()).fit(X, np.stack([y, -2 * y], axis=1))
        np.testing.assert_allclose(several.predict(X)[:, 1], -2 * several.predict(X)[:, 0], atol=1e-2 * spread(y))


def test_a_path_column_beside_numbers(paths):
    table = pd.DataFrame({"photo": paths, "size": np.linspace(0, 1, 24)})
    y = np.where(np.arange(24) % 2, 10.0, 20.0) + 5 * table["size"]
    columns = make_column_transformer((on_images(), ["photo"]), ("passthrough", ["size"]))
    model = make_pipeline(columns, StandardScaler(), Ridge()).fit(table, y)
    assert model.score(table, y) > 0.8


def test_weights_are_routed(rows):
    X, y = rows
    y = np.where(np.arange(60) % 2 == 0, 1.0, -1.0) + 0.01 * X[:, 0]
    weights = np.where(np.arange(60) % 2 == 0, 50.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=True):
        model = on_rows().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        done = cross_validate(model, X, y, cv=3, params={"sample_weight": weights}, return_estimator=True)
    assert all(one.predict(X).mean() > 0.5 for one in done["estimator"])
