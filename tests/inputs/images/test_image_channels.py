"""What a user may rely on about channels: none is dropped in silence, and each network gets as many as it takes."""

import warnings

import numpy as np
import pytest
import torch
import torchvision
from networks import tiny_cnn
from PIL import Image
from torch import nn

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.inputs import ImagePreprocessing, make_reader

SIDE = 16


def network_of(channels):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def arrays(*channels, n=6, dtype=np.uint8):
    pixels = np.random.default_rng(0).integers(0, 256, (n, SIDE, SIDE, *channels), dtype=np.uint8)
    return pixels if dtype == np.uint8 else (pixels / 255).astype(dtype)


def extractor_of(channels, **more):
    return PretrainedFeatureExtractor(network_of(channels), feature_cache=None, precision="float32", **more)


def told(call, *args):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        call(*args)
    return [str(w.message) for w in heard]


def read(X, channels, crop=(SIDE, SIDE), resize=None):
    reader = make_reader("images", ImagePreprocessing(resize, crop, channels=channels), None, "auto")
    samples = reader.learn(X)
    return samples.prepare(torch.stack([samples.load(row) for row in range(len(samples))]))


# Networks of one's own


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [2, 4, 5, 12])
def test_a_network_gets_as_many_channels_as_its_first_layer_takes(channels, dtype):
    X = arrays(channels, dtype=dtype)
    expected = torch.as_tensor(X / (255 if dtype == np.uint8 else 1)).permute(0, 3, 1, 2).float()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("error")
        features = network_of(channels)(expected).numpy()
        for same in (X, X.transpose(0, 3, 1, 2), list(X), list(X.transpose(0, 3, 1, 2))):
            np.testing.assert_allclose(extractor_of(channels).fit_transform(same), features, rtol=1e-4, atol=1e-5)


def test_what_only_the_fourth_channel_tells_is_learned_and_survives_saving(tmp_path):
    y = np.array([0, 1] * 6)
    X = arrays(4, n=12, dtype=np.float32)
    X[..., 3] = np.where(y == 1, 0.9, 0.1)[:, None, None]
    classifier = FineTunedClassifier(network_of(4), random_state=0).fit(X, y)
    assert classifier.score(X, y) == 1.0
    sktransfer.save(classifier, tmp_path / "model")
    again = sktransfer.load(tmp_path / "model", backbone=network_of(4))
    np.testing.assert_allclose(again.predict_proba(X), classifier.predict_proba(X), rtol=1e-5)


@pytest.mark.parametrize("augment", ["light", "standard", "strong"])
def test_networks_of_other_channels_are_trained_on_changed_pictures(augment):
    y = np.array([0, 1] * 3)
    classifier = FineTunedClassifier(
        network_of(5), freeze_depth=0, max_epochs=1, head_epochs=1, augment=augment, random_state=0
    )
    assert classifier.fit(arrays(5), y).predict(arrays(5)).shape == (6,)


def test_a_network_of_torchvision_with_another_first_layer_gets_its_channels():
    network = torchvision.models.resnet18(weights=None)
    network.conv1 = nn.Conv2d(4, 64, 7, stride=2, padding=3, bias=False)
    extractor = PretrainedFeatureExtractor(network, feature_cache=None).fit(arrays(4, n=2))
    preprocessing = extractor.backbone_.preprocessing
    assert preprocessing.channels == 4
    assert preprocessing.mean[:3] == (0.485, 0.456, 0.406)
    assert preprocessing.mean[3] == pytest.approx(0.449)
    assert len(preprocessing.std) == 4


def test_layers_that_are_listed_before_the_first_that_runs_do_not_mislead():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.second = nn.Conv2d(8, 8, 3)
            self.first = nn.Conv2d(3, 8, 3)

        def forward(self, x):
            return self.second(self.first(x)).mean((2, 3))

    extractor = PretrainedFeatureExtractor(Late(), feature_cache=None).fit(arrays(3))
    assert extractor.backbone_.preprocessing.channels == 3


# Counts that do not fit


@pytest.mark.parametrize("form", [np.asarray, list], ids=["array", "list"])
@pytest.mark.parametrize(
    ("channels", "given"),
    [(4, (3,)), (4, (1,)), (4, ()), (2, (3,)), (5, (4,)), (12, ()), (12, (13,))],
)
def test_other_counts_are_refused_before_anything_is_computed(channels, given, form):
    wanted = f"{channels} channels, as the network takes"
    with pytest.raises(ValueError, match=f"^Got X.* of shape .*; expected .*with {wanted}") as refused:
        extractor_of(channels).fit(form(arrays(*given)))
    assert len(str(refused.value)) < 600


def test_flat_rows_of_other_channels_are_refused():
    rows = arrays(3).reshape(6, -1)
    with pytest.raises(ValueError, match=r"image_shape=\(16, 16, 3\); expected 4 channels, as the network takes"):
        extractor_of(4, image_shape=(SIDE, SIDE, 3)).fit(rows)
    four = arrays(4)
    np.testing.assert_array_equal(
        extractor_of(4, image_shape=(SIDE, SIDE, 4)).fit_transform(four.reshape(6, -1)),
        extractor_of(4).fit_transform(four),
    )


@pytest.mark.parametrize("way", ["picture", "file"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "P", "I;16"])
def test_pictures_without_transparency_are_refused_by_a_network_of_four(mode, way, tmp_path):
    picture = Image.new(mode, (SIDE, SIDE))
    picture.save(tmp_path / "x.tif")
    X = [picture if way == "picture" else str(tmp_path / "x.tif")]
    with pytest.raises(ValueError, match=r"expected a picture with transparency \(RGBA\).*takes 4 channels") as refused:
        extractor_of(4).fit(X)
    assert len(str(refused.value)) < 600


def test_pictures_are_refused_by_a_network_of_five():
    with pytest.raises(ValueError, match="expected an array of 5 channels, for a network that takes 5"):
        extractor_of(5).fit([Image.new("RGB", (SIDE, SIDE))])


@pytest.mark.parametrize("way", ["picture", "file"])
def test_transparency_of_pictures_is_the_fourth_channel_where_one_is_taken(way, tmp_path):
    pixels = arrays(4, n=1)[0]
    Image.fromarray(pixels).save(tmp_path / "x.png")
    X = [Image.fromarray(pixels) if way == "picture" else str(tmp_path / "x.png")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(read(X, 4)[0], pixels.transpose(2, 0, 1) / 255, atol=1e-6)
    two = Image.merge("LA", [Image.fromarray(np.ascontiguousarray(pixels[..., band])) for band in (0, 3)])
    np.testing.assert_allclose(read([two], 4)[0], pixels[..., [0, 0, 0, 3]].transpose(2, 0, 1) / 255, atol=1e-6)


@pytest.mark.parametrize("resize", [None, 20])
def test_channels_are_resized_apart_from_each_other(resize):
    """A fourth channel that is zero would make the others black, were it taken for transparency."""
    pixels = arrays(4, n=1)
    pixels[..., 3] = 0
    for X in (pixels, [Image.fromarray(pixels[0])]):
        found = read(X, 4, (8, 8), resize)
        assert torch.equal(found[:, :3], read(pixels[..., :3], 3, (8, 8), resize))
        assert not found[:, 3].any()


# A fourth channel where three are taken


FORMS = {
    "array": lambda X: X,
    "channels first": lambda X: X.transpose(0, 3, 1, 2),
    "list": list,
    "list, one with four": lambda X: [X[0], *X[1:, ..., :3]],
    "floats": lambda X: (X / 255).astype(np.float32),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", FORMS)
def test_the_fourth_channel_of_an_array_is_dropped_with_one_warning_a_call(form, channels):
    X = FORMS[form](arrays(4))
    extractor = extractor_of(channels)
    for call in (extractor.fit, extractor.transform):
        (message,) = told(call, X)
        assert message.startswith(f"Got arrays of 4 channels, but the network takes {channels}: the fourth is treated")
        assert "set n_channels=4, or use a network whose first layer takes 4" in message
        assert "X[..., :3]" in message
    without = arrays(4)[..., :3]
    colours = extractor_of(channels).fit_transform((without / 255).astype(np.float32) if form == "floats" else without)
    np.testing.assert_allclose(extractor.transform(X), colours, rtol=1e-5, atol=1e-6)


def test_files_and_pictures_say_themselves_that_they_are_transparent(tmp_path):
    Image.fromarray(arrays(4, n=1)[0]).save(tmp_path / "x.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extractor_of(3).fit_transform([str(tmp_path / "x.png"), Image.fromarray(arrays(4, n=1)[0])])


# Which axis holds the channels


@pytest.mark.parametrize(
    ("shape", "channels", "expected"),
    [
        ((2, 8, 8, 3), 3, (3, 8, 8)),
        ((2, 3, 8, 8), 3, (3, 8, 8)),
        ((2, 3, 8, 4), 3, (3, 8, 4)),
        ((2, 4, 8, 3), 3, (3, 4, 8)),
        ((2, 1, 8, 4), 1, (1, 8, 4)),
        ((2, 1, 8, 3), 1, (1, 8, 3)),
        ((2, 28, 28, 1), 1, (1, 28, 28)),
        ((2, 4, 8, 3), 4, (4, 8, 3)),
        ((2, 3, 8, 4), 4, (4, 3, 8)),
        ((2, 12, 8, 8), 12, (12, 8, 8)),
        ((2, 8, 8, 12), 12, (12, 8, 8)),
        ((2, 1, 1, 3), 3, (3, 1, 1)),
    ],
    ids=str,
)
def test_the_axis_of_as_many_channels_as_the_network_takes_is_found(shape, channels, expected):
    X = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    found = read(X, channels, expected[1:])
    assert found.shape[1:] == expected
    same = X if X.shape[1:] == expected else X.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, same / 255, atol=1e-6)


def test_where_both_axes_could_be_channels_it_is_the_last():
    X = np.arange(2 * 64, dtype=np.uint8).reshape(2, 4, 4, 4)
    np.testing.assert_allclose(read(X, 4, (4, 4)), X.transpose(0, 3, 1, 2) / 255, atol=1e-6)


# What travels with a network


@pytest.mark.parametrize("values", [(0.5, 0.5, 0.5), (0.5, 0.5), ()], ids=str)
@pytest.mark.parametrize("name", ["mean", "std"])
def test_means_and_deviations_that_do_not_fit_the_channels_are_refused(name, values):
    with pytest.raises(
        ValueError, match=rf"Got {name}=.* of {len(values)} values and channels=4; expected one value, or"
    ):
        ImagePreprocessing(channels=4, **{name: values})


def test_a_network_may_say_itself_how_many_channels_it_takes():
    network = tiny_cnn()
    network[0] = nn.Conv2d(4, network[0].out_channels, 3)
    network.preprocessing = ImagePreprocessing(crop=(SIDE, SIDE), mean=(0.1, 0.2, 0.3, 0.4), std=(1.0,), channels=4)
    extractor = PretrainedFeatureExtractor(network, feature_cache=None, pixel_range=(0, 255)).fit(arrays(4))
    assert extractor.backbone_.preprocessing.mean == (0.1, 0.2, 0.3, 0.4)
    assert np.isfinite(extractor.transform(arrays(4))).all()
