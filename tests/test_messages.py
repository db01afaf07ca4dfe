"""Whatever stands in a message, the message stays short, and says where to look."""

from pathlib import Path

import numpy as np
import pytest
from networks import tiny_cnn

from sktransfer import FineTunedClassifier, FineTunedRegressor, load_image_folder, set_cache_limit
from sktransfer._messages import check_choice, first_line, name_some, nearest, shortened, shown, without_numpy
from sktransfer.backbones import load_backbone

VALUES = {
    "text": "x" * 100_000,
    "path": Path("folder/" * 500),
    "dict": {"a" * 1000: ["b" * 1000] * 10},
    "array": np.zeros((100, 100, 100)),
    "nested": [[[[["x" * 1000] * 100] * 100] * 100] * 100],
}


@pytest.mark.parametrize("kind", VALUES)
def test_a_value_of_any_size_is_shown_in_one_short_line(kind):
    said = shown(VALUES[kind])
    assert len(said) <= 122
    assert "\n" not in said


def test_what_is_short_is_shown_whole():
    assert shown("a  b") == "'a  b'"
    assert shown(Path("a/b.png")) == "'a/b.png'"
    assert shown(None) == "None"
    assert shortened("a  b") == "a  b"


def test_a_long_text_keeps_both_ends():
    said = shortened("begin" + "x" * 1000 + "end", 50)
    assert said.startswith("begin")
    assert said.endswith("end")
    assert len(said) <= 50


def test_the_first_five_of_many_are_named():
    assert name_some(["a", "b"]) == "'a', 'b'"
    assert name_some(list("abcdefg")) == "'a', 'b', 'c', 'd', 'e'"
    assert len(name_some(["x" * 1000] * 9)) <= 400


def test_an_error_is_said_in_its_first_line():
    assert first_line(ValueError("a.\nb")) == "a"
    assert first_line(KeyError("x")) == "KeyError: 'x'"
    assert first_line(ValueError("Got:\nthis")) == "Got: this"
    assert first_line(OSError()) == "OSError"
    assert len(first_line(ValueError("a" * 1000))) <= 160


# NumPy's scalars stand in messages as Python's


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.str_("a"), "'a'"),
        (np.bytes_(b"a"), "b'a'"),
        (np.int64(3), "3"),
        (np.float32(0.5), "0.5"),
        (np.float64("nan"), "nan"),
        (np.True_, "True"),
        (np.longdouble(2), "2.0"),
        (1 + 0j, "(1+0j)"),
        ([np.str_("a"), np.int64(1)], "['a', 1]"),
        ((np.int64(0),), "(0,)"),
        ({np.str_("a"): np.float32(1)}, "{'a': 1.0}"),
        ({np.int64(1)}, "{1}"),
        ([[np.str_("a")]], "[['a']]"),
        (np.array(["a"]), "array(['a'], dtype='<U1')"),
        (np.array([np.str_("a"), 1], dtype=object), "array(['a', 1], dtype=object)"),
    ],
    ids=str,
)
def test_a_value_of_numpy_is_shown_as_one_of_python(value, said):
    assert shown(value) == said


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Got np.int64(0) instead.", "Got 0 instead."),
        ("Got np.float32(-1.5e-05), np.float64(nan) and np.True_.", "Got -1.5e-05, nan and True."),
        ("Got np.str_('a (b)') or np.str_(\"it's\").", "Got 'a (b)' or \"it's\"."),
        (r"Got np.str_('it\'s (so)').", r"Got 'it\'s (so)'."),
        ("Call np.asarray, or numpy.abs(X).", "Call np.asarray, or numpy.abs(X)."),
        ("The 'lr' parameter", "The 'lr' parameter"),
    ],
)
def test_messages_of_others_are_freed_of_numpys_names(text, plain):
    assert without_numpy(text) == plain


FAULTS = {
    "label": lambda X, y: FineTunedClassifier(tiny_cnn).fit(X, np.where(y == "leaf", "only", "only")),
    "missing label": lambda X, y: FineTunedClassifier(tiny_cnn).fit(X, [np.str_("a"), None] * 12),
    "mixed labels": lambda X, y: FineTunedClassifier(tiny_cnn).fit(X, [np.str_("a"), np.int64(1)] * 12),
    "no classes": lambda X, y: FineTunedClassifier(tiny_cnn).fit(X, np.linspace(0, 1, 24)),
    "bytes": lambda X, y: FineTunedClassifier(tiny_cnn).fit(X, y.astype("S")),
    "no numbers": lambda X, y: FineTunedRegressor(tiny_cnn).fit(X, y),
    "not finite": lambda X, y: FineTunedRegressor(tiny_cnn).fit(X, np.full(24, np.float64("inf"))),
    "validation label": lambda X, y: FineTunedClassifier(tiny_cnn).fit(X, y, X_val=X[:2], y_val=np.array(["z", "a"])),
    "indicators": lambda X, y: FineTunedClassifier(tiny_cnn).fit(X, np.tile([[0, 1, 2]], (24, 1))),
    "class weight": lambda X, y: FineTunedClassifier(tiny_cnn, class_weight={np.str_("a"): np.float64(-1)}).fit(X, y),
    "class without weight": lambda X, y: FineTunedClassifier(tiny_cnn, class_weight={np.str_("q"): 1}).fit(X, y),
    "missing files": lambda X, y: FineTunedClassifier(tiny_cnn).fit(np.array(["a.png", "b.png"] * 12), y),
    "missing file": lambda X, y: FineTunedClassifier(tiny_cnn).fit([*X[1:], np.str_("a.png")], y),
    "no picture": lambda X, y: FineTunedClassifier(tiny_cnn).fit([*X[1:], np.float64(3)], y),
    "wrong order": lambda X, y: FineTunedClassifier(tiny_cnn).fit(y, X),
    "one text": lambda X, y: FineTunedClassifier(tiny_cnn).fit(np.str_("a.png"), y),
    "weights": lambda X, y: load_backbone("resnet18", np.str_("IMAGENET")),
    "word for weights": lambda X, y: load_backbone("resnet18", np.str_("imagenet")),
    "backbone": lambda X, y: load_backbone(np.str_("resnet")),
    "depth": lambda X, y: load_backbone(tiny_cnn).split(np.int64(77)),
    "share": lambda X, y: load_backbone(tiny_cnn).split(np.float32(7)),
    "name": lambda X, y: load_backbone(tiny_cnn).split(np.str_("fc")),
    "layer": lambda X, y: load_backbone(tiny_cnn).layers([np.int64(77)]),
    "interpolation": lambda X, y: setattr(FineTunedClassifier(tiny_cnn).fit(X, y), "interpolation_", np.float64(0.5)),
    "companion": lambda X, y: FineTunedClassifier(tiny_cnn, tol=np.float64(1)).fit(X, y),
    "head": lambda X, y: FineTunedClassifier(tiny_cnn, head_C=np.float64(1), dropout=np.float64(0.5)).fit(X, y),
    "kind": lambda X, y: FineTunedClassifier(tiny_cnn, max_length=np.int64(7)).fit(X, y),
    "shape": lambda X, y: FineTunedClassifier(tiny_cnn, image_shape=(np.int64(0), np.int64(8))).fit(X, y),
    "size": lambda X, y: FineTunedClassifier(tiny_cnn, hidden_layer_sizes=(np.int64(0),)).fit(X, y),
    "split": lambda X, y: load_image_folder(".", split=np.array(["nowhere"])),
    "sample weight": lambda X, y: FineTunedClassifier(tiny_cnn).fit(X, y, sample_weight=np.full(24, np.float64(-1))),
    "folder": lambda X, y: FineTunedClassifier(tiny_cnn, feature_cache=np.str_("none")).fit(X, y),
    "limit": lambda X, y: set_cache_limit(np.float64(-1)),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_no_message_names_a_type_of_numpy(fault, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, TypeError, FileNotFoundError)) as caught:
        fault(*pictures)
    assert "np." not in str(caught.value)


def test_warnings_do_not_either(pictures):
    X, y = pictures
    model = FineTunedClassifier(tiny_cnn, lr=np.float64(1e-3), freeze_depth=np.str_("all"), random_state=0)
    with pytest.warns(UserWarning, match=r"Got lr=0.001 with freeze_depth='all', which trains only the head"):
        model.fit(X, y)


# Choosing by name


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ResNet50", ["resnet50"]),
        ("resnet-50", ["resnet50"]),
        ("EfficientNetB0", ["efficientnet_b0"]),
        (" VGG16 ", ["vgg16"]),
        ("mobilnet_v2", ["mobilenet_v2"]),
        ("qqq", []),
        (3, []),
    ],
)
def test_case_blanks_and_hyphens_do_not_count(name, found):
    assert nearest(name, ["resnet50", "efficientnet_b0", "vgg16", "mobilenet_v2"]) == found


def test_up_to_eight_names_are_all_said_and_of_more_some():
    eight = [f"name{number}" for number in range(8)]
    with pytest.raises(ValueError, match=r"^Got x='q'; expected 'name0', .*'name6' or 'name7'\.$"):
        check_choice("x", "q", eight)
    with pytest.raises(ValueError, match=r"^Got x='q'; expected one of 9 names, such as 'name0', .*\. See there\.$"):
        check_choice("x", "q", [*eight, "more"], "See there.")
    with pytest.raises(ValueError, match=r"expected 'a' or 'b'\. Did you mean 'a'\?$"):
        check_choice("x", "A", ["a", "b"])
    check_choice("x", np.str_("a"), ["a", "b"])
