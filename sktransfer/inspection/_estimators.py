"""Where an estimator of ours stands inside scikit-learn's: in a Pipeline, in a search, or by itself."""

from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from sktransfer._backbone_estimator import BackboneEstimator
from sktransfer._fine_tuned_estimator import FineTunedEstimator
from sktransfer.inspection._read_samples import HowToRead


def steps_of(estimator: Any) -> list[Any]:
    """Return the steps that X passes, one after another.

    Parameters
    ----------
    estimator : estimator
        A fitted search stands for its best estimator, a Pipeline for its steps.

    Returns
    -------
    list of estimator
        At least one.
    """
    if hasattr(estimator, "best_estimator_"):
        return steps_of(estimator.best_estimator_)
    if isinstance(estimator, FrozenEstimator):
        return steps_of(estimator.estimator)
    if isinstance(estimator, Pipeline):
        given = [step for _, step in estimator.steps if step is not None and step != "passthrough"]
        return [inner for step in given for inner in steps_of(step)] or [estimator]
    return [estimator]


def tuned_step(estimator: Any) -> FineTunedEstimator | None:
    """Return the last step, if that is one of ours that tunes a network.

    Parameters
    ----------
    estimator : estimator
        Fitted or not.

    Returns
    -------
    FineTunedEstimator or None
        Inside a Pipeline or a fitted search too.
    """
    last = steps_of(estimator)[-1]
    return last if isinstance(last, FineTunedEstimator) else None


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
    if not isinstance(first, BackboneEstimator):
        return how
    reader = first._reader
    learned = getattr(reader, "value_range", None)
    return HowToRead(
        reader.kind if how.kind == "auto" and reader.kind in ("images", "texts", "sounds") else how.kind,
        first.image_shape if how.image_shape is None else how.image_shape,
        (learned or first.pixel_range) if isinstance(how.pixel_range, str) else how.pixel_range,
        first.sampling_rate if how.sampling_rate is None else how.sampling_rate,
    )
