"""Choose how far tuning should go, on samples that were not trained on.

Weights on the line between where tuning started and where it ended often serve better than either end (WiSE-FT:
Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
"""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from sktransfer._process._fit_tasks import FitTask
from sktransfer._training._activation_sources import Activations
from sktransfer._training._suffix_network import SuffixNetwork
from sktransfer._training._suffix_pass import outputs_of
from sktransfer._training.tasks._base import Task

# Interpolations to choose from, and the number of parts to hold out in turn if no samples are held out anyway.
FACTORS = np.linspace(0, 1, 11)
PARTS = 3


def choose_factor(training: Any, module: SuffixNetwork, rows: np.ndarray, held_out: Any, phase: FitTask) -> float:
    """Return the interpolation with the least loss of samples that were not trained on.

    Parameters
    ----------
    training : Phases
        What trains a suffix on some rows.
    module : SuffixNetwork
        The suffix that it has trained.
    rows : ndarray of int
        On which.
    held_out : HeldOut or None
        Other samples; where there are none, other suffixes are trained on parts of `rows`, one after another.
    phase : FitTask
        Whose parts these trainings are.

    Returns
    -------
    float
        From 0 to 1; 1 where there are too few samples to hold some out.
    """
    source, task = training.sources.plain, training.task
    if held_out is not None:
        losses = _losses(training, module, held_out.source, held_out.task, held_out.rows)
        return float(FACTORS[np.argmin(losses)])
    quiet = copy.copy(training)
    quiet.settings = replace(training.settings, callbacks=None)
    quiet.earlier = None  # which has seen all samples
    losses = np.zeros(len(FACTORS))
    parts = task.parts(rows, PARTS, int(torch.randint(2**31 - 1, ())))
    for number, (known, out) in enumerate(parts, start=1):
        training.work.report(f"Choosing the interpolation: training {number} of {len(parts)}.")
        part = phase.subtask("part")
        losses += _losses(training, quiet.run(known, None, FitTask()).net.module_, source, task, out)
        part.end()
    return float(FACTORS[np.argmin(losses)]) if parts else 1.0


def _losses(training: Any, module: SuffixNetwork, source: Activations, task: Task, rows: np.ndarray) -> np.ndarray:
    """Return the loss of some rows at each interpolation that is tried."""
    losses = []
    for factor in FACTORS:
        module.interpolate(float(factor), training.backbone)
        losses.append(task.total_loss(outputs_of(module, source, rows, training.execution), rows))
    return np.array(losses)
