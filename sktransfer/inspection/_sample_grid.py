"""Draw a grid of samples with captions: images, texts and waveforms, or why a sample cannot be read."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from sktransfer.inspection._drawing import (
    BLUE,
    GREY,
    PALE,
    axes_for,
    columns_of,
    cut,
    grid_within,
    import_pyplot,
    size_of,
    width_of,
    wrap,
)
from sktransfer.inspection._read_samples import ReadSample, reason

# Width and height of a cell in inches, without its caption, and the most columns.
_CELLS = {"image": (1.5, 1.5, 8), "text": (3.2, 0.95, 3), "sound": (2.4, 0.8, 4)}
_TITLE, _CAPTION, _LEAST, _POINTS = 10.5, 9.0, 6.5, 8.0

# Points of a waveform: beyond, what lies between the least and the greatest value of a stretch is filled.
_MOST_POINTS = 1500


def check_count(name: str, value: Any) -> None:
    """Raise if a number of samples or columns is none.

    Parameters
    ----------
    name : str
        Of the parameter.
    value : object
        What was given.

    Raises
    ------
    ValueError
        If it is not an integer of at least 1.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ValueError(f"Got {name}={value!r}; expected an integer of at least 1.")


def draw_samples(
    samples: Sequence[ReadSample],
    captions: Sequence[str],
    ax: Any = None,
    n_columns: int | None = None,
    title: str = "",
    colours: Sequence[str] | None = None,
) -> tuple[Any, np.ndarray]:
    """Draw samples in a grid.

    Parameters
    ----------
    samples : sequence of ReadSample
        At least one.
    captions : sequence of str
        What stands above each, in one or two lines.
    ax : matplotlib.axes.Axes or None, default=None
        Bounds the grid; `None` makes a figure.
    n_columns : int or None, default=None
        Columns of the grid; `None` chooses.
    title : str, default=""
        Above all.
    colours : sequence of str or None, default=None
        Of the captions.

    Returns
    -------
    ax : matplotlib.axes.Axes
        What bounds the grid.
    axes : object ndarray of shape (n_rows, n_columns)
        Axes of the grid; those without a sample are not drawn.
    """
    if n_columns is not None:
        check_count("n_columns", n_columns)
    import_pyplot()
    kinds = [sample.kind for sample in samples if sample.kind != "unreadable"]
    width, height, most = _CELLS[kinds[0] if kinds else "text"]
    n_columns = columns_of(len(samples), most) if n_columns is None else min(n_columns, len(samples))
    n_rows = -(-len(samples) // n_columns)
    caption_lines = max(caption.count("\n") for caption in captions) + 1
    caption_height = (caption_lines * 1.35 * _CAPTION + 6) / 72
    below = 0.3 if "sound" in kinds else 0.0
    made = ax is None
    across = max(n_columns * (width + 0.1), 3.2) if made else size_of(axes_for(ax, (1, 1)))[0]
    title = wrap(title, (across - 0.1, 1.0), _TITLE)
    high = n_rows * (height + caption_height + below) + 0.02 * _TITLE * (title.count("\n") + 1 if title else 0)
    ax = axes_for(ax, (across, high))
    # Where a figure has no layout engine, as ours has, nothing else makes room for captions.
    makes_room = made or ax.figure.get_layout_engine() is not None
    room = {} if makes_room else {"hspace": 0.15 + caption_height / height + below, "wspace": 0.08}
    outer = size_of(ax)
    if made and title:
        ax.figure.suptitle(title, fontsize=_TITLE, parse_math=False)
    axes = grid_within(
        ax, n_rows, n_columns, "" if made else title, _TITLE, 0.0 if makes_room else caption_height, **room
    )
    cell = (width, height) if made else (0.95 * outer[0] / n_columns, 0.7 * outer[1] / n_rows)
    # The longest caption sets the size of the type; below a legible one, captions are cut.
    widths = {line: width_of(line, _CAPTION) for caption in captions for line in caption.split("\n")}
    points = min(_CAPTION, max(_LEAST, _CAPTION * cell[0] / (max(widths.values()) or 1)))
    for place, axis in enumerate(axes.flat):
        if place >= len(samples):
            axis.set_axis_off()
            continue
        lines = captions[place].split("\n")
        fitting = [int(len(line) * cell[0] / (widths[line] or 1) * _CAPTION / points + 0.01) for line in lines]
        caption = "\n".join(cut(line, max(8, most), 6) for line, most in zip(lines, fitting, strict=True))
        style = {} if colours is None else {"color": colours[place]}
        axis.set_title(caption, fontsize=points, parse_math=False, pad=3, **style)
        _draw_one(axis, samples[place], cell)
    for axis in axes.flat[max(0, len(samples) - n_columns) : len(samples)]:
        if axis.get_label() == "sound":
            axis.set_xlabel("seconds", fontsize=_POINTS, labelpad=1)
    return ax, axes


def _draw_one(axis: Any, sample: ReadSample, cell: tuple[float, float]) -> None:
    axis.set_label(sample.kind)
    if sample.kind == "sound":
        _draw_sound(axis, sample)
        return
    axis.set_xticks([])
    axis.set_yticks([])
    if sample.kind == "image":
        axis.set_anchor("N")  # captions of a row stand side by side, whatever the pictures' shapes
        axis.imshow(sample.content, interpolation="nearest" if max(sample.content.shape) < 100 else "auto")
        for spine in axis.spines.values():
            spine.set(linewidth=0.5, color=GREY)
        return
    room = cell[0] - 0.16, cell[1] - 0.1
    if sample.kind == "text":
        text, style = wrap(sample.content, room, _POINTS), {}
    else:
        text = "cannot be read:\n" + wrap(reason(sample), (room[0], room[1] - 0.15), _POINTS - 1)
        style = {"color": GREY, "style": "italic", "fontsize": _POINTS - 1}
    axis.set_facecolor(PALE)
    for spine in axis.spines.values():
        spine.set_visible(False)
    place = {
        "xycoords": "axes fraction",
        "xytext": (5, -4),
        "textcoords": "offset points",
        "va": "top",
        "clip_on": True,
    }
    axis.annotate(text, (0, 1), parse_math=False, **{"fontsize": _POINTS, **place, **style})


def _draw_sound(axis: Any, sample: ReadSample) -> None:
    """Draw a waveform: a line, or, of more values than there are dots, the range of each stretch."""
    from matplotlib.ticker import MaxNLocator

    values, rate = sample.content, sample.rate or 1
    if len(values) <= _MOST_POINTS:
        axis.plot(np.arange(len(values)) / rate, values, color=BLUE, linewidth=0.7)
    else:
        starts = np.linspace(0, len(values), _MOST_POINTS, endpoint=False).astype(int)
        least, most = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
        axis.fill_between(starts / rate, least, most, color=BLUE, linewidth=0.4)
    axis.axhline(0, color=GREY, linewidth=0.4)
    # Each is drawn as high as its cell: beside a loud sound, nothing would be seen of a quiet one.
    peak = float(np.abs(values).max(initial=0.0))
    axis.text(
        1, 1, f"peak {peak:.2g}", ha="right", va="top", transform=axis.transAxes, fontsize=_POINTS - 1, color=GREY
    )
    loudest = peak or 1.0
    axis.set(xlim=(0, len(values) / rate), ylim=(-1.05 * loudest, 1.05 * loudest), yticks=[])
    # A number at the very end would run into the next cell.
    seconds = len(values) / rate
    found = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(0, seconds)
    ticks = [float(tick) for tick in found if tick <= 0.93 * seconds]
    axis.set_xticks(ticks, [f"{tick:.4g}" for tick in ticks])
    axis.tick_params(axis="x", labelsize=_POINTS - 1, length=2, pad=1)
    for side in ("left", "right", "top"):
        axis.spines[side].set_visible(False)
