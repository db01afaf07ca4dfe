"""Tabulate what a search found over one or two parameters: scores, errors, and what has no effect.

Candidates that differ in other parameters only stand in one cell, which has the best of their scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sktransfer._fine_tuned_estimator import FineTunedEstimator
from sktransfer._messages import closest
from sktransfer._training._idle_parameters import without_effect
from sktransfer.inspection._estimators import steps_of
from sktransfer.inspection._parameter_axes import is_number


@dataclass(frozen=True)
class Candidate:
    """One set of parameters that was tried.

    Parameters
    ----------
    parameters : mapping
        By their full names, as the search has them.
    score, error : float
        Mean over folds, and its standard error; NaN where the fit failed.
    resources : int
        How much a search that halves gave it: samples, mostly. Else 0.
    is_best : bool
        Whether the search chose it.
    """

    parameters: Mapping[str, Any]
    score: float
    error: float
    resources: int
    is_best: bool


@dataclass(frozen=True)
class Cell:
    """One cell of a table of results. It may span a whole row or column.

    Parameters
    ----------
    columns, rows : tuple of int
        Indices of the values of x and y. Several where the parameter has no effect.
    score, error : float
        Score of the best candidate, and its standard error; NaN if all candidates failed.
    resources : int
        As the candidate has them.
    is_best : bool
        Whether the search chose a candidate of this cell.
    """

    columns: tuple[int, ...]
    rows: tuple[int, ...]
    score: float
    error: float
    resources: int
    is_best: bool


def read_search(search: Any, metric: str | None) -> tuple[list[Candidate], str]:
    """Return the candidates of a fitted search, and what their scores are.

    Parameters
    ----------
    search : estimator
        Of scikit-learn, or with the same `cv_results_`.
    metric : str or None
        Which of several scores.

    Returns
    -------
    candidates : list of Candidate
        In the order in which they were tried; of one that a search that halves tried several times, the last.
    metric : str
        What to call the scores.

    Raises
    ------
    NotFittedError
        If it is not fitted.
    ValueError
        If it is not a search, or has no such score.
    """
    if not hasattr(search, "cv_results_"):
        check_is_fitted(search)
        raise ValueError(
            f"Got {type(search).__name__}, which has no cv_results_; expected a fitted search, such as GridSearchCV."
        )
    results = search.cv_results_
    metrics = [name.removeprefix("mean_test_") for name in results if name.startswith("mean_test_")]
    if metric is None:
        refit = getattr(search, "refit", None)
        metric = metrics[0] if len(metrics) == 1 else refit if isinstance(refit, str) else None
    if metric is None or metric not in metrics:
        raise ValueError(
            f"Got metric={metric!r} for a search with several scores; expected one of them: {', '.join(metrics)}."
            if len(metrics) > 1
            else f"Got metric={metric!r}; expected {metrics[0]!r} or None: the search has no other score."
        )
    n_splits = int(getattr(search, "n_splits_", 1))
    best = getattr(search, "best_index_", None)
    resources = results.get("n_resources", np.zeros(len(results["params"]), dtype=int))
    tried: dict[str, Candidate] = {}
    for place, parameters in enumerate(results["params"]):
        score = float(results[f"mean_test_{metric}"][place])
        error = float(results[f"std_test_{metric}"][place]) / np.sqrt(n_splits)
        key = repr(sorted((name, _key(value)) for name, value in parameters.items()))
        was_best = key in tried and tried[key].is_best
        tried[key] = Candidate(parameters, score, error, int(resources[place]), place == best or was_best)
    scoring = getattr(search, "scoring", None)
    said = scoring if metric == "score" and isinstance(scoring, str) else metric
    return list(tried.values()), said


def full_name(name: str, candidates: Sequence[Candidate]) -> str:
    """Return the full name of a parameter.

    Parameters
    ----------
    name : str
        As a person gave it: in full, or its end, as "lr" of "finetunedclassifier__lr".
    candidates : sequence of Candidate
        Of the search.

    Returns
    -------
    str
        The name in the search.

    Raises
    ------
    ValueError
        If there is no such parameter, or several end so.
    """
    known = list(dict.fromkeys(name for one in candidates for name in one.parameters))
    if name in known:
        return name
    found = [one for one in known if one.endswith(f"__{name}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"Got {name!r}, but several parameters end in it: {', '.join(found)}; expected a full name.")
    ends = [one.rpartition("__")[2] for one in known]
    raise ValueError(f"Got {name!r}, which this search did not vary; expected {closest(name, [*ends, *known])}")


def names_of(candidates: Sequence[Candidate]) -> list[str]:
    """Return the parameters with more than one value, or all if there are none."""
    names = list(dict.fromkeys(name for one in candidates for name in one.parameters))
    several = [name for name in names if len({_key(one.parameters.get(name)) for one in candidates}) > 1]
    return several or names


def values_of(name: str, candidates: Sequence[Candidate]) -> list[Any]:
    """Return the values of a parameter in order: numbers by size, and then the others as they were given.

    Parameters
    ----------
    name : str
        In full.
    candidates : sequence of Candidate
        Those that have it.

    Returns
    -------
    list
        Each once. Numbers of blocks and shares of them, side by side, stay in the order in which they were given.
    """
    found: dict[str, Any] = {}
    for candidate in candidates:
        if name in candidate.parameters:
            found.setdefault(_key(candidate.parameters[name]), candidate.parameters[name])
    values = list(found.values())
    numbers = [value for value in values if is_number(value)]
    mixed = {isinstance(value, float | np.floating) for value in numbers}
    if name.rpartition("__")[2] == "freeze_depth" and len(mixed) > 1:
        return values
    return [*sorted(numbers, key=float), *(value for value in values if not is_number(value))]


def make_cells(
    search: Any, candidates: Sequence[Candidate], x: str, y: str | None, across: list[Any], down: list[Any]
) -> list[Cell]:
    """Arrange candidates by one or two parameters.

    Parameters
    ----------
    search : estimator
        Whose they are.
    candidates : sequence of Candidate
        All of them.
    x : str
        In full.
    y : str or None
        In full.
    across, down : list
        Values of x and of y; of y one that stands for all where there is none.

    Returns
    -------
    list of Cell
        Only where something was tried. A row in which x has no effect, or a column in which y has none, is one cell.
    """
    columns, rows = {_key(value): i for i, value in enumerate(across)}, {_key(value): i for i, value in enumerate(down)}
    places: dict[tuple[int, int], list[Candidate]] = {}
    for candidate in candidates:
        given = candidate.parameters
        if x in given and (y is None or y in given):
            place = columns[_key(given[x])], 0 if y is None else rows[_key(given[y])]
            places.setdefault(place, []).append(candidate)
    cells = {place: _cell_of(place, found) for place, found in places.items()}
    if y is None:
        return list(cells.values())
    idle = _Idle(search)
    for axis, name in ((1, x), (0, y)):
        n_lines, length = (len(rows), len(columns)) if axis else (len(columns), len(rows))
        for number in range(n_lines if length > 1 else 0):
            line = [place for place in cells if place[axis] == number]
            without = all(idle.has_no_effect(name, one.parameters) for place in line for one in places[place])
            # A row that is one cell already is joined to others like it, or not at all.
            if line and without and len({cells[place].columns if axis == 0 else () for place in line}) == 1:
                merged = _merged([cells.pop(place) for place in line])
                cells[line[0]] = _stretched(merged, axis, length)
    return list(cells.values())


def _cell_of(place: tuple[int, int], candidates: list[Candidate]) -> Cell:
    """Take the best of those that were given most."""
    most = max(one.resources for one in candidates)
    few = [one for one in candidates if one.resources == most]
    best = max(few, key=lambda one: -np.inf if np.isnan(one.score) else one.score)
    return Cell((place[0],), (place[1],), best.score, best.error, most, any(one.is_best for one in candidates))


def _merged(cells: list[Cell]) -> Cell:
    """Join cells whose candidates are one and the same: their scores differ by chance alone."""
    most = max(cell.resources for cell in cells)
    some = [cell for cell in cells if cell.resources == most and not np.isnan(cell.score)]
    is_best = any(cell.is_best for cell in cells)
    if not some:
        return replace(cells[0], is_best=is_best)
    score, error = (float(np.mean([getattr(cell, name) for cell in some])) for name in ("score", "error"))
    return replace(some[0], score=score, error=error, is_best=is_best)


def _stretched(cell: Cell, axis: int, n: int) -> Cell:
    return replace(cell, columns=tuple(range(n))) if axis else replace(cell, rows=tuple(range(n)))


class _Idle:
    """Parameters of a candidate that have no effect beside its others. Known for our estimators.

    Parameters
    ----------
    search : estimator
        Fitted.
    """

    def __init__(self, search: Any):
        self.given = search.estimator.get_params(deep=True)
        inside = [f"{name}__" for name, value in self.given.items() if isinstance(value, FineTunedEstimator)]
        self.prefixes = [""] if isinstance(search.estimator, FineTunedEstimator) else inside
        fitted = [step for step in steps_of(search) if isinstance(step, FineTunedEstimator)]
        self.backbone = getattr(fitted[-1], "backbone_", None) if fitted else None

    def has_no_effect(self, name: str, parameters: Mapping[str, Any]) -> bool:
        """Tell whether another value of a parameter would have made no difference to a candidate."""
        candidate = {**self.given, **parameters}
        for prefix in self.prefixes:
            own, end = name.removeprefix(prefix), len(prefix)
            if name.startswith(prefix) and "__" not in own:
                mine = {key[end:]: value for key, value in candidate.items() if key.startswith(prefix)}
                return own in without_effect(mine, self._are_frozen(mine, f"{prefix}backbone" in parameters))
        return False

    def _are_frozen(self, mine: Mapping[str, Any], is_other: bool) -> bool:
        depth = mine["freeze_depth"]
        if mine["strategy"] == "linear_probe" or depth == "all" or (isinstance(depth, float) and depth == 1):
            return True
        if self.backbone is None or is_other:
            return False
        try:
            return not self.backbone.trained_blocks(depth)
        except ValueError:  # no such block: these candidates failed
            return False


def _key(value: Any) -> str:
    """Return what tells values apart; NumPy's numbers are Python's."""
    value = value.item() if isinstance(value, np.generic) else value
    return f"{type(value).__name__} {value!r}"
