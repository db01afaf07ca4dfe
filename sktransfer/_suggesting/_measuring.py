"""Measure what a suggestion needs: count targets, measure nearness, and time a fit on a few samples."""

import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from sktransfer._fine_tuned_classifier import FineTunedClassifier
from sktransfer._fine_tuned_estimator import FineTunedEstimator
from sktransfer._fine_tuned_regressor import FineTunedRegressor
from sktransfer._probing._targets import Targets, read_targets
from sktransfer._similarity._domain_gap import measure_read
from sktransfer._similarity._reading import as_estimator, check_most, choose_rows, predicts_numbers
from sktransfer._suggesting._choice import Situation, choose
from sktransfer._suggesting._suggestion import Suggestion
from sktransfer.backbones import Backbone
from sktransfer.inputs._rows import Rows

# Folds of the probes, where classes have as many samples.
FOLDS = 5
# Batches, and samples per class, that a timed fit has at least, where there are so many.
TIMED_BATCHES, TIMED_PER_CLASS = 2, 2
# Epochs of a timed fit: the first of them is left out of account.
TIMED_EPOCHS = 2
_PLAIN = (str, int, float, tuple)


def suggest(X: Any, y: Any, backbone: Any, max_samples: int, random_state: Any) -> Suggestion:
    """Suggest settings.

    Parameters
    ----------
    X, y, backbone, max_samples, random_state : object
        As `sktransfer.suggest_settings` takes them.

    Returns
    -------
    Suggestion
        Parameters with reasons.
    """
    check_most(max_samples)
    if y is None:
        raise ValueError("Got y=None; expected targets, as FineTunedClassifier or FineTunedRegressor take them.")
    estimator = as_estimator(backbone)
    targets = read_targets(y, len(Rows(X, estimator.image_shape)), predicts_numbers(estimator))
    least = int(targets.counts.min()) if targets.kind == "classes" else len(targets.values)
    looked_at = targets if least > 1 else None  # a class of one sample has no folds
    n_folds = _n_folds(targets, max_samples)
    gap = measure_read(estimator, X, looked_at, None, n_folds, max_samples, random_state)
    settings, reasons = _given(backbone), dict[str, str]()
    reasons |= dict.fromkeys(settings, "as given")
    for name, (value, why) in choose(Situation.of(targets, gap)).items():
        settings[name], reasons[name] = value, why
    kind = FineTunedRegressor if targets.kind == "numbers" else FineTunedClassifier
    seconds = expected_seconds(kind, settings, X, targets)
    return Suggestion(settings, reasons, kind.__name__, gap, seconds)


def _n_folds(targets: Targets, max_samples: int) -> int:
    """Return as many folds as the smallest class allows among the samples that are looked at."""
    if targets.kind != "classes":
        return max(2, min(FOLDS, len(targets.values), max_samples))
    return max(2, min(FOLDS, int(targets.counts.min()), max_samples // len(targets.counts)))


def _given(backbone: Any) -> dict[str, Any]:
    """Return the settings that a person has chosen already."""
    if isinstance(backbone, Backbone):
        weights = backbone.to_record(store_weights=False)[0]["source"].get("weights")
        return {"backbone": backbone.name if backbone.custom is None else backbone.custom, "weights": weights}
    if not isinstance(backbone, BaseEstimator):
        return {"backbone": backbone}
    defaults = FineTunedClassifier().get_params(deep=False) | FineTunedRegressor().get_params(deep=False)
    given = {name: value for name, value in backbone.get_params(deep=False).items() if name in defaults}
    if not isinstance(backbone, FineTunedEstimator):  # features of one layer are another question
        given.pop("layer", None)
    return {name: value for name, value in given.items() if name == "backbone" or not _same(value, defaults[name])}


def _same(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and isinstance(value, _PLAIN) and bool(value == default))


def expected_seconds(kind: type[FineTunedEstimator], settings: Mapping[str, Any], X: Any, targets: Targets) -> float:
    """Estimate how long a fit takes here, from fits of few samples and the number of steps.

    What is done once per sample, passing the frozen part and solving the head, is measured with two numbers of samples
    and continued as a line; what is done once per step is measured in one epoch, and multiplied.

    Parameters
    ----------
    kind : type
        The class of the estimator.
    settings : mapping
        Its parameters.
    X : array-like
        All samples.
    targets : Targets
        All targets.

    Returns
    -------
    float
        Seconds, with nothing cached and the network loaded.
    """
    model = kind(**settings)
    n_samples = len(targets.values)
    batch = int(model.batch_size)
    few = min(n_samples, max(batch * TIMED_BATCHES, TIMED_PER_CLASS * len(targets.counts)))
    fewer = min(few, max(batch // 2, TIMED_PER_CLASS * len(targets.counts)))
    rows = choose_rows(n_samples, few, targets, 0)
    _timed(model, X, targets, _first(rows, fewer, targets))  # what comes up but once
    once_fewer, _ = _timed(model, X, targets, _first(rows, fewer, targets))
    once, steps = _timed(model, X, targets, rows)
    slope = max(0.0, (once - once_fewer) / (few - fewer)) if few > fewer else once / few
    epochs = 0 if not steps else int(model.max_epochs)
    per_step = steps[-1] / -(-few // batch) if steps else 0.0
    return once + slope * (n_samples - few) + epochs * -(-n_samples // batch) * per_step


def _first(rows: np.ndarray, n: int, targets: Targets) -> np.ndarray:
    return rows[choose_rows(len(rows), n, targets.of(rows), 0)]


def _timed(model: FineTunedEstimator, X: Any, targets: Targets, rows: np.ndarray) -> tuple[float, list[float]]:
    """Fit some samples; return the seconds outside tuning, and those of each epoch of it."""
    values = Rows(X, model.image_shape).values
    some = [values[row] for row in rows] if isinstance(values, list) else values[rows]
    y = targets.given[rows]
    trial = type(model)(**{**model.get_params(deep=False), "feature_cache": None, "max_epochs": TIMED_EPOCHS})
    trial.set_params(verbose=0, callbacks=None, warm_start=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few samples there is much to say, which is not said of all
        started = time.perf_counter()
        trial.fit(some, y)
        seconds = time.perf_counter() - started
    epochs = [float(entry["seconds"]) for entry in trial.history_ if "seconds" in entry]
    return max(0.0, seconds - sum(epochs)), epochs
