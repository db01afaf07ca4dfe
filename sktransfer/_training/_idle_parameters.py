"""Find parameters that were set but have no effect: refuse them where they never have one, or else warn.

Set is any value but the default. In a search, whose grid may cross such parameters on purpose, the warning comes once
per process.
"""

import inspect
import traceback
import warnings
from collections.abc import Mapping
from typing import Any

from sktransfer._messages import shown

# What a parameter needs another one for.
_COMPANIONS = {
    "augment_views": ("augment", 'augment="standard"'),
    "validation_fraction": ("early_stopping", "early_stopping=True"),
    "n_iter_no_change": ("early_stopping", "early_stopping=True"),
    "tol": ("early_stopping", "early_stopping=True"),
}

# What only tuned blocks use.
_OF_BLOCKS = ("lr", "max_epochs", "layer_decay", "train_bn", "interpolation", "trainable", "lora_rank", "lora_alpha")

# What only low-rank updates use.
_OF_LOW_RANK = ("lora_rank", "lora_alpha")

# What only epochs use.
_OF_EPOCHS = ("head_lr", "lr_schedule", "optimizer", "weight_decay", "callbacks")


class _Search:
    """Whether a search in this process was warned."""

    was_warned = False


def set_by_hand(estimator: Any, names: "tuple[str, ...] | dict[str, Any]") -> list[str]:
    """Return the parameters of an estimator that are not at their defaults.

    Parameters
    ----------
    estimator : BaseEstimator
        The estimator.
    names : tuple or dict of str
        Parameters to look at; those that it does not have are passed over.

    Returns
    -------
    list of str
        In the order of `names`.
    """
    defaults = inspect.signature(type(estimator).__init__).parameters
    return [name for name in names if name in defaults and getattr(estimator, name) != defaults[name].default]


def check_companions(estimator: Any) -> None:
    """Refuse parameters without the one that they belong to.

    Parameters
    ----------
    estimator : BaseEstimator
        With the parameters.

    Raises
    ------
    ValueError
        If one is set and its companion is not.
    """
    if estimator.head_C != "auto":
        for name in set_by_hand(estimator, ("hidden_layer_sizes", "dropout", "label_smoothing", "head_epochs")):
            raise ValueError(
                f"Got head_C={shown(estimator.head_C)} with {name}={shown(getattr(estimator, name))}, where it "
                f'has no effect: such a head is trained in epochs, not solved. Leave {name} out, or set head_C="auto".'
            )
    for name in set_by_hand(estimator, _COMPANIONS):
        companion, example = _COMPANIONS[name]
        if name == "n_iter_no_change" and estimator.n_iter_no_change >= estimator.max_epochs:
            continue  # so much patience asks for no stop, and there is none: scikit-learn's own checks set it high
        if not getattr(estimator, companion):
            raise ValueError(
                f"Got {name}={shown(getattr(estimator, name))} with "
                f"{companion}={shown(getattr(estimator, companion))}, where it "
                f"has no effect; expected the default. Set {example}, or leave {name} out."
            )


def warn_of_frozen_blocks(estimator: Any) -> None:
    """Warn if only the head is trained though parameters are set that only tuned blocks use.

    Parameters
    ----------
    estimator : FineTunedClassifier
        Whose blocks all stay frozen.
    """
    names = set_by_hand(estimator, _idle_where_frozen(estimator.strategy))
    if not names:
        return
    given = ", ".join(f"{name}={shown(getattr(estimator, name))}" for name in names)
    probe = estimator.strategy == "linear_probe"
    why = "strategy='linear_probe'" if probe else f"freeze_depth={shown(estimator.freeze_depth)}"
    how = "strategy='lp_ft' and a freeze_depth" if probe else "a freeze_depth"
    _warn(
        f"Got {given} with {why}, which trains only the head: {'this has' if len(names) == 1 else 'these have'} no "
        f"effect. To fine-tune blocks of the network too, set {how} below 'all', such as freeze_depth=0.75."
    )


def warn_of_idle_rank(estimator: Any) -> None:
    """Warn if parameters of low-rank updates are set where there are none.

    Parameters
    ----------
    estimator : FineTunedClassifier
        Whose blocks are tuned.
    """
    names = set_by_hand(estimator, _OF_LOW_RANK)
    if names and estimator.trainable != "lora":
        given = " and ".join(f"{name}={shown(getattr(estimator, name))}" for name in names)
        have, them = ("it has", "it") if len(names) == 1 else ("they have", "them")
        _warn(
            f"Got {given} with trainable={shown(estimator.trainable)}, where {have} no effect. "
            f'Set trainable="lora", or leave {them} out.'
        )


def without_effect(parameters: Mapping[str, Any], are_frozen: bool) -> set[str]:
    """Return the names of parameters that cannot change what an estimator learns, beside the others that it has.

    Parameters
    ----------
    parameters : mapping
        Those of an estimator, right ones, by name.
    are_frozen : bool
        Whether all blocks stay frozen.

    Returns
    -------
    set of str
        Of those that say how to train. A head that could be solved is taken for solved.
    """
    if not are_frozen:
        idle = set() if parameters.get("trainable") == "lora" else set(_OF_LOW_RANK)
        return idle | ({"head_epochs"} if parameters["strategy"] == "fine_tune" else set())
    names = set(_idle_where_frozen(parameters["strategy"]))
    in_epochs = parameters["strategy"] == "fine_tune" or parameters["head_epochs"] != "auto"
    in_epochs |= bool(parameters["hidden_layer_sizes"] or parameters["dropout"] or parameters["early_stopping"])
    in_epochs |= bool(parameters.get("label_smoothing"))
    in_epochs |= parameters["augment"] is not None and parameters["augment_views"] is None
    return names if in_epochs else names | set(_OF_EPOCHS)


def _idle_where_frozen(strategy: str) -> tuple[str, ...]:
    """Return what only tuned blocks use; `max_epochs` are those of the head, where it has no others."""
    return tuple(name for name in _OF_BLOCKS if strategy != "fine_tune" or name != "max_epochs")


def _warn(message: str) -> None:
    """Warn; inside a search or a cross-validation of scikit-learn's, once per process."""
    callers = (str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_stack(None))
    if any(name.startswith("sklearn.model_selection") for name in callers):
        if _Search.was_warned:
            return
        _Search.was_warned = True
    warnings.warn(message, UserWarning, stacklevel=5)  # the line that called fit
