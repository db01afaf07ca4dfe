"""A parameter that was set and cannot matter is refused, or warned of where a search may cross it on purpose."""

import warnings

import numpy as np
import pytest
from networks import tiny_cnn, tiny_vectors
from pretrained_models import make_sound_model, make_sounds, make_text_model, make_texts
from sklearn.model_selection import GridSearchCV, cross_val_score

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer._training import _idle_parameters

ESTIMATORS = [FineTunedClassifier, PretrainedFeatureExtractor]


@pytest.fixture(scope="module")
def inputs(pictures, tmp_path_factory):
    """A backbone and an X of each kind."""
    vectors = np.random.default_rng(0).normal(size=(12, 4))
    return {
        "images": (tiny_cnn, pictures[0][:12]),
        "vectors": (tiny_vectors, vectors),
        "texts": (make_text_model("bert", tmp_path_factory.mktemp("text")), make_texts(12)[0]),
        "sounds": (make_sound_model("wav2vec2", tmp_path_factory.mktemp("sound")), make_sounds(12)[0]),
    }


OF_KIND = {"image_shape": (4, 4), "pixel_range": (0, 200), "max_length": 8, "sampling_rate": 1000}
THEIRS = {"image_shape": "images", "pixel_range": "images", "max_length": "texts", "sampling_rate": "sounds"}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kind", ["images", "vectors", "texts", "sounds"])
@pytest.mark.parametrize("name", OF_KIND)
def test_a_parameter_of_another_kind_of_input_is_refused(name, kind, estimator, inputs):
    if name == "image_shape" and kind in ("images", "vectors"):
        pytest.skip("image_shape makes images of rows of numbers")
    backbone, X = inputs[kind]
    given = {"sampling_rate": 1000} if kind == "sounds" else {}
    model = estimator(backbone, weights="DEFAULT", **{**given, name: OF_KIND[name]})
    y = np.arange(len(X)) % 2
    if kind == THEIRS[name]:
        model.fit(X, y)
        return
    with pytest.raises(ValueError, match=rf"Got {name}=.* for X that holds {kind}; expected the default"):
        model.fit(X, y)
    assert not hasattr(model, "backbone_")


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("kind", [int, np.int64, np.int32, np.uint16])
def test_whole_numbers_of_any_type_are_lengths_and_rates(kind, estimator, inputs):
    for name, number in {"max_length": 8, "sampling_rate": 1000}.items():
        backbone, X = inputs[THEIRS[name]]
        value = kind(number)
        model = estimator(backbone, **{name: value}).fit(X, np.arange(len(X)) % 2)
        assert model.get_params()[name] is value
        assert np.isfinite(model.transform(X)).all()


@pytest.mark.parametrize(
    ("parameters", "companion"),
    [
        ({"augment_views": 4}, "augment=None"),
        ({"n_iter_no_change": 3}, "early_stopping=False"),
        ({"validation_fraction": 0.3}, "early_stopping=False"),
        ({"tol": 0.1}, "early_stopping=False"),
    ],
)
def test_a_parameter_without_the_one_that_it_needs_is_refused_before_anything_is_loaded(parameters, companion):
    def never():
        raise AssertionError("the backbone was built")

    (name,) = parameters
    with pytest.raises(ValueError, match=f"Got {name}=.* with {companion}, where it has no effect; .*leave {name} out"):
        FineTunedClassifier(never, **parameters).fit(np.zeros((4, 8, 8, 3)), [0, 1, 0, 1])


def test_patience_that_outlasts_training_asks_for_nothing(pictures):
    assert FineTunedClassifier(tiny_cnn, n_iter_no_change=20).fit(*pictures).score(*pictures) > 0.5


def heard(work):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    return [str(warning.message) for warning in caught if "trains only the head" in str(warning.message)]


@pytest.fixture(autouse=True)
def _no_search_was_warned(monkeypatch):
    monkeypatch.setattr(_idle_parameters._Search, "was_warned", False)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"lr": 1e-3}, "lr=0.001 with freeze_depth='all'"),
        ({"max_epochs": 3, "layer_decay": 0.5}, "max_epochs=3, layer_decay=0.5 with freeze_depth='all'"),
        ({"train_bn": True, "freeze_depth": 1.0}, "train_bn=True with freeze_depth=1.0"),
        ({"lr": 1e-3, "strategy": "linear_probe", "freeze_depth": 1}, "lr=0.001 with strategy='linear_probe'"),
        ({"lr": 1e-3, "max_epochs": 2, "strategy": "fine_tune"}, "lr=0.001 with freeze_depth='all'"),
        ({"strategy": "fine_tune", "max_epochs": 2}, None),
        ({"freeze_depth": 2, "lr": 1e-3, "max_epochs": 1}, None),
        ({}, None),
        ({"lr": 3e-5, "max_epochs": 10, "strategy": "linear_probe"}, None),
    ],
)
def test_rates_of_blocks_that_stay_frozen_are_warned_of_once(parameters, said, pictures):
    X, y = pictures
    model = FineTunedClassifier(tiny_cnn, random_state=0, **parameters)
    for _ in range(2):  # each fit by hand says so
        messages = heard(lambda: model.fit(X, y))
        assert len(messages) == (said is not None)
        assert said is None or (said in messages[0] and "freeze_depth=0.75" in messages[0])


def test_the_warning_points_at_the_line_that_called_fit(pictures):
    with pytest.warns(UserWarning, match="trains only the head") as caught:
        FineTunedClassifier(tiny_cnn, lr=1e-3).fit(*pictures)
    assert [warning.filename for warning in caught] == [__file__]


def test_a_search_whose_grid_crosses_all_with_rates_is_warned_once_per_process(pictures):
    X, y = pictures
    model = FineTunedClassifier(tiny_cnn, max_epochs=1, random_state=0)
    grid = {"freeze_depth": ["all", 2], "lr": [3e-5, 1e-3]}
    messages = heard(lambda: GridSearchCV(model, grid, cv=2).fit(X, y))
    messages += heard(lambda: cross_val_score(model, X, y, cv=2))
    assert len(messages) == 1
