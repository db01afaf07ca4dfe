"""Check the parameters of training, alone and together, before anything is loaded or trained."""

import inspect
from numbers import Integral
from typing import Any

import torch

from sktransfer._messages import check_choice, shown
from sktransfer._training._idle_parameters import check_companions
from sktransfer._training._low_rank import import_peft
from sktransfer._training._settings import OPTIMIZERS, SCHEDULES, STRATEGIES, TrainingSettings
from sktransfer.backbones import Backbone
from sktransfer.backbones._learned_parameters import TRAINABLE, matrix_shape
from sktransfer.inputs.images._augmentation import make_augmentation

# What learns with each value of `trainable`, as error messages call it.
_KINDS = {
    "norm": "normalisation layers with parameters",
    "bias": "biases or normalisation layers",
    "lora": "linear, attention or ungrouped convolution layers",
}


def check_optimizer(optimizer: Any) -> None:
    """Raise if an optimiser is not one that this package can drive.

    Parameters
    ----------
    optimizer : str or type
        As the classifier takes it.

    Raises
    ------
    ValueError
        If the name is unknown, or the class is not an optimiser or takes no `weight_decay`.
    """
    if isinstance(optimizer, str):
        check_choice("optimizer", optimizer, OPTIMIZERS)
    elif not issubclass(optimizer, torch.optim.Optimizer):
        raise ValueError(f"Got optimizer={shown(optimizer)}; expected a name or a class of torch.optim.")
    elif not {"lr", "weight_decay"} <= set(inspect.signature(optimizer).parameters):
        raise ValueError(
            f"Got optimizer={shown(optimizer)}; expected one that takes lr and weight_decay, such as torch.optim.AdamW."
        )


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
            f"Got trainable={shown(trainable)}, but {backbone.name!r} has no {_KINDS[trainable]} after "
            f"freeze_depth={shown(depth)}; expected at least one. "
            f'Set trainable="all"{deeper}.'
        )
    if trainable != "lora":
        return
    sides = {name: min(matrix_shape(backbone.network.get_parameter(name))) for name in names}
    name = min(sides, key=sides.__getitem__)
    if settings.lora_rank > sides[name]:
        rows, columns = matrix_shape(backbone.network.get_parameter(name))
        raise ValueError(
            f"Got lora_rank={settings.lora_rank}, but {name!r} of {backbone.name!r} is a matrix of {rows} x {columns}; "
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
    if isinstance(estimator.lora_rank, bool):
        raise ValueError(f"Got lora_rank={estimator.lora_rank}; expected a whole number of at least 1, such as 8.")
    if estimator.trainable == "lora":
        import_peft()
    make_augmentation(estimator.augment)
    if estimator.callbacks:
        from sktransfer._training._epochs import check_callbacks  # which brings skorch in

        check_callbacks(estimator.callbacks)
    if estimator.train_bn and estimator.batch_size == 1:
        raise ValueError(
            "Got train_bn=True with batch_size=1; expected batches of at least 2, because BatchNorm cannot compute "
            "statistics of one sample. Increase batch_size, or set train_bn=False."
        )
