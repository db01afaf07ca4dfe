"""What a user may rely on when X holds plain rows of numbers."""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from networks import tiny_vectors
from scipy.sparse import csr_array

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.inputs import ImagePreprocessing, make_reader

X = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return tiny_vectors()


def test_rows_reach_the_network_as_they_stand(network):
    features = PretrainedFeatureExtractor(network).fit_transform(X)
    with torch.inference_mode():
        np.testing.assert_allclose(features, network.eval()(torch.tensor(X)).numpy(), rtol=1e-5, atol=1e-6)


FORMS = {
    "float64": lambda X: X.astype(np.float64),
    "Fortran order": np.asfortranarray,
    "negative strides": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "list of lists": lambda X: X.tolist(),
    "list of rows": list,
    "pandas": lambda X: pd.DataFrame(X).rename(columns=str),
    "polars": lambda X: pl.DataFrame(X),
    "objects": lambda X: X.astype(object),
    "torch tensor": torch.tensor,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_rows_gives_the_same_features(form, network):
    given = FORMS[form](X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extractor = PretrainedFeatureExtractor(network).fit(given)
        features = extractor.transform(given)
    np.testing.assert_array_equal(features, PretrainedFeatureExtractor(network).fit_transform(X))
    assert extractor.n_features_in_ == 4


def test_read_only_and_memory_mapped_rows_are_taken_without_a_warning(network, tmp_path):
    np.save(tmp_path / "X.npy", X)
    read_only = X.copy()
    read_only.flags.writeable = False
    expected = PretrainedFeatureExtractor(network).fit_transform(X)
    for given in (read_only, np.load(tmp_path / "X.npy", mmap_mode="r")):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_array_equal(PretrainedFeatureExtractor(network).fit_transform(given), expected)


def test_a_loaded_row_shares_no_memory_with_x():
    given = X.copy()
    samples = make_reader("vectors", ImagePreprocessing(), None, "auto").learn(given)
    assert len(samples) == len(given)
    assert samples.load(0).shape == (4,)
    samples.load(2).zero_()
    np.testing.assert_array_equal(given, X)


def test_a_later_x_is_read_as_in_fit():
    reader = make_reader("vectors", ImagePreprocessing(), None, "auto")
    reader.learn(X)
    assert torch.equal(reader.read(X[3:]).load(1), torch.tensor(X[4]))


def test_a_function_is_given_the_width_of_x():
    extractor = PretrainedFeatureExtractor(tiny_vectors, random_state=0).fit(X[:, :2])
    assert extractor.backbone_.network[0].in_features == 2


@pytest.mark.parametrize("estimator", [PretrainedFeatureExtractor, FineTunedClassifier])
class TestBadRows:
    def test_other_width_than_at_fit_is_refused(self, estimator):
        fitted = estimator(tiny_vectors).fit(X, [0, 1, 0, 1, 0, 1, 0])
        with pytest.raises(ValueError, match=r"X has 3 features, but .* is expecting 4 features"):
            fitted.transform(X[:, :3])

    def test_nan_and_infinity_are_refused(self, estimator):
        for bad, named in ((np.nan, "NaN"), (np.inf, "infinity")):
            given = X.copy()
            given[1, 2] = bad
            with pytest.raises(ValueError, match=f"Input X contains {named}"):
                estimator(tiny_vectors).fit(given, [0, 1, 0, 1, 0, 1, 0])

    def test_sparse_rows_are_refused(self, estimator):
        with pytest.raises(TypeError, match="Sparse data was passed"):
            estimator(tiny_vectors).fit(csr_array(X), [0, 1, 0, 1, 0, 1, 0])

    def test_words_are_refused(self, estimator):
        with pytest.raises(ValueError, match="Got X of 2 columns that are not all numbers"):
            estimator(tiny_vectors).fit([["a", "b"], ["c", "d"]], [0, 1])

    def test_images_after_a_fit_on_rows_are_refused(self, estimator):
        fitted = estimator(tiny_vectors).fit(X, [0, 1, 0, 1, 0, 1, 0])
        with pytest.raises(ValueError, match=r"dim 4|array with dim"):
            fitted.transform(np.zeros((2, 4, 4, 3)))
