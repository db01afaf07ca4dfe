"""The picture of a ranking: two panels, whose names can be read and whose frontier is the frontier."""

import itertools

import numpy as np
import pytest

from sktransfer import PretrainedFeatureExtractor
from sktransfer._ranking._backbone_ranking import BackboneRanking
from sktransfer._ranking._chart import frontier
from sktransfer._ranking._comparison import Row
from sktransfer._ranking._one_pass import Cost

mpl = pytest.importorskip("matplotlib", reason="pictures are drawn with it")
mpl.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.text import Text  # noqa: E402


@pytest.fixture(autouse=True)
def _closed():
    yield
    plt.close("all")


def ranking(n=5, seed=0, speeds=True, names=None):
    rng = np.random.default_rng(seed)
    names = names or [f"a_network_of_size_{number}" for number in range(n)]
    rows = [
        Row(name, rng.uniform(0.8, 0.9, 5), Cost(1.0, rate if speeds else np.nan, 24, size, 4 * size, "3 x 8 x 8", 16))
        for name, rate, size in zip(names, rng.uniform(20, 60, n), rng.integers(10**6, 10**7, n), strict=True)
    ]
    rows.append(Row("failed", np.empty(0), error="Got nothing."))
    return BackboneRanking(
        rows, dict.fromkeys([*names, "failed"], PretrainedFeatureExtractor()), "accuracy", "logistic", "images", 24
    )


def names_of(axis):
    return [text for text in axis.texts if text.get_text().startswith("a_network")]


def test_two_panels_show_each_backbone_that_did_not_fail():
    shown = ranking()
    assert shown.plot() is shown
    assert shown.figure_ is shown.axes_[0].figure
    labels = [axis.get_xlabel() for axis in shown.axes_]
    assert labels == ["parameters (fewer is better)", "images per second (more is better)"]
    assert "accuracy" in shown.axes_[0].get_ylabel()
    for axis in shown.axes_:
        assert len(names_of(axis)) == 5
        assert sum(len(points.get_offsets()) for points in axis.collections if hasattr(points, "get_sizes")) == 5
        assert len(axis.get_xticks()) >= 2


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [3, 7])
def test_no_name_covers_another_one_or_leaves_the_panel(n, seed):
    for axis in ranking(n, seed).plot().axes_:
        boxes = [Text.get_window_extent(text) for text in names_of(axis)]
        inside = axis.get_window_extent()
        for one, other in itertools.combinations(boxes, 2):
            assert not one.overlaps(other)
        for box in boxes:
            assert inside.x0 <= box.x0
            assert box.x1 <= inside.x1


def test_many_backbones_are_numbered_in_the_order_of_the_table():
    shown = ranking(10).plot()
    (listed,) = [text.get_text() for text in shown.axes_[1].texts if "\n" in text.get_text()]
    assert listed.split() == [word for place, row in enumerate(shown.rows[:10], 1) for word in (str(place), row.name)]
    assert sorted(text.get_text() for text in shown.axes_[0].texts) == sorted(map(str, range(1, 11)))


def test_the_frontier_is_what_no_other_one_beats_in_both():
    assert frontier([1, 2, 3, 4], [0.5, 0.7, 0.6, 0.8], smaller=True) == [0, 1, 3]
    assert frontier([1, 2, 3, 4], [0.5, 0.7, 0.6, 0.8], smaller=False) == [3]
    assert frontier([1, 1, 2], [0.5, 0.6, 0.6], smaller=True) == [1]


def test_points_on_the_frontier_are_filled_and_joined():
    shown = ranking().plot()
    rows = [row for row in shown.rows if row.cost]
    on_it = frontier([row.cost.n_parameters for row in rows], [row.score for row in rows], smaller=True)
    (line,) = [line for line in shown.axes_[0].lines if line.get_gid() == "frontier"]
    assert list(line.get_xdata()) == [rows[place].cost.n_parameters for place in on_it]


def test_a_speed_that_is_not_known_is_said():
    texts = [text.get_text() for text in ranking(speeds=False).plot().axes_[1].texts]
    assert texts == ["speed not known: 5 backbones"]


def test_names_are_no_mathematics():
    shown = ranking(2, names=["a_network$x_1$", "a_network^2"]).plot()
    shown.figure_.canvas.draw()
    assert {text.get_text() for text in names_of(shown.axes_[0])} == {"a_network$x_1$", "a_network^2"}


def test_it_is_drawn_on_axes_that_are_given():
    figure, axes = plt.subplots(2, 1)
    shown = ranking().plot(ax=axes)
    assert shown.figure_ is figure
    assert list(shown.axes_) == list(axes)
    with pytest.raises(ValueError, match="Got ax with 1 axes; expected two"):
        ranking().plot(ax=axes[0])


def test_without_matplotlib_a_sentence_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'pip install "sktransfer\[plot\]"'):
        ranking().plot()
