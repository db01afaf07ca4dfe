"""What a strategy does in which order: a head on frozen features first, then blocks, or both at once.

A linear head is solved where nothing but epochs could serve better; the phase after it starts from that solution.
"""

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import nn

from sktransfer._computing._execution import Execution, lend
from sktransfer._computing._forward import run_batch
from sktransfer._computing._frozen_pass import probe
from sktransfer._computing._reuse import Pass
from sktransfer._messages import check_choice
from sktransfer._process._seeding import generator_kept, seeded
from sktransfer._training._activation_sources import (
    Activations,
    Augmented,
    KeptActivations,
    activations,
    decoded_once,
    take_batches,
)
from sktransfer._training._dataset import ActivationDataset
from sktransfer._training._idle_parameters import check_companions
from sktransfer._training._settings import TrainingSettings, check_optimizer
from sktransfer._training._suffix_network import FeaturesOf, SuffixNetwork, make_head
from sktransfer.backbones import Backbone, Block
from sktransfer.inputs._base import Samples
from sktransfer.inputs.images._augmentation import augment_batch, make_augmentation

STRATEGIES = ("linear_probe", "fine_tune", "lp_ft", "gradual")

# Epochs of a head that cannot be solved: see benchmarks/defaults.py.
HEAD_EPOCHS = 30


def check_settings(estimator: Any) -> None:
    """Raise if parameters that say how to train are wrong, or wrong together, before anything is loaded.

    Parameters
    ----------
    estimator : BaseEstimator
        With parameters of the right types.

    Raises
    ------
    ValueError
        With the first of them.
    """
    check_choice("strategy", estimator.strategy, STRATEGIES)
    check_optimizer(estimator.optimizer)
    check_companions(estimator)
    sizes = estimator.hidden_layer_sizes
    if not all(isinstance(size, Integral) and not isinstance(size, bool) and int(size) > 0 for size in sizes):
        raise ValueError(
            f"Got hidden_layer_sizes={sizes!r}; expected widths of at least 1, such as (256,), or () for a linear head."
        )
    make_augmentation(estimator.augment)
    if estimator.callbacks:
        from sktransfer._training._epochs import check_callbacks  # which brings skorch in

        check_callbacks(estimator.callbacks)
    if isinstance(estimator.class_weight, dict):
        weights = estimator.class_weight.values()
        if not all(isinstance(weight, Real) and 0 <= float(weight) < np.inf for weight in weights):
            raise ValueError(f"Got class_weight={estimator.class_weight!r}; expected finite numbers of at least 0.")
    if estimator.train_bn and estimator.batch_size == 1:
        raise ValueError(
            "Got train_bn=True with batch_size=1; expected batches of at least 2: BatchNorm has no statistics of one "
            "sample. Raise batch_size, or set train_bn=False."
        )


@dataclass(frozen=True)
class Task:
    """What is to be learned.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        The labels.
    labels : int ndarray of shape (n_samples,)
        Index of each sample's class.
    weights : float64 ndarray of shape (n_samples,)
        Weight of each sample.
    """

    classes: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    def of(self, source: Activations, rows: np.ndarray) -> ActivationDataset:
        """Join activations with the labels of some rows."""
        relative = self.weights / self.weights.mean()
        return ActivationDataset(source, rows, self.labels[rows], relative[rows])


@dataclass(frozen=True)
class Trained:
    """What came of it: a resting skorch net, an entry an epoch, and the number of iterations."""

    net: Any
    history: list[dict[str, Any]]
    n_iter: int


def train(
    backbone: Backbone,
    work: Pass,
    task: Task,
    settings: TrainingSettings,
    seed: int,
    earlier: SuffixNetwork | None = None,
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

    Returns
    -------
    Trained
        On the CPU.
    """
    _try_augmentation(work.samples, settings.augment)
    with seeded(seed):
        return _train(backbone, work, task, settings, earlier)


def _try_augmentation(samples: Samples, augment: Any) -> None:
    """Refuse what cannot change such samples now, not in the second phase."""
    samples.augmentation(augment)
    if callable(augment):
        with seeded(0):
            augment_batch(samples.load(0)[None], augment)


def _train(
    backbone: Backbone, work: Pass, task: Task, settings: TrainingSettings, earlier: SuffixNetwork | None
) -> Trained:
    # skorch, and scikit-learn's linear models, come in when something is trained.
    from sktransfer._training._epochs import train_suffix, untrained_net
    from sktransfer._training._solved_head import SOLVABLE, solve_head

    execution, blocks = work.execution, tuple(backbone.trained_blocks(settings.freeze_depth))
    rows, held_out = _hold_out(task, settings)
    sources = _Sources(work, settings)
    module = _start(backbone, sources.first, task, execution, settings, earlier)
    training = task.of(sources.changing, rows)
    validation = task.of(sources.plain, _by_size(sources.plain, held_out)) if len(held_out) else None
    net, history, n_iter = None, [], 0
    head_first = settings.strategy != "fine_tune" and not (blocks and earlier is not None)
    few = len(task.labels) * len(task.classes) <= SOLVABLE
    if head_first and few and _is_solved(settings, blocks):
        features = _features(module, sources.plain, rows, execution)
        solution = solve_head(features, task.labels[rows], task.weights[rows], len(task.classes))
        module.head, n_iter = nn.Sequential(solution.head), solution.n_iter
        net = untrained_net(module, task.classes)
    elif head_first:
        net = _train_head(module, training, validation, task, execution, settings)
        history += _records("head", net)
    if blocks or net is None:
        epochs = settings.max_epochs
        net = train_suffix(module, training, validation, task.classes, settings, execution, epochs, blocks)
        history += _records("fine_tune", net)
    return Trained(net, history, n_iter + len(history))


def _is_solved(settings: TrainingSettings, blocks: tuple[Block, ...]) -> bool:
    """Whether the head is solved: it can be, and no one asked for what only epochs can show or use."""
    return settings.head_is_convex and (bool(blocks) or not (settings.early_stopping or settings.augment))


class _Sources:
    """Activations of samples as they are, and of samples that change at random where that is asked for.

    Each is made when first wanted: which of them that is depends on the strategy.
    """

    def __init__(self, work: Pass, settings: TrainingSettings):
        report = print if work.execution.verbose else work.report
        self._work = replace(work, samples=decoded_once(work), report=report)
        augmentation = work.samples.augmentation(settings.augment)
        name = settings.augment if isinstance(settings.augment, str) else None
        self._augmented = augmentation and Augmented(augmentation, name, settings.augment_views, settings.views_seed)

    @cached_property
    def first(self) -> torch.Tensor:
        """The activation of one sample, to measure."""
        with generator_kept():
            return probe(self._work if self._augmented is None else replace(self._work, cache=None))

    @cached_property
    def plain(self) -> Activations:
        with generator_kept():
            return activations(self._work, self.first)

    @cached_property
    def changing(self) -> Activations:
        return self.plain if self._augmented is None else activations(self._work, self.first, self._augmented)


def _by_size(source: Activations, rows: np.ndarray) -> np.ndarray:
    """Put rows of similar size together, so that a batch of them holds little padding."""
    return np.array(sorted(rows, key=lambda row: source.size(int(row))), dtype=rows.dtype)


def _hold_out(task: Task, settings: TrainingSettings) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(len(task.labels))
    if not settings.early_stopping:
        return rows, rows[:0]
    from sklearn.model_selection import train_test_split

    seed = int(torch.randint(2**31 - 1, ()))
    fraction = settings.validation_fraction
    try:
        training, held_out = train_test_split(rows, test_size=fraction, stratify=task.labels, random_state=seed)
    except ValueError as error:
        raise ValueError(
            f"Got early_stopping=True and validation_fraction={fraction:g} for {len(rows)} samples of "
            f"{len(task.classes)} classes; expected enough of each class for both parts: {error} Give more samples, "
            "another validation_fraction, or early_stopping=False."
        ) from error
    if not task.weights[training].any():
        raise ValueError(
            f"Got early_stopping=True, and sample weights that are 0 for all {len(training)} samples that are left for "
            "training; expected a positive weight. Weigh more samples, or set early_stopping=False."
        )
    return np.sort(training), np.sort(held_out)


def _start(
    backbone: Backbone,
    first: torch.Tensor,
    task: Task,
    execution: Execution,
    settings: TrainingSettings,
    earlier: SuffixNetwork | None,
) -> SuffixNetwork:
    """Return a suffix to be trained: copies of the backbone's blocks and a new head, or a copy of an earlier one."""
    if earlier is not None:
        module = copy.deepcopy(earlier)
        module.attach(backbone)
        return module
    depth, channels_last = settings.freeze_depth, backbone.features_have_channels_last
    tail = backbone.tail(depth, settings.train_bn)
    module = SuffixNetwork(tail, nn.Identity(), settings.pooling, settings.train_bn, channels_last, depth).eval()
    width = _features(module, KeptActivations(first.numpy()), np.arange(1), execution).shape[1]
    module.head = make_head(width, settings.hidden_layer_sizes, settings.dropout, len(task.classes))
    return module.eval()


def _features(module: SuffixNetwork, source: Activations, rows: np.ndarray, execution: Execution) -> np.ndarray:
    module.compute_in(execution.bfloat16)
    compute = FeaturesOf(module)
    with lend(module, execution.device), generator_kept():
        parts = [
            (places, run_batch(compute, part, execution).cpu().numpy())
            for places, part in take_batches(source, rows, execution.batch_size)
        ]
    features = np.empty((len(rows), parts[0][1].shape[1]), dtype=np.float32)
    for places, part in parts:
        features[places] = part
    return features


def _train_head(
    module: SuffixNetwork,
    training: ActivationDataset,
    validation: ActivationDataset | None,
    task: Task,
    execution: Execution,
    settings: TrainingSettings,
) -> Any:
    """Train the head alone: on features computed once, unless they change at random."""
    from sktransfer._training._epochs import train_suffix, untrained_net

    epochs = HEAD_EPOCHS if settings.head_epochs == "auto" else settings.head_epochs
    nothing: tuple[Block, ...] = ()
    if settings.augment is not None:
        return train_suffix(module, training, validation, task.classes, settings, execution, epochs, nothing)
    head = SuffixNetwork(None, module.head, settings.pooling, settings.train_bn)

    def on_features(data: ActivationDataset) -> ActivationDataset:
        return task.of(_spread(_features(module, data.activations, data.rows, execution), data.rows, task), data.rows)

    known = on_features(training), validation and on_features(validation)
    net = train_suffix(head, *known, task.classes, settings, execution, epochs, nothing)
    return untrained_net(module, task.classes, net.history)


def _spread(features: np.ndarray, rows: np.ndarray, task: Task) -> Activations:
    """Features of some rows, at the rows' places among all."""
    values = np.zeros((len(task.labels), features.shape[1]), dtype=np.float32)
    values[rows] = features
    return KeptActivations(values)


def _records(phase: str, net: Any) -> list[dict[str, Any]]:
    """Return one entry per epoch: what we record under our names, and what callbacks record under theirs."""
    names = {"train_loss": "train_loss", "valid_loss": "valid_loss", "valid_acc": "valid_accuracy", "dur": "seconds"}
    left_out = {"batches", "epoch", "train_batch_count", "valid_batch_count"}
    left_out |= {f"{name}_best" for name in names}
    return [
        {
            "phase": phase,
            "epoch": row["epoch"],
            **{name: row[key] for key, name in names.items() if key in row},
            **{key: value for key, value in row.items() if key not in names and key not in left_out},
        }
        for row in net.history
    ]
