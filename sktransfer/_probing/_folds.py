"""Read the targets and make the folds once, the same for all backbones."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.model_selection import check_cv

from sktransfer._messages import shown
from sktransfer._probing._targets import Targets, read_targets

TASKS = ("auto", "classes", "labels", "numbers")

Fold = tuple[np.ndarray, np.ndarray]


def read_target(y: Any, task: str, n_samples: int) -> Targets:
    """Check y, and tell what it asks for.

    Parameters
    ----------
    y : array-like
        As `rank_backbones` takes it.
    task : {"auto", "classes", "labels", "numbers"}
        What it asks for; `"auto"` tells by its look.
    n_samples : int
        Samples in X.

    Returns
    -------
    Targets
        What is to be predicted.

    Raises
    ------
    ValueError
        If y is nothing of the kind, has one class alone, or another length than X.
    """
    targets = read_targets(y, n_samples, {"auto": None, "numbers": True}.get(task, False))
    if task not in ("auto", targets.kind):
        got = "one column" if task == "labels" else "several columns"
        wanted = "columns of 0 and 1, one for each label" if task == "labels" else "one class per sample"
        raise ValueError(f'Got task="{task}" and y of {got}; expected {wanted}.')
    values = targets.values
    if targets.kind == "numbers" and len(values) and (values == values[:1]).all():
        raise ValueError(f"Got y that is {shown(values[0].tolist())} for all samples; expected numbers that differ.")
    return targets


def read_groups(groups: Any, n_samples: int) -> np.ndarray | None:
    """Return the groups of samples as integers from 0.

    Parameters
    ----------
    groups : array-like of shape (n_samples,) or None
        As `rank_backbones` takes it.
    n_samples : int
        Samples in X.

    Returns
    -------
    int ndarray of shape (n_samples,) or None
        Equal where groups are.

    Raises
    ------
    ValueError
        If there is not one for each sample.
    """
    if groups is None:
        return None
    given = np.asarray(groups)
    if given.ndim != 1 or len(given) != n_samples:
        raise ValueError(f"Got groups of shape {given.shape}; expected one group per sample: ({n_samples},).")
    return np.unique(given, return_inverse=True)[1]


def folds_of(target: Targets, cv: Any, groups: np.ndarray | None) -> list[Fold]:
    """Divide samples into training and test parts.

    Parameters
    ----------
    target : Targets
        What is to be predicted.
    cv : int, splitter or iterable
        A number gives folds as scikit-learn makes them: of classes each fold has its share, groups stay together.
    groups : int ndarray of shape (n_samples,) or None
        Samples that stay together.

    Returns
    -------
    list of (ndarray, ndarray)
        Rows to train on and rows to test on.

    Raises
    ------
    ValueError
        If there are fewer samples, groups or samples of any class than folds, or a part to train on has one class.
    """
    y = target.given
    if isinstance(cv, Integral) and not isinstance(cv, bool):
        _check_enough(target, int(cv), groups)
        splitter = _splitter(target, int(cv), groups)
    else:
        splitter = check_cv(cv, y, classifier=target.kind == "classes")
    folds = [(np.asarray(train), np.asarray(test)) for train, test in splitter.split(y, y, groups)]
    if not folds:
        raise ValueError(f"Got cv={shown(cv)}, which gives no folds; expected at least one.")
    if target.kind == "classes":
        _refuse_one_class(y, folds)
    return folds


def _splitter(target: Targets, cv: int, groups: np.ndarray | None) -> Any:
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    if groups is None:
        return check_cv(cv, target.values, classifier=target.kind == "classes")
    return (StratifiedGroupKFold if target.kind == "classes" else GroupKFold)(n_splits=cv)


def _check_enough(target: Targets, cv: int, groups: np.ndarray | None) -> None:
    if cv < 2:
        raise ValueError(f"Got cv={cv}; expected at least 2 folds.")
    n_samples = len(target.values)
    counted = [(n_samples, f"{n_samples} samples", "at least one sample")]
    if target.kind == "classes":
        largest = int(np.unique(target.values, return_counts=True)[1].max())
        counted.append((largest, f"classes of at most {largest} samples", "a class with at least one sample"))
    if groups is not None:
        n_groups = int(groups.max()) + 1
        counted.append((n_groups, f"{n_groups} groups", "at least one group"))
    count, got, wanted = min(counted)
    if count < cv:
        advice = f"Give cv={count}." if count >= 2 else "Give more samples."
        if target.kind == "classes" and target.given.dtype.kind in "iu":
            advice += ' If y contains numbers to predict, give task="numbers".'
        raise ValueError(f"Got {got} and cv={cv}; expected {wanted} per fold. {advice}")


def _refuse_one_class(y: np.ndarray, folds: Sequence[Fold]) -> None:
    for number, (train, _) in enumerate(folds):
        classes = np.unique(y[train])
        if len(classes) < 2:
            only = f" {shown(classes.tolist()[0])}" if len(classes) else ""
            raise ValueError(
                f"Got fold {number} with {len(classes)} class{only or 'es'} to train on; expected at least two. Give "
                "fewer folds, or groups that do not contain whole classes."
            )
