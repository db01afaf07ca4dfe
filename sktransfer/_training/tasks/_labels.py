"""Turn labels, as users give them, into indices of classes, and weights into numbers. Refuse anything else."""

from numbers import Number, Real
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import assert_all_finite, column_or_1d, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from sktransfer._messages import shown
from sktransfer._training.tasks._indicator_matrix import ADVICE
from sktransfer._training.tasks._weights import read_weights, refuse_no_weight
from sktransfer.inputs._containers import is_missing
from sktransfer.inputs._refusals import as_array, check_form

_WANTED = "one label per sample: a list, an array or a Series of strings, integers or booleans"


# Types of numpy's that look like arrays and are labels.
_SCALARS = {kind for kind in np.sctypeDict.values() if issubclass(kind, np.generic)}


def read_labels(y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes in y, and which of them each sample has.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels of one type.

    Returns
    -------
    classes : ndarray of shape (n_classes,)
        The different labels, sorted, of the type that they were given in.
    labels : int ndarray of shape (n_samples,)
        Index of each sample's class.

    Raises
    ------
    ValueError
        If labels are missing, of mixed types, continuous, several per sample, or of one class alone.
    """
    if y is None:
        raise ValueError("This classifier requires y to be passed, but the target y is None.")
    y = column_or_1d(_plain_labels(y), warn=True)
    assert_all_finite(y, input_name="y")
    if type_of_target(y).startswith("continuous"):
        raise ValueError(
            "Unknown label type: continuous. Got y with numbers that are not classes, such as "
            f"{shown(float(y[np.flatnonzero(y != np.floor(y))[0]]))}; expected labels. To predict numbers, use "
            "FineTunedRegressor."
        )
    check_classification_targets(y)
    classes, labels = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(
            "This classifier needs samples of at least 2 classes in the data, but the data contains only one class: "
            f"{shown(classes[:1].tolist()[0])}"
        )
    return classes, labels


def read_validation_labels(y: Any, classes: np.ndarray) -> np.ndarray:
    """Return which class each validation sample has.

    Parameters
    ----------
    y : array-like of shape (n_samples,)
        Labels of one type.
    classes : ndarray of shape (n_classes,)
        Those of the training samples.

    Returns
    -------
    int ndarray of shape (n_samples,)
        Indices of classes.

    Raises
    ------
    ValueError
        If they are not labels, or not labels of the training samples.
    """
    if issparse(y):
        raise ValueError(f"Got y_val as a sparse matrix; expected {_WANTED}, as y is.")
    y = column_or_1d(_plain_labels(y, "y_val"), warn=True)
    known = {label: number for number, label in enumerate(classes.tolist())}
    strange = [label for label in np.asarray(y).tolist() if label not in known]
    if strange:
        raise ValueError(
            f"Got {shown(strange[0])} in y_val; expected only labels of y: {shown(classes.tolist(), 100)}."
        )
    return np.array([known[label] for label in np.asarray(y).tolist()], dtype=np.int64)


def weigh(sample_weight: Any, class_weight: Any, classes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the weight of each sample: its own, times its class's, with 1 as the largest of each kind.

    Parameters
    ----------
    sample_weight : array-like of shape (n_samples,), float or None
        As `fit` takes it.
    class_weight : dict, "balanced" or None
        As the classifier takes it.
    classes : ndarray of shape (n_classes,)
        The labels.
    labels : int ndarray of shape (n_samples,)
        Index of each sample's class.

    Returns
    -------
    float64 ndarray of shape (n_samples,)
        Not negative, and not 0 everywhere.

    Raises
    ------
    ValueError
        If a weight is negative, NaN or infinite, there is not one for each sample, or their sum is 0.
    """
    weights = read_weights(sample_weight, len(labels))
    if class_weight is not None:
        of_classes = compute_class_weight(class_weight, classes=classes, y=classes[labels]).astype(np.float64)
        weights *= (of_classes / (of_classes.max() or 1.0))[labels]
    refuse_no_weight(weights, "" if class_weight is None else f", with class_weight={shown(class_weight)},")
    return weights


def check_class_weight(class_weight: Any) -> None:
    """Raise if a weight of a class is not a number, before anything is loaded.

    Parameters
    ----------
    class_weight : dict, list of dict, "balanced" or None
        As the classifier takes it.

    Raises
    ------
    ValueError
        If one is negative, NaN or infinite, or something in a list is not a dict.
    """
    for one in class_weight if isinstance(class_weight, list) else [class_weight]:
        if isinstance(class_weight, list) and not isinstance(one, dict):
            raise ValueError(f"Got class_weight={shown(class_weight)}; expected one dict per label in a list.")
        values = one.values() if isinstance(one, dict) else []
        if not all(isinstance(weight, Real) and 0 <= float(weight) < np.inf for weight in values):
            raise ValueError(f"Got class_weight={shown(class_weight)}; expected finite numbers of at least 0.")


def _plain_labels(y: Any, name: str = "y") -> np.ndarray:
    """Return an array of labels, none missing and all of one type."""
    if isinstance(y, str | bytes):
        raise ValueError(f"Got {name}={shown(y)}; expected {_WANTED}.")
    if not isinstance(y, range):
        check_form(y, name, _WANTED)
    if isinstance(y, list | tuple | range):
        y = _from_list(y, name)
    labels = as_array(y, name)
    if labels.ndim > 2 or (labels.ndim == 2 and labels.shape[1] != 1):
        raise ValueError(
            f"Got {name} of shape {labels.shape}; {name} should be a 1d array of one label per sample, or columns of 0 "
            f"and 1. {ADVICE}"
        )
    column = labels.ravel()
    _refuse_missing(column, name)
    if column.dtype.kind not in "OST":
        return labels
    column = column.astype(object)
    kind = _one_kind(column, name)
    if kind == "number":  # such as of a table's column of type object
        return np.array(column.tolist()).reshape(labels.shape)
    return column.reshape(labels.shape)


def _from_list(y: "list[Any] | tuple[Any, ...] | range", name: str) -> np.ndarray:
    """Make an array of a list in which each label keeps its type."""
    kinds = set(map(type, y))
    if all(issubclass(kind, str) for kind in kinds) or all(issubclass(kind, Number) for kind in kinds):
        return np.asarray(y)
    if any(issubclass(kind, list | tuple | set | dict) or hasattr(kind, "__array__") for kind in kinds - _SCALARS):
        try:
            return np.asarray(y)
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"Got {name}[0] = {shown(y[0])} among labels that are lists or arrays; expected {_WANTED}. {ADVICE}"
            ) from error
    labels = np.empty(len(y), dtype=object)
    labels[:] = y
    return labels


def _refuse_missing(column: np.ndarray, name: str) -> None:
    kind = column.dtype.kind
    if kind == "f":
        missing = np.isnan(column)
    elif kind in "mM":
        missing = np.isnat(column)
    else:
        missing = np.fromiter(map(is_missing, column), bool, len(column)) if kind in "OT" else np.zeros(0, dtype=bool)
    if missing.any():
        row = int(missing.argmax())
        more = f" ({missing.sum()} labels are missing.)" if missing.sum() > 1 else ""
        of_numbers = f"Input {name} contains NaN: got" if kind == "f" else "Got"
        label = shown(column[row : row + 1].tolist()[0])
        raise ValueError(
            f"{of_numbers} {name}[{row}] = {label}; expected one label per sample. Leave out rows without a "
            f"label.{more}"
        )


def _one_kind(labels: np.ndarray, name: str) -> str:
    """Return what labels of type object all are; raise if they are of several kinds, or of none that can be a label."""
    kinds = {kind: _kind(kind) for kind in set(map(type, labels))}
    found = sorted(set(kinds.values()))
    if len(found) > 1:
        rows = [next(row for row, label in enumerate(labels) if kinds[type(label)] == kind) for kind in found[:2]]
        got = " and ".join(f"{name}[{row}] = {shown(labels[row], 60)}" for row in sorted(rows))
        raise ValueError(
            f"Got labels of mixed types: {got}; expected {_WANTED}, all of one type. Make them strings: "
            f"{name}=[str(label) for label in {name}]."
        )
    if found and found[0] not in ("string", "number"):
        advice = (
            f"Support for labels represented as bytes is not supported: decode them, [label.decode() for label in "
            f"{name}]."
            if found[0] == "bytes"
            else f"Make them strings: {name}=[str(label) for label in {name}]."
        )
        raise ValueError(f"Got {name}[0] = {shown(labels[0])} of type {found[0]}; expected {_WANTED}. {advice}")
    return found[0] if found else "string"


def _kind(kind: type) -> str:
    if issubclass(kind, str):
        return "string"
    return "number" if issubclass(kind, Number | np.bool_) else kind.__name__
