"""Run a strategy: pass samples through the frozen part, train in phases, and interpolate the weights."""

from dataclasses import replace
from typing import Any

from sktransfer._computing._reuse import Pass
from sktransfer._process._fit_tasks import FitTask, count_steps
from sktransfer._process._seeding import seeded
from sktransfer._training._held_out import Validation, hold_out
from sktransfer._training._interpolation import PARTS, choose_factor
from sktransfer._training._phases import Phases, Trained
from sktransfer._training._settings import TrainingSettings
from sktransfer._training._sources import Sources
from sktransfer._training._suffix_network import SuffixNetwork
from sktransfer._training.tasks._base import Task
from sktransfer.backbones import Backbone
from sktransfer.inputs._base import Samples
from sktransfer.inputs.images._augmentation import augment_batch


def train(
    backbone: Backbone,
    work: Pass,
    task: Task,
    settings: TrainingSettings,
    seed: int,
    earlier: SuffixNetwork | None = None,
    validation: Validation | None = None,
    fit: FitTask | None = None,
) -> Trained:
    """Train what lies behind the settings' `freeze_depth`, by their strategy.

    Parameters
    ----------
    backbone : Backbone
        It is not changed.
    work : Pass
        The samples, and their way through the backbone's frozen part.
    task : Task
        What is to be learned.
    settings : TrainingSettings
        The strategy and its numbers.
    seed : int
        Of all that is drawn: weights, orders, what dropout drops.
    earlier : SuffixNetwork or None, default=None
        Where to continue.
    validation : Validation or None, default=None
        Samples to watch training by, in place of some that are held out.
    fit : FitTask or None, default=None
        What callbacks see of it: its parts are those that `list_phases` returns.

    Returns
    -------
    Trained
        On the CPU.
    """
    fit = fit or FitTask()
    _try_augmentation(work.samples, settings.augment)
    with seeded(seed):
        others = None if validation is None else validation.work
        n_samples = len(work.samples) * (settings.augment_views or 1) + (0 if others is None else len(others.samples))
        phase = fit.subtask("features", count_steps(n_samples, work.execution.batch_size))
        count = phase.counter(n_samples, work.execution.batch_size)
        work = replace(work, count=count)
        if validation is not None:
            validation = replace(validation, work=replace(validation.work, count=count))
        training = Phases(backbone, Sources(work, settings), work, task, settings, earlier)
        rows, held_out = hold_out(task, training.sources, settings, validation)
        training.sources.compute()
        phase.end()
        trained = training.run(rows, held_out, fit)
        if training.blocks and settings.interpolation == "auto" and not trained.was_ended:
            phase = fit.subtask("interpolation", 0 if held_out is not None else PARTS)
            factor = choose_factor(training, trained.net.module_, rows, held_out, phase)
            trained.net.module_.interpolate(factor, backbone)
            phase.end(lambda: trained)
        return trained


def _try_augmentation(samples: Samples, augment: Any) -> None:
    """Refuse what cannot change such samples now, not in the second phase."""
    samples.augmentation(augment)
    if callable(augment):
        with seeded(0):
            augment_batch(samples.load(0)[None], augment)
