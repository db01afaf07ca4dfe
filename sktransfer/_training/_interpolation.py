"""How far tuning should go is seen on samples that were not trained on.

Weights on the line between where tuning started and where it ended often serve better than either end (WiSE-FT:
Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
"""

import copy
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sktransfer._training._suffix_network import SuffixNetwork
from sktransfer._training._suffix_pass import logits_of

# Interpolations of which the best is chosen, and parts that are held out in turn for it where none is held out anyway.
FACTORS = np.linspace(0, 1, 11)
PARTS = 3


def choose_factor(training: Any, module: SuffixNetwork, rows: np.ndarray, held_out: np.ndarray) -> float:
    """Return the interpolation with the least log loss of samples that were not trained on.

    Parameters
    ----------
    training : _Training
        What trains a suffix on some rows.
    module : SuffixNetwork
        The suffix that it has trained.
    rows : ndarray of int
        On which.
    held_out : ndarray of int
        Other rows; where there are none, other suffixes are trained on parts of `rows`, one after another.

    Returns
    -------
    float
        From 0 to 1; 1 where no class has as many samples as there are parts.
    """
    if len(held_out):
        return float(FACTORS[np.argmin(_losses(training, module, held_out))])
    labels = training.task.labels[rows]
    if np.bincount(labels).max() < PARTS:
        return 1.0
    quiet = copy.copy(training)
    quiet.settings = replace(training.settings, callbacks=None)
    quiet.earlier = None  # which has seen all samples
    losses = np.zeros(len(FACTORS))
    for known, out in _parts(labels):
        out = out[np.isin(labels[out], labels[known])]
        losses += _losses(training, quiet.run(rows[known], rows[:0]).net.module_, rows[out])
    return float(FACTORS[np.argmin(losses)])


def _losses(training: Any, module: SuffixNetwork, rows: np.ndarray) -> np.ndarray:
    """Return the log loss of some rows at each interpolation that is tried."""
    losses, labels, weights = [], training.task.labels[rows], training.task.weights[rows]
    for factor in FACTORS:
        module.interpolate(float(factor), training.backbone)
        logits = torch.from_numpy(logits_of(module, training.sources.plain, rows, training.execution)).double()
        losses.append(-logits.log_softmax(1).numpy()[np.arange(len(rows)), labels] @ weights)
    return np.array(losses)


def _parts(labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Divide samples into those to train on and those to look at, each class as evenly as it goes."""
    from sklearn.model_selection import StratifiedKFold

    seed = int(torch.randint(2**31 - 1, ()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer samples than parts
        return list(StratifiedKFold(PARTS, shuffle=True, random_state=seed).split(labels, labels))
