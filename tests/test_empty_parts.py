"""A part of a large table may have no rows: engines that work by parts get results of no rows for it."""

import numpy as np
import pandas as pd
import pytest
from networks import tiny_cnn, tiny_vectors
from scipy.sparse import csr_matrix

from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor

EMPTY = {
    "list": [],
    "pictures": np.zeros((0, 20, 24, 3), dtype=np.uint8),
    "objects": np.array([], dtype=object),
    "series": pd.Series([], dtype=object),
    "column": pd.DataFrame({"file": []}, dtype=object),
}


@pytest.fixture(scope="module")
def fitted(paths):
    X = pd.DataFrame({"file": paths})
    y = np.arange(len(X))
    return {
        "extractor": PretrainedFeatureExtractor(tiny_cnn, random_state=0).fit(X),
        "labels": FineTunedClassifier(tiny_cnn, random_state=0).fit(X, np.array(["ant", "bee", "cat"])[y % 3]),
        "several labels": FineTunedClassifier(tiny_cnn, random_state=0).fit(X, np.column_stack([y % 2, y % 3 == 0])),
        "number": FineTunedRegressor(tiny_cnn, random_state=0).fit(X, y / 2),
        "numbers": FineTunedRegressor(tiny_cnn, random_state=0).fit(X, np.column_stack([y, y**2])),
    }


@pytest.mark.parametrize("form", EMPTY)
def test_no_rows_have_results_of_no_rows(form, fitted, paths):
    X, whole = EMPTY[form], pd.DataFrame({"file": paths[:2]})
    for name, estimator in fitted.items():
        for method in ("transform", "predict", "predict_proba"):
            if hasattr(estimator, method):
                expected = getattr(estimator, method)(whole)[:0]
                result = getattr(estimator, method)(X)
                assert (result.shape, result.dtype) == (expected.shape, expected.dtype), (name, method)


def test_no_rows_become_a_table_with_the_same_columns(fitted, paths):
    extractor = fitted["extractor"].set_output(transform="pandas")
    try:
        whole, none = extractor.transform(pd.DataFrame({"file": paths[:2]})), extractor.transform(EMPTY["column"])
    finally:
        extractor.set_output(transform="default")
    assert none.shape == (0, 16)
    assert list(none.columns) == list(whole.columns)
    assert (none.dtypes == whole.dtypes).all()


def test_no_rows_of_other_columns_are_refused(fitted):
    for estimator in fitted.values():
        with pytest.raises(ValueError, match="feature names should match"):
            estimator.transform(pd.DataFrame({"other": []}))


@pytest.mark.parametrize("X", [np.zeros((0, 4)), csr_matrix((0, 4)), pd.DataFrame(np.zeros((0, 4)))])
def test_no_rows_of_numbers_have_results_of_no_rows(X):
    numbers = np.random.default_rng(0).normal(size=(8, 4))
    extractor = PretrainedFeatureExtractor(tiny_vectors).fit(numbers)
    assert extractor.transform(X).shape == (0, 16)
    assert FineTunedClassifier(tiny_vectors).fit(numbers, [0, 1] * 4).predict_proba(X).shape == (0, 2)
    with pytest.raises(ValueError, match="features"):
        extractor.transform(X[:, :3] if not isinstance(X, pd.DataFrame) else X.iloc[:, :3])


def test_fit_and_a_validation_set_need_rows(paths):
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\)"):
        PretrainedFeatureExtractor(tiny_cnn).fit([])
    with pytest.raises(ValueError, match=r"Got X_val that cannot be read as X is: Found array with 0 sample\(s\)"):
        FineTunedClassifier(tiny_cnn).fit(list(paths), [0, 1] * 12, X_val=[], y_val=[])
