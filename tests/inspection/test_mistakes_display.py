"""What a user may rely on when they look at what an estimator gets wrong."""

import pickle

import numpy as np
import pytest
from figures import captions_of, overlaps, pixels_of, texts_of
from networks import tiny_cnn, tiny_vectors
from pretrained_models import make_sound_model, make_sounds, make_text_model, make_texts
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktransfer.inspection import MistakesDisplay

DIGITS, LABELS = load_digits(return_X_y=True)
READ = {"image_shape": (8, 8), "pixel_range": (0, 16)}
KNOWN, OTHERS = slice(0, 200), slice(200, 500)


@pytest.fixture(scope="module")
def flat():
    """PCA and logistic regression on flat rows."""
    return make_pipeline(PCA(10, random_state=0), LogisticRegression(max_iter=2000)).fit(DIGITS[KNOWN], LABELS[KNOWN])


# Which samples


def test_the_most_certain_mistakes_come_first(flat):
    X, y = DIGITS[OTHERS], LABELS[OTHERS]
    display = MistakesDisplay.from_estimator(flat, X, y, n_samples=6, **READ)
    probabilities = flat.predict_proba(X)
    wrong = np.flatnonzero(flat.predict(X) != y)
    expected = wrong[np.argsort(-probabilities[wrong].max(axis=1))][:6]
    assert display.sample_indices.tolist() == expected.tolist()
    assert display.y_true.tolist() == y[expected].tolist()
    assert display.y_pred.tolist() == flat.predict(X)[expected].tolist()
    np.testing.assert_allclose(display.probability, probabilities[expected].max(axis=1))
    assert captions_of(display)[0].startswith(f"true: {y[expected[0]]}\npredicted: {display.y_pred[0]}, ")
    assert captions_of(display)[0].endswith(" %")
    np.testing.assert_allclose(pixels_of(display.axes_.flat[0])[..., 0].ravel() * 16, X[expected[0]], atol=1e-5)
    said = [text.replace("\n", " ") for text in texts_of(display)]
    assert any(text.startswith(f"{len(wrong)} of 300 predictions are wrong") for text in said)
    assert overlaps(display) == []


@pytest.mark.parametrize("layout", [None, "constrained"])
def test_in_axes_of_ones_own_nothing_overlaps(flat, layout):
    from matplotlib import pyplot as plt

    _, axes = plt.subplots(1, 2, figsize=(13, 5), layout=layout)
    display = MistakesDisplay.from_estimator(flat, DIGITS[OTHERS], LABELS[OTHERS], n_samples=6, ax=axes[1], **READ)
    axes[0].set_axis_off()
    assert overlaps(display) == []


def test_the_least_and_the_most_certain_can_be_seen_too(flat):
    X, y = DIGITS[OTHERS], LABELS[OTHERS]
    sure = flat.predict_proba(X).max(axis=1)
    right = np.flatnonzero(flat.predict(X) == y)
    unsure = MistakesDisplay.from_estimator(flat, X, y, kind="uncertain", n_samples=5, **READ)
    assert unsure.sample_indices.tolist() == np.argsort(sure)[:5].tolist()
    best = MistakesDisplay.from_estimator(flat, X, y, kind="best", n_samples=5, **READ)
    assert best.sample_indices.tolist() == right[np.argsort(-sure[right], kind="stable")][:5].tolist()
    assert all(">99 %" in caption for caption in captions_of(best))
    assert best.title == f"5 of {len(right)} right predictions: the most certain"


def test_few_mistakes_are_all_shown_and_none_are_a_sentence(flat):
    X, y = DIGITS[:40], LABELS[:40].copy()
    y[3] = (y[3] + 1) % 10
    one = MistakesDisplay.from_estimator(flat, X, y, **READ)
    assert one.sample_indices.tolist() == [3]
    assert one.title == "1 of 40 predictions are wrong (2.5 %): all of them"
    assert overlaps(one) == []
    none = MistakesDisplay.from_estimator(flat, X, LABELS[:40], **READ)
    assert texts_of(none) == ["No mistakes: all 40 predictions are right."]
    assert none.axes_.size == 0
    assert not none.ax_.axison
    assert MistakesDisplay.from_estimator(flat, X, (LABELS[:40] + 1) % 10, kind="best", **READ).title.startswith(
        "No right predictions: all 40 are wrong"
    )


def test_predictions_of_any_origin_will_do():
    X = DIGITS[:4]
    y = np.array(["no", "yes", "no", "yes"])
    of_second = MistakesDisplay.from_predictions(X, y, [0.2, 0.4, 0.9, 0.8], **READ)
    assert of_second.sample_indices.tolist() == [2, 1]
    assert captions_of(of_second) == ["true: no\npredicted: yes, 90 %", "true: yes\npredicted: no, 60 %"]
    table = np.array([[0.5, 0.3, 0.2]] * 4)
    assert (
        MistakesDisplay.from_predictions(X, y, table, labels=["maybe", "no", "yes"], **READ).y_pred.tolist()
        == ["maybe"] * 4
    )


def test_numbers_are_ordered_by_their_errors():
    X, y = DIGITS[OTHERS], LABELS[OTHERS] / 2
    model = Ridge().fit(DIGITS[KNOWN], LABELS[KNOWN] / 2)
    errors = np.abs(model.predict(X) - y)
    largest = MistakesDisplay.from_estimator(model, X, y, n_samples=4, **READ)
    assert largest.sample_indices.tolist() == np.argsort(-errors, kind="stable")[:4].tolist()
    assert largest.probability is None
    assert captions_of(largest)[0] == f"true: {largest.y_true[0]:.4g}\npredicted: {largest.y_pred[0]:.4g}"
    smallest = MistakesDisplay.from_predictions(X, y, y_pred=model.predict(X), kind="best", n_samples=4, **READ)
    assert smallest.sample_indices.tolist() == np.argsort(errors, kind="stable")[:4].tolist()
    with pytest.raises(ValueError, match=r'^Got kind="uncertain" for numbers'):
        MistakesDisplay.from_estimator(model, X, y, kind="uncertain", **READ)


# Of which estimators


def test_our_estimators_know_how_they_read_x(pictures):
    images, labels = pictures
    flat = images[..., 0].reshape(24, -1) / 2.0
    model = FineTunedClassifier(tiny_cnn(), weights=None, image_shape=(20, 24), pixel_range=(0, 150), random_state=0)
    wrong = np.where(labels == "leaf", "stone", "leaf")
    for estimator in (model.fit(flat, labels), make_pipeline(model).fit(flat, labels), FrozenEstimator(model)):
        display = MistakesDisplay.from_estimator(estimator, flat, wrong, n_samples=3)
        shown = pixels_of(display.axes_.flat[0])
        np.testing.assert_allclose(shown[..., 1].ravel() * 150, flat[display.sample_indices[0]], atol=1e-4)


def test_values_are_read_as_in_fit_though_x_is_darker(pictures):
    images, labels = pictures
    model = FineTunedClassifier(tiny_cnn(), weights=None, random_state=0)
    with pytest.warns(UserWarning, match="Got image values"):
        model.fit(images * 8.0, labels)
    display = MistakesDisplay.from_estimator(model, images * 4.0, labels, kind="uncertain", n_samples=2)
    np.testing.assert_allclose(
        pixels_of(display.axes_.flat[0]), images[display.sample_indices[0]] * 4.0 / (images.max() * 8.0), atol=0.01
    )


def test_searches_pipelines_and_extractors_will_do(pictures, paths):
    images, labels = pictures
    wrong = np.where(labels == "leaf", "stone", "leaf")
    model = FineTunedClassifier(tiny_cnn(), weights=None, random_state=0)
    search = GridSearchCV(make_pipeline(model), {"finetunedclassifier__head_C": [1.0, 10.0]}, cv=2).fit(paths, labels)
    features = PretrainedFeatureExtractor(tiny_cnn(), weights=None, random_state=0)
    extractor = make_pipeline(features, StandardScaler(), LogisticRegression()).fit(paths, labels)
    for estimator in (search, extractor):
        display = MistakesDisplay.from_estimator(estimator, paths, wrong, n_samples=4)
        assert {sample.kind for sample in display.samples} == {"image"}
        np.testing.assert_array_equal(pixels_of(display.axes_.flat[0]), images[display.sample_indices[0]])


def test_texts_and_sounds_are_shown_too(tmp_path):
    texts, y = make_texts(12)
    model = FineTunedClassifier(make_text_model("bert", tmp_path / "texts"), random_state=0).fit(texts, y)
    display = MistakesDisplay.from_estimator(model, texts, y, kind="uncertain", n_samples=4)
    assert {sample.kind for sample in display.samples} == {"text"}
    sounds, y = make_sounds(12)
    name = make_sound_model("wav2vec2", tmp_path / "sounds")
    model = FineTunedClassifier(name, sampling_rate=1000, random_state=0).fit(sounds, y)
    display = MistakesDisplay.from_estimator(model, sounds, y, kind="uncertain", n_samples=4)
    assert {sample.kind for sample in display.samples} == {"sound"}
    assert display.samples[0].rate == 1000


def test_a_display_leaves_the_estimator_and_the_samples_as_they_were(pictures):
    images, labels = pictures
    model = FineTunedClassifier(tiny_cnn(), weights=None, random_state=0).fit(images, labels)
    before, pixels = pickle.dumps(model), images.copy()
    MistakesDisplay.from_estimator(model, images, labels, kind="uncertain")
    assert pickle.dumps(model) == before
    np.testing.assert_array_equal(images, pixels)


# What cannot be drawn


def several_labels():
    return FineTunedClassifier(tiny_vectors, weights=None, random_state=0).fit(
        DIGITS[:50, :4], np.eye(2)[LABELS[:50] % 2]
    )


def several_numbers():
    return FineTunedRegressor(tiny_vectors, weights=None, random_state=0).fit(DIGITS[:50, :4], DIGITS[:50, :2])


@pytest.mark.parametrize(
    ("make", "y", "message"),
    [
        (
            several_labels,
            np.eye(2)[LABELS[:50] % 2],
            r"^Got 2 columns of labels; expected one label per sample.*y\[:, 0\]",
        ),
        (several_numbers, DIGITS[:50, :2], r"^Got y_true of 2 columns; expected one number per sample.*y\[:, 0\]"),
        (
            lambda: MultiOutputClassifier(LogisticRegression()).fit(DIGITS[:50], np.stack([LABELS[:50] % 2] * 2, 1)),
            np.stack([LABELS[:50] % 2] * 2, 1),
            "^Got 2 columns of labels",
        ),
        (
            lambda: LinearSVC().fit(DIGITS[:50], LABELS[:50]),
            None,
            "^Got LinearSVC, which has no predict_proba; expected probabilities",
        ),
        (
            lambda: GridSearchCV(LogisticRegression(max_iter=2000), {"C": [1]}, cv=2, refit=False).fit(
                DIGITS[:50], LABELS[:50]
            ),
            None,
            "^Got GridSearchCV with LogisticRegression in it, which has no predict_proba; .*refit=True",
        ),
        (lambda: StandardScaler().fit(DIGITS), None, "^Got StandardScaler; expected a fitted classifier"),
        (lambda: LogisticRegression(max_iter=2000).fit(DIGITS, LABELS), LABELS[:9], r"^Got y of shape \(9,\)"),
        (
            lambda: LogisticRegression(max_iter=2000).fit(DIGITS, LABELS),
            LABELS[:50].astype(str),
            "but the classifier did not learn any of them; expected labels such as",
        ),
        (lambda: LinearRegression().fit(DIGITS, LABELS), LABELS[:50].astype(str), "expected numbers"),
    ],
)
def test_what_cannot_be_drawn_is_refused_with_a_sentence(make, y, message):
    y = LABELS[:50] if y is None else y
    estimator = make()
    X = DIGITS[:50, :4] if getattr(estimator, "n_features_in_", 64) == 4 else DIGITS[:50]
    how = {"image_shape": (2, 2), "pixel_range": (0, 16)} if X.shape[1] == 4 else READ
    with pytest.raises(ValueError, match=message):
        MistakesDisplay.from_estimator(estimator, X, y, **how)


def test_an_unfitted_estimator_is_refused_as_everywhere():
    for estimator in (LogisticRegression(), make_pipeline(LogisticRegression()), FineTunedClassifier(tiny_cnn())):
        with pytest.raises(NotFittedError):
            MistakesDisplay.from_estimator(estimator, DIGITS[:5], LABELS[:5], **READ)


def test_rows_of_numbers_are_refused_where_nobody_says_how_to_read_them(flat):
    with pytest.raises(ValueError, match="give image_shape="):
        MistakesDisplay.from_estimator(flat, DIGITS, LABELS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "^Got neither y_prob nor y_pred"),
        ({"y_prob": np.eye(4), "y_pred": [1, 2, 3, 4]}, "^Got both"),
        ({"y_prob": np.eye(4) * 3}, "expected probabilities, from 0 to 1"),
        ({"y_prob": np.full((4, 2), np.nan)}, "expected probabilities"),
        ({"y_prob": np.eye(4)}, "^Got y_prob of 4 columns for 2 labels: .*classes_"),
        ({"y_prob": np.eye(4)[:, :2], "kind": "worst"}, "^Got kind='worst'"),
        ({"y_prob": np.eye(3)}, r"^Got y_prob of shape \(3, 3\) for X of 4 samples"),
        ({"y_pred": ["a", "b", "a", "b"]}, "expected numbers"),
    ],
)
def test_predictions_that_do_not_fit_are_refused_with_a_sentence(given, message):
    with pytest.raises(ValueError, match=message):
        MistakesDisplay.from_predictions(DIGITS[:4], np.array([0, 1, 0, 1]), **given, **READ)
