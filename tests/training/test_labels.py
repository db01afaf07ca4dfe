"""What y may be, and what is said of any other, before a network is loaded or a sample read."""

import enum

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from networks import tiny_vectors

from sktransfer import FineTunedClassifier

X = np.random.default_rng(0).normal(size=(6, 4))
MISSING = "expected one label per sample. Leave out rows without a label"


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (["a", "b"] * 3, ["a", "b"]),
        ([True, False] * 3, [False, True]),
        ([np.int64(3), 2] * 3, [2, 3]),
        ([0.0, 1.0] * 3, [0.0, 1.0]),
        (range(6), range(6)),
        (np.array([0, 1] * 3, dtype=object), [0, 1]),
        (torch.tensor([0, 1] * 3), [0, 1]),
        ([torch.tensor(0), torch.tensor(1)] * 3, [0, 1]),
        (pl.Series(["a", "b"] * 3), ["a", "b"]),
        (pd.Series(["a", "b"] * 3, dtype="category"), ["a", "b"]),
        (pd.Series(["a", "b"] * 3, dtype="string"), ["a", "b"]),
        (pd.Series([0, 1] * 3, dtype="Int64"), [0, 1]),
        (pd.Series([True, False] * 3, dtype="boolean"), [False, True]),
        (np.ma.masked_array([0, 1] * 3), [0, 1]),
    ],
    ids=range(14),
)
def test_labels_come_in_any_form(y, classes):
    fitted = FineTunedClassifier(tiny_vectors).fit(X, y)
    assert fitted.classes_.tolist() == list(classes)
    assert set(fitted.predict(X).tolist()) <= set(classes)


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (["a", "b", None] * 2, rf"Got y\[2\] = None; {MISSING}. \(2 labels are missing.\)"),
        ([0, None, 1, 0, 1, 0], rf"Got y\[1\] = None; {MISSING}\.$"),
        ([0, 1, np.nan] * 2, rf"Input y contains NaN: got y\[2\] = nan; {MISSING}"),
        (["a", "b", np.nan] * 2, rf"Got y\[2\] = nan; {MISSING}"),
        ([0, 1, pd.NA] * 2, rf"Got y\[2\] = <NA>; {MISSING}"),
        (pd.Series(["a", None] * 3, dtype="category"), rf"Got y\[1\] = nan; {MISSING}"),
        (pd.Series(["a", None] * 3, dtype="string"), rf"Got y\[1\] = .*; {MISSING}"),
        (pd.Series([0, None, 1] * 2, dtype="Int64"), rf"y\[1\] = .*; {MISSING}"),
        (pl.Series(["a", None] * 3), rf"Got y\[1\] = None; {MISSING}"),
        (np.array(["2020", "NaT"] * 3, dtype="M8[D]"), rf"y\[1\] = None; {MISSING}"),
        (
            ["a", 1, "b"] * 2,
            r"Got labels of mixed types: y\[0\] = 'a' and y\[1\] = 1; .*\[str\(label\) for label in y\]",
        ),
        (np.array([1, 2, "b"] * 2, dtype=object), r"Got labels of mixed types: y\[0\] = 1 and y\[2\] = 'b'"),
        ([True, "b"] * 3, r"Got labels of mixed types"),
        ([np.str_("a"), np.int64(1)] * 3, r"Got labels of mixed types"),
        (["a" * 9999, 1] * 3, r"Got labels of mixed types"),
        ([b"a", b"b"] * 3, r"of type bytes; .*label.decode\(\)"),
        (np.array([b"a", b"b"] * 3), r"of type bytes; .*label.decode\(\)"),
        ([Colour.RED, Colour.BLUE] * 3, r"of type Colour; .*\[str\(label\) for label in y\]"),
        ([["a"], ["a", "b"]] * 3, r"among labels that are lists.*MultiLabelBinarizer"),
        (
            np.eye(6)[:, :2] + 1,
            r"Got y of shape \(6, 2\) with y\[0, 0\] = 2.0; .* y should be a 1d array.*MultiLabelBinarizer",
        ),
        (pd.DataFrame({"a": [0, 1] * 3, "b": ["a", "b"] * 3}), r"Got y of shape \(6, 2\) with y\[0, 1\] = 'a'"),
        (np.ones((6, 2, 2)), r"Got y of shape \(6, 2, 2\); y should be a 1d array"),
        (np.linspace(0, 1, 12).reshape(6, 2), r"To predict several .* use FineTunedRegressor"),
        (np.linspace(0, 1, 6), r"such as 0.2; .*FineTunedRegressor"),
        (np.linspace(0, 1, 6), "Unknown label type: continuous"),
        (np.ma.masked_array([0, 1] * 3, mask=[1, 0] * 3), "Got y as a masked array in which 3 values are masked"),
        (torch.zeros(6, dtype=torch.bfloat16), "Got y as a tensor of type torch.bfloat16"),
        (np.zeros(6, dtype=[("a", "i4")]), r"with the fields \['a'\].*Give y\['a'\]"),
        (np.array([1j, 2] * 3), "Complex data not supported: got y"),
        ("ababab", "Got y='ababab'; expected one label per sample"),
        ({"a": 1}, "Got y of type dict; expected one label per sample"),
        ({1, 2}, r"Got y of type set; .*y=list\(y\)"),
        ((label for label in "ababab"), r"Got y of type generator; .*y=list\(y\)"),
        ([0, 1, np.inf] * 2, "Input y contains infinity"),
        ([0, 1], r"inconsistent numbers of samples: 6 in X and 2 in y"),
        ([0, 1] * 4, r"inconsistent numbers of samples: 6 in X and 8 in y"),
        ([1] * 6, "only one class"),
        (None, "requires y to be passed, but the target y is None"),
    ],
    ids=range(38),
)
def test_what_is_no_label_is_refused_before_anything_is_loaded(y, match):
    def network():
        pytest.fail("the network was loaded")

    with pytest.raises(ValueError, match=match) as caught:
        FineTunedClassifier(network).fit(X, y)
    assert len(str(caught.value)) < 600


def test_labels_are_checked_before_files_are_looked_for():
    with pytest.raises(ValueError, match=r"Got y\[1\] = None"):
        FineTunedClassifier("resnet18").fit(["gone.png", "lost.png"], ["a", None])
