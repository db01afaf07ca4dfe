"""Drawing tools of all displays: matplotlib at first use, colours that everybody can tell apart, places.

Texts of a person's data (labels, sentences, names of files) are never read as mathematics: a dollar is a dollar.
"""

from typing import Any

import numpy as np

from sktransfer._messages import named_extra, shown

# Okabe and Ito's colours, which the colour-blind can tell apart; they differ in lightness too, for grey print.
BLUE, ORANGE, GREEN, RED, SKY, BLACK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#000000"
GREY, PALE = "#6E6E6E", "#F2F2F2"

# Height of a line as a share of the size of the type.
_LINE = 1.3


def import_pyplot() -> Any:
    """Import matplotlib.

    Returns
    -------
    module
        The module `matplotlib.pyplot`.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    with named_extra("Displays need the package matplotlib", "plot"):
        import matplotlib.pyplot as plt
    return plt


def axes_for(ax: Any, size: tuple[float, float]) -> Any:
    """Return the axes to draw on.

    Parameters
    ----------
    ax : matplotlib.axes.Axes or None
        As `plot` takes it; `None` makes a figure.
    size : tuple of float
        Width and height of a new figure, in inches.

    Returns
    -------
    matplotlib.axes.Axes
        The given ones, or those of the new figure.

    Raises
    ------
    TypeError
        If they are not axes, such as the array that `plt.subplots` returns for several.
    """
    plt = import_pyplot()
    if ax is None:
        return plt.figure(figsize=size, layout="constrained").add_subplot()
    if not hasattr(ax, "get_subplotspec") or not hasattr(ax, "inset_axes"):
        raise TypeError(
            f"Got ax={shown(ax)}; expected one matplotlib Axes, or None for a new figure. From an array of axes, "
            "give one, such as axes[0]."
        )
    return ax


def grid_within(
    ax: Any, n_rows: int, n_columns: int, title: str = "", points: float = 10.0, below: float = 0.0, **gridspec: Any
) -> np.ndarray:
    """Divide axes into a grid of smaller ones, below a title; the frame that bounds them is no longer drawn.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        What bounds them.
    n_rows, n_columns : int
        How many.
    title : str, default=""
        In lines, above the grid.
    points : float, default=10.0
        Size of its type.
    below : float, default=0.0
        Room below it, in inches.
    **gridspec : object
        Further arguments of matplotlib's GridSpec, such as `hspace`.

    Returns
    -------
    object ndarray of shape (n_rows, n_columns)
        Axes.
    """
    figure, spec = ax.figure, ax.get_subplotspec()
    ax.set_axis_off()
    if spec is None:  # axes that somebody put at a place of their own
        place = ax.get_position()
        edges = {"left": place.x0, "right": place.x1, "bottom": place.y0, "top": place.y1}
        spec = figure.add_gridspec(1, 1, **edges)[0]
    if title:
        share = min(0.5, ((title.count("\n") + 1.5) * _LINE * points / 72 + below) / size_of(ax)[1])
        parts = spec.subgridspec(2, 1, height_ratios=[share, 1 - share], hspace=0)
        above, spec = figure.add_subplot(parts[0]), parts[1]
        above.set_axis_off()
        place = {"ha": "center", "va": "top", "transform": above.transAxes}
        above.text(0.5, 1, title, fontsize=points, parse_math=False, **place)
    grid = spec.subgridspec(n_rows, n_columns, **gridspec)
    made = [[figure.add_subplot(grid[row, column]) for column in range(n_columns)] for row in range(n_rows)]
    axes = np.empty((n_rows, n_columns), dtype=object)
    axes[:] = made
    return axes


def size_of(ax: Any) -> tuple[float, float]:
    """Return width and height of axes in inches, as they lie before anything is drawn.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        On a figure.

    Returns
    -------
    tuple of float
        Width and height.
    """
    place, whole = ax.get_position(), ax.figure.bbox  # which a part of a figure has too
    return float(place.width * whole.width / ax.figure.dpi), float(place.height * whole.height / ax.figure.dpi)


def columns_of(n: int, most: int) -> int:
    """Return the number of columns of a grid: about as many as rows, with as few gaps as can be.

    Parameters
    ----------
    n : int
        Number of cells.
    most : int
        The most columns.

    Returns
    -------
    int
        From 1.
    """
    least = min(most, int(np.ceil(np.sqrt(n))))
    return max(1, next((columns for columns in range(least, most + 1) if n % columns == 0), least))


def cut(text: Any, most: int, end: int = 0) -> str:
    """Bring a text into one line, and cut something out where it is long.

    Parameters
    ----------
    text : object
        Shown as `str` has it.
    most : int
        Characters.
    end : int, default=0
        Characters at its end that stay.

    Returns
    -------
    str
        With an ellipsis where something is cut out.
    """
    line = " ".join(str(text).split())
    return line if len(line) <= most else f"{line[: most - 1 - end].rstrip()}…{line[len(line) - end :]}"


def width_of(text: str, points: float) -> float:
    """Return how wide a line of text is, in inches.

    Parameters
    ----------
    text : str
        One line.
    points : float
        Size of the type.

    Returns
    -------
    float
        In matplotlib's present font.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=points), False)
    return float(width) / 72


def wrap(text: str, size: tuple[float, float], points: float) -> str:
    """Break a text into lines that fit a box, and cut off what does not.

    Parameters
    ----------
    text : str
        Of any length.
    size : tuple of float
        Width and height of the box in inches.
    points : float
        Size of the type.

    Returns
    -------
    str
        Lines. The last one ends in an ellipsis if something is cut off.
    """
    n_lines = max(1, int(72 * size[1] / (points * _LINE)))
    lines, rest = list[str](), " ".join(text.split())
    while rest and len(lines) < n_lines:
        end = _fitting(rest, size[0], points)
        lines.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    if rest:
        end = _fitting(f"{lines[-1]} …", size[0], points)
        last = lines[-1] if end > len(lines[-1]) + 1 else lines[-1][: max(1, end - 2)].rstrip()
        lines[-1] = f"{last} …"
    return "\n".join(lines)


def _fitting(text: str, width: float, points: float) -> int:
    """Return how many letters fit in one line, up to the end of a word where one ends; at least one."""
    low, high = 1, min(len(text), int(72 * width / (0.15 * points)) + 2)
    if width_of(text[:high], points) <= width and high == len(text):
        return high
    while low < high - 1:
        middle = (low + high) // 2
        low, high = (middle, high) if width_of(text[:middle], points) <= width else (low, middle)
    space = text.rfind(" ", 0, low + 1)
    return space if space > 0.4 * low else low
