"""Who writes what other libraries call it is told what it is called here, and nothing is taken by two names."""

import copy
import inspect
import pickle

import numpy as np
import pytest
from networks import tiny_cnn
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktransfer._words_of_others import _NO_PARAMETERS, _PARAMETERS, refuse_words
from sktransfer.backbones import load_backbone

ALL = [PretrainedFeatureExtractor, FineTunedClassifier, FineTunedRegressor]
PAIRS = [(theirs, ours) for ours, words in _PARAMETERS.items() for theirs in words.split()]
NEEDLESS = [name for words in _NO_PARAMETERS.values() for name in words.split()]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("epochs", "max_epochs"), ("learning_rate", "lr"), ("model", "backbone"), ("pretrained", "weights")],
)
def test_the_usual_words_are_known(theirs, ours):
    with pytest.raises(
        TypeError, match=rf"^FineTunedClassifier got an unexpected .*'{theirs}'. Here it is called {ours}"
    ):
        FineTunedClassifier(**{theirs: 1})


@pytest.mark.parametrize("estimator_class", ALL)
def test_no_word_of_others_is_a_parameter_and_each_leads_to_one(estimator_class):
    own = estimator_class().get_params()
    for theirs, ours in PAIRS:
        if ours not in own or theirs in own:
            continue
        with pytest.raises(
            TypeError, match=rf"got an unexpected keyword argument '{theirs}'\. Here it is called {ours}\."
        ):
            estimator_class(**{theirs: 1})
    assert {ours for _, ours in PAIRS} <= set().union(*(one().get_params() for one in ALL))


@pytest.mark.parametrize("name", NEEDLESS)
def test_what_nothing_here_is_like_is_told_why(name):
    with pytest.raises(TypeError, match=rf"unexpected keyword argument '{name}'\. .*[Ll]eave it out\.$"):
        FineTunedClassifier(**{name: 1})


def test_a_slip_is_answered_with_the_nearest_name_and_anything_else_with_where_to_look():
    with pytest.raises(TypeError, match=r"Did you mean 'freeze_depth'\?"):
        FineTunedClassifier(freeze_dept=3)
    with pytest.raises(TypeError, match=r"get_params\(\) lists all parameters\."):
        FineTunedClassifier(qqq=3)


def test_a_search_and_set_params_say_it_too(pictures):
    with pytest.raises(ValueError, match=r"^Invalid parameter 'epochs' for estimator .*called max_epochs.*Valid param"):
        FineTunedClassifier().set_params(epochs=3)
    with pytest.raises(ValueError, match="Here it is called lr"):
        GridSearchCV(FineTunedClassifier(tiny_cnn), {"learning_rate": [1e-3]}, cv=2).fit(*pictures)
    with pytest.raises(ValueError, match="Here it is called lr"):
        make_pipeline(FineTunedClassifier(tiny_cnn)).set_params(finetunedclassifier__learning_rate=1e-3)
    model = FineTunedClassifier()
    with pytest.raises(ValueError, match="Invalid parameter"):
        model.set_params(lr=0.5, epochs=3)
    assert model.get_params() == FineTunedClassifier().get_params(), "all or nothing"
    assert model.set_params(lr=0.5, max_epochs=2) is model
    assert (model.lr, model.max_epochs) == (0.5, 2)


def test_parameters_of_parameters_are_still_set():
    inner = FunctionTransformer()
    model = FineTunedClassifier(callbacks=inner).set_params(callbacks__validate=True)
    assert inner.validate is True
    assert model.callbacks is inner


@pytest.mark.parametrize("estimator_class", ALL)
def test_the_signature_is_that_of_the_constructor_and_copies_need_none(estimator_class):
    assert (
        list(inspect.signature(estimator_class).parameters)
        == list(inspect.signature(estimator_class.__init__).parameters)[1:]
    )
    model = estimator_class(tiny_cnn, n_jobs=3)
    for again in (clone(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert again.get_params() == model.get_params()
    with pytest.raises(TypeError):
        estimator_class("resnet18", "DEFAULT")  # by keyword alone


def test_classes_below_may_take_more():
    class Named(FineTunedClassifier):
        def __init__(self, epochs=3, *, lr=1e-3):
            super().__init__(max_epochs=epochs, lr=lr)
            self.epochs = epochs

    class Open(FineTunedClassifier):
        def __init__(self, **parameters):
            super().__init__(max_epochs=parameters.pop("epochs"), **parameters)

    assert Named(epochs=5).max_epochs == clone(Named(epochs=5)).max_epochs == 5
    assert Named(lr=1.0).lr == 1.0
    assert Open(epochs=4, lr=2.0).max_epochs == 4
    with pytest.raises(TypeError, match="Here it is called lr"):
        Named(learning_rate=3)


# Values


@pytest.mark.parametrize("weights", ["imagenet", "pretrained", "True", True, "none", False])
def test_words_for_weights_are_refused_before_a_network_is_built(weights):
    with pytest.raises(ValueError, match=r"^Got weights=.*Write weights=(\"DEFAULT\"|None)\."):
        load_backbone("resnet18", weights)


def test_a_file_of_such_a_name_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretrained").touch()
    refuse_words("weights", "pretrained")
    with pytest.raises(ValueError, match=r"Write weights=\"DEFAULT\"\."):
        refuse_words("weights", "imagenet")


def test_a_folder_of_such_a_name_is_taken_where_it_is_written_as_a_path(tmp_path, monkeypatch, pictures):
    monkeypatch.chdir(tmp_path)
    X, _ = pictures
    PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache="./none").fit(X).transform(X)
    assert [path.name for path in tmp_path.iterdir()] == ["none"]
    with pytest.raises(ValueError, match=r"Write feature_cache=None\. A folder of that name is '\./none'\."):
        PretrainedFeatureExtractor(tiny_cnn, feature_cache=np.str_("none")).fit(X)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("weights", "DEFAULT"), ("weights", None), ("weights", "IMAGENET1K_V1"), ("weights", 3),
        ("feature_cache", None), ("feature_cache", "auto"), ("feature_cache", "cache"),
        ("freeze_depth", "all"), ("freeze_depth", 0), ("freeze_depth", 1), ("freeze_depth", 0.5),
        ("freeze_depth", "layer4"),
    ],
)  # fmt: skip
def test_right_values_and_those_that_others_judge_are_let_through(parameter, value):
    refuse_words(parameter, value)
