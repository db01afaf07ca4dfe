"""Score backbones on the same samples and folds, and measure what each costs.

What a person sees of the result is in `_table.py` and `_chart.py`.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.metrics import check_scoring
from sklearn.utils.parallel import Parallel, delayed

from sktransfer._computing._progress import progress_bar
from sktransfer._feature_extractor import PretrainedFeatureExtractor
from sktransfer._messages import check_choice, first_line, shortened, shown
from sktransfer._probing._folds import TASKS, Fold, folds_of, read_groups, read_target
from sktransfer._probing._targets import Targets
from sktransfer._ranking._candidates import named_extractors
from sktransfer._ranking._comparison import Comparison, Row
from sktransfer._ranking._one_pass import pass_once
from sktransfer._ranking._probes import PROBES, make_probe, score_fold
from sktransfer.inputs._rows import Rows


class BackboneRanking(Comparison):
    """Scores and costs of several backbones, as `rank_backbones` returns them.

    Parameters
    ----------
    rows : list of Row
        One per backbone, in the order in which the backbones were given.
    extractors : dict of str to PretrainedFeatureExtractor
        Extractors by name.
    metric, probe, kind : str
        Name of the score, name of the probe, and kind of the samples.
    n_samples : int
        Number of samples.

    Attributes
    ----------
    best_ : str
        Name of the backbone with the highest mean score.
    best_extractor_ : PretrainedFeatureExtractor
        Its extractor, to use in a Pipeline. It is not fitted, unless you gave a fitted one.
    by_size_ : str
        Name of the backbone with the most parameters, which is the choice without measuring.
    extractors_ : dict of str to PretrainedFeatureExtractor
        Extractors of all backbones.
    fold_scores_ : dict of str to ndarray of shape (n_folds,)
        Scores of each backbone on the same folds, without the backbones that failed.
    results_ : DataFrame
        One row per backbone.
    """

    def plot(self, *, ax: Any = None) -> "BackboneRanking":
        """Draw the scores against the number of parameters, and against the samples per second.

        Error bars show one standard error. Filled points are on the frontier: no other backbone is both better and
        smaller (or better and faster). A line connects them.

        Parameters
        ----------
        ax : sequence of two matplotlib Axes, or None, default=None
            Axes to draw on. `None` creates a figure. If no speed is known, the second panel says so.

        Returns
        -------
        BackboneRanking
            The same object, with `axes_` and `figure_`.

        Raises
        ------
        ImportError
            If matplotlib is not installed: `pip install "sktransfer[plot]"`.
        """
        from sktransfer._ranking._chart import draw  # matplotlib comes in when something is drawn

        self.axes_ = draw(self, ax)
        self.figure_ = self.axes_[0].figure
        return self

    def __repr__(self) -> str:
        from sktransfer._ranking._table import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from sktransfer._ranking._table import as_html

        return as_html(self)


def rank(
    X: Any,
    y: Any,
    backbones: Any,
    cv: Any,
    scoring: Any,
    probe: str,
    groups: Any,
    task: str,
    extractor: Any,
    n_jobs: int | None,
    verbose: int,
) -> BackboneRanking:
    """Do what `rank_backbones` promises; its docstring says what parameters are.

    Parameters
    ----------
    X, y, backbones, cv, scoring, probe, groups, task, extractor, n_jobs, verbose : object
        As there.

    Returns
    -------
    BackboneRanking
        The result.
    """
    check_choice("probe", probe, PROBES)
    check_choice("task", task, TASKS)
    extractors = named_extractors(backbones, extractor)
    n_samples = len(Rows(X))
    target = read_target(y, task, n_samples)
    numbers = read_groups(groups, n_samples)
    folds = folds_of(target, cv, numbers)
    scorer = _scorer_of(scoring, probe, target)
    judge = partial(_judge, target=target, groups=numbers, folds=folds, probe=probe, scorer=scorer, n_jobs=n_jobs)
    rows, kinds = [], set()
    with progress_bar(n_samples * len(extractors), "", bool(verbose)) as bar:
        for number, (name, one) in enumerate(extractors.items(), 1):
            bar.set_description(f"{number} of {len(extractors)}: {shortened(name, 40)}")
            row, kind = _row_of(name, one, X, judge, bar.update)
            bar.update(number * n_samples - bar.n)  # of one that failed, what it left
            rows.append(row)
            kinds.add(kind)
            if verbose:
                bar.write(_told(row))
    failed = [row for row in rows if not row.cost]
    if len(failed) == len(rows):
        reasons = " ".join(f"{shown(row.name, 60)}: {row.error}" for row in failed[:5])
        got = "1 backbone, which failed" if len(rows) == 1 else f"{len(rows)} backbones, which all failed"
        raise ValueError(f"Got {got}; expected at least one that works. {reasons}")
    kinds.discard("")
    return BackboneRanking(rows, extractors, _metric_of(scoring, target), probe, kinds.pop(), n_samples)


def _row_of(
    name: str, extractor: PretrainedFeatureExtractor, X: Any, judge: Callable[[np.ndarray], np.ndarray], count: Any
) -> tuple[Row, str]:
    """Return the row of one backbone, and what the samples are to it; of one that fails, a row that says why."""
    try:
        features, cost, kind = pass_once(extractor, X, count)
        return Row(name, judge(features), cost), kind
    except Exception as error:  # whatever is wrong with one backbone must not cost the passes of the others
        return Row(name, np.empty(0), error=_sentence(error)), ""


def _sentence(error: Exception) -> str:
    text = shortened(str(error), 1000) or type(error).__name__
    return text if isinstance(error, ValueError | OSError | ImportError) else first_line(error, 330)


def _judge(
    features: np.ndarray,
    target: Targets,
    groups: np.ndarray | None,
    folds: list[Fold],
    probe: str,
    scorer: Any,
    n_jobs: int | None,
) -> np.ndarray:
    with warnings.catch_warnings():
        for category in (ConvergenceWarning, FitFailedWarning):
            warnings.simplefilter("ignore", category)
        scores = Parallel(n_jobs=n_jobs)(
            delayed(score_fold)(features, target.given, groups, fold, probe, target.kind, scorer) for fold in folds
        )
    found = np.array(scores, dtype=np.float64)
    if np.isnan(found).any():
        raise ValueError(
            f"Got NaN as the score of {int(np.isnan(found).sum())} of {len(found)} folds; expected numbers. Give fewer "
            "folds, or another scoring."
        )
    return found


def _scorer_of(scoring: Any, probe: str, target: Targets) -> Any:
    if scoring is not None and not isinstance(scoring, str) and not callable(scoring):
        raise ValueError(f"Got scoring={shown(scoring)}; expected the name of one scorer, a callable or None.")
    return check_scoring(make_probe(probe, target.kind, 1), scoring=scoring)


def _metric_of(scoring: Any, target: Targets) -> str:
    if scoring is None:
        return {"classes": "accuracy", "labels": "share of samples with all labels right", "numbers": "R²"}[target.kind]
    if isinstance(scoring, str):
        return scoring.replace("_", " ")
    return str(getattr(scoring, "__name__", "score"))


def _told(row: Row) -> str:
    if row.cost is None:
        return f"{row.name} failed: {row.error}"
    return f"{row.name}: {row.score:.3f} ± {row.standard_error:.3f}, {row.cost.n_passed:,} samples passed"
