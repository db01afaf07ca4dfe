"""Draw images, texts and sounds with the effect of hiding their parts."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from sktransfer.inspection._drawing import RED, SKY

# What speaks for a class, and what speaks against it.
FOR, AGAINST = RED, SKY

# The least drop of a probability that has the strongest colour: smaller ones are hardly worth a look.
LEAST_SPAN = 0.02

# Part of a picture's shorter side over which maps are smoothed, which come in steps.
SMOOTHED = 24

# Characters of a line of a text, size of its type in points, and width of a letter as a share of it.
_LINE, _SIZE, _LETTER = 92, 10.0, 0.602


def make_axes(pyplot: Any, kind: str, samples: Sequence[Any]) -> np.ndarray:
    """Make a figure with one axes for each sample.

    Parameters
    ----------
    pyplot : module
        Of matplotlib.
    kind : {"images", "texts", "sounds"}
        What the samples are.
    samples : sequence
        They.

    Returns
    -------
    ndarray of Axes of shape (n_samples,)
        Those that are left over are gone.
    """
    count = len(samples)
    if kind == "images":
        rows = -(-count // 4)
        columns = -(-count // rows)
        _, axes = pyplot.subplots(
            rows, columns, figsize=(max(4.0, 3.0 * columns), 3.9 * rows), squeeze=False, layout="constrained"
        )
        for left_over in axes.ravel()[count:]:
            left_over.remove()
        return np.asarray(axes.ravel()[:count])
    texts = kind == "texts"
    heights = [0.3 + 0.27 * len(lines_of(words)) for words in samples] if texts else [2.0] * count
    figure, axes = pyplot.subplots(
        count,
        1,
        figsize=(8.0, sum(heights) + 0.5),
        squeeze=False,
        layout=None if texts else "constrained",
        gridspec_kw={"height_ratios": heights},
    )
    if texts:
        room = sum(heights) + 0.5
        figure.subplots_adjust(left=0.01, right=0.99, top=1 - 0.3 / room, bottom=0.3 / room, hspace=0.35)
    return np.asarray(axes.ravel())


def draw_pictures(
    axes: np.ndarray, pictures: Sequence[np.ndarray], drops: Sequence[np.ndarray], titles: Sequence[str]
) -> None:
    """Draw pictures in grey, coloured the stronger, the further the probability drops.

    A line is drawn around what has half of the largest drop, which print without colour shows too.

    Parameters
    ----------
    axes : ndarray of Axes
        One for each.
    pictures : sequence of ndarray of shape (height, width, channels)
        As the network sees them.
    drops : sequence of ndarray of shape (height, width)
        For each pixel.
    titles : sequence of str
        For each picture.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from scipy.ndimage import gaussian_filter

    colours = LinearSegmentedColormap.from_list("drop", [AGAINST, "white", FOR])
    for ax, picture, drop, title in zip(axes, pictures, drops, titles, strict=True):
        grey = picture[..., :3].astype(np.float64).mean(axis=-1)
        ax.imshow(grey, cmap="gray", interpolation="nearest")
        smooth = gaussian_filter(drop, min(drop.shape) / SMOOTHED)
        span = max(LEAST_SPAN, float(np.abs(smooth).max()))
        shade = np.empty((*drop.shape, 4))
        shade[..., :3] = np.where((smooth >= 0)[..., None], _rgb(FOR), _rgb(AGAINST))
        shade[..., 3] = 0.8 * (np.abs(smooth) / span).clip(0, 1)
        ax.imshow(shade, interpolation="nearest")
        high = float(smooth.max())
        if high >= LEAST_SPAN:
            ax.contour(smooth, levels=[high / 2], colors="black", linewidths=2.6)
            ax.contour(smooth, levels=[high / 2], colors="white", linewidths=1.2)
        ax.set_title(title, fontsize="medium", parse_math=False)
        ax.set_axis_off()
        low = -span if float(smooth.min()) < -LEAST_SPAN else 0.0
        scale = ScalarMappable(Normalize(-span, span), colours)
        bar = ax.figure.colorbar(scale, ax=ax, location="bottom", shrink=0.8, aspect=24, pad=0.02)
        bar.ax.set_xlim(low, span)
        bar.set_ticks([low, 0.0, span] if low else [0.0, span / 2, span], labels=None)
        bar.ax.xaxis.set_major_formatter("{x:.2g}")
        bar.set_label("drop of the probability", fontsize="small")
        bar.ax.tick_params(labelsize="small")


def lines_of(words: Sequence[str]) -> list[list[int]]:
    """Divide words into lines.

    Parameters
    ----------
    words : sequence of str
        Of a text.

    Returns
    -------
    list of list of int
        Numbers of the words of each line.
    """
    lines: list[list[int]] = [[]]
    used = 0
    for number, word in enumerate(words):
        length = len(_short(word)) + 2
        if lines[-1] and used + length > _LINE:
            lines.append([])
            used = 0
        lines[-1].append(number)
        used += length
    return lines


def draw_texts(
    axes: np.ndarray, texts: Sequence[Sequence[str]], drops: Sequence[np.ndarray], titles: Sequence[str]
) -> None:
    """Draw words on grounds that are the darker, the more they matter; a dashed frame marks what speaks against.

    Parameters
    ----------
    axes : ndarray of Axes
        One for each text.
    texts : sequence of sequence of str
        Words of each.
    drops : sequence of ndarray of shape (n_words,)
        For each word.
    titles : sequence of str
        For each text.
    """
    for ax, words, drop, title in zip(axes, texts, drops, titles, strict=True):
        width = ax.get_position().width * ax.figure.get_figwidth() * 72  # points
        size = min(_SIZE, width / _LINE / _LETTER)
        lines, span = lines_of(words), max(LEAST_SPAN, float(np.abs(drop).max()))
        ax.set(xlim=(0, _LINE), ylim=(len(lines), 0))
        for height, line in enumerate(lines):
            across = 0.0
            for number in line:
                _draw_word(ax, across, height + 0.5, words[number], float(drop[number]) / span, size)
                across += len(_short(words[number])) + 2
        ax.set_title(title, loc="left", fontsize="medium", parse_math=False)
        ax.set_axis_off()
    legend = "orange: the probability drops without the word     blue, dashed: it rises"
    ax.text(0.0, -0.02, legend, transform=ax.transAxes, va="top", fontsize="small", color="0.3")


def _short(word: str) -> str:
    return textwrap.shorten(word, 28, placeholder="…") if len(word) <= 28 else f"{word[:27]}…"


def _draw_word(ax: Any, across: float, height: float, word: str, share: float, size: float) -> None:
    colour = FOR if share >= 0 else AGAINST
    ground = {
        "boxstyle": "round,pad=0.2",
        "facecolor": (*_rgb(colour), min(1.0, abs(share))),
        "edgecolor": "0.3" if share < -0.15 else "none",
        "linestyle": "--",
    }
    how: dict[str, Any] = {"family": "monospace", "fontsize": size, "va": "center", "parse_math": False}
    ax.text(across + 0.5, height, _short(word), bbox=ground, **how)


def _rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))


def draw_sounds(
    axes: np.ndarray, waveforms: Sequence[np.ndarray], drops: Sequence[np.ndarray], titles: Sequence[str],
    rate: int | None,
) -> None:  # fmt: skip
    """Draw waveforms, and over them how far the probability drops at each time.

    Parameters
    ----------
    axes : ndarray of Axes
        One for each sound.
    waveforms : sequence of float ndarray of shape (n_values,)
        Within [-1, 1].
    drops : sequence of ndarray of shape (n_values,)
        For each value.
    titles : sequence of str
        For each sound.
    rate : int or None
        Values per second.
    """
    for ax, waveform, drop, title in zip(axes, waveforms, drops, titles, strict=True):
        seconds = np.arange(len(waveform)) / (rate or 1)
        loudest = float(np.abs(waveform).max()) or 1.0
        high = max(0.05, float(np.abs(drop).max())) * 1.1
        ax.plot(seconds, waveform / loudest * high, color="0.6", linewidth=0.5, label="waveform")
        ax.fill_between(seconds, 0, drop, where=drop >= 0, color=FOR, alpha=0.85, linewidth=0, label="drop")
        ax.fill_between(seconds, 0, drop, where=drop < 0, color=AGAINST, alpha=0.85, linewidth=0, label="rise")
        ax.axhline(0, color="0.2", linewidth=0.8)
        ax.set(xlim=(0, seconds[-1]), ylim=(-high, high), ylabel="drop when silenced")
        ax.set_title(title, loc="left", fontsize="medium", parse_math=False)
    axes[-1].set_xlabel("seconds" if rate else "values")
    axes[0].legend(
        loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.1, frameon=False, fontsize="small", ncols=3
    )
