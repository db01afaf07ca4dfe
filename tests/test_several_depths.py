"""The head sees a network at several depths, by default, in one pass, wherever it is cut."""

import warnings

import numpy as np
import pytest
import torch
from networks import tiny_cnn
from pretrained_models import make_text_model, make_texts
from sklearn.model_selection import GridSearchCV
from torch import nn

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, _backbone_estimator, cache_info, clear_cache

LAYERS = ["0", "4", "5", None]


@pytest.fixture(autouse=True)
def empty_cache():
    clear_cache()
    yield
    clear_cache()


def classifier(**parameters):
    return FineTunedClassifier(tiny_cnn, **{"random_state": 0, "precision": "float32", **parameters})


def extractor(**parameters):
    return PretrainedFeatureExtractor(tiny_cnn, random_state=0, precision="float32", **parameters)


def test_stages_are_the_layers_that_they_are_called_after(pictures):
    X, _ = pictures
    stages, named = extractor(layer="stages").fit(X), extractor(layer=LAYERS).fit(X)
    assert stages.layers_ == LAYERS
    assert stages.n_features_out_ == 8 + 8 + 8 + 16
    np.testing.assert_array_equal(stages.transform(X), named.transform(X))
    alone = [extractor(layer=layer).fit_transform(X) for layer in LAYERS]
    np.testing.assert_allclose(stages.transform(X), np.hstack(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", ["all", 3, 2, 1, 0, "0"])
@pytest.mark.parametrize("cache", ["auto", None, "folder"])
def test_the_head_sees_the_same_wherever_the_network_is_cut(pictures, depth, cache, tmp_path):
    X, y = pictures
    how = {"lr": 1e-12, "head_lr": 1e-12, "max_epochs": 1, "weight_decay": 0.0} if depth != "all" else {}
    cache = tmp_path / "cache" if cache == "folder" else cache
    model = classifier(freeze_depth=depth, feature_cache=cache, **how).fit(X, y)
    np.testing.assert_allclose(model.transform(X), extractor(layer="stages").fit_transform(X), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(model.predict_proba(X), classifier().fit(X, y).predict_proba(X), atol=1e-2)


def test_a_search_over_depths_passes_each_image_once(pictures):
    X, y = pictures
    grid = {"freeze_depth": [1, 2, 3, "all"], "lr": [1e-4, 1e-3]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a rate that frozen blocks do not use
        GridSearchCV(classifier(max_epochs=1), grid, cv=3, error_score="raise").fit(X, y)
    assert cache_info().misses == len(X)
    assert cache_info().continued == 3 * len(X)


def test_what_goes_on_from_a_kept_activation_is_what_was_computed_at_once(pictures):
    X, y = pictures
    at_once = classifier().fit(X, y).transform(X)
    clear_cache()
    classifier(freeze_depth=1, max_epochs=1).fit(X, y)
    clear_counts = cache_info().misses
    gone_on = classifier().fit(X, y).transform(X)
    assert cache_info().misses == clear_counts
    np.testing.assert_allclose(gone_on, at_once, rtol=1e-4, atol=1e-5)


def test_another_process_finds_all_layers_in_a_folder(pictures, tmp_path):
    X, y = pictures
    expected = classifier(feature_cache=tmp_path, freeze_depth=2, max_epochs=2).fit(X, y).predict_proba(X)
    sktransfer.clear_cache()  # networks, and what is known of their layers
    again = classifier(feature_cache=tmp_path, freeze_depth=2, max_epochs=2).fit(X, y)
    assert cache_info().misses == 0
    np.testing.assert_array_equal(again.predict_proba(X), expected)
    deeper = classifier(feature_cache=tmp_path).fit(X, y)
    assert cache_info().misses == 0
    np.testing.assert_allclose(deeper.transform(X), extractor(layer="stages").fit_transform(X), rtol=1e-4, atol=1e-5)


def test_layers_of_ones_choice_end_the_network_at_the_deepest(pictures):
    X, y = pictures
    model = classifier(layer=["5", "0"], freeze_depth=1, max_epochs=1).fit(X, y)
    assert [block.name for block in model.backbone_.blocks] == ["0", "4", "5"]
    assert model.transform(X).shape == (24, 16)
    frozen = classifier(layer=["5", "0"]).fit(X, y)
    np.testing.assert_array_equal(frozen.transform(X), extractor(layer=["0", "5"]).fit_transform(X))


def test_texts_are_seen_at_several_depths_whatever_their_length(tmp_path):
    folder, (texts, y) = make_text_model("bert", tmp_path), make_texts(16)
    how = {"random_state": 0, "precision": "float32"}
    tuned = FineTunedClassifier(folder, freeze_depth=1, max_epochs=2, **how).fit(texts, y)
    layers = tuned.net_.module_.layers
    assert layers
    width = tuned.backbone_.network.config.hidden_size
    assert tuned.transform(texts).shape == (16, width * (len(layers) + 1))
    frozen = FineTunedClassifier(folder, **how).fit(texts, y)
    expected = PretrainedFeatureExtractor(folder, layer=[*layers, None], precision="float32").fit_transform(texts)
    np.testing.assert_allclose(frozen.transform(texts), expected, rtol=1e-4, atol=1e-5)
    one_by_one = np.vstack([tuned.transform([text]) for text in texts])
    np.testing.assert_allclose(one_by_one, tuned.transform(texts), rtol=1e-3, atol=1e-4)


def test_views_are_solved_with_the_sample_that_they_are_of(pictures):
    X, y = pictures
    model = classifier(augment="light", augment_views=3).fit(X, y)
    assert model.history_ == []
    assert model.head_C_ is not None
    assert cache_info().misses <= 3 * len(X) + 1
    assert classifier(augment="light", head_epochs=2).fit(X, y).head_C_ is None


class Vectors(nn.Module):
    """A network that pools its maps itself, as torchvision's do."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 6, 3)
        self.classifier = nn.Linear(6, 5)

    def forward(self, x):
        return self.classifier(self.second(self.first(x)).mean((2, 3)))


@pytest.mark.parametrize("pooling", ["max", "flatten", "cls"])
@pytest.mark.parametrize("estimator", [FineTunedClassifier, PretrainedFeatureExtractor])
def test_a_pooling_without_effect_is_told_once(pictures, pooling, estimator, monkeypatch):
    X, y = pictures
    monkeypatch.setattr(_backbone_estimator, "_TOLD", set())
    torch.manual_seed(0)
    model = estimator(Vectors(), layer=None, pooling=pooling)
    message = f"Got pooling={pooling!r}, which has no effect on the features of .* returns vectors.* layer=\"?'first"
    with pytest.warns(UserWarning, match=message) as caught:
        model.fit(X, y)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(X, y)
        estimator(Vectors(), layer=None, pooling="avg").fit(X, y)
        estimator(Vectors(), layer="first", pooling="avg").fit(X, y)
    maps = [estimator(Vectors(), layer="first", pooling=name).fit(X, y).transform(X) for name in ("avg", "max")]
    assert not np.allclose(*maps)
