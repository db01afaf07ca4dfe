"""Draw scores against size and speed, with the frontier marked.

Points are told apart by their filling, not by colour alone: the picture serves in grey print and for the colour-blind.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import isnan
from typing import TYPE_CHECKING, Any

import numpy as np

from sktransfer._messages import named_extra, shortened

if TYPE_CHECKING:
    from sktransfer._ranking._comparison import Comparison, Row

# Blue of Okabe and Ito, which is dark in grey print; what is not on the frontier is a lighter grey.
_FRONTIER, _OTHER, _LINE = "#0072B2", "#7F7F7F", "#56B4E9"

# By which the line is found again.
_FRONTIER_ID = "frontier"

# Backbones whose names stand beside their points; where there are more, numbers do, and a list says whose they are.
_MOST_NAMED = 8

# Characters of a name.
_NAME = 24

# Points up or down from which on a line joins a name to its point.
_NEAR = 9

# Where a point lies, its standard error, and its name.
_Point = tuple[float, float, float, str]

# Where a name may stand beside its point, from the best place to the worst: steps of points to the right and up.
_PLACES = [
    (8, 0), (-8, 0), (8, 9), (-8, 9), (8, -9), (-8, -9), (0, 14), (0, -14), (8, 14), (-8, 14), (8, -14), (-8, -14),
    (8, 20), (-8, 20), (8, -20), (-8, -20),
    (0, 27), (0, -27), (8, 33), (8, -33), (-8, 33), (-8, -33), (30, 20), (30, -20), (-30, 20), (-30, -20), (30, 40),
    (30, -40), (-30, 40), (-30, -40),
]  # fmt: skip


def draw(ranking: "Comparison", ax: Any) -> Any:
    """Draw both panels.

    Parameters
    ----------
    ranking : Comparison
        What to draw.
    ax : sequence of two matplotlib Axes, or None
        Where; `None` makes a figure.

    Returns
    -------
    ndarray of shape (2,)
        The axes.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        If `ax` is not two axes.
    """
    with named_extra("Drawing needs the package matplotlib", "plot"):
        import matplotlib.pyplot as plt
    is_new = ax is None
    if is_new:
        _, ax = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    axes = np.ravel(np.asarray(ax, dtype=object))
    if len(axes) != 2:
        raise ValueError(f"Got ax with {len(axes)} axes; expected two: plt.subplots(1, 2)[1], or None.")
    rows = [row for row in ranking.rows if row.cost]
    kind, names = ranking.kind, _names_of(rows, axes[1])
    sizes = [float(row.cost.n_parameters) for row in rows if row.cost]
    points = [_panel(axes[0], rows, names, sizes, "parameters", smaller=True)]
    rates = [row.cost.samples_per_second for row in rows if row.cost]
    known = [place for place, rate in enumerate(rates) if not isnan(rate)]
    measured, speeds = [rows[place] for place in known], [rates[place] for place in known]
    points.append(_panel(axes[1], measured, names, speeds, f"{kind} per second", smaller=False))
    folds = f"{ranking.n_folds} folds, ± one standard error"
    axes[0].set_ylabel(f"{ranking.metric}\n({folds})")
    missing = [rows[place].name for place in range(len(rows)) if place not in known]
    if missing:
        said = "speed not known: " + (", ".join(missing) if len(missing) <= 3 else f"{len(missing)} backbones")
        axes[1].text(0.02, 0.02, said, transform=axes[1].transAxes, fontsize=9, color="#444444", parse_math=False)
    if is_new:
        axes[0].figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False)
    else:  # what is around somebody's axes is theirs
        axes[0].legend(loc="best", frameon=False, fontsize=9)
    axes[0].figure.draw_without_rendering()  # after which it is known where points and texts lie
    for axis, named in zip(axes, points, strict=True):
        _write_names(axis, named)
    return axes


def _names_of(rows: "list[Row]", axis: Any) -> dict[str, str]:
    """Return what stands beside each point; where these are numbers, list the names to the right of some axes."""
    names = [shortened(row.name, _NAME) for row in rows]
    if len(rows) <= _MOST_NAMED:
        return {row.name: name for row, name in zip(rows, names, strict=True)}
    listed = "\n".join(f"{place:2}  {name}" for place, name in enumerate(names, 1))
    axis.text(1.03, 1, listed, transform=axis.transAxes, va="top", fontsize=9.5, parse_math=False)
    return {row.name: str(place) for place, row in enumerate(rows, 1)}


def frontier(costs: Sequence[float], scores: Sequence[float], smaller: bool) -> list[int]:
    """Return the points that no other one beats in both respects, from the cheapest to the best.

    Parameters
    ----------
    costs : sequence of float
        Size, or speed.
    scores : sequence of float
        Higher is better.
    smaller : bool
        Whether a smaller cost is better.

    Returns
    -------
    list of int
        Positions.
    """
    sign = 1 if smaller else -1
    order = sorted(range(len(costs)), key=lambda place: (sign * costs[place], -scores[place]))
    best, kept = -np.inf, []
    for place in order:
        if scores[place] > best:
            best = scores[place]
            kept.append(place)
    return kept


def _panel(
    axis: Any, rows: "list[Row]", names: dict[str, str], costs: list[float], what: str, smaller: bool
) -> list[_Point]:
    """Draw one panel, and return its points, those of the frontier first."""
    axis.set_xlabel(f"{what} ({'fewer' if smaller else 'more'} is better)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    axis.set_axisbelow(True)
    if not rows:
        return []
    scores, errors = [row.score for row in rows], [row.standard_error for row in rows]
    on_it = frontier(costs, scores, smaller)
    axis.set_xscale("log")
    axis.errorbar(costs, scores, yerr=errors, fmt="none", ecolor="#555555", elinewidth=1.2, capsize=3, zorder=2)
    axis.plot(
        [costs[p] for p in on_it], [scores[p] for p in on_it], color=_LINE, linewidth=2, zorder=1, gid=_FRONTIER_ID
    )
    others = [place for place in range(len(rows)) if place not in on_it]
    for chosen, filling, edge, what_it_is in (
        (on_it, _FRONTIER, _FRONTIER, "on the frontier"),
        (others, "white", _OTHER, "another one is better in both"),
    ):
        x, y = [costs[p] for p in chosen], [scores[p] for p in chosen]
        axis.scatter(x, y, 52, filling, edgecolors=edge, linewidths=1.8, zorder=3, label=what_it_is)
    room = max(max(costs) / min(costs), 1.5) ** 0.25
    low, high = min(costs) / room, max(costs) * room
    axis.set_xlim(low, high)
    ticks = [step * 10.0**power for power in range(-3, 13) for step in (1, 2, 3, 5)]
    axis.set_xticks([tick for tick in ticks if low <= tick <= high])
    axis.xaxis.set_major_formatter(lambda value, _: _short(value))
    axis.minorticks_off()
    return [(costs[p], scores[p], errors[p], names[rows[p].name]) for p in [*on_it, *others]]


def _short(value: float) -> str:
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def _write_names(axis: Any, points: list[_Point]) -> None:
    """Write each name beside its point, where it covers least of what is there already."""
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    place, pixel = axis.transData.transform, axis.figure.dpi / 72
    taken: list[tuple[Any, float]] = []  # boxes, and how bad it is to cover them
    for cost, score, error, _ in points:
        (x, low), (_, high) = place((cost, score - error)), place((cost, score + error))
        middle = place((cost, score))[1]
        taken.append((Bbox([[x - 5 * pixel, middle - 5 * pixel], [x + 5 * pixel, middle + 5 * pixel]]), 5))
        taken.append((Bbox([[x - 3 * pixel, low], [x + 3 * pixel, high]]), 1))
    for line in axis.lines:
        if line.get_gid() == _FRONTIER_ID:  # ends of error bars are lines too
            for start, end in pairwise(place(np.column_stack(line.get_data()))):
                spots = start + np.linspace(0, 1, 40)[:, None] * (end - start)
                taken += [(Bbox([spot - 2 * pixel, spot + 2 * pixel]), 1) for spot in spots]
    inside = axis.get_window_extent()
    for cost, score, _, name in points:
        line = {"arrowstyle": "-", "color": _OTHER, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 4}
        text = axis.annotate(
            name, (cost, score), xytext=_PLACES[0], textcoords="offset points", fontsize=9.5, parse_math=False,
            arrowprops=line,
        )  # fmt: skip
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        chosen, least = _PLACES[0], np.inf
        for number, (right, up) in enumerate(_PLACES):
            _move(text, right, up)
            box = _box_of(text)
            covered = sum(weight * _common(box, other) for other, weight in taken)
            outside = box.width * box.height - _common(box, inside)
            worse = covered + 50 * outside + number  # of equals the first
            if worse < least:
                chosen, least = (right, up), worse
        _move(text, *chosen)
        text.arrow_patch.set_visible(abs(chosen[1]) > _NEAR)
        taken.append((_box_of(text), 50))


def _move(text: Any, right: float, up: float) -> None:
    text.set_position((right, up))
    text.set_horizontalalignment("left" if right > 0 else "right" if right < 0 else "center")
    text.set_verticalalignment("center")


def _box_of(text: Any) -> Any:
    """Return the box of a name alone, without the line to its point."""
    from matplotlib.text import Text

    text.update_positions(text.figure.canvas.get_renderer())
    return Text.get_window_extent(text)


def _common(one: Any, other: Any) -> float:
    """Return the area that two boxes have in common, in square pixels."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(0.0, width) * max(0.0, height))
