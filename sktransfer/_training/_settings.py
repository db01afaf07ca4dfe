"""How a suffix is trained: the estimators' parameters that say so, and what the names among them stand for."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Integral
from typing import Any

import numpy as np
import torch

from sktransfer._messages import check_choice, shown
from sktransfer._training._idle_parameters import check_companions
from sktransfer._training._low_rank import import_peft
from sktransfer.backbones import Backbone
from sktransfer.backbones._learned_parameters import TRAINABLE, matrix_shape
from sktransfer.inputs.images._augmentation import make_augmentation

STRATEGIES = ("linear_probe", "fine_tune", "lp_ft", "gradual")
SCHEDULES = ("cosine", "constant")

# What learns with each value of `trainable`, for messages.
_KINDS = {
    "norm": "normalisation layers with parameters",
    "bias": "biases or normalisation layers",
    "lora": "linear, attention or ungrouped convolution layers",
}

# Names that `optimizer=` takes, and what torch calls them.
OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "nadam": "NAdam", "radam": "RAdam", "rmsprop": "RMSprop", "sgd": "SGD"}

# Those of which torch has a version that updates all parameters in one pass.
FUSED = ("adam", "adamw", "sgd")


@dataclass(frozen=True)
class TrainingSettings:
    """The parameters of the estimators that say how to train, under the same names and with the same meaning.

    Beside them stand the seed of augmented views, and the layers whose vectors join the features.
    """

    strategy: str
    freeze_depth: Any
    trainable: str
    lora_rank: int
    lora_alpha: float
    pooling: str
    hidden_layer_sizes: Sequence[int]
    dropout: float
    head_C: Any  # noqa: N815 - as scikit-learn calls it
    head_epochs: Any
    max_epochs: int
    head_lr: float
    lr: float
    layer_decay: float
    lr_schedule: str
    interpolation: Any
    optimizer: Any
    weight_decay: float
    augment: Any
    augment_views: int | None
    train_bn: bool
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    tol: float
    callbacks: list[Any] | None
    views_seed: int = 0
    layers: tuple[Any, ...] = ()

    @classmethod
    def of(cls, estimator: Any, views_seed: int, layers: Sequence[Any] = ()) -> "TrainingSettings":
        """Take them from an estimator that has such parameters."""
        names = [field.name for field in fields(cls) if field.name not in ("views_seed", "layers")]
        given = {name: getattr(estimator, name) for name in names}
        if estimator.strategy == "linear_probe":  # which trains the head alone
            given["freeze_depth"] = "all"
        return cls(**given, views_seed=views_seed, layers=tuple(layers))

    def __post_init__(self) -> None:
        # NumPy's numbers are right values too, but not what torch and scikit-learn take everywhere.
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type in (float, bool):
                value = field.type(value)
            elif isinstance(value, np.integer):
                value = int(value)
            object.__setattr__(self, field.name, value)

    @property
    def head_may_be_solved(self) -> bool:
        """Whether the head is linear, and no one stated its epochs."""
        return self.head_epochs == "auto" and not (self.hidden_layer_sizes or self.dropout)


def check_optimizer(optimizer: Any) -> None:
    """Raise if an optimiser is not one that this package can drive.

    Parameters
    ----------
    optimizer : str or type
        As the classifier takes it.

    Raises
    ------
    ValueError
        If the name is unknown, or the class is no optimiser or takes no `weight_decay`.
    """
    if isinstance(optimizer, str):
        check_choice("optimizer", optimizer, OPTIMIZERS)
    elif not issubclass(optimizer, torch.optim.Optimizer):
        raise ValueError(f"Got optimizer={shown(optimizer)}; expected a name or a class of torch.optim.")
    elif not {"lr", "weight_decay"} <= set(inspect.signature(optimizer).parameters):
        raise ValueError(
            f"Got optimizer={shown(optimizer)}; expected one that takes lr and weight_decay, such as torch.optim.AdamW."
        )


def optimizer_class(optimizer: Any) -> Any:
    """Return torch's optimiser class of a name.

    Parameters
    ----------
    optimizer : str or type
        A name from `OPTIMIZERS`, or a class.

    Returns
    -------
    type
        The class.
    """
    return getattr(torch.optim, OPTIMIZERS[optimizer]) if isinstance(optimizer, str) else optimizer


def check_trainable(backbone: Backbone, settings: TrainingSettings) -> None:
    """Raise if nothing behind the cut may learn, or a rank does not fit what may.

    Parameters
    ----------
    backbone : Backbone
        Of the estimator.
    settings : TrainingSettings
        Of the estimator.

    Raises
    ------
    ValueError
        With what to do.
    """
    depth, trainable = settings.freeze_depth, settings.trainable
    if trainable == "all" or not backbone.trained_blocks(depth):
        return
    names = backbone.learned_names(depth, trainable)
    if not names:
        deeper = ", or a smaller freeze_depth" if backbone.learned_names(0, trainable) else ""
        raise ValueError(
            f"Got trainable={shown(trainable)}, and {backbone.name!r} has no {_KINDS[trainable]} behind "
            f"freeze_depth={shown(depth)}; expected some that can learn. "
            f'Set trainable="all"{deeper}.'
        )
    if trainable != "lora":
        return
    sides = {name: min(matrix_shape(backbone.network.get_parameter(name))) for name in names}
    name = min(sides, key=sides.__getitem__)
    if settings.lora_rank > sides[name]:
        rows, columns = matrix_shape(backbone.network.get_parameter(name))
        raise ValueError(
            f"Got lora_rank={settings.lora_rank}, and {name!r} of {backbone.name!r} is a matrix of {rows} x {columns}; "
            f"expected at most {sides[name]}, its smaller side. Set lora_rank={sides[name]} or less, or a greater "
            "freeze_depth."
        )


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
    check_choice("trainable", estimator.trainable, TRAINABLE)
    check_choice("lr_schedule", estimator.lr_schedule, SCHEDULES)
    check_optimizer(estimator.optimizer)
    check_companions(estimator)
    sizes = estimator.hidden_layer_sizes
    if not all(isinstance(size, Integral) and not isinstance(size, bool) and int(size) > 0 for size in sizes):
        raise ValueError(
            f"Got hidden_layer_sizes={shown(sizes)}; expected widths of at least 1, such as (256,), or () for a "
            "linear head."
        )
    if estimator.trainable == "lora":
        import_peft()
    make_augmentation(estimator.augment)
    if estimator.callbacks:
        from sktransfer._training._epochs import check_callbacks  # which brings skorch in

        check_callbacks(estimator.callbacks)
    if estimator.train_bn and estimator.batch_size == 1:
        raise ValueError(
            "Got train_bn=True with batch_size=1; expected batches of at least 2: BatchNorm has no statistics of one "
            "sample. Raise batch_size, or set train_bn=False."
        )
