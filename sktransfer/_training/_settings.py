"""Collect the parameters that say how a suffix is trained, and resolve the names among them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch

STRATEGIES = ("linear_probe", "fine_tune", "lp_ft", "gradual")
SCHEDULES = ("cosine", "constant")

# Names that `optimizer=` takes, and what torch calls them.
OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "nadam": "NAdam", "radam": "RAdam", "rmsprop": "RMSprop", "sgd": "SGD"}

# Optimisers with a version in torch that updates all parameters in one pass.
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
