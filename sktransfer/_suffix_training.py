"""From activations to a trained suffix and head. The only file that knows skorch.

The suffix is a copy: the backbone that it was cut from stays as it was loaded.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping
from skorch.helper import predefined_split
from skorch.history import History
from torch import nn
from torch.utils.data import DataLoader

from sktransfer._forward import run_batch
from sktransfer._labelled import LabelledActivations, SliceBatches
from sktransfer._run import Run, lend
from sktransfer._suffix_network import SuffixNetwork
from sktransfer._training_settings import FUSED, TrainingSettings, optimizer_class
from sktransfer.backbones import Block


class WeightedCrossEntropy(nn.CrossEntropyLoss):
    """Cross-entropy whose target is (class indices, sample weights).

    Weights are relative to the mean of all training weights, so that the step does not depend on their scale.
    """

    def __init__(self, label_smoothing: float = 0.0):
        super().__init__(reduction="none", label_smoothing=label_smoothing)

    def forward(self, logits: torch.Tensor, target: Any) -> torch.Tensor:
        labels, weights = target
        return (super().forward(logits, labels) * weights).mean()


class _ValidationAccuracy(Callback):
    """Writes `valid_acc` into the history, from the predictions that the validation loss was computed from."""

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        self.right, self.total = 0, 0

    def on_batch_end(self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
        if not training:
            labels = batch[1][0].to(kwargs["y_pred"].device)
            self.right += int((kwargs["y_pred"].argmax(1) == labels).sum())
            self.total += len(labels)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        if self.total:
            net.history.record("valid_acc", self.right / self.total)


def _diverged(what: str, epoch: int, settings: TrainingSettings, blocks: tuple[Block, ...]) -> str:
    rates = f"head_lr={settings.head_lr:g}" + (f" and lr={settings.lr:g}" if blocks else "")
    return (
        f"Training stopped: {what} became NaN or infinite in epoch {epoch} with {rates}; expected finite numbers. Try "
        "a learning rate ten times smaller, and check that X holds no extreme values."
    )


class _StopOnNan(Callback):
    """Ends training whose loss is no number any more."""

    def __init__(self, settings: TrainingSettings, blocks: tuple[Block, ...]):
        self.settings, self.blocks = settings, blocks
        self.last = torch.empty(0)

    def on_batch_end(self, net: Any, batch: Any = None, training: bool = False, **kwargs: Any) -> None:
        if not np.isfinite(float(kwargs["loss"].detach())):
            raise ValueError(_diverged("the loss", len(net.history), self.settings, self.blocks))
        self.last = batch[0][:1].detach()


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
                f"Got callbacks={callbacks!r}; expected skorch's callbacks, or pairs (name, callback), not {given!r}."
            )


def train_suffix(
    module: SuffixNetwork,
    training: LabelledActivations,
    validation: LabelledActivations | None,
    classes: np.ndarray,
    settings: TrainingSettings,
    run: Run,
    epochs: int,
    blocks: tuple[Block, ...],
) -> NeuralNetClassifier:
    """Train a suffix, in place, and return the net that did it.

    Parameters
    ----------
    module : SuffixNetwork
        On the CPU. It comes back there, in eval mode.
    training : LabelledActivations
        What to learn from.
    validation : LabelledActivations or None
        What to stop early by; the weights of the best epoch are restored.
    classes : ndarray of shape (n_classes,)
        For the net.
    settings : TrainingSettings
        How.
    run : Run
        Batch size, device and whether to print a line an epoch.
    epochs : int
        Length.
    blocks : tuple of Block
        Blocks to be trained, in order; none trains the head alone.

    Returns
    -------
    skorch.NeuralNetClassifier
        With its history, but without optimiser and data.

    Raises
    ------
    ValueError
        If the loss is no number any more.
    """
    module.compute_in(run.bfloat16)
    before = copy.deepcopy(module.state_dict())
    generator = torch.get_rng_state()
    batch_size = min(run.batch_size, run.fits.n_samples or run.batch_size)
    while True:
        try:
            return _train(module, training, validation, classes, settings, run, epochs, blocks, batch_size)
        except torch.cuda.OutOfMemoryError:
            if not run.fits.halve(batch_size):
                raise
        # Outside the handler, whose traceback would hold on to what filled the memory: from the start, in halves.
        torch.cuda.empty_cache()
        module.load_state_dict(before)
        torch.set_rng_state(generator)
        batch_size //= 2


def _train(
    module: SuffixNetwork,
    training: LabelledActivations,
    validation: LabelledActivations | None,
    classes: np.ndarray,
    settings: TrainingSettings,
    run: Run,
    epochs: int,
    blocks: tuple[Block, ...],
    batch_size: int,
) -> NeuralNetClassifier:
    watch = _StopOnNan(settings, blocks)
    callbacks: list[Any] = [
        ("sktransfer_thaw", _Thaw(blocks, epochs, settings.strategy == "gradual")),
        ("sktransfer_nan", watch),
    ]
    if validation is not None:
        patience = EarlyStopping(
            patience=settings.n_iter_no_change, threshold=settings.tol, threshold_mode="abs", load_best=True
        )
        callbacks += [("sktransfer_accuracy", _ValidationAccuracy()), ("sktransfer_early_stopping", patience)]
    net = NeuralNetClassifier(
        module.to(memory_format=torch.channels_last),
        classes=classes,
        criterion=WeightedCrossEntropy,
        criterion__label_smoothing=settings.label_smoothing,
        optimizer=optimizer_class(settings.optimizer),
        optimizer__weight_decay=settings.weight_decay,
        optimizer__param_groups=_parameter_groups(settings, blocks),
        **({"optimizer__fused": True} if settings.optimizer in FUSED else {}),
        lr=settings.lr,
        max_epochs=epochs,
        batch_size=batch_size,
        iterator_train=SliceBatches,
        iterator_train__shuffle=True,
        iterator_valid=SliceBatches,
        train_split=None if validation is None else predefined_split(validation),
        callbacks=[*callbacks, *(settings.callbacks or [])],
        callbacks__valid_acc=None,
        device=str(run.device),
        verbose=run.verbose,
    )
    if not run.verbose:
        net.set_params(callbacks__print_log=None)
    try:
        with lend(module, run.device):
            net.fit(training, None)
            module.eval()
            result = run_batch(module, watch.last, run)
    finally:
        module.eval().requires_grad_(False)
    if len(net.history) < epochs and not _stopped_early(net):
        raise KeyboardInterrupt  # skorch ends training quietly; whoever pressed Ctrl-C wants out
    if not torch.isfinite(result).all():
        raise ValueError(_diverged("the logits", epochs, settings, blocks))
    return _rest(net)


def _stopped_early(net: NeuralNetClassifier) -> bool:
    return any(
        getattr(callback, "misses_", -1) == getattr(callback, "patience", None) for _, callback in net.callbacks_
    )


def untrained_net(
    module: SuffixNetwork, classes: np.ndarray, history: Sequence[dict[str, Any]] = ()
) -> NeuralNetClassifier:
    """Return a net around a module that needs no epochs: its head was solved, or it was trained before.

    Parameters
    ----------
    module : SuffixNetwork
        In eval mode.
    classes : ndarray of shape (n_classes,)
        For the net.
    history : sequence of dict, default=()
        What is known of each epoch.

    Returns
    -------
    skorch.NeuralNetClassifier
        Initialised.
    """
    net = NeuralNetClassifier(module, classes=classes, criterion=WeightedCrossEntropy, train_split=None, verbose=0)
    net.initialize()
    net.history = History(history)
    module.eval().requires_grad_(False)
    return _rest(net)


def _rest(net: NeuralNetClassifier) -> NeuralNetClassifier:
    """Take from a net all that only training needs: optimiser, data, callbacks."""
    net.module = type(net.module_)  # the instance is module_; held twice it would be pickled twice
    for epoch in net.history:
        epoch.pop("batches", None)
    net.optimizer_ = None
    net.callbacks, net.callbacks_ = None, []
    net.train_split, net.iterator_train, net.iterator_valid = None, DataLoader, DataLoader
    net.optimizer__param_groups = None
    net.device = "cpu"
    return net


def _parameter_groups(settings: TrainingSettings, blocks: tuple[Block, ...]) -> list[tuple[str, dict[str, float]]]:
    """Learning rates by parameter name; decay counts blocks from the last one, whether they are frozen or not."""
    groups: list[tuple[str, dict[str, float]]] = [("head.*", {"lr": settings.head_lr})]
    if settings.layer_decay != 1.0:
        for distance, block in enumerate(reversed(blocks)):
            rate = {"lr": settings.lr * settings.layer_decay**distance}
            groups += [(f"tail.{name}", rate) for name in block.parameter_names]
    return groups
