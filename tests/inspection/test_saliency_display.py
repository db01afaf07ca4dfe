"""Occlusion finds what tells: a corner, a word, a stretch of sound; and says what it cannot draw."""

import sys
from itertools import pairwise

import numpy as np
import pytest
from networks import tiny_vectors
from PIL import Image
from pretrained_models import make_sound_model, make_text_model, make_texts
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import nn

from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor, cache_info
from sktransfer.inspection import SaliencyDisplay
from sktransfer.inspection._occlusion import Hidden, hide_parts, spread_drops


def places_net():
    """A network that knows where things are."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(128, 2),
    )


@pytest.fixture(scope="module")
def corners():
    """Noise, in the lower right corner of which a bright square tells one class from the other."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 150, size=(60, 32, 40, 3)).astype(np.uint8)
    y = np.array(["plain", "square"] * 30)
    X[y == "square", -8:, -8:] = 255
    return X, y


@pytest.fixture(scope="module")
def model(corners):
    return FineTunedClassifier(places_net, random_state=0).fit(*corners)


def lies_in_the_corner(drop):
    down, across = np.unravel_index(drop.argmax(), drop.shape)
    return down >= drop.shape[0] * 0.6 and across >= drop.shape[1] * 0.6


def test_the_corner_that_tells_is_found(model, corners):
    X, y = corners
    display = SaliencyDisplay.from_estimator(model, X[y == "square"][:4], patch=0.3)
    assert display.targets == ["square"] * 4
    assert all(drop.shape == (32, 40) and lies_in_the_corner(drop) for drop in display.drops)
    assert all(drop.max() > 0.2 for drop in display.drops)
    np.testing.assert_allclose(display.probabilities, model.predict_proba(X[y == "square"][:4])[:, 1], atol=1e-5)
    assert len(display.axes_) == 4
    assert [ax.get_title().split(":")[0] for ax in display.axes_] == ["square"] * 4
    for ax in display.axes_:
        depth_of_colour = np.asarray(ax.images[1].get_array())[..., 3]
        assert lies_in_the_corner(depth_of_colour)
        assert depth_of_colour.max() == pytest.approx(0.8)


def test_what_is_hidden_passes_in_batches_and_stays_nowhere(model, corners):
    before = cache_info()
    SaliencyDisplay.from_estimator(model, corners[0][:2], patch=0.25, step=1.0)
    after = cache_info()
    assert after.misses - before.misses == 2 * (1 + 4 * 5)
    assert after.n_activations == before.n_activations


def test_the_other_class_rises_where_the_square_is_hidden(model, corners):
    X, y = corners
    display = SaliencyDisplay.from_estimator(model, X[y == "square"][:1], target="plain", patch=0.3)
    assert display.targets == ["plain"]
    assert display.drops[0].min() < -0.2
    assert lies_in_the_corner(-display.drops[0])


def test_pipelines_searches_files_and_pictures_will_do(corners, tmp_path):
    X, y = corners
    extractor = PretrainedFeatureExtractor(places_net, random_state=0)
    pipeline = make_pipeline(extractor, StandardScaler(), LogisticRegression()).fit(X, y)
    square = X[y == "square"][:1]
    assert lies_in_the_corner(SaliencyDisplay.from_estimator(pipeline, square).drops[0])
    tuned = make_pipeline(FineTunedClassifier(places_net, random_state=0), LogisticRegression()).fit(X, y)
    assert lies_in_the_corner(SaliencyDisplay.from_estimator(tuned, square).drops[0])
    search = GridSearchCV(pipeline, {"logisticregression__C": [1.0]}, cv=2).fit(X, y)
    assert lies_in_the_corner(SaliencyDisplay.from_estimator(search, square).drops[0])
    Image.fromarray(square[0]).save(tmp_path / "square.png")
    grey = np.repeat(square[0].mean(axis=-1, keepdims=True) / 255, 3, axis=-1)
    of_files = FineTunedClassifier(places_net, random_state=0).fit(X / 255, y)
    assert lies_in_the_corner(SaliencyDisplay.from_estimator(of_files, grey[None]).drops[0])
    display = SaliencyDisplay.from_estimator(
        FineTunedClassifier(places_net, random_state=0).fit([Image.fromarray(one) for one in X], y),
        [str(tmp_path / "square.png")],
    )
    assert lies_in_the_corner(display.drops[0])


def test_several_labels_are_looked_at_one_by_one(corners):
    X, y = corners
    labels = np.column_stack([y == "square", np.arange(60) % 3 == 0]).astype(int)
    model = FineTunedClassifier(places_net, random_state=0).fit(X, labels)
    with pytest.raises(ValueError, match=r"several labels per sample; expected one label\. Set target"):
        SaliencyDisplay.from_estimator(model, X[1:2])
    display = SaliencyDisplay.from_estimator(model, X[1:2], target=0)
    assert display.targets == [0]
    assert lies_in_the_corner(display.drops[0])


def test_the_word_that_tells_is_found(tmp_path):
    X, y = make_texts(200)
    model = FineTunedClassifier(make_text_model("bert", tmp_path), random_state=0, layer=1).fit(X, y)
    texts = ["the film is good of the story", "it was a bad film of the story"]
    display = SaliencyDisplay.from_estimator(model, texts)
    assert display.targets == ["fine", "poor"]
    assert [words[int(drop.argmax())] for words, drop in zip(display.samples, display.drops, strict=True)] == [
        "good",
        "bad",
    ]
    drawn = [text.get_text() for text in display.axes_[0].texts]
    assert drawn[:7] == texts[0].split()
    grounds = [text.get_bbox_patch().get_facecolor()[3] for text in display.axes_[0].texts[:7]]
    assert drawn[int(np.argmax(grounds))] == "good"
    display.figure_.canvas.draw()
    renderer = display.figure_.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in display.axes_[0].texts[:7]]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    as_bytes = SaliencyDisplay.from_estimator(model, [texts[0].encode()])
    np.testing.assert_allclose(as_bytes.drops[0], display.drops[0], atol=1e-5)


def test_the_stretch_of_sound_that_tells_is_found(tmp_path):
    rng = np.random.default_rng(0)
    sounds, y = [], np.array(["noise", "tone"] * 20)
    for label in y:
        sound = rng.normal(0, 0.05, 600)
        if label == "tone":
            sound[400:500] += np.sin(np.arange(100))
        sounds.append(sound.astype(np.float32))
    name = make_sound_model("wav2vec2", tmp_path)
    model = FineTunedClassifier(name, random_state=0, sampling_rate=1000).fit(sounds, y)
    display = SaliencyDisplay.from_estimator(model, sounds[1:2])
    assert display.rate == 1000
    assert display.drops[0].shape == (600,)
    assert 380 <= display.drops[0].argmax() < 520
    highest = max(path.vertices[:, 1].max() for path in display.axes_[0].collections[0].get_paths())
    assert highest == pytest.approx(display.drops[0].max())


def test_a_stretch_is_silent_in_each_window_that_holds_it(tmp_path):
    sounds = [np.full(600, 0.5, dtype=np.float32)] * 2
    extractor = PretrainedFeatureExtractor(make_sound_model("wav2vec2", tmp_path), sampling_rate=1000).fit(sounds)
    (hidden,), variants = hide_parts(extractor, [np.full(1500, 0.5, dtype=np.float32)], 0.2, 0.5)
    assert len(variants) == 1 + len(hidden.parts)
    starts = [0, 450, 900]  # of three windows of 600
    assert variants.load(0).shape == (3, 600)
    for number, part in enumerate(hidden.parts, start=1):
        silent = variants.load(number).numpy() == 0
        expected = np.zeros(1500, dtype=bool)
        expected[part] = True
        np.testing.assert_array_equal(silent, [expected[start : start + 600] for start in starts])


def test_a_patch_has_the_mean_colour_and_the_rest_is_as_it_was(model, corners):
    (hidden,), variants = hide_parts(model, corners[0][:1], 0.3, 0.5)
    whole = variants.load(0).numpy()
    np.testing.assert_array_equal(whole, corners[0][0].transpose(2, 0, 1))
    for number, part in enumerate(hidden.parts, start=1):
        expected = whole.copy()
        expected[(slice(None), *part)] = whole.mean(axis=(1, 2)).round()[:, None, None]
        np.testing.assert_array_equal(variants.load(number), expected)


def test_where_parts_overlap_the_drop_is_their_mean():
    hidden = Hidden(np.zeros(5, dtype=np.float32), [slice(0, 2), slice(1, 4), slice(3, 5)])
    assert spread_drops(hidden, np.array([1.0, 3.0, -1.0])).tolist() == [1, 2, 3, 1, -1]


def test_ones_own_axes_and_drawing_again(model, corners):
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2)
    display = SaliencyDisplay.from_estimator(model, corners[0][:2], ax=axes)
    assert display.figure_ is figure
    with pytest.raises(ValueError, match="Got 2 axes for 1 samples; expected one for each"):
        SaliencyDisplay.from_estimator(model, corners[0][:1], ax=axes)
    assert display.plot().figure_ is not figure


def test_signs_of_mathematics_in_texts_are_drawn_as_they_are():
    words = ["costs", "$5", "or", "$6_^"]
    display = SaliencyDisplay("texts", [words], [np.array([0.1, -0.2, 0.0, 0.0])], ["$a_"], np.array([0.7])).plot()
    display.figure_.canvas.draw()
    assert [text.get_text() for text in display.axes_[0].texts][:4] == words


def test_what_cannot_be_drawn_gets_a_sentence(model, corners, tmp_path, monkeypatch):
    X, y = corners
    of = SaliencyDisplay.from_estimator
    with pytest.raises(NotFittedError):
        of(FineTunedClassifier(places_net), X[:1])
    with pytest.raises(NotFittedError):
        of(make_pipeline(PretrainedFeatureExtractor(places_net), LogisticRegression()), X[:1])
    regressor = FineTunedRegressor(places_net, random_state=0).fit(X, np.arange(60.0))
    with pytest.raises(ValueError, match="Got FineTunedRegressor, which does not predict classes; expected a classif"):
        of(regressor, X[:1])
    with pytest.raises(ValueError, match="Got PretrainedFeatureExtractor, which predicts nothing"):
        of(PretrainedFeatureExtractor(places_net).fit(X), X[:1])
    with pytest.raises(ValueError, match="Got LinearSVC, which gives no probabilities"):
        of(make_pipeline(PretrainedFeatureExtractor(places_net), LinearSVC()).fit(X, y), X[:1])
    with pytest.raises(
        ValueError, match=r"^Got target='sqare'; expected a class: 'plain' or 'square'\. Did you mean 'square'\?$"
    ):
        of(model, X[:1], target="sqare")
    with pytest.raises(ValueError, match=r"Got X of 60 samples; expected at most 16 .* such as X\[:16\]"):
        of(model, X)
    for wrong in ({"patch": 0}, {"patch": 2}, {"step": 0}, {"step": "a"}):
        with pytest.raises(ValueError, match="expected a share above 0, up to 1"):
            of(model, X[:1], **wrong)
    rows = np.random.default_rng(0).normal(size=(24, 4))
    vectors = FineTunedClassifier(tiny_vectors, random_state=0).fit(rows, y[:24])
    with pytest.raises(ValueError, match="Got X with rows of numbers; expected pictures, texts or sounds"):
        of(vectors, rows[:2])
    texts, labels = make_texts()
    reader = FineTunedClassifier(make_text_model("bert", tmp_path), random_state=0).fit(texts, labels)
    with pytest.raises(ValueError, match=r"Got X\[1\] = 'good', a text of 1 word"):
        of(reader, ["a film", "good"])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"sktransfer\[plot\]"):
        of(model, X[:1])


def test_classes_that_are_true_and_false_can_be_targets(corners):
    X, y = corners
    model = FineTunedClassifier(places_net, random_state=0).fit(X, y == "square")
    assert SaliencyDisplay.from_estimator(model, X[1:2], target=True).targets == [True]
    with pytest.raises(ValueError, match=r"^Got target=1; expected a class: 'False' or 'True'\.$"):
        SaliencyDisplay.from_estimator(model, X[1:2], target=1)
