"""Which estimator of ours is found inside others: displays agree on it."""

import numpy as np
import pytest
from networks import tiny_cnn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.inspection import DepthDisplay, SaliencyDisplay, TrainingCurveDisplay, torch_module
from sktransfer.inspection._estimators import network_within, steps_of


class Sampler(StandardScaler):
    """Stands for those of imbalanced-learn."""

    def fit_resample(self, X, y):
        return X, y


@pytest.mark.parametrize(
    "wrap",
    [
        FrozenEstimator,
        lambda model: make_pipeline("passthrough", model),
        lambda model: make_pipeline(None, make_pipeline(model)),
        lambda model: make_pipeline(Sampler(), model),
        lambda model: GridSearchCV(model, {"random_state": [0]}),
        lambda model: FrozenEstimator(make_pipeline(FrozenEstimator(model))),
        lambda model: GridSearchCV(make_pipeline("passthrough", model), {}),
    ],
)
def test_one_that_stands_alone_in_others_is_found(wrap):
    model = FineTunedClassifier(tiny_cnn)
    assert steps_of(wrap(model)) == [model]
    assert network_within(wrap(model)) == (model, [])


def test_the_best_of_a_fitted_search_is_found_and_without_one_the_given(pictures):
    search = GridSearchCV(FineTunedClassifier(tiny_cnn, random_state=0), {"layer": [None]}, cv=2)
    assert steps_of(search)[0] is search.estimator
    assert steps_of(search.fit(*pictures))[0] is search.best_estimator_
    unrefitted = GridSearchCV(search.estimator, {"layer": [None]}, cv=2, refit=False).fit(*pictures)
    assert steps_of(unrefitted)[0] is unrefitted.estimator


def test_others_that_predict_by_themselves_stay_whole():
    step = CalibratedClassifierCV(LogisticRegression())
    extractor = PretrainedFeatureExtractor(tiny_cnn)
    assert network_within(make_pipeline(extractor, step)) == (extractor, [step])
    with pytest.raises(ValueError, match=r"^Got CalibratedClassifierCV; expected PretrainedFeatureExtractor"):
        network_within(CalibratedClassifierCV(FrozenEstimator(FineTunedClassifier(tiny_cnn))))
    with pytest.raises(ValueError, match=r"^Got Pipeline with StandardScaler in it; expected .* first step"):
        network_within(make_pipeline("passthrough", StandardScaler(), extractor))


def test_displays_take_frozen_and_skipped_steps_alike(pictures):
    X, y = pictures
    model = FineTunedClassifier(tiny_cnn, freeze_depth=2, max_epochs=2, random_state=0).fit(X, y)
    frozen = make_pipeline("passthrough", FrozenEstimator(model))
    assert TrainingCurveDisplay.from_estimator(frozen).epochs.tolist() == [1, 2]
    assert torch_module(frozen).block_names == torch_module(model).block_names
    assert DepthDisplay.from_estimator(frozen, X, y, cv=2).depth == 2
    drops = [SaliencyDisplay.from_estimator(one, X[:1]).drops[0] for one in (frozen, model)]
    np.testing.assert_array_equal(*drops)
    features = FrozenEstimator(PretrainedFeatureExtractor(tiny_cnn).fit(X))
    behind = make_pipeline(features, "passthrough", StandardScaler(), LogisticRegression()).fit(X, y)
    expected = make_pipeline(features.estimator, behind[2], behind[3])  # the same, fitted
    drops = [SaliencyDisplay.from_estimator(one, X[:1]).drops[0] for one in (behind, expected)]
    np.testing.assert_allclose(*drops, atol=1e-6)
