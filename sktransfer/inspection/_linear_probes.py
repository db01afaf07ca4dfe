"""Cross-validate a linear model on the output of each block: how much of y can be read off there.

Samples pass the network once. What all blocks leave of them is one table, in memory while it is small, else in a
temporary file that is gone when the probes are done.
"""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from sktransfer._computing._frozen_pass import stream
from sktransfer._computing._reuse import Pass

# Bytes of a table that is held in memory.
IN_MEMORY = 2**30


def usual_probe(kind: str) -> Any:
    """Return a linear model on standardised features.

    Parameters
    ----------
    kind : {"classes", "labels", "numbers"}
        What it learns.

    Returns
    -------
    Pipeline
        Logistic regression, one for each label, or ridge regression whose penalty is chosen by leaving samples out.
    """
    from sklearn.linear_model import LogisticRegression, RidgeCV
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model: Any = LogisticRegression(max_iter=1000)
    if kind == "labels":
        model = OneVsRestClassifier(model)
    if kind == "numbers":
        model = RidgeCV(alphas=np.logspace(-1, 5, 13))
    return make_pipeline(StandardScaler(), model)


def usual_scoring(kind: str) -> tuple[Any, str]:
    """Return how probes are scored, and what that is called.

    Parameters
    ----------
    kind : {"classes", "labels", "numbers"}
        What is learned.

    Returns
    -------
    scoring : str or callable
        As scikit-learn takes it.
    name : str
        In words.
    """
    if kind == "labels":
        from sklearn.metrics import f1_score, make_scorer

        return make_scorer(f1_score, average="micro", zero_division=0.0), "F1 over all labels"
    return ("accuracy", "accuracy") if kind == "classes" else ("r2", "R2")


@contextmanager
def vectors_of_blocks(work: Pass) -> Iterator[list[np.ndarray]]:
    """Run samples through a network once, and lend what each block leaves of them.

    Parameters
    ----------
    work : Pass
        The pass through all blocks, with one vector per block.

    Yields
    ------
    list of float32 ndarray of shape (n_samples, n_features)
        Of each block, from the input onwards.
    """
    n_samples, start, table = len(work.samples), 0, None
    with ExitStack() as opened:
        batches = opened.enter_context(closing(stream(work)))
        for batch in batches:
            if table is None:
                table = _make_table((n_samples, batch.shape[1]), opened)
            table[start : start + len(batch)] = batch.numpy()
            start += len(batch)
        assert table is not None
        yield np.split(table, np.cumsum(work.widths())[:-1], axis=1)


def _make_table(shape: tuple[int, int], opened: ExitStack) -> np.ndarray:
    if 4 * shape[0] * shape[1] <= IN_MEMORY:
        return np.empty(shape, dtype=np.float32)
    # Windows removes no file that is mapped: what is left there goes with the system's temporary files.
    folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="sktransfer-", ignore_cleanup_errors=True))
    return np.memmap(Path(folder, "vectors"), dtype=np.float32, mode="w+", shape=shape)


def score_blocks(
    vectors: list[np.ndarray], y: Any, folds: list[tuple[np.ndarray, np.ndarray]], probe: Any, scoring: Any
) -> np.ndarray:
    """Cross-validate a probe on the vectors of each block.

    Parameters
    ----------
    vectors : list of ndarray of shape (n_samples, n_features)
        Of each block.
    y : array-like
        Targets.
    folds : list of tuple of ndarray
        From `folds_of`.
    probe : estimator
        It is not changed.
    scoring : str or callable
        As scikit-learn takes it.

    Returns
    -------
    float64 ndarray of shape (n_blocks, n_folds)
        Scores.
    """
    from sklearn.model_selection import cross_val_score

    return np.array(
        [cross_val_score(clone(probe), one, y, cv=folds, scoring=scoring, error_score="raise") for one in vectors]
    )


def score_without_samples(y: Any, folds: list[tuple[np.ndarray, np.ndarray]], kind: str, scoring: Any) -> float:
    """Score what is predicted without a look at samples: the most frequent class or labels, or the mean.

    Parameters
    ----------
    y, folds : object
        As in `score_blocks`.
    kind : {"classes", "labels", "numbers"}
        What is learned.
    scoring : str or callable
        As scikit-learn takes it.

    Returns
    -------
    float
        Mean score over folds.
    """
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.model_selection import cross_val_score

    guess = DummyRegressor() if kind == "numbers" else DummyClassifier(strategy="prior")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scores that are not defined for a guess
        return float(cross_val_score(guess, np.zeros((len(y), 1)), y, cv=folds, scoring=scoring).mean())
