"""Which part of what a person gives holds the network: an estimator itself, a pipeline's first step, a search's best.

A pipeline that starts with anything else changes samples before the network sees them, so nothing is drawn of it.
"""

from typing import Any

from sklearn.base import clone
from sklearn.pipeline import Pipeline

from sktransfer._backbone_estimator import BackboneEstimator
from sktransfer._computing._reuse import Pass
from sktransfer._messages import shortened
from sktransfer.backbones import Backbone
from sktransfer.inputs._base import Reader, Samples
from sktransfer.inputs._rows import Rows


def network_within(estimator: Any) -> tuple[BackboneEstimator, Pipeline | None]:
    """Return the estimator that holds the network, and the steps behind it.

    Parameters
    ----------
    estimator : BaseEstimator
        One of this package, a `Pipeline` that begins with one, or a search over either.

    Returns
    -------
    holder : PretrainedFeatureExtractor, FineTunedClassifier or FineTunedRegressor
        The estimator with the network.
    rest : Pipeline or None
        The steps of a pipeline that follow it; `None` where it stands alone.

    Raises
    ------
    ValueError
        If there is no such estimator, or another step comes before it.
    """
    found = estimator
    if not isinstance(found, Pipeline | BackboneEstimator):
        found = getattr(found, "best_estimator_", getattr(found, "estimator", found))
    rest = None
    if isinstance(found, Pipeline) and len(found) > 0:
        found, rest = found.steps[0][1], (found[1:] if len(found) > 1 else None)
    if isinstance(found, BackboneEstimator):
        return found, rest
    inside = "" if found is estimator else f" with {type(found).__name__} in it"
    raise ValueError(
        f"Got {type(estimator).__name__}{inside}; expected PretrainedFeatureExtractor, FineTunedClassifier or "
        "FineTunedRegressor, or a Pipeline whose first step is one of them. Give that estimator alone."
    )


def is_fitted(holder: BackboneEstimator) -> bool:
    """Tell whether an estimator has a network.

    Parameters
    ----------
    holder : BackboneEstimator
        Any.

    Returns
    -------
    bool
        Whether `fit` has ended once.
    """
    return hasattr(holder, "backbone_")


def read_samples(holder: BackboneEstimator, X: Any) -> tuple[BackboneEstimator, Samples, Backbone, Reader]:
    """Read X as an estimator does, and return its network with all blocks, whether it is fitted or not.

    Parameters
    ----------
    holder : BackboneEstimator
        It is not changed.
    X : array-like
        As its `fit` takes it.

    Returns
    -------
    reading : BackboneEstimator
        The estimator, or a copy that has seen X where it was not fitted.
    samples : Samples
        Of X.
    backbone : Backbone
        The pretrained network, as it was before tuning.
    reader : Reader
        That has read X.
    """
    if is_fitted(holder):
        return holder, holder._read(X), holder.backbone_.whole(), holder._reader
    reading: BackboneEstimator = clone(holder)
    reading._check_parameters()
    samples, backbone, reader = reading._learn(Rows(X, reading.image_shape))
    return reading, samples, backbone, reader


def way_to_all_blocks(reading: BackboneEstimator, samples: Samples, backbone: Backbone) -> Pass:
    """Return the way of samples through a network on which each block leaves a vector.

    Parameters
    ----------
    reading, samples, backbone : object
        From `read_samples`.

    Returns
    -------
    Pass
        To the vectors of all blocks, joined from the input onwards. Maps are averaged where `pooling="flatten"`: each
        number of a map would be a feature.
    """
    pooling = "avg" if reading.pooling == "flatten" else reading.pooling
    part = backbone.feature_part(list(range(1, len(backbone.blocks) + 1)), pooling, in_order=True)
    return reading._way_through(part, samples)


def short_name(name: str) -> str:
    """Return a network's name as it fits below a figure: of a folder the last two parts of its path.

    Parameters
    ----------
    name : str
        Of a backbone.

    Returns
    -------
    str
        Short.
    """
    parts = name.replace("\\", "/").split("/")
    return shortened("/".join(parts[-2:]), 50)
