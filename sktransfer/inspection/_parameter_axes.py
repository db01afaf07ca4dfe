"""Place the values of parameters on axes: numbers by size or logarithm, anything else by name."""

from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from typing import Any

import numpy as np

from sktransfer._messages import shown


def is_number(value: Any) -> bool:
    """Tell whether a value is a number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def is_geometric(values: Sequence[Any]) -> bool:
    """Tell whether numbers are better seen on a logarithmic axis: they grow by a factor, or span two decades.

    Parameters
    ----------
    values : sequence of float
        In order.

    Returns
    -------
    bool
        Whether they do.
    """
    numbers = [float(value) for value in values]
    if len(numbers) < 2 or numbers[0] <= 0:
        return False
    factors = [later / earlier for earlier, later in pairwise(numbers)]
    alike = len(factors) > 1 and max(factors) <= 1.3 * min(factors) and min(factors) >= 1.5
    return numbers[-1] / numbers[0] >= (10 if len(numbers) == 2 else 100) or alike


def in_words(value: Any) -> str:
    """Return a value as it stands beside an axis.

    Parameters
    ----------
    value : object
        Of a parameter.

    Returns
    -------
    str
        In short; an object by the name of its type.
    """
    if is_number(value):
        return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
    if isinstance(value, str | bool | np.bool_ | tuple | list) or value is None:
        return str(value) if len(str(value)) <= 24 else shown(value, 20)
    name = getattr(value, "__name__", type(value).__name__)
    return str(name)[:24]


def by_size(values: list[Any]) -> bool:
    """Tell whether values can stand on an axis of numbers.

    Parameters
    ----------
    values : list
        Of a parameter, in order.

    Returns
    -------
    bool
        Whether they can: all are numbers, and none is below 0 beside others that ask for logarithms.
    """
    if not all(map(is_number, values)):
        return False
    positive = [value for value in values if value > 0]
    return len(positive) == len(values) or not is_geometric(positive)


def places_of(values: list[Any]) -> list[float]:
    """Return where values stand on their axis.

    Parameters
    ----------
    values : list
        Of a parameter, in order.

    Returns
    -------
    list of float
        They themselves, or their numbers from 0.
    """
    return [float(value) for value in values] if by_size(values) else list(map(float, range(len(values))))


def label_axis(ax: Any, letter: str, name: str, values: list[Any], by_name: bool = False) -> None:
    """Let an axis show the values of a parameter: numbers by their size, everything else by name.

    Where there are few numbers, each one stands beside the axis. Names are at equal distances from 0, and begin at the
    left or at the top.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where it is drawn.
    letter : {"x", "y"}
        Which axis.
    name : str
        The parameter, in full.
    values : list
        Its values, in order.
    by_name : bool, default=False
        Whether numbers are names too.
    """
    getattr(ax, f"set_{letter}label")(short_name(name))
    axis = getattr(ax, f"{letter}axis")
    words = [in_words(value) for value in values]
    if by_name or not by_size(values):
        turned = letter == "x" and sum(map(len, words)) > 70
        axis.set_ticks(range(len(values)), words, **({"rotation": 35, "ha": "right"} if turned else {}))
        for label in axis.get_ticklabels():
            label.set_parse_math(False)
        ends = -0.5, len(values) - 0.5
        getattr(ax, f"set_{letter}lim")(ends if letter == "x" else ends[::-1])
        return
    if is_geometric(values):
        getattr(ax, f"set_{letter}scale")("log")
    if len(values) <= 8:
        from matplotlib.ticker import NullLocator

        axis.set_minor_locator(NullLocator())
        axis.set_ticks([float(value) for value in values], words)
    ax.margins(0.08)


def short_name(name: str) -> str:
    """Return the end of a name, where a person looks for it.

    Parameters
    ----------
    name : str
        In full, as "finetunedclassifier__lr".

    Returns
    -------
    str
        The parameter's own, as "lr".
    """
    return name.rpartition("__")[2]


def legend_above(ax: Any) -> None:
    """Explain marks above the axes, where they hide nothing; each once.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Whose marks have labels.
    """
    found = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    if found:
        place = {"loc": "lower right", "bbox_to_anchor": (1, 1), "borderaxespad": 0.2, "columnspacing": 1.0}
        ax.legend(list(found.values()), list(found), fontsize=8, frameon=False, ncols=len(found), **place)
