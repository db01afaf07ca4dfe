"""Train a suffix and a head in epochs. Only this file, `_epoch_reports` and the kinds of tasks know skorch.

The suffix is a copy: the backbone that it was cut from stays as it was loaded.
"""

import copy
import dis
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from skorch import NeuralNet, NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, LRScheduler
from skorch.dataset import Dataset
from skorch.exceptions import SkorchException
from skorch.helper import predefined_split
from skorch.history import History
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from sktransfer._computing._execution import Execution, lend
from sktransfer._computing._forward import run_batch
from sktransfer._computing._progress import say
from sktransfer._messages import shown
from sktransfer._training._batch_parts import in_parts
from sktransfer._training._dataset import ActivationDataset, SliceBatches
from sktransfer._training._epoch_reports import EpochLines, EpochTasks
from sktransfer._training._settings import FUSED, TrainingSettings, optimizer_class
from sktransfer._training._suffix_network import SuffixNetwork
from sktransfer._training.tasks._base import Task
from sktransfer.backbones import Block

# What skorch calls the callbacks that report epochs.
_LINES, _WATCH = "sktransfer_lines", "sktransfer_watch"

# Share of the steps in which the learning rate rises.
WARM_UP = 0.1


class WeightedLoss(nn.Module):
    """Mean of the losses of samples, whose target carries their weights.

    Weights are relative to the mean of all training weights, so that the step does not depend on their scale.

    Parameters
    ----------
    loss : nn.Module or None, default=None
        From outputs and targets to the loss of each sample, or of each of its outputs; `None` for a net that is not to
        be trained.
    """

    def __init__(self, loss: nn.Module | None = None):
        super().__init__()
        self.loss = loss

    def forward(self, outputs: torch.Tensor, target: Any) -> torch.Tensor:
        assert self.loss is not None
        losses = self.loss(outputs, target.as_subclass(torch.Tensor))
        if losses.ndim > target.weights.ndim:
            losses = losses.mean(dim=1)
        return (losses * target.weights).mean()


class WeightedCrossEntropy(nn.CrossEntropyLoss):
    """Class that pickles of earlier versions name. It no longer computes anything."""


class _SkorchDataset(Dataset):
    """Activations and targets as a data set of skorch's, whose callbacks look for `X` and `y` in it.

    Parameters
    ----------
    labelled : ActivationDataset
        What is in it.
    """

    def __init__(self, labelled: ActivationDataset):
        self.X, self.y = labelled, labelled.targets.numpy()

    def __len__(self) -> int:
        return len(self.X)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Any]:
        activations, targets = self.X.take(np.array([index]))
        return activations[0], targets.as_subclass(torch.Tensor)[0].numpy()[()]


def _batches(data: Any, batch_size: int, shuffle: bool = False) -> Any:
    """Return batches of our data sets, whole, and of whatever else a callback lets the net predict."""
    labelled = data.X if isinstance(data, _SkorchDataset) else data
    if isinstance(labelled, ActivationDataset):
        return SliceBatches(labelled, batch_size, shuffle)
    return DataLoader(data, batch_size, shuffle)


def _diverged(what: str, epoch: int, settings: TrainingSettings, blocks: tuple[Block, ...]) -> str:
    rates = f"head_lr={settings.head_lr:g}" + (f" and lr={settings.lr:g}" if blocks else "")
    return (
        f"Training stopped: {what} became NaN or infinite in epoch {epoch} with {rates}; expected finite numbers. Try "
        "a learning rate ten times smaller, and check that X holds no extreme values."
    )


class _StopOnNan(Callback):
    """Ends training when the loss becomes NaN or infinite."""

    def __init__(self, settings: TrainingSettings, blocks: tuple[Block, ...]):
        self.settings, self.blocks = settings, blocks
        self.last = torch.empty(0)

    def on_batch_end(self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
        if not np.isfinite(float(kwargs["loss"].detach())):
            raise ValueError(_diverged("the loss", len(net.history), self.settings, self.blocks))
        self.last = batch[0][:1].detach()


class _Cosine:
    """The learning rate of each step as a share of the greatest: it rises at first, then falls as half a cosine.

    Parameters
    ----------
    steps : int
        How many there are.
    """

    def __init__(self, steps: int):
        self.steps, self.rising = steps, max(1, round(WARM_UP * steps))

    def __call__(self, step: int) -> float:
        if step < self.rising:
            return (step + 1) / (self.rising + 1)
        done = (step - self.rising) / max(1, self.steps - self.rising)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _sets_rates(callbacks: Sequence[Any] | None) -> bool:
    """Tell whether a person's callbacks change the learning rate themselves."""
    given = [one[1] if isinstance(one, tuple) else one for one in callbacks or ()]
    return any(isinstance(one, LRScheduler) or one is LRScheduler for one in given)


class _Thaw(Callback):
    """Thaws blocks one after another, from the head towards the input, spread evenly over the epochs."""

    def __init__(self, blocks: tuple[Block, ...], epochs: int, gradual: bool):
        self.blocks, self.epochs, self.gradual = blocks, epochs, gradual

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        total = len(self.blocks)
        count = min(total, 1 + (len(net.history) - 1) * total // self.epochs) if self.gradual else total
        net.module_.thaw({name for block in self.blocks[total - count :] for name in block.parameter_names})


def check_callbacks(callbacks: Sequence[Any]) -> None:
    """Raise if a person's callbacks are none of skorch's.

    Parameters
    ----------
    callbacks : sequence
        Callbacks, or pairs of a name and a callback.

    Raises
    ------
    ValueError
        If one is anything else.
    """
    for given in callbacks:
        named = isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], str)
        callback = given[1] if named else given
        is_class = isinstance(callback, type) and issubclass(callback, Callback)
        if not (is_class or isinstance(callback, Callback)):
            raise ValueError(
                f"Got callbacks={shown(callbacks)}; expected skorch's callbacks, or pairs (name, callback), "
                f"not {shown(given)}."
            )


def train_suffix(
    module: SuffixNetwork,
    task: Task,
    training: ActivationDataset,
    validation: ActivationDataset | None,
    settings: TrainingSettings,
    execution: Execution,
    epochs: int,
    blocks: tuple[Block, ...],
    phase: str,
    watch: EpochTasks,
) -> NeuralNet:
    """Train a suffix, in place, and return the net that did it.

    Parameters
    ----------
    module : SuffixNetwork
        On the CPU. It comes back there, in eval mode.
    task : Task
        What is to be learned.
    training : ActivationDataset
        What to learn from.
    validation : ActivationDataset or None
        What to stop early by; the weights of the best epoch are restored.
    settings : TrainingSettings
        How.
    execution : Execution
        Batch size, device and whether to print a line per epoch.
    epochs : int
        Length.
    blocks : tuple of Block
        Blocks to be trained, in order; none trains the head alone.
    phase : str
        As `history_` calls it.
    watch : EpochTasks
        Is told of each epoch.

    Returns
    -------
    skorch.NeuralNet
        With its history, but without optimiser and data.

    Raises
    ------
    ValueError
        If the loss becomes NaN or infinite.
    """
    module.compute_in(execution.bfloat16)
    before = copy.deepcopy(module.state_dict())
    generator = torch.get_rng_state()
    batch_size = min(execution.batch_size, execution.fits.n_samples or execution.batch_size)
    while True:
        try:
            return _train(
                module, task, training, validation, settings, execution, epochs, blocks, batch_size, phase, watch
            )
        except torch.cuda.OutOfMemoryError:
            if not execution.fits.halve(batch_size):
                raise
        # Outside the handler, whose traceback would hold on to what filled the memory: from the start, in halves.
        torch.cuda.empty_cache()
        module.load_state_dict(before)
        torch.set_rng_state(generator)
        batch_size //= 2


def _train(
    module: SuffixNetwork,
    task: Task,
    training: ActivationDataset,
    validation: ActivationDataset | None,
    settings: TrainingSettings,
    execution: Execution,
    epochs: int,
    blocks: tuple[Block, ...],
    batch_size: int,
    phase: str,
    watch: EpochTasks,
) -> NeuralNet:
    guard, lines = _StopOnNan(settings, blocks), EpochLines(phase, say if execution.verbose else None)
    callbacks: list[Any] = [
        ("sktransfer_thaw", _Thaw(blocks, epochs, settings.strategy == "gradual")),
        ("sktransfer_nan", guard),
    ]
    own = issubclass(task.net_class(), NeuralNetClassifier)  # which brings its own metric
    if validation is not None and not own and len(validation) >= task.least_to_score:
        scoring = EpochScoring(task.metric, lower_is_better=False, name=f"valid_{task.metric}")
        callbacks.insert(0, ("sktransfer_metric", scoring))
    if validation is not None and settings.early_stopping:
        patience = EarlyStopping(
            patience=settings.n_iter_no_change,
            threshold=settings.tol,
            threshold_mode="abs",
            load_best=True,
            sink=lines.remark,
        )
        callbacks.append(("sktransfer_early_stopping", patience))
    if settings.lr_schedule == "cosine" and not _sets_rates(settings.callbacks):
        steps = epochs * len(SliceBatches(training, batch_size))
        falling = LRScheduler(LambdaLR, lr_lambda=_Cosine(steps), step_every="batch")
        callbacks.append(("sktransfer_schedule", falling))
    net = task.net_class()(
        module.to(memory_format=torch.channels_last),
        criterion=WeightedLoss,
        criterion__loss=task.loss(),
        predict_nonlinearity=task.results,
        optimizer=optimizer_class(settings.optimizer),
        optimizer__weight_decay=settings.weight_decay,
        optimizer__param_groups=_parameter_groups(settings, blocks, module),
        **({"optimizer__fused": True} if settings.optimizer in FUSED else {}),
        lr=settings.lr,
        max_epochs=epochs,
        batch_size=batch_size,
        iterator_train=_batches,
        iterator_train__shuffle=True,
        iterator_valid=_batches,
        train_split=None if validation is None else predefined_split(_SkorchDataset(validation)),
        callbacks=[*callbacks, *(settings.callbacks or []), (_LINES, lines), (_WATCH, watch)],
        callbacks__print_log=None,  # which prints other names than ours, in colours
        device=str(execution.device),
        verbose=execution.verbose,
    )
    if isinstance(net, NeuralNetClassifier):
        net.classes = np.arange(task.n_outputs)  # what callbacks see, as labels and as predictions, are class indices
    try:
        with lend(module, execution.device):
            try:
                with in_parts(module, execution):
                    _run_epochs(net, _SkorchDataset(training))
                    watch.end(net)
            finally:
                module.zero_grad()  # gradients take as much memory as weights, and would come along
            module.eval()
            result = run_batch(module, guard.last, execution)
    finally:
        for dataset in (training, validation):
            if dataset is not None:
                dataset.close()
        lines.close()
        module.eval().requires_grad_(False)
    if not torch.isfinite(result).all():
        raise ValueError(_diverged("the logits", epochs, settings, blocks))
    return _rest(net, task.learned())


def _run_epochs(net: NeuralNetClassifier, training: _SkorchDataset) -> None:
    """Train as skorch's `fit` does, but tell a callback that ends training from a person who presses Ctrl-C."""
    net.initialize()
    net.notify("on_train_begin", X=training, y=None)
    try:
        net.fit_loop(training)
    except KeyboardInterrupt as interrupt:
        if not _is_from_statement(interrupt):
            raise
    except (KeyError, ValueError, SkorchException) as error:  # each callback has its own
        recorded = net.history[-1] if len(net.history) else {}
        known = [name for name in recorded if name != "batches" and not name.endswith(("_batch_count", "_best"))]
        given = [
            callback
            for name, callback in net.callbacks_
            if name not in ("sktransfer_nan", "sktransfer_schedule", "sktransfer_metric", _LINES, _WATCH)
        ]
        monitored = [getattr(callback, "monitor", None) for callback in given]
        missing = [name for name in monitored if isinstance(name, str) and name not in known]
        if not missing:
            raise
        raise ValueError(
            f"Got a callback that monitors {shown(missing[0])}, which this fit does not record; expected one of "
            f"{', '.join(map(repr, known))}. For 'valid_loss' and other values of held-out samples, set "
            "early_stopping=True. For a metric, put its EpochScoring before the callback."
        ) from error
    net.notify("on_train_end", X=training, y=None)


def _is_from_statement(interrupt: KeyboardInterrupt) -> bool:
    """Tell whether a `raise` statement raised it, as callbacks do to end training; a signal comes anywhere else."""
    traceback = interrupt.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    operation = traceback.tb_frame.f_code.co_code[traceback.tb_lasti]
    return dis.opname[operation] == "RAISE_VARARGS"


def untrained_net(
    module: SuffixNetwork, task: type[Task], learned: Mapping[str, Any], history: Sequence[dict[str, Any]] = ()
) -> NeuralNet:
    """Return a net around a module that needs no epochs: its head was solved, or it was trained before.

    Parameters
    ----------
    module : SuffixNetwork
        In eval mode.
    task : type of Task
        The kind of what was learned.
    learned : mapping
        What outputs mean, as the task says it.
    history : sequence of dict, default=()
        What is known of each epoch.

    Returns
    -------
    skorch.NeuralNet
        Initialised.
    """
    net = task.net_class()(
        module, criterion=WeightedLoss, predict_nonlinearity=task.results, train_split=None, verbose=0
    )
    net.initialize()
    net.history = History(history)
    module.eval().requires_grad_(False)
    return _rest(net, learned)


def _rest(net: NeuralNet, learned: Mapping[str, Any]) -> NeuralNet:
    """Take from a net all that only training needs: optimiser, loss, data, callbacks."""
    net.module = type(net.module_)  # the instance is module_; held twice it would be pickled twice
    for epoch in net.history:
        epoch.pop("batches", None)
    net.optimizer_ = None
    net.callbacks, net.callbacks_ = None, []
    net.train_split, net.iterator_train, net.iterator_valid = None, DataLoader, DataLoader
    net.optimizer__param_groups = None
    net.criterion__loss, net.criterion_ = None, WeightedLoss()
    net.device = "cpu"
    if isinstance(net, NeuralNetClassifier):
        net.classes = learned["classes_"]
    return net


def _parameter_groups(
    settings: TrainingSettings, blocks: tuple[Block, ...], module: SuffixNetwork
) -> list[tuple[str, dict[str, float]]]:
    """Learning rates by parameter name; decay counts blocks from the last one, whether they are frozen or not."""
    groups: list[tuple[str, dict[str, float]]] = [("head.*", {"lr": settings.head_lr})]
    if settings.layer_decay != 1.0:
        for distance, block in enumerate(reversed(blocks)):
            rate = {"lr": settings.lr * settings.layer_decay**distance}
            groups += [(one, rate) for name in block.parameter_names for one in module.trained_names(name)]
    return groups
