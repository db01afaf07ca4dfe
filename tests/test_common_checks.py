"""scikit-learn's own checks, all of them, and the same questions asked of images."""

import copy
import functools
import pickle
from unittest import SkipTest

import numpy as np
import pytest
from networks import tiny_cnn, tiny_vectors
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_is_fitted

from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor, clear_cache

ON_VECTORS = [
    PretrainedFeatureExtractor(tiny_vectors),
    FineTunedClassifier(tiny_vectors),
    FineTunedRegressor(tiny_vectors),
]


CHECKS = [case for estimator in ON_VECTORS for case in estimator_checks_generator(estimator)]


def name_of(value):
    """Return a name that is the same in every process, unlike the address in what scikit-learn writes."""
    if not isinstance(value, functools.partial):
        return type(value).__name__
    return f"{value.func.__name__}({', '.join(f'{name}={given}' for name, given in value.keywords.items())})"


@pytest.mark.parametrize(("estimator", "check"), CHECKS, ids=name_of)
def test_scikit_learn_check(estimator, check):
    try:
        check(estimator)
    except SkipTest as skipped:
        if "array_api_strict" in str(skipped):
            pytest.skip("the array library of scikit-learn's array API check is not here")
        if "does not have a decision_function method" in str(skipped):
            pytest.skip("there are probabilities instead, as in MLPClassifier")
        pytest.fail(f"the check was skipped: {skipped}")


def test_every_check_is_asked():
    for estimator in ON_VECTORS:
        assert sum(type(one) is type(estimator) for one, _ in CHECKS) > 40


def test_checks_do_not_hide_behind_tags():
    for estimator in ON_VECTORS:
        tags = estimator.__sklearn_tags__()
        assert tags.input_tags.two_d_array
        assert not tags.non_deterministic
        assert not tags.no_validation
        assert not tags.input_tags.allow_nan
        assert tags.requires_fit


# The suite for images: each test runs for all estimators and for each form of X.

KINDS = ["extractor", "classifier", "regressor", "classifier of several labels"]

FORMS = ["4-D", "channels first", "flat", "paths", "path column"]


@pytest.fixture(params=FORMS)
def form(request, pictures, paths):
    X, y = pictures
    made = {
        "4-D": X,
        "channels first": X.transpose(0, 3, 1, 2),
        "flat": X.reshape(len(X), -1),
        "paths": paths,
        "path column": paths[:, None],
    }
    return request.param, made[request.param], y


def make(kind, form, **parameters):
    shape = (20, 24, 3) if form == "flat" else None
    if kind == "extractor":
        return PretrainedFeatureExtractor(tiny_cnn, image_shape=shape, random_state=0, **parameters)
    parameters = {"freeze_depth": 2, "max_epochs": 2, **parameters}
    estimator = FineTunedRegressor if kind == "regressor" else FineTunedClassifier
    return estimator(tiny_cnn, image_shape=shape, random_state=0, **parameters)


def target(kind, y):
    """Return what a kind of estimator learns of labels."""
    if kind == "regressor":
        return np.where(y == y[0], 3.0, 40.0) + np.linspace(0, 1, len(y))
    return np.column_stack([y == y[0], np.arange(len(y)) % 3 == 0, y != y[0]]) if "several" in kind else y


def outputs(estimator, X):
    if hasattr(estimator, "predict_proba"):
        return np.hstack([estimator.predict_proba(X), estimator.transform(X)])
    if hasattr(estimator, "predict"):
        return np.hstack([estimator.predict(X)[:, None], estimator.transform(X)])
    return estimator.transform(X)


@pytest.mark.parametrize("kind", KINDS)
class TestImages:
    def test_clone_is_unfitted_and_has_the_same_parameters(self, kind, form):
        estimator = make(kind, form[0]).fit(form[1], target(kind, form[2]))
        other = clone(estimator)
        with pytest.raises(NotFittedError):
            outputs(other, form[1])
        assert other.get_params() == estimator.get_params()

    def test_parameters_are_as_given_after_fit(self, kind, form):
        estimator = make(kind, form[0])
        before = {name: copy.deepcopy(value) for name, value in estimator.get_params().items()}
        identities = {name: id(value) for name, value in estimator.get_params().items()}
        estimator.fit(form[1], target(kind, form[2]))
        assert estimator.get_params() == before
        assert {name: id(value) for name, value in estimator.get_params().items()} == identities

    def test_nothing_is_learned_in_init(self, kind, form):
        estimator = make(kind, form[0])
        assert set(vars(estimator)) == set(estimator.get_params())

    def test_set_params_is_what_init_does(self, kind, form):
        estimator = make(kind, form[0]).set_params(batch_size=7, pooling="max")
        assert estimator.get_params() == make(kind, form[0], batch_size=7, pooling="max").get_params()

    def test_second_fit_gives_the_same_bits(self, kind, form):
        estimator = make(kind, form[0])
        first = outputs(estimator.fit(form[1], target(kind, form[2])), form[1])
        np.testing.assert_array_equal(outputs(estimator.fit(form[1], target(kind, form[2])), form[1]), first)

    def test_a_row_depends_on_its_sample_alone(self, kind, form):
        _, X, y = form
        estimator = make(kind, form[0]).fit(X, target(kind, y))
        whole = outputs(estimator, X)
        parts = np.vstack([outputs(estimator, X[start : start + 5]) for start in range(0, len(X), 5)])
        np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-6)

    def test_order_of_rows_is_order_of_results(self, kind, form):
        _, X, y = form
        estimator = make(kind, form[0]).fit(X, target(kind, y))
        order = np.random.default_rng(0).permutation(len(X))
        np.testing.assert_allclose(outputs(estimator, X[order]), outputs(estimator, X)[order], rtol=1e-4, atol=1e-6)

    def test_n_features_in_is_there_where_x_is_2d(self, kind, form):
        name, X, y = form
        estimator = make(kind, name).fit(X, target(kind, y))
        if X.ndim == 2:
            assert estimator.n_features_in_ == X.shape[1]
            with pytest.raises(ValueError, match="features"):
                outputs(estimator, np.hstack([X, X]))
        else:
            assert not hasattr(estimator, "n_features_in_")

    def test_pickle_gives_the_same_bits(self, kind, form):
        estimator = make(kind, form[0]).fit(form[1], target(kind, form[2]))
        other = pickle.loads(pickle.dumps(estimator))
        np.testing.assert_array_equal(outputs(other, form[1]), outputs(estimator, form[1]))

    def test_predicting_changes_nothing(self, kind, form):
        estimator = make(kind, form[0]).fit(form[1], target(kind, form[2]))
        before = pickle.dumps(estimator)
        outputs(estimator, form[1])
        assert pickle.dumps(estimator) == before

    def test_x_is_not_changed(self, kind, form):
        _, X, y = form
        before = X.copy()
        outputs(make(kind, form[0]).fit(X, target(kind, y)), X)
        np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("kind", KINDS)
def test_all_forms_of_one_image_give_the_same_result(kind, pictures, paths):
    X, y = pictures[0], target(kind, pictures[1])
    clear_cache()  # a kept activation has the bits of the batch that it was computed in
    expected = outputs(make(kind, "4-D").fit(X, y), X)
    for form, other in [("flat", X.reshape(len(X), -1)), ("channels first", X.transpose(0, 3, 1, 2))]:
        np.testing.assert_array_equal(outputs(make(kind, form).fit(other, y), other), expected)
    fitted = make(kind, "4-D").fit(X, y)
    np.testing.assert_array_equal(outputs(fitted, paths), expected)
    np.testing.assert_array_equal(outputs(fitted, list(X)), expected)


def test_vectors_of_any_width():
    for width in (1, 3, 50):
        X, y = make_classification(n_features=max(width, 4), n_informative=3, n_redundant=0, random_state=0)
        X = X[:, :width]
        assert FineTunedClassifier(tiny_vectors, random_state=0).fit(X, y).predict(X).shape == y.shape


@pytest.mark.parametrize("kind", KINDS)
def test_failed_fit_leaves_the_estimator_as_it_was(kind, pictures):
    X, y = pictures[0], target(kind, pictures[1])
    flat = X.reshape(len(X), -1)
    estimator = make(kind, "flat")
    with pytest.raises(ValueError, match="image_shape"):
        estimator.fit(flat[:, :-1], y)
    with pytest.raises(NotFittedError):
        check_is_fitted(estimator)
    expected = outputs(estimator.fit(flat, y), flat)
    with pytest.raises(ValueError, match="image_shape"):
        estimator.fit(flat[:, :-1], y)
    np.testing.assert_array_equal(outputs(estimator, flat), expected)
