"""Find the estimator of this package inside a Pipeline or a search, and how it reads samples."""

from typing import Any

from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from sktransfer._backbone_estimator import BackboneEstimator
from sktransfer._computing._reuse import Pass
from sktransfer._messages import shortened
from sktransfer.backbones import Backbone
from sktransfer.inputs._base import Reader, Samples
from sktransfer.inputs._rows import Rows
from sktransfer.inspection._read_samples import HowToRead


def steps_of(estimator: Any) -> list[Any]:
    """Return the steps that X passes when something is predicted, one after another.

    Parameters
    ----------
    estimator : estimator
        A fitted search stands for its best estimator, one that has none for the estimator that it was given, a Pipeline
        for its steps, a FrozenEstimator for what it holds.

    Returns
    -------
    list of estimator
        At least one.
    """
    if hasattr(estimator, "best_estimator_"):
        return steps_of(estimator.best_estimator_)
    # Searches have no class in common. TunedThresholdClassifierCV has these parameters too, but predicts by itself.
    is_search = hasattr(estimator, "refit") and hasattr(estimator, "estimator") and not hasattr(estimator, "estimator_")
    if is_search or isinstance(estimator, FrozenEstimator):
        return steps_of(estimator.estimator)
    if isinstance(estimator, Pipeline):
        given = [step for _, step in estimator.steps if step is not None and step != "passthrough"]
        # Samplers of imbalanced-learn do nothing when something is predicted.
        return [one for step in given if not hasattr(step, "fit_resample") for one in steps_of(step)] or [estimator]
    return [estimator]


def described(estimator: Any, step: Any) -> str:
    """Name an estimator, and the step of it that a message is about.

    Parameters
    ----------
    estimator : estimator
        What a person gave.
    step : estimator
        One of `steps_of`.

    Returns
    -------
    str
        Their types.
    """
    name = type(estimator).__name__
    return name if step is estimator else f"{name} with {type(step).__name__} in it"


def network_within(estimator: Any) -> tuple[BackboneEstimator, list[Any]]:
    """Return the estimator that holds the network, and the steps behind it.

    A pipeline that starts with anything else changes samples before the network sees them.

    Parameters
    ----------
    estimator : estimator
        One of this package, a `Pipeline` that begins with one, or a search over either.

    Returns
    -------
    holder : PretrainedFeatureExtractor, FineTunedClassifier or FineTunedRegressor
        The estimator with the network.
    behind : list of estimator
        The steps that follow it.

    Raises
    ------
    ValueError
        If there is no such estimator, or another step comes before it.
    """
    first, *behind = steps_of(estimator)
    if isinstance(first, BackboneEstimator):
        return first, behind
    raise ValueError(
        f"Got {described(estimator, first)}; expected PretrainedFeatureExtractor, FineTunedClassifier or "
        "FineTunedRegressor, or a Pipeline whose first step is one of them. Give that estimator alone."
    )


def how_it_reads(estimator: Any, how: HowToRead) -> HowToRead:
    """Fill in how X is read from the first step of an estimator, if that is fitted and one of ours.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    how : HowToRead
        What a person said of X; that stands.

    Returns
    -------
    HowToRead
        What is known of X.
    """
    first = steps_of(estimator)[0]
    if not isinstance(first, BackboneEstimator) or not hasattr(first, "backbone_"):
        return how
    reader = first._reader
    learned = getattr(reader, "value_range", None)
    return HowToRead(
        reader.kind if how.kind == "auto" and reader.kind in ("images", "texts", "sounds") else how.kind,
        first.image_shape if how.image_shape is None else how.image_shape,
        (learned or first.pixel_range) if isinstance(how.pixel_range, str) else how.pixel_range,
        first.sampling_rate if how.sampling_rate is None else how.sampling_rate,
        getattr(first.backbone_.preprocessing, "channels", "auto"),
    )


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
    if hasattr(holder, "backbone_"):
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
