"""How a suffix is trained: the classifier's parameters that say so, and what the names among them stand for."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch

from sktransfer._messages import check_choice
from sktransfer._training._idle_parameters import check_companions
from sktransfer.inputs import make_augmentation

STRATEGIES = ("linear_probe", "fine_tune", "lp_ft", "gradual")

# Names that `optimizer=` takes, and what torch calls them.
OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "nadam": "NAdam", "radam": "RAdam", "rmsprop": "RMSprop", "sgd": "SGD"}

# Those of which torch has a version that updates all parameters in one pass.
FUSED = ("adam", "adamw", "sgd")


@dataclass(frozen=True)
class TrainingSettings:
    """The parameters of the classifier that say how to train, under the same names and with the same meaning."""

    strategy: str
    pooling: str
    hidden_layer_sizes: Sequence[int]
    dropout: float
    head_epochs: Any
    max_epochs: int
    head_lr: float
    lr: float
    layer_decay: float
    optimizer: Any
    weight_decay: float
    augment: Any
    augment_views: int | None
    train_bn: bool
    label_smoothing: float
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    tol: float
    callbacks: list[Any] | None
    views_seed: int = 0

    @classmethod
    def of(cls, estimator: Any, views_seed: int) -> "TrainingSettings":
        """Take them from an estimator that has such parameters."""
        names = [field.name for field in fields(cls) if field.name != "views_seed"]
        return cls(**{name: getattr(estimator, name) for name in names}, views_seed=views_seed)

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
    def head_is_convex(self) -> bool:
        """Whether the head may be solved: a linear one whose loss is plain cross-entropy, of no stated epochs."""
        return self.head_epochs == "auto" and not (self.hidden_layer_sizes or self.dropout or self.label_smoothing)


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
        raise ValueError(f"Got optimizer={optimizer!r}; expected a name or a class of torch.optim.")
    elif not {"lr", "weight_decay"} <= set(inspect.signature(optimizer).parameters):
        raise ValueError(
            f"Got optimizer={optimizer!r}; expected one that takes lr and weight_decay, such as torch.optim.AdamW."
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
