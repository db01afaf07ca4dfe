"""What a user may rely on of all displays: where they draw, what they need, and what they leave alone."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest
from figures import texts_of
from matplotlib import pyplot as plt

from sktransfer.inspection import SamplesDisplay
from sktransfer.inspection._drawing import columns_of, cut, wrap

X = np.random.default_rng(0).integers(0, 256, size=(9, 8, 8, 3), dtype=np.uint8)


def test_matplotlib_is_imported_when_something_is_drawn_and_not_before():
    code = """
        import sys, sktransfer
        assert "sktransfer.inspection" not in sys.modules
        import sktransfer.inspection
        assert not [name for name in sys.modules if name.startswith("matplotlib")]
        import matplotlib; matplotlib.use("Agg")
        import numpy, sktransfer.inspection as look
        look.SamplesDisplay.from_data(numpy.zeros((2, 8, 8), dtype="uint8"))
        import matplotlib.pyplot as plt
        assert len(plt.get_fignums()) == 1
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_without_matplotlib_a_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'need the package matplotlib.*pip install "sktransfer\[plot\]"'):
        SamplesDisplay.from_data(X)


def test_a_display_is_drawn_where_a_person_wants_it_and_again():
    figure, axes = plt.subplots(1, 2)
    display = SamplesDisplay.from_data(X, n_samples=4, random_state=0, ax=axes[1])
    assert display.ax_ is axes[1]
    assert display.figure_ is figure
    place = axes[1].get_position()
    for axis in display.axes_.flat:
        inner = axis.get_position()
        assert place.x0 - 1e-6 <= inner.x0 < inner.x1 <= place.x1 + 1e-6
        assert place.y0 - 1e-6 <= inner.y0 < inner.y1 <= place.y1 + 1e-6
    before = texts_of(display)
    assert display.plot() is display
    assert display.figure_ is not figure
    assert [text for text in texts_of(display) if text.startswith("row")] == [
        text for text in before if text.startswith("row")
    ]


def test_axes_at_a_place_of_their_own_are_divided_too():
    figure = plt.figure()
    ax = figure.add_axes((0.5, 0.5, 0.4, 0.4))
    display = SamplesDisplay.from_data(X, n_samples=4, random_state=0, ax=ax)
    for axis in display.axes_.flat:
        assert axis.get_position().x0 >= 0.5 - 1e-6


def test_a_part_of_a_figure_is_drawn_on_too():
    part = plt.figure(layout="constrained").subfigures(1, 2)[0]
    display = SamplesDisplay.from_data(X, n_samples=4, random_state=0, ax=part.subplots())
    assert display.figure_ is part
    assert display.axes_.shape == (2, 2)


def test_several_axes_are_refused_with_a_sentence():
    _, axes = plt.subplots(1, 2)
    with pytest.raises(TypeError, match=r"^Got ax=.*; expected one matplotlib Axes.*axes\[0\]"):
        SamplesDisplay.from_data(X, ax=axes)


@pytest.mark.parametrize(
    ("n", "most", "expected"), [(1, 8, 1), (2, 8, 2), (8, 8, 4), (12, 8, 4), (13, 8, 4), (16, 8, 4), (10, 3, 3)]
)
def test_a_grid_has_few_gaps(n, most, expected):
    assert columns_of(n, most) == expected


@pytest.mark.filterwarnings("ignore:Glyph .* missing")
def test_long_texts_are_cut_and_wrapped():
    assert cut("a  long\nname", 20) == "a long name"
    assert cut("predicted: a very long name, 97 %", 20, 6) == "predicted: a…, 97 %"
    lines = wrap("word " * 1000, (2.0, 0.5), 8).split("\n")
    assert 2 <= len(lines) <= 4
    assert lines[-1].endswith("…")
    assert wrap("short", (2.0, 0.5), 8) == "short"
    narrow, wide = (wrap(letter * 100, (2.0, 2.0), 8).split("\n") for letter in "w語")
    assert max(map(len, wide)) < max(map(len, narrow))
