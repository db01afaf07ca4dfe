"""Draw what a search found over one or two parameters, as lines or as a map with honest colours."""

from typing import Any, Self

import numpy as np

from sktransfer.inspection._drawing import BLACK, BLUE, GREY, PALE, RED, axes_for, cut
from sktransfer.inspection._parameter_axes import (
    by_size,
    is_number,
    label_axis,
    legend_above,
    places_of,
    short_name,
)
from sktransfer.inspection._search_results import Cell, full_name, make_cells, names_of, read_search, values_of

# If less than this share of a map was tried, it is drawn as points: a random search rarely tries a value twice.
_SPARSE = 0.5

_CHOSEN = "chosen by the search"

# Values of an axis beyond which numbers do not fit into cells.
_MOST_IN_WORDS = 12


class SearchDisplay:
    """Scores of a search, as points with error bars over one parameter, or as a map over two.

    Create it with :meth:`from_search`.

    Parameters
    ----------
    x, y : str or None
        Names of the parameters. y is `None` if there is only one.
    x_values, y_values : list
        Values of the parameters, in order.
    cells : list of Cell
        Scores. `columns` and `rows` of a cell are indices into these lists (several where a parameter has no effect),
        `score` is the mean over the folds, NaN if all candidates failed, and `error` its standard error.
    metric : str, default="score"
        Name of the score.
    others : tuple of str, default=()
        Other parameters that the search varied. A cell shows the best score over these.

    Attributes
    ----------
    limits_ : tuple of float
        Scores at the two ends of the colour scale, at least one standard error apart. With one parameter, the lowest
        and the highest score.
    ax_ : matplotlib.axes.Axes
        Axes with the drawing.
    figure_ : matplotlib.figure.Figure
        The figure.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.svm import SVC
    >>> from sktransfer.inspection import SearchDisplay
    >>> X, y = load_iris(return_X_y=True)
    >>> search = GridSearchCV(SVC(), {"C": [0.1, 1, 10], "gamma": [0.01, 0.1]}).fit(X, y)
    >>> display = SearchDisplay.from_search(search, x="C", y="gamma")
    >>> len(display.cells)
    6
    """

    limits_: tuple[float, float]
    ax_: Any
    figure_: Any

    def __init__(
        self,
        *,
        x: str,
        y: str | None,
        x_values: list[Any],
        y_values: list[Any],
        cells: list[Cell],
        metric: str = "score",
        others: tuple[str, ...] = (),
    ):
        self.x = x
        self.y = y
        self.x_values = x_values
        self.y_values = y_values
        self.cells = cells
        self.metric = metric
        self.others = others

    @classmethod
    def from_search(
        cls,
        search: Any,
        x: str | None = None,
        y: str | None = None,
        *,
        metric: str | None = None,
        include_values: bool = True,
        ax: Any = None,
    ) -> Self:
        """Draw the scores of a search.

        If x or y has no effect, the whole row or column is one cell. For example, the learning rate of the blocks has
        no effect if all blocks are frozen. This works for the estimators of this package. If all candidates of a cell
        failed, the cell says so.

        Parameters
        ----------
        search : estimator
            A fitted scikit-learn search: GridSearchCV, RandomizedSearchCV, or a halving search, whose candidates are
            shown with the largest number of samples that they were given.
        x, y : str or None, default=None
            Names of parameters, either in full (`"finetunedclassifier__lr"`) or the end of the name (`"lr"`). If both
            are None, the first two that the search varied. With x alone, only x.
        metric : str or None, default=None
            Which score to draw, if there are several. `None` is the one that `refit` names.
        include_values : bool, default=True
            Whether to write scores and standard errors into the cells.
        ax : matplotlib.axes.Axes or None, default=None
            Axes to draw on. `None` creates a figure.

        Returns
        -------
        SearchDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed: `pip install "sktransfer[plot]"`.
        NotFittedError
            If the search is not fitted.
        ValueError
            If `search` is not a search, or has no such parameter or score.
        """
        candidates, metric = read_search(search, metric)
        names = names_of(candidates)
        if x is None:
            rest = [name for name in names if y is None or name != full_name(y, candidates)]
            x, y = rest[0], y if y is not None else (rest[1] if len(rest) > 1 else None)
        x = full_name(x, candidates)
        y = None if y is None else full_name(y, candidates)
        if x == y:
            raise ValueError(f"Got {x!r} as x and as y; expected two parameters, or x alone.")
        across, down = values_of(x, candidates), ["" if y is None else value for value in values_of(y or x, candidates)]
        down = down if y is not None else [""]
        return cls(
            x=x,
            y=y,
            x_values=across,
            y_values=down,
            cells=make_cells(search, candidates, x, y, across, down),
            metric=metric,
            others=tuple(name for name in names if name not in (x, y)),
        ).plot(ax=ax, include_values=include_values)

    def plot(self, *, ax: Any = None, include_values: bool = True) -> Self:
        """Draw the scores.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None, default=None
            Axes to draw on. `None` creates a figure.
        include_values : bool, default=True
            Whether to write scores and standard errors into the cells.

        Returns
        -------
        SearchDisplay
            The same display.
        """
        if self.y is None:
            self.ax_ = axes_for(ax, (6.4, 4.0))
            self._draw_points()
        else:
            wide, high = len(self.x_values), len(self.y_values)
            is_map = not self._is_sparse()
            size = min(max(1.15 * wide + 2.6, 5.0), 13.0), min(max(0.75 * high + 1.5, 2.6), 10.0)
            self.ax_ = axes_for(ax, size if is_map else (7.0, 4.4))
            if is_map:
                self._draw_map(include_values)
            else:
                self._draw_scatter()
        self.figure_ = self.ax_.figure
        return self

    def _said(self) -> str:
        """Return what the scores are, and over what."""
        others = ", ".join(map(short_name, self.others))
        return cut(f"{self.metric}, best over {others}" if others else self.metric, 45)

    def _is_sparse(self) -> bool:
        """Tell whether points on an axis of numbers say more than a map that would be mostly empty."""
        if not (by_size(self.x_values) or by_size(self.y_values)):
            return False
        of_one_place = [cell for cell in self.cells if len(cell.columns) == len(cell.rows) == 1]
        places = {(column, row) for column in range(len(self.x_values)) for row in range(len(self.y_values))}
        for cell in self.cells:
            if cell not in of_one_place:
                places -= {(column, row) for column in cell.columns for row in cell.rows}
        return len(of_one_place) < _SPARSE * len(places)

    def _colours(self) -> tuple[Any, Any]:
        """Return a colour map and its limits, no closer than one standard error, and draw a bar for them."""
        from matplotlib import colormaps
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize

        self.limits_ = _limits(self.cells)
        colours, norm = colormaps["cividis"], Normalize(*self.limits_)
        bar = self.ax_.figure.colorbar(ScalarMappable(norm, colours), ax=self.ax_)
        bar.set_label(self._said() if self.others else f"{self.metric}, mean of folds")
        return colours, norm

    def _draw_map(self, include_values: bool) -> None:
        from matplotlib.patches import Rectangle

        colours, norm = self._colours()
        ax = self.ax_
        wide, high = len(self.x_values), len(self.y_values)
        in_words_too = include_values and wide <= _MOST_IN_WORDS and high <= 2 * _MOST_IN_WORDS
        for cell in self.cells:
            fill: dict[str, Any] = {"facecolor": PALE, "hatch": "///", "edgecolor": GREY}
            if not np.isnan(cell.score):
                fill = {"facecolor": colours(norm(cell.score)), "edgecolor": "white"}
            corner, size = (cell.columns[0] - 0.5, cell.rows[0] - 0.5), (len(cell.columns), len(cell.rows))
            ax.add_patch(Rectangle(corner, *size, linewidth=1.0, **fill))
            if in_words_too:
                place = float(np.mean(cell.columns)), float(np.mean(cell.rows))
                ax.text(*place, self._words(cell), **_style_of(cell, colours, norm))
        for cell in self.cells:
            if cell.is_best:
                corner, size = (cell.columns[0] - 0.46, cell.rows[0] - 0.46), (len(cell.columns), len(cell.rows))
                frame: dict[str, Any] = {"fill": False, "edgecolor": RED, "linewidth": 2.5, "label": _CHOSEN}
                ax.add_patch(Rectangle(corner, size[0] - 0.08, size[1] - 0.08, **frame))
        tried = {(column, row) for cell in self.cells for column in cell.columns for row in cell.rows}
        for place in np.ndindex(wide, high) if in_words_too else ():
            if place not in tried:
                ax.text(*place, "not tried", ha="center", va="center", fontsize=7, color=GREY)
        label_axis(ax, "x", self.x, self.x_values, by_name=True)
        label_axis(ax, "y", str(self.y), self.y_values, by_name=True)
        ax.tick_params(length=0)
        legend_above(ax)

    def _words(self, cell: Cell) -> str:
        if np.isnan(cell.score):
            return "failed"
        given = f"\nn = {cell.resources}" if len({one.resources for one in self.cells}) > 1 else ""
        idle = self.x if len(cell.columns) > 1 else self.y if len(cell.rows) > 1 else None
        note = f"\n({short_name(idle)} has no effect)" if idle is not None else ""
        form = ".3f" if abs(cell.score) < 10 else ".4g"
        return f"{cell.score:{form}}\n± {cell.error:{form}}{given}{note}"

    def _draw_points(self) -> None:
        ax = self.ax_
        places = places_of(self.x_values)
        known = sorted((cell for cell in self.cells if not np.isnan(cell.score)), key=lambda cell: cell.columns)
        failed = [cell for cell in self.cells if np.isnan(cell.score)]
        scores = [cell.score for cell in known]
        self.limits_ = (min(scores, default=0.0), max(scores, default=1.0))
        ordered = any(map(is_number, self.x_values))
        ax.errorbar(
            [places[cell.columns[0]] for cell in known],
            scores,
            yerr=[cell.error for cell in known],
            color=BLUE,
            marker="o",
            markersize=5,
            capsize=3,
            linestyle="-" if ordered else "none",
            linewidth=1.2,
            label="mean of folds ± its standard error",
        )
        for cell in known:
            if cell.is_best:
                spot = [places[cell.columns[0]]], [cell.score]
                ax.plot(*spot, marker="*", markersize=15, color=RED, linestyle="none", label=_CHOSEN)
        if failed:
            where = [places[cell.columns[0]] for cell in failed]
            low = {"transform": ax.get_xaxis_transform(), "clip_on": False}
            ax.plot(where, [0.03] * len(where), marker="x", color=BLACK, linestyle="none", label="failed", **low)
        label_axis(ax, "x", self.x, self.x_values)
        ax.set_ylabel(self._said())
        ax.grid(alpha=0.25, linewidth=0.6)
        legend_above(ax)

    def _draw_scatter(self) -> None:
        """Draw a point for each candidate; where x or y has no effect, a bar across."""
        colours, norm = self._colours()
        ax = self.ax_
        axes = [places_of(self.x_values), places_of(self.y_values)]
        label_axis(ax, "x", self.x, self.x_values)
        label_axis(ax, "y", str(self.y), self.y_values)
        for cell in self.cells:
            x, y = axes[0][cell.columns[0]], axes[1][cell.rows[0]]
            if len(cell.columns) > 1 or len(cell.rows) > 1:
                self._draw_bar(cell, (x, y), colours(norm(cell.score)) if not np.isnan(cell.score) else PALE)
            elif np.isnan(cell.score):
                ax.plot(x, y, marker="x", color=BLACK, linestyle="none", markersize=7, label="failed")
            else:
                edge = {"edgecolors": RED if cell.is_best else BLACK, "linewidths": 2.5 if cell.is_best else 0.6}
                label = _CHOSEN if cell.is_best else None
                above = 4 if cell.is_best else 3
                ax.scatter([x], [y], s=110, c=[colours(norm(cell.score))], label=label, zorder=above, **edge)
        legend_above(ax)

    def _draw_bar(self, cell: Cell, place: tuple[float, float], colour: Any) -> None:
        ax, across = self.ax_, len(cell.columns) > 1
        how = ax.axhline if across else ax.axvline
        edge = {"color": RED if cell.is_best else BLACK, "label": _CHOSEN if cell.is_best else None}
        how(place[1] if across else place[0], linewidth=17, solid_capstyle="butt", **edge)
        how(place[1] if across else place[0], linewidth=14, color=colour, solid_capstyle="butt")
        text = self._words(cell).replace("\n", " ")
        spot = (0.5, place[1]) if across else (place[0], 0.5)
        transform = ax.get_yaxis_transform() if across else ax.get_xaxis_transform()
        style = {"ha": "center", "va": "center", "fontsize": 8, "rotation": 0 if across else 90}
        style["color"] = "white" if not np.isnan(cell.score) and _is_dark(colour) else BLACK
        ax.text(*spot, text, transform=transform, **style)


def _limits(cells: list[Cell]) -> tuple[float, float]:
    """Return the least and the greatest score, or, where they are closer, one standard error around their middle."""
    known = [cell for cell in cells if not np.isnan(cell.score)]
    if not known:
        return 0.0, 1.0
    low, high = min(cell.score for cell in known), max(cell.score for cell in known)
    least = float(np.mean([cell.error for cell in known])) or 1e-3 * max(1.0, abs(high))
    if high - low >= least:
        return low, high
    middle = (low + high) / 2
    return middle - least / 2, middle + least / 2


def _style_of(cell: Cell, colours: Any, norm: Any) -> dict[str, Any]:
    dark = not np.isnan(cell.score) and _is_dark(colours(norm(cell.score)))
    return {"ha": "center", "va": "center", "fontsize": 8.5, "color": "white" if dark else BLACK}


def _is_dark(colour: Any) -> bool:
    red, green, blue = colour[:3] if not isinstance(colour, str) else (1.0, 1.0, 1.0)
    return 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
