"""Samples that watch the training: a held-out part, or the user's own."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from sktransfer._computing._reuse import Pass
from sktransfer._training._activation_sources import Activations
from sktransfer._training._dataset import ActivationDataset
from sktransfer._training._settings import TrainingSettings
from sktransfer._training._sources import Sources
from sktransfer._training.tasks._base import Task


@dataclass(frozen=True)
class Validation:
    """Samples that are not trained on, of a person's own.

    Parameters
    ----------
    work : Pass
        The samples, and their way through the backbone's frozen part.
    task : Task
        Their targets.
    """

    work: Pass
    task: Task


@dataclass(frozen=True)
class HeldOut:
    """Samples by which training is watched.

    Parameters
    ----------
    source : Activations
        Where they come from.
    task : Task
        Their targets.
    rows : ndarray of int
        Which of them.
    """

    source: Activations
    task: Task
    rows: np.ndarray

    @property
    def dataset(self) -> ActivationDataset:
        """Activations with targets, those of similar size together, so that a batch of them holds little padding."""
        ordered = sorted(self.rows, key=lambda row: self.source.size(int(row)))
        return self.task.of(self.source, np.array(ordered, dtype=self.rows.dtype))


def hold_out(
    task: Task, sources: Sources, settings: TrainingSettings, validation: Validation | None
) -> tuple[np.ndarray, HeldOut | None]:
    """Divide samples into those to train on and those to watch by.

    Parameters
    ----------
    task : Task
        What is to be learned.
    sources : Sources
        Activations of the samples.
    settings : TrainingSettings
        Whether some are held out.
    validation : Validation or None
        Samples to watch by in their place.

    Returns
    -------
    rows : ndarray of int
        Which to train on.
    held_out : HeldOut or None
        The others.

    Raises
    ------
    ValueError
        If there are too few, or none that is left has a weight.
    """
    rows = np.arange(len(task))
    if validation is not None:
        source = Sources(validation.work, replace(settings, augment=None)).plain
        return rows, HeldOut(source, validation.task, np.arange(len(validation.task)))
    if not settings.early_stopping:
        return rows, None
    seed = int(torch.randint(2**31 - 1, ()))
    fraction = settings.validation_fraction
    try:
        known, held_out = task.split(rows, fraction, seed)
    except ValueError as error:
        raise ValueError(
            f"Got early_stopping=True and validation_fraction={fraction:g} for {error} Give more samples, another "
            "validation_fraction, or early_stopping=False."
        ) from error
    if not task.weights[known].any():
        raise ValueError(
            f"Got early_stopping=True, but sample weights of 0 for all {len(known)} samples that are left for "
            "training; expected a positive weight. Give more samples a weight, or set early_stopping=False."
        )
    return np.sort(known), HeldOut(sources.plain, task, np.sort(held_out))
