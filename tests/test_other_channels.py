"""What a user may rely on with images of 2, 4 ... 64 channels, whatever the network was pretrained with."""

import json
import pickle
import warnings

import numpy as np
import pytest
from networks import rest_exhaustive, tiny_cnn, tiny_grey_cnn
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from torch import nn

import sktransfer
from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktransfer.backbones import ImagePreprocessing

BAND = 9


def sized():
    network = tiny_cnn()
    network.preprocessing = ImagePreprocessing(crop=(16, 16), mean=(0.2, 0.4, 0.6), std=(0.5, 0.5, 0.5))
    return network


def images(n=60, bands=13, seed=0):
    """Noise in which one band alone tells the classes, by a twentieth of its range."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    X = rng.uniform(0.3, 0.6, (n, 16, 16, bands)).astype(np.float32)
    X[..., min(BAND, bands - 1)] += np.where(y == 1, 0.05, 0)[:, None, None]
    return X, y


def extractor(network=sized, **parameters):
    return PretrainedFeatureExtractor(network, **{"random_state": 0, "precision": "float32", **parameters})


# Learning


FORMS = {
    "channels last": lambda X: X,
    "channels first": lambda X: X.transpose(0, 3, 1, 2),
    "list": list,
    "list, channels first": lambda X: list(X.transpose(0, 3, 1, 2)),
    "flat": lambda X: X.reshape(len(X), -1),
    "uint8": lambda X: (X * 255).astype(np.uint8),
    "reflectances": lambda X: (X * 10000).astype(np.uint16),
    "signed": lambda X: (X * 10000).astype(np.int16) - 4000,
}


@pytest.mark.filterwarnings("ignore:Got image values")
@pytest.mark.parametrize("form", rest_exhaustive(FORMS, "channels last", "channels first", "flat", "reflectances"))
def test_what_one_band_of_thirteen_tells_is_learned_and_red_green_and_blue_do_not_tell_it(form):
    X, y = images()
    given = FORMS[form](X)
    shape = {"image_shape": (16, 16, 13)} if form == "flat" else {}
    model = FineTunedClassifier(sized, random_state=0, **shape).fit(given[:40], y[:40])
    assert model.score(given[40:], y[40:]) == 1.0
    colours = FineTunedClassifier(sized, random_state=0).fit(X[:40, ..., :3], y[:40])
    assert colours.score(X[40:, ..., :3], y[40:]) < 0.85


def test_a_network_is_tuned_from_its_first_layer_on():
    X, y = images()
    model = FineTunedClassifier(sized, freeze_depth=0, max_epochs=2, random_state=0).fit(X[:40], y[:40])
    assert model.score(X[40:], y[40:]) == 1.0
    assert FineTunedRegressor(sized, random_state=0).fit(X[:40], y[:40]).score(X[40:], y[40:]) > 0.5


@pytest.mark.parametrize("bands", rest_exhaustive([2, 5, 13, 40, 64], 2, 64))
def test_all_layouts_have_the_same_features(bands):
    X, _ = images(6, bands)
    X = X[:, :, :12] if bands > 16 else X  # else the shape would be read in two ways
    X = np.repeat(np.repeat(X, 9, axis=1), 9, axis=2) if bands > 16 else X
    expected = extractor(n_channels=bands).fit_transform(X)
    for same in (X, X.transpose(0, 3, 1, 2), list(X), list(X.transpose(0, 3, 1, 2))):
        np.testing.assert_allclose(extractor().fit_transform(same), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((13, 64, 64), 13), ((64, 64, 13), 13), ((13, 16, 16), 13), ((16, 16, 13), 13), ((10, 32, 24), 10),
        ((120, 100, 12), 12), ((2, 64, 48), 2), ((5, 6, 6), 5), ((30, 40, 8), 8), ((144, 108, 64), 64),
    ],
    ids=str,
)  # fmt: skip
def test_the_axis_of_the_channels_is_told_where_one_alone_can_be(shape, channels):
    X = np.random.default_rng(0).uniform(size=(2, *shape))
    assert extractor().fit(X).backbone_.preprocessing.channels == channels
    assert extractor().fit(list(X)).backbone_.preprocessing.channels == channels


@pytest.mark.parametrize(
    "shape",
    [
        (20, 20, 20), (8, 8, 8), (10, 12, 8), (24, 64, 24), (3, 3, 13), (4, 4, 13), (1, 1, 13), (13, 1, 1), (13, 3, 3),
    ],
    ids=str,
)  # fmt: skip
def test_a_shape_that_can_be_read_in_two_ways_is_asked_about(shape):
    X = np.random.default_rng(0).uniform(size=(2, *shape))
    for given in (X, list(X)):
        with pytest.raises(ValueError, match=r"^Got X.* of shape .*does not tell.*Give n_channels"):
            extractor().fit(given)
    count = max(shape[0], shape[-1]) if min(shape) < 5 else shape[-1]
    assert extractor(n_channels=count).fit(X).backbone_.preprocessing.channels == count


@pytest.mark.parametrize("shape", [(9, 9, 200), (20, 24, 65), (200, 11, 11), (3, 3, 200)], ids=str)
def test_patches_of_more_bands_than_are_taken_are_not_read_as_others(shape):
    X = np.random.default_rng(0).uniform(size=(2, *shape))
    for given in (X, list(X)):
        with pytest.raises(ValueError, match=r"^Got X.* of shape .*does not tell.*with at most 64 channels\. Give"):
            extractor().fit(given)


def test_lines_of_a_network_for_grey_and_small_pictures_stay_what_they_are():
    lines = nn.Sequential(nn.Conv2d(1, 4, (1, 3)), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    for network, shape in ((lines, (1, 1, 13)), (sized, (3, 5, 5)), (sized, (3, 32, 24)), (sized, (4, 4, 3))):
        X = np.random.default_rng(0).uniform(size=(2, *shape))
        assert PretrainedFeatureExtractor(network).fit(X).backbone_.preprocessing.channels == (1 if 13 in shape else 3)


# One, three and four


def test_grey_and_colours_are_what_they_were_and_leave_the_network_as_it_was():
    X = (images(6, 3)[0] * 255).astype(np.uint8)
    expected = extractor(feature_cache=None).fit(X)
    for parameters in ({"n_channels": "auto"}, {"n_channels": 3}):
        found = extractor(feature_cache=None, **parameters).fit(X)
        np.testing.assert_array_equal(found.transform(X), expected.transform(X))
        assert found.backbone_.fingerprint == expected.backbone_.fingerprint
        assert found._reader.preprocessing == expected._reader.preprocessing


def test_four_channels_are_transparency_unless_n_channels_says_otherwise(tmp_path):
    y = np.arange(24) % 2
    X = np.random.default_rng(0).integers(0, 255, (24, 16, 16, 4), dtype=np.uint8)
    X[..., 3] = np.where(y == 1, 200, 120)[:, None, None]
    with pytest.warns(UserWarning, match="treated as transparency and dropped.*set n_channels=4"):
        three = FineTunedClassifier(sized, random_state=0).fit(X, y)
    assert three.backbone_.preprocessing.channels == 3
    paths = []
    for number, pixels in enumerate(X):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(pixels).save(paths[-1])
    for given in (X, list(X), paths, [Image.fromarray(pixels) for pixels in X]):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            four = FineTunedClassifier(sized, n_channels=4, random_state=0).fit(given, y)
        assert four.score(given, y) == 1.0


def test_one_channel_reads_colours_as_grey_and_gives_what_grey_gave_a_network_of_three():
    network = tiny_cnn()  # without a mean, of which there is one for each colour
    grey = (images(6, 3)[0][..., 0] * 255).astype(np.uint8)

    def features(X, **parameters):
        return PretrainedFeatureExtractor(network, precision="float32", **parameters).fit_transform(X)

    np.testing.assert_allclose(features(grey, n_channels=1), features(grey), rtol=1e-4, atol=1e-5)
    colours = np.repeat(grey[..., None], 3, axis=-1)
    np.testing.assert_allclose(features(colours, n_channels=1), features(grey), rtol=1e-4, atol=1e-5)


def test_a_network_that_takes_n_channels_gets_n_and_nothing_is_learned():
    X, _ = images(6, 5)
    own = tiny_cnn(in_channels=5)
    fitted = PretrainedFeatureExtractor(own).fit(X)
    assert fitted.backbone_.n_own_channels is None
    assert fitted._reader.preprocessing.mean == (0.0,)
    with pytest.raises(ValueError, match="with 5 channels, as the network takes"):
        PretrainedFeatureExtractor(own).fit(images(6, 4)[0])
    assert PretrainedFeatureExtractor(own, n_channels=7).fit(images(6, 7)[0]).backbone_.n_own_channels == 5


def test_a_grey_network_is_adapted_too():
    assert PretrainedFeatureExtractor(tiny_grey_cnn).fit(images(6)[0]).backbone_.n_own_channels == 1


# Mean and deviation


@pytest.mark.parametrize("form", ["channels last", "channels first", "list", "uint8", "reflectances"])
def test_channels_beyond_those_of_the_network_are_normalised_by_what_fit_saw(form):
    X, _ = images(20)
    parameters = {"pixel_range": (0, 10000)} if form == "reflectances" else {}
    found = extractor(**parameters).fit(FORMS[form](X))._reader.preprocessing
    assert found.mean[:3] == (0.2, 0.4, 0.6)
    assert found.std[:3] == (0.5, 0.5, 0.5)
    np.testing.assert_allclose(found.mean[3:], X[..., 3:].mean((0, 1, 2)), rtol=0.01)
    np.testing.assert_allclose(found.std[3:], X[..., 3:].std((0, 1, 2)), rtol=0.01)


def test_a_channel_that_never_changes_does_no_harm():
    X, y = images()
    X[..., 5] = 0.25
    assert FineTunedClassifier(sized, random_state=0).fit(X[:40], y[:40]).score(X[40:], y[40:]) == 1.0


def test_given_means_and_deviations_are_in_the_units_of_x():
    X, _ = images(6)
    means, deviations = np.linspace(1000, 4000, 13), np.linspace(500, 900, 13)
    reflectances = (X * 10000).astype(np.uint16)
    parameters = {"pixel_range": (0, 10000), "channel_stats": (means, deviations)}
    fitted = extractor(**parameters).fit(reflectances)
    found = fitted._reader.preprocessing
    np.testing.assert_allclose(found.mean, means / 10000)
    np.testing.assert_allclose(found.std, deviations / 10000)
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.transform(reflectances), fitted.transform(reflectances))
    assert clone(fitted).fit(reflectances)._reader.preprocessing == found


def test_a_deviation_that_is_nothing_beside_the_values_is_refused():
    with pytest.raises(ValueError, match=r"^Got channel_stats with a deviation of 1e-300 for values from 0 to 1; "):
        extractor(channel_stats=([0.5] * 13, [0.2] * 12 + [1e-300])).fit(images(4)[0])


def test_given_means_replace_those_of_colours_too():
    X = (images(6, 3)[0] * 255).astype(np.uint8)
    found = extractor(channel_stats=([51.0] * 3, [25.5] * 3)).fit(X)._reader.preprocessing
    np.testing.assert_allclose(found.mean, 0.2)
    np.testing.assert_allclose(found.std, 0.1)


@pytest.fixture
def passed(monkeypatch):
    """Samples that the first layer has seen, in frozen passes."""
    seen, original = [], nn.Conv2d.forward

    def count(self, x):
        if self.in_channels == 13:
            seen.extend([0] * len(x))
        return original(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", count)
    return seen


def test_a_search_passes_each_image_once_where_means_are_given_and_once_a_fold_where_they_are_learned(passed):
    X, y = images(30)
    stats = {"channel_stats": ([0.5] * 13, [0.2] * 13)}
    for parameters, passes in ((stats, 30), ({}, 30 * 3)):
        passed.clear()
        model = FineTunedClassifier(sized, random_state=0, max_epochs=1, **parameters)
        GridSearchCV(model, {"head_C": [0.1, 1.0]}, cv=3, refit=False, error_score="raise").fit(X, y)
        assert len(passed) == passes


def test_folds_do_not_see_what_is_held_out():
    X, y = images(30)
    scores = cross_val_score(make_pipeline(extractor(), LogisticRegression()), X, y, cv=3, error_score="raise")
    assert scores.shape == (3,)
    part = extractor().fit(X[:20])
    np.testing.assert_allclose(part._reader.preprocessing.mean[3:], X[:20, ..., 3:].mean((0, 1, 2)), rtol=1e-3)


# Models that last


@pytest.mark.parametrize("make", [lambda: sized, sized, lambda: "squeezenet1_1"], ids=["function", "module", "name"])
@pytest.mark.parametrize("stored", rest_exhaustive([True, False], False))
def test_a_model_comes_back_from_pickles_and_files(make, stored, tmp_path):
    X, y = images(12)
    made = make()
    weights = {"weights": None} if made == "squeezenet1_1" else {}
    model = FineTunedClassifier(made, random_state=0, store_backbone=stored, **weights).fit(X, y)
    expected = model.predict_proba(X)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict_proba(X), expected)
    sktransfer.save(model, tmp_path / "model")
    own = {} if made == "squeezenet1_1" else {"backbone": made}
    np.testing.assert_allclose(sktransfer.load(tmp_path / "model", **own).predict_proba(X), expected, rtol=1e-5)


@pytest.mark.parametrize("network", [sized, "squeezenet1_1"], ids=["function", "name"])
def test_a_tuned_network_of_other_channels_goes_on_to_images_of_as_many(network, tmp_path):
    X, _ = images(12)
    weights = {} if callable(network) else {"weights": None}
    first = extractor(network, **weights).fit(X)
    first.save_backbone(tmp_path / "b.safetensors")
    for how in ({}, {"n_channels": 13}):
        second = extractor(network, weights=tmp_path / "b.safetensors", **how).fit(X)
        np.testing.assert_allclose(second.transform(X), first.transform(X), rtol=1e-4, atol=1e-5)
    for other in (images(12, 3)[0], images(12, 5)[0]):
        with pytest.raises(ValueError, match=r"that do not match the backbone .* other shape"):
            extractor(network, weights=tmp_path / "b.safetensors").fit(other)


def test_an_onnx_file_takes_as_many_channels(tmp_path):
    onnx = pytest.importorskip("onnx")
    X, _ = images(4)
    extractor().fit(X).to_onnx(tmp_path / "x.onnx")
    sides = onnx.load(tmp_path / "x.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_value for side in sides][1:] == [13, 16, 16]
    said = json.loads((tmp_path / "x.onnx.json").read_text())["preprocessing"]
    assert said["channels"] == len(said["mean"]) == len(said["std"]) == 13


def test_the_repr_and_the_summary_tell_the_channels():
    fitted = extractor(n_channels=13).fit(images(4)[0])
    assert "n_channels=13" in repr(fitted)
    assert "first layer adapted to 13 channels" in str(fitted.backbone_.summary())
    assert "first layer adapted to 13 channels" in fitted.backbone_.summary()._repr_html_()


# What is refused


@pytest.mark.parametrize("bands", [1, 3, 4, 12, 14])
@pytest.mark.parametrize("form", [np.asarray, list], ids=["array", "list"])
def test_other_channels_than_in_fit_are_refused(bands, form):
    fitted = extractor().fit(images(4)[0])
    with pytest.raises(
        ValueError, match=r"^Got X.* of shape .*with 13 channels, as in fit\. Give images of 13, or fit"
    ):
        fitted.transform(form(images(4, bands)[0]))
    three = extractor().fit(images(4, 3)[0])
    with pytest.raises(ValueError, match=r"^Got X.* of shape"):
        three.transform(form(images(4, 13)[0]))


def test_images_of_different_channels_are_refused_by_row():
    mixed = [*images(2, 13)[0], *images(2, 12)[0]]
    with pytest.raises(ValueError, match=r"^Got X\[2\] of shape \(16, 16, 12\).*with 13 channels"):
        extractor().fit(mixed)


def test_pictures_are_refused_by_a_network_for_thirteen():
    with pytest.raises(ValueError, match="a picture of mode RGB; expected an array of 13 channels"):
        extractor(n_channels=13).fit([Image.new("RGB", (16, 16))])


def test_one_picture_of_bands_instead_of_several_is_told():
    with pytest.raises(ValueError, match=r"looks like one picture; expected several\. Put a single one into a list"):
        extractor(n_channels=13).fit(images(1)[0][0])


def test_a_network_whose_first_layer_cannot_be_adapted_is_refused_before_training():
    network = nn.Sequential(nn.BatchNorm2d(3), *tiny_cnn())
    with pytest.raises(ValueError, match="whose first layer takes 3 and cannot be adapted: it uses the image"):
        PretrainedFeatureExtractor(network).fit(images(4)[0])


@pytest.mark.parametrize("word", ["in_chans", "num_channels", "bands"])
def test_other_words_are_answered(word):
    with pytest.raises(TypeError, match="Here it is called n_channels"):
        PretrainedFeatureExtractor(**{word: 4})


@pytest.mark.parametrize("bands", [2, 13])
def test_displays_draw_the_first_three_channels_as_colours(bands):
    pytest.importorskip("matplotlib").use("Agg")
    from sktransfer.inputs._rows import Rows
    from sktransfer.inspection import FilterDisplay, MistakesDisplay, SaliencyDisplay, SamplesDisplay
    from sktransfer.inspection._read_samples import HowToRead, read_samples

    X, y = images(12, bands)
    (drawn,) = read_samples(Rows(X), [3], HowToRead(kind="images"))
    np.testing.assert_allclose(drawn.content, X[3, ..., :3] if bands == 13 else X[3, ..., [0, 0, 0]].transpose(1, 2, 0))
    model = FineTunedClassifier(sized, random_state=0).fit(X, y)
    SamplesDisplay.from_data(X, y)
    MistakesDisplay.from_estimator(model, X, y, kind="uncertain")
    SaliencyDisplay.from_estimator(model, X[:1])
    FilterDisplay.from_estimator(model, X[:1])
