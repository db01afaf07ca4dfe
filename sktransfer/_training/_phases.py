"""Run the phases of training: first a head on frozen features, then the blocks together with the head.

A linear head is solved unless a parameter asks for epochs. The phase after it starts from the solution.
"""

import copy
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import nn

from sktransfer._computing._reuse import Pass
from sktransfer._process._fit_tasks import FitTask
from sktransfer._training._activation_sources import Activations, KeptActivations, ViewedActivations
from sktransfer._training._dataset import ActivationDataset
from sktransfer._training._feature_scaling import FeatureScaling, fit_scaling
from sktransfer._training._held_out import HeldOut
from sktransfer._training._history import Table, entries
from sktransfer._training._low_rank import make_low_rank
from sktransfer._training._settings import TrainingSettings
from sktransfer._training._sources import Sources
from sktransfer._training._suffix_network import SuffixNetwork, make_head
from sktransfer._training._suffix_pass import count_widths, features_of, outputs_of
from sktransfer._training.tasks._base import Task
from sktransfer.backbones import Backbone, Block

# Epochs of a head that cannot be solved: see benchmarks/accuracy.py.
HEAD_EPOCHS = 30

# Logits of all samples up to which a head is solved: the solver holds several arrays of that size in float64.
SOLVABLE = 2**25

# Samples by which the scaling of a head that is not solved is learned, and the size of logits, about.
SCALED_BY = 1024

# What logits of a tuned network are multiplied by, at least.
LEAST_CERTAIN = 0.5


@dataclass(frozen=True)
class Trained:
    """Result of training.

    Parameters
    ----------
    net : skorch.NeuralNet
        At rest.
    history : list of dict
        One entry per epoch.
    n_iter : int
        Number of iterations.
    solution : Solution or None
        How the head was solved, where it was.
    was_ended : bool
        Whether a callback of scikit-learn asked to leave out what would have followed.
    """

    net: Any
    history: list[dict[str, Any]]
    n_iter: int
    solution: Any = None
    was_ended: bool = False


def list_phases(settings: TrainingSettings, has_blocks: bool, goes_on: bool) -> list[str]:
    """Return what training consists of, in order; `history_` has entries of "head" and "fine_tune".

    Parameters
    ----------
    settings : TrainingSettings
        The strategy and its numbers.
    has_blocks : bool
        Whether blocks are trained.
    goes_on : bool
        Whether the weights of an earlier fit are the start.

    Returns
    -------
    list of str
        Names of phases.
    """
    has_head = settings.strategy != "fine_tune" and not (has_blocks and goes_on)
    has_choice = has_blocks and settings.interpolation == "auto"
    return [
        "features",
        *(["head"] if has_head else []),
        *(["fine_tune"] if has_blocks or not has_head else []),
        *(["interpolation"] if has_choice else []),
    ]


class Phases:
    """State that the phases of a strategy share.

    Parameters
    ----------
    backbone : Backbone
        It is not changed.
    sources : Sources
        Activations of the samples.
    work, task, settings, earlier : object
        As `train` takes them.
    """

    def __init__(
        self,
        backbone: Backbone,
        sources: Sources,
        work: Pass,
        task: Task,
        settings: TrainingSettings,
        earlier: SuffixNetwork | None,
    ):
        self.backbone, self.sources, self.work, self.task = backbone, sources, work, task
        self.settings, self.earlier, self.execution = settings, earlier, work.execution
        self.blocks = tuple(backbone.trained_blocks(settings.freeze_depth))

    def run(self, rows: np.ndarray, held_out: HeldOut | None, fit: FitTask) -> Trained:
        """Train on some rows; others are held out, to watch."""
        training = self.task.of(self.sources.changing, rows)
        validation = None if held_out is None else held_out.dataset
        state = _State(self._start(), rows)
        phases = list_phases(self.settings, bool(self.blocks), self.earlier is not None)
        was_ended = False
        if "head" in phases:
            was_ended = self._first_phase(state, training, held_out, fit)
        if "fine_tune" in phases and not was_ended:
            was_ended = self._second_phase(state, training, validation, fit)
        return replace(self._trained(state, state.net, state.history), was_ended=was_ended)

    def _first_phase(
        self,
        state: "_State",
        training: ActivationDataset,
        held_out: HeldOut | None,
        fit: FitTask,
    ) -> bool:
        """Solve the head or train it alone; return whether a callback asks to stop here."""
        from sktransfer._training._epochs import untrained_net  # which brings skorch in

        module, task, report = state.module, self.task, self.work.report
        if not self._is_solved:
            self._give_head(module, state.rows)
            epochs = HEAD_EPOCHS if self.settings.head_epochs == "auto" else self.settings.head_epochs
            phase = fit.subtask("head", epochs)
            state.net = self._train_head(state, training, held_out, epochs, phase)
            state.history += entries("head", state.net.history)
            return phase.end(lambda: self._stopped(state, "head"))
        phase = fit.subtask("head")
        started = time.perf_counter()
        state.solution = self._solve(module, state.rows)
        module.head = state.solution.head
        seconds = time.perf_counter() - started
        C = state.solution.C
        report(f"The head was solved in {seconds:.1f} s" + (f", with head_C={C:.3g}." if np.ndim(C) == 0 else "."))
        seen = self._look(module, held_out, seconds)
        table = Table(report)
        for entry in seen:
            table.add(entry)
        state.history += seen
        state.net = untrained_net(module, type(task), task.learned())
        return phase.end(lambda: self._stopped(state, "head"))

    def _second_phase(
        self, state: "_State", training: ActivationDataset, validation: ActivationDataset | None, fit: FitTask
    ) -> bool:
        """Train the blocks with the head; return whether a callback asks to stop here."""
        from sktransfer._training._epoch_reports import EpochTasks
        from sktransfer._training._epochs import train_suffix

        module, epochs = state.module, self.settings.max_epochs
        self._remember_start(module, state.rows, state.net is not None)
        self._choose_learned(module)
        is_calibrated = state.solution is not None and state.solution.was_chosen
        state.certainty = self._certainty(module, state.rows) if is_calibrated else 0.0
        phase = fit.subtask("fine_tune", epochs)
        watch = EpochTasks(phase, lambda rows: self._stopped(state, "fine_tune", rows))
        how = self.settings, self.execution, epochs, self.blocks, "fine_tune", watch
        state.net = train_suffix(module, self.task, training, validation, *how)
        state.history += entries("fine_tune", state.net.history)
        module.merge()
        self._finish(module, state)
        return phase.end(lambda: self._stopped(state, "fine_tune", is_finished=True))

    def _finish(self, module: SuffixNetwork, state: "_State") -> None:
        """Do what is done with tuned weights, once they are trained no further."""
        if self.settings.trainable != "all":
            module.settle(self.backbone)
        if state.certainty:
            self._keep_certainty(module, state.rows, state.certainty)
        factor = self.settings.interpolation
        if self.blocks and isinstance(factor, Real):
            module.interpolate(float(factor), self.backbone)

    def _stopped(
        self, state: "_State", phase: str, rows: Iterable[Mapping[str, Any]] | None = None, is_finished: bool = False
    ) -> Trained:
        """Return what training would return if it stopped now, in a copy; what is being trained stays as it is.

        Parameters
        ----------
        state : _State
            What there is.
        phase : str
            In which it would stop.
        rows : iterable of mapping or None, default=None
            What skorch recorded of this phase so far.
        is_finished : bool, default=False
            Whether the module is what training returns already.
        """
        from sktransfer._training._epochs import untrained_net

        module = copy.deepcopy(state.module).cpu()
        module.attach(self.backbone)
        if phase == "fine_tune" and not is_finished:
            self._finish(module, state)
        recorded = [dict(row) for row in (state.net.history if rows is None else rows)]
        net = untrained_net(module, type(self.task), self.task.learned(), recorded)
        history = state.history if rows is None else state.history + entries(phase, recorded)
        return self._trained(state, net, list(history))

    @staticmethod
    def _trained(state: "_State", net: Any, history: list[dict[str, Any]]) -> Trained:
        epochs_done = sum(entry["epoch"] > 0 for entry in history)
        solution = state.solution
        return Trained(net, history, epochs_done + (solution.n_iter if solution else 0), solution)

    def _look(self, module: SuffixNetwork, held_out: HeldOut | None, seconds: float) -> list[dict[str, Any]]:
        """Return what is seen of a solved head on samples that were held out: an entry of epoch 0, or none."""
        if held_out is None:
            return []
        outputs = outputs_of(module, held_out.source, held_out.rows, self.execution)
        task, rows = held_out.task, held_out.rows
        # The mean that epochs record: over outputs too, with weights relative to the mean of all.
        loss = float(task.total_loss(outputs, rows) / (task.loss_weights.mean() * task.targets[rows].size))
        seen = {"valid_loss": loss}
        if len(rows) >= task.least_to_score:
            seen[f"valid_{task.metric}"] = task.score(outputs, rows)
        return [{"phase": "head", "epoch": 0, **seen, "seconds": seconds}]

    @property
    def _is_solved(self) -> bool:
        """Whether the head is solved: it can be, and no one asked for what only epochs can show or use."""
        settings, sources = self.settings, self.sources
        small = len(self.task) * self.task.n_outputs * (settings.augment_views or 1) <= SOLVABLE
        if not (small and self._is_convex):
            return False
        if self.blocks or settings.augment is None:
            return bool(self.blocks) or not settings.early_stopping
        return isinstance(sources.changing, ViewedActivations) and not settings.early_stopping

    @property
    def _is_convex(self) -> bool:
        return self.task.can_be_solved and self.settings.head_may_be_solved

    def _start(self) -> SuffixNetwork:
        """Return what is to be trained: a copy of the blocks behind the cut, without a head, or of what was before."""
        if self.earlier is not None:
            module = copy.deepcopy(self.earlier)
            module.attach(self.backbone)
            module.start_anew()
            return module
        settings, backbone = self.settings, self.backbone
        depth, layers = settings.freeze_depth, settings.layers
        tail = backbone.tail(depth, settings.train_bn, layers, settings.pooling)
        module = SuffixNetwork(
            tail,
            nn.Identity(),
            settings.pooling,
            settings.train_bn,
            backbone.features_have_channels_last,
            depth,
            layers,
            [] if tail is None else self._widths_before(),
        )
        if tail is not None and settings.trainable != "all":
            module.kept = ()  # so far it is the backbone's own
        return module.eval()

    def _choose_learned(self, module: SuffixNetwork) -> None:
        """Say which parameters of the blocks learn; with low-rank updates, draw them."""
        settings, backbone = self.settings, self.backbone
        if not self.blocks:
            return
        names = backbone.learned_names(settings.freeze_depth, settings.trainable)
        updates = {}
        if settings.trainable == "lora":
            updates = make_low_rank(backbone.network, names, settings.lora_rank, settings.lora_alpha)
        module.prepare(None if settings.trainable == "all" else set(names), updates)

    def _give_head(self, module: SuffixNetwork, rows: np.ndarray, scaling: FeatureScaling | None = None) -> None:
        """Give a suffix that has no head one of random weights."""
        if self.earlier is not None:
            return
        scaling = self._scale(module, rows) if scaling is None else scaling
        sizes = self.settings.hidden_layer_sizes, self.settings.dropout, self.task.n_outputs
        module.head = make_head(sum(scaling.widths), *sizes, scaling=scaling).eval()

    def _widths_before(self) -> list[int]:
        """Return the widths of the vectors that the frozen part gives; there may be none."""
        self.sources.first.size()  # which shows them, unless it was kept
        return self.work.widths()

    def _widths(self, module: SuffixNetwork) -> list[int]:
        """Return the number of features of each layer."""
        if module.tail is None and self.settings.layers:
            return self._widths_before()
        return count_widths(module, self.sources.first, self.execution)

    def _scale(self, module: SuffixNetwork, rows: np.ndarray) -> FeatureScaling:
        """Return the scaling of a head that is trained in epochs: to a mean square of 1 per feature.

        Where statistics of BatchNorm will move, the scale of features will too: nothing is scaled.
        """
        if self.blocks and self.settings.train_bn:
            widths = self._widths(module)
            return FeatureScaling(widths, [False] * len(widths))
        few = rows[:: math.ceil(len(rows) / SCALED_BY)]
        features = features_of(module, self.sources.changing, few, self.execution)
        weights = self.task.weights[few] if self.task.weights[few].any() else np.ones(len(few))
        scaling = fit_scaling(features, self._widths(module), weights / weights.max())
        scaling.factor.mul_(math.sqrt(features.shape[1]))
        return scaling.float()

    def _solve(self, module: SuffixNetwork, rows: np.ndarray) -> Any:
        sources = self.sources
        viewed = not self.blocks and self.settings.augment is not None
        changing = sources.changing if viewed else None
        seen = changing.views if isinstance(changing, ViewedActivations) else None
        views = [sources.plain] if seen is None else [KeptActivations(view) for view in seen]
        return self.task.solve(
            np.concatenate([features_of(module, view, rows, self.execution) for view in views]),
            np.tile(rows, len(views)),
            self._widths(module),
            self.settings.head_C,
            np.tile(np.arange(len(rows)), len(views)) if viewed else None,
        )

    def _certainty(self, module: SuffixNetwork, rows: np.ndarray) -> float:
        """Return how large outputs of some of the rows are, as a root mean square."""
        few = rows[:: math.ceil(len(rows) / SCALED_BY)]
        outputs = outputs_of(module, self.sources.plain, few, self.execution).astype(np.float64)
        weights = self.task.weights[few]
        return float(np.sqrt(np.average(self.task.spread(outputs), weights=weights if weights.any() else None)))

    def _keep_certainty(self, module: SuffixNetwork, rows: np.ndarray, before: float) -> None:
        """Make logits on average as large as a solved head had them, which held-out samples have calibrated.

        Tuning makes the network sure of the samples that it has seen, and with a few of them, far too sure of others.
        Where it has learned much, being somewhat surer is right: logits are halved at most.
        """
        after = self._certainty(module, rows)
        *_, linear = module.head.children()
        with torch.no_grad():
            for parameter in linear.parameters():
                parameter.mul_(float(np.clip(before / after, LEAST_CERTAIN, 1.0)) if after else 1.0)

    def _remember_start(self, module: SuffixNetwork, rows: np.ndarray, has_head: bool) -> None:
        """Note the head from which an interpolation starts: that of the first phase, or one that is solved for it."""
        if has_head or self.earlier is not None:
            started = dict(module.head.state_dict())
        elif self.blocks and self.settings.interpolation is not None and self._is_convex:
            scaling, linear = self._solve(module, rows).head
            scale = math.sqrt(linear.in_features)
            scaling.factor.mul_(scale)
            self._give_head(module, rows, scaling)
            started = {**module.head.state_dict(), "1.weight": linear.weight / scale, "1.bias": linear.bias}
        else:  # a random head is not a start
            self._give_head(module, rows)
            started = {}
        if module.started is None:
            module.started = {f"head.{name}": tensor.detach().clone() for name, tensor in started.items()}

    def _train_head(
        self,
        state: "_State",
        training: ActivationDataset,
        held_out: HeldOut | None,
        epochs: int,
        phase: FitTask,
    ) -> Any:
        """Train the head alone: on features computed once, unless they change at random."""
        from sktransfer._training._epoch_reports import EpochTasks
        from sktransfer._training._epochs import train_suffix, untrained_net

        module, settings, task, execution = state.module, self.settings, self.task, self.execution
        nothing: tuple[Block, ...] = ()
        watch = EpochTasks(phase, lambda rows: self._stopped(state, "head", rows))
        how = settings, execution, epochs, nothing, "head", watch
        validation = None if held_out is None else held_out.dataset
        if settings.augment is not None:
            return train_suffix(module, task, training, validation, *how)
        head = SuffixNetwork(None, module.head, settings.pooling, settings.train_bn)

        def on_features(data: ActivationDataset, of: Task) -> ActivationDataset:
            features = features_of(module, data.activations, data.rows, execution)
            return of.of(_spread(features, data.rows, of), data.rows)

        watched = None if held_out is None or validation is None else on_features(validation, held_out.task)
        net = train_suffix(head, task, on_features(training, task), watched, *how)
        return untrained_net(module, type(task), task.learned(), net.history)


@dataclass
class _State:
    """Result of the phases of one training so far.

    Parameters
    ----------
    module : SuffixNetwork
        What is trained.
    rows : ndarray of int
        On which rows.
    """

    module: SuffixNetwork
    rows: np.ndarray
    net: Any = None
    history: list[dict[str, Any]] = field(default_factory=list)
    solution: Any = None
    certainty: float = 0.0


def _spread(features: np.ndarray, rows: np.ndarray, task: Task) -> Activations:
    """Features of some rows, at the rows' places among all."""
    values = np.zeros((len(task), features.shape[1]), dtype=np.float32)
    values[rows] = features
    return KeptActivations(values)
