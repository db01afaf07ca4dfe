"""Whatever stands in a message, the message stays short, and says where to look."""

from pathlib import Path

import numpy as np
import pytest

from sktransfer._messages import first_line, name_some, shortened, shown

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
