"""The estimators inside scikit-learn's own tools: searches, folds, meta-estimators, pipelines, tables."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from networks import rest_exhaustive, tiny_cnn, tiny_vectors
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import BaggingClassifier, StackingClassifier, VotingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingRandomSearchCV,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
)
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from skorch.callbacks import Callback

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, cache_info, clear_cache, load, save


def wider_cnn():
    return tiny_cnn(width=12)


def extractor(**parameters):
    return PretrainedFeatureExtractor(tiny_cnn, random_state=0, **parameters)


def classifier(**parameters):
    return FineTunedClassifier(tiny_cnn, random_state=0, **{"max_epochs": 1, **parameters})


@pytest.fixture(params=["flat rows", "paths"])
def searched(request, pictures, paths):
    X, y = pictures
    if request.param == "paths":
        return paths, y, {}
    return X.reshape(len(X), -1), y, {"image_shape": (20, 24, 3)}


# Searches and folds


def test_a_depth_counted_from_the_end_is_the_same_candidate_and_computes_nothing_anew(pictures):
    X, y = pictures
    grid = {"freeze_depth": [3, -1, 2, -2, 0, -4]}
    search = GridSearchCV(classifier(strategy="fine_tune"), grid, cv=2, error_score="raise").fit(X, y)
    scores = search.cv_results_["mean_test_score"]
    np.testing.assert_array_equal(scores[::2], scores[1::2])
    for deep, from_the_end in ((3, -1), (2, -2)):
        clear_cache()
        one = classifier(freeze_depth=deep).fit(X, y)
        misses = cache_info().misses
        other = classifier(freeze_depth=from_the_end).fit(X, y)
        assert cache_info().misses == misses, "what was kept for one depth is found for the other"
        np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
        assert one.backbone_.summary() == other.backbone_.summary()


def test_a_depth_from_the_end_counts_the_blocks_that_the_layer_leaves(pictures, tmp_path):
    X, y = pictures
    one = classifier(layer="5", freeze_depth=-1).fit(X, y)
    other = classifier(layer="5", freeze_depth=2).fit(X, y)
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    save(one, tmp_path / "model")
    for again in (pickle.loads(pickle.dumps(one)), load(tmp_path / "model", backbone=tiny_cnn)):
        np.testing.assert_array_equal(again.predict_proba(X), one.predict_proba(X))
        assert again.get_params()["freeze_depth"] == -1


@pytest.mark.parametrize("n_jobs", rest_exhaustive([1, 2], 2))
def test_grid_search_over_depth_rate_backbone_and_head(searched, n_jobs):
    X, y, parameters = searched
    grid = {
        "freeze_depth": ["all", 0.75, 3],
        "lr": [1e-4, 1e-3],
        "backbone": [tiny_cnn, wider_cnn],
    }
    if n_jobs == 2:
        grid = {"freeze_depth": ["all", 2], "lr": [1e-3]}
    search = GridSearchCV(classifier(**parameters, head_epochs=2), grid, cv=3, n_jobs=n_jobs, error_score="raise").fit(
        X, y
    )
    scores = search.cv_results_["mean_test_score"]
    assert np.isfinite(scores).all()
    assert search.best_estimator_.predict(X[:3]).shape == (3,)


def test_n_jobs_does_not_change_a_search(pictures):
    X, y = pictures
    grid = {"freeze_depth": ["all", 2]}
    one, two = (GridSearchCV(classifier(), grid, cv=3, n_jobs=n_jobs).fit(X, y) for n_jobs in (1, 2))
    np.testing.assert_allclose(one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"])


def test_halving_random_search(searched):
    X, y, parameters = searched
    space = {"freeze_depth": ["all", 3, 2], "lr": [1e-5, 1e-4, 1e-3], "hidden_layer_sizes": [(), (4,)]}
    search = HalvingRandomSearchCV(
        classifier(**parameters), space, n_candidates=4, min_resources=12, cv=2, random_state=0, error_score="raise"
    ).fit(X, y)
    assert search.best_params_["freeze_depth"] in space["freeze_depth"]


def test_cross_validation_helpers(searched):
    X, y, parameters = searched
    estimator = classifier(**parameters)
    assert cross_val_score(estimator, X, y, cv=3).mean() > 0.9
    predicted = cross_val_predict(estimator, X, y, cv=3, method="predict_proba")
    assert predicted.shape == (len(X), 2)
    sizes, _, scores = learning_curve(estimator, X, y, train_sizes=[0.5, 1.0], cv=2)
    assert scores.shape == (2, 2)
    assert len(sizes) == 2
    assert np.isfinite(cross_validate(estimator, X, y, cv=2, n_jobs=2, scoring="roc_auc")["test_score"]).all()


def test_extractor_and_baselines_side_by_side_in_one_search(pictures):
    X, y = pictures
    flat = X.reshape(len(X), -1)
    features = extractor(image_shape=(20, 24, 3))
    pipeline = Pipeline([("features", features), ("scale", StandardScaler()), ("classify", LogisticRegression())])
    grid = {"features": [features, PCA(4), "passthrough"], "classify__C": [0.1, 1.0]}
    search = GridSearchCV(pipeline, grid, cv=3, error_score="raise").fit(flat, y)
    assert len(search.cv_results_["params"]) == 6


def test_layer_and_pooling_can_be_searched(pictures):
    X, y = pictures
    pipeline = Pipeline([("features", extractor()), ("classify", LogisticRegression(max_iter=1000))])
    grid = {"features__layer": [None, 2, [1, 3]], "features__pooling": ["avg", "max"]}
    assert np.isfinite(GridSearchCV(pipeline, grid, cv=2).fit(X, y).cv_results_["mean_test_score"]).all()


# Meta-estimators


@pytest.mark.parametrize(
    "wrap",
    [
        lambda e: CalibratedClassifierCV(e, cv=2),
        lambda e: CalibratedClassifierCV(e, cv=2, ensemble=False, method="isotonic"),
        lambda e: StackingClassifier([("deep", e)], final_estimator=LogisticRegression(), cv=2),
        lambda e: VotingClassifier([("one", e), ("two", e)], voting="soft"),
        lambda e: OneVsRestClassifier(e),
        lambda e: TunedThresholdClassifierCV(e, cv=2),
    ],
    ids=["calibrated", "calibrated as one", "stacking", "voting", "one versus rest", "tuned threshold"],
)
def test_meta_estimator(searched, wrap):
    X, y, parameters = searched
    assert wrap(classifier(**parameters)).fit(X, y).score(X, y) > 0.8


def test_bagging_on_flat_rows_and_on_a_path_column(searched):
    X, y, parameters = searched
    X = X if X.ndim == 2 else X[:, None]
    assert BaggingClassifier(classifier(**parameters), n_estimators=2, random_state=0).fit(X, y).score(X, y) > 0.8


def test_stacking_with_a_classical_model_on_flat_rows(pictures):
    X, y = pictures
    X = X.reshape(len(X), -1)
    members = [("deep", classifier(image_shape=(20, 24, 3))), ("plain", make_pipeline(PCA(3), LogisticRegression()))]
    assert StackingClassifier(members, cv=2).fit(X, y).score(X, y) > 0.8


def test_sample_weight_is_routed(pictures):
    X, y = pictures
    seen = []

    class Watch(Callback):
        def on_batch_end(self, net, batch=None, training=False, **kwargs):
            seen.append(batch[1].weights.numpy().copy())

    weights = np.linspace(1, 5, len(X))
    with sklearn.config_context(enable_metadata_routing=True):
        estimator = FineTunedClassifier(tiny_cnn, head_epochs=1, callbacks=[Watch()])
        estimator.set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
        cross_validate(estimator, X, y, params={"sample_weight": weights}, cv=2, error_score="raise")
        GridSearchCV(estimator, {"head_lr": [1e-3]}, cv=2).fit(X, y, sample_weight=weights)
    assert seen
    assert all(batch.std() > 0.1 for batch in seen)


# Tables


@pytest.fixture
def table(paths, pictures):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "photo": paths,
            "weight": rng.normal(size=len(paths)),
            "colour": rng.choice(["red", "blue"], len(paths)),
        }
    )


@pytest.mark.parametrize("column", ["photo", ["photo"]])
def test_column_transformer_of_paths_next_to_tabular_columns(table, pictures, column):
    columns = make_column_transformer(
        (extractor(), column), (StandardScaler(), ["weight"]), (OneHotEncoder(), ["colour"])
    )
    pipeline = make_pipeline(columns, StandardScaler(), LogisticRegression(max_iter=1000))
    assert cross_val_score(pipeline, table, pictures[1], cv=3, error_score="raise").mean() > 0.8
    names = columns.fit(table).get_feature_names_out()
    assert names[0] == "pretrainedfeatureextractor__pretrainedfeatureextractor0"
    assert len(names) == columns.transform(table).shape[1]


def test_classifier_on_a_path_column_and_a_series(table, pictures):
    for X in (table["photo"], table[["photo"]]):
        assert classifier().fit(X, pictures[1]).score(X, pictures[1]) > 0.9


@pytest.mark.parametrize(("output", "kind"), [("pandas", pd.DataFrame), ("polars", pl.DataFrame)])
def test_set_output(pictures, output, kind):
    X, y = pictures
    for estimator in (extractor(), classifier()):
        frame = estimator.set_output(transform=output).fit(X, y).transform(X)
        assert isinstance(frame, kind)
        assert list(frame.columns) == list(estimator.get_feature_names_out())


def test_set_output_in_a_column_transformer(table):
    columns = ColumnTransformer([("deep", extractor(), "photo"), ("number", StandardScaler(), ["weight"])])
    frame = columns.set_output(transform="pandas").fit_transform(table)
    assert frame.shape == (len(table), 17)
    assert frame.columns[-1] == "number__weight"


def test_feature_union_joins_layers(pictures):
    X, _ = pictures
    union = FeatureUnion([("early", extractor(layer=1)), ("late", extractor()), ("both", extractor(layer=[1, 4]))])
    early, late = extractor(layer=1).fit_transform(X), extractor().fit_transform(X)
    joined = union.fit_transform(X)
    both = np.hstack([early, late])
    np.testing.assert_array_equal(joined[:, : both.shape[1]], both)
    np.testing.assert_allclose(joined[:, both.shape[1] :], both, rtol=0.02, atol=1e-3)  # bfloat16, where it is fast


def test_vectors_in_a_pipeline_with_a_scaler():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 6)) * [1, 10, 100, 1, 1, 1]
    y = (X[:, 1] > 0).astype(int)
    pipeline = make_pipeline(StandardScaler(), FineTunedClassifier(tiny_vectors, freeze_depth=0, lr=0.01))
    assert cross_val_score(pipeline, X, y, cv=3).mean() > 0.8


def test_html_repr_of_a_pipeline_shows_the_estimator():
    assert "PretrainedFeatureExtractor" in make_pipeline(extractor(), LogisticRegression())._repr_html_()
