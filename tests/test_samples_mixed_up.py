"""Samples that stand where labels should, and samples of another kind than the network takes: the first mistakes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from networks import tiny_cnn
from PIL import Image

from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktransfer.inputs._refusals import check_order

WORDS = ["I did not like it much", "a long and slow film", "what a lovely little story", "I slept all the way"]


def swapped_cases():
    pixels = np.zeros((4, 8, 8, 3), dtype=np.uint8)
    words = ["ant", "bee", "ant", "bee"]
    pictures = [Image.fromarray(one) for one in pixels]
    return {
        "array": (words, pixels),
        "numbers": ([0, 1, 0, 1], pixels),
        "array of numbers": (np.array([0.5, 1.5, 0.5, 1.5]), pixels),
        "Series": (pd.Series(words), list(pixels)),
        "array of strings": (np.array(words), torch.zeros(4, 3, 8, 8)),
        "pictures": (words, pictures),
        "Path": (words, [Path("a.png")] * 4),
        "texts": (words, WORDS),
        "Series of texts": ([0, 1, 0, 1], pd.Series(WORDS)),
        "booleans": ([True, False, True, False], pixels),
    }


@pytest.mark.parametrize(("X", "y"), swapped_cases().values(), ids=swapped_cases())
@pytest.mark.parametrize("estimator_class", [FineTunedClassifier, FineTunedRegressor])
def test_x_and_y_in_the_wrong_order_are_told(estimator_class, X, y):
    with pytest.raises(ValueError, match=r"^Got X\[0\] = .* and y\[0\] = .*labels.*Call fit\(X, y\)") as caught:
        estimator_class(tiny_cnn).fit(X, y)
    assert "np." not in str(caught.value)


def test_files_in_place_of_labels_are_told(paths):
    with pytest.raises(ValueError, match=r"X looks like labels, and y like samples"):
        FineTunedClassifier(tiny_cnn).fit(["ant", "bee"] * (len(paths) // 2), list(paths))


@pytest.mark.parametrize(
    ("X", "y"),
    [
        (WORDS, ["good", "bad", "good", "bad"]),
        (WORDS, ["not so very good", "bad", "not so very good", "bad"]),
        (["good", "bad", "good", "bad"], ["a", "b", "c", "d"]),
        (["a b c"] * 4, WORDS[:2] * 2),
        (["ant", "bee"], ["a film to see", "a film to miss"]),
        (None, WORDS),
        ([], []),
        (WORDS, None),
        (torch.zeros(4, 3, 8, 8, device="meta"), [0, 1, 0, 1]),
        (torch.zeros(4, 4).to_sparse(), torch.zeros(4, 4).to_sparse()),
    ],
    ids=range(10),
)
def test_what_may_be_in_the_right_order_is_let_through(X, y):
    check_order(X, y)


def test_texts_for_a_network_of_images_ask_for_one_of_texts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"Got 4 of 4 paths .* If these are texts, take a backbone for texts"):
        PretrainedFeatureExtractor(tiny_cnn).fit(WORDS)
    for given in (["a.png"] * 4, ["my photos/a b.png", "c d.jpg"], ["ant", "bee"]):
        with pytest.raises(FileNotFoundError) as caught:
            PretrainedFeatureExtractor(tiny_cnn).fit(given)
        assert "If these are" not in str(caught.value)
