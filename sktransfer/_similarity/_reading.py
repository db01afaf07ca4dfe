"""Read X as a backbone reads it, given as an estimator, a name, a network or a loaded backbone."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.utils import check_random_state
from torch import nn

from sktransfer._backbone_estimator import BackboneEstimator
from sktransfer._computing._execution import Execution
from sktransfer._feature_extractor import PretrainedFeatureExtractor
from sktransfer._messages import shown
from sktransfer._probing._targets import Targets
from sktransfer.backbones import Backbone
from sktransfer.inputs._base import Samples
from sktransfer.inputs._rows import Rows

# Samples of each class that are chosen first.
OF_EACH = 5


@dataclass(frozen=True)
class Read:
    """Samples, and the network that takes them.

    Parameters
    ----------
    backbone : Backbone
        With the weights that it was pretrained with.
    samples : Samples
        All of X.
    texts : list of str or None
        X itself, where it holds texts.
    execution : Execution
        How the network is run, in float32.
    """

    backbone: Backbone
    samples: Samples
    texts: list[str] | None
    execution: Execution


class _OfLoaded(PretrainedFeatureExtractor):
    """Reads X for a backbone that is there."""

    def _load_backbone(self, n_features: int | None, tower: str, wanted: int | None = None) -> Backbone:
        return self._loaded

    _loaded: Backbone


def read(estimator: BackboneEstimator, X: Any) -> Read:
    """Load the network and read X as an estimator does. The estimator is not changed.

    Parameters
    ----------
    estimator : BackboneEstimator
        From `as_estimator`.
    X : array-like
        As the estimators take it.

    Returns
    -------
    Read
        The samples and the backbone.

    Raises
    ------
    ValueError
        If the network cannot be loaded, or X is not as described.
    """
    rows = Rows(X, estimator.image_shape)
    if hasattr(estimator, "backbone_"):
        samples, backbone = estimator._read(X), estimator.backbone_
    else:
        estimator = estimator if isinstance(estimator, _OfLoaded) else clone(estimator)
        estimator._check_parameters()
        samples, backbone, _ = estimator._learn(rows)
    execution = Execution.plan(
        estimator.batch_size, estimator.n_jobs, estimator.device, "float32", int(estimator.verbose)
    )
    texts = [str(text) for text in rows.values] if samples.kind == "texts" else None
    return Read(backbone, samples, texts, execution)


def predicts_numbers(estimator: BackboneEstimator) -> bool | None:
    """Tell whether an estimator predicts numbers; `None` where it does not predict."""
    return False if is_classifier(estimator) else True if is_regressor(estimator) else None


def as_estimator(given: Any) -> BackboneEstimator:
    """Return an estimator that reads X as what was given does; nothing is loaded.

    Parameters
    ----------
    given : estimator, str, nn.Module, callable or Backbone
        An estimator of this package, fitted or not; or what its parameter `backbone` takes; or what `load_backbone`
        returns.

    Returns
    -------
    BackboneEstimator
        What was given, or a new one.

    Raises
    ------
    ValueError
        If it is none of these.
    """
    if isinstance(given, BackboneEstimator):
        return given
    if isinstance(given, Backbone):
        reading = _OfLoaded(given.custom if given.custom is not None else given.name)
        reading._loaded = given
        return reading
    if isinstance(given, BaseEstimator) or hasattr(given, "fit"):
        raise ValueError(
            f"Got a {type(given).__name__}; expected an estimator of sktransfer, a backbone, or the name of one. For "
            "a Pipeline, give the step, such as pipeline[0]. For a search, give search.best_estimator_."
        )
    if isinstance(given, str | nn.Module) or callable(given):
        return PretrainedFeatureExtractor(given)
    raise ValueError(
        f"Got {shown(given)} of type {type(given).__name__} as a backbone; expected an estimator of sktransfer, a name "
        'such as "resnet18", a torch.nn.Module, a function that returns one, or what load_backbone returns.'
    )


def check_most(max_samples: Any) -> None:
    """Raise unless `max_samples` is a number of samples that have a mean and a variance."""
    if not isinstance(max_samples, int | np.integer) or isinstance(max_samples, bool) or max_samples < 2:
        raise ValueError(f"Got max_samples={shown(max_samples)}; expected a whole number of at least 2.")


def choose_rows(n_samples: int, most: int, targets: Targets | None, seed: Any) -> np.ndarray:
    """Choose samples to look at: five of each class, the rest with classes in the shares that they have.

    Parameters
    ----------
    n_samples : int
        How many there are.
    most : int
        How many are looked at, at most.
    targets : Targets or None
        Of all of them.
    seed : int, RandomState instance or None
        Of the choice.

    Returns
    -------
    int ndarray
        Rows, in random order, so that folds of neighbouring rows are mixed.
    """
    order = check_random_state(seed).permutation(n_samples)
    if n_samples <= most or targets is None or targets.kind != "classes":
        return order[:most]
    # By their share of their class, but a few of each class before all others: folds need them.
    place = np.empty(n_samples)
    for label in range(len(targets.names)):
        own = order[targets.values[order] == label]
        place[own] = (np.arange(len(own)) + 0.5) / len(own)
        place[own[:OF_EACH]] -= 1
    rows = order[np.argsort(place[order], kind="stable")][:most]
    return rows[check_random_state(seed).permutation(len(rows))]
