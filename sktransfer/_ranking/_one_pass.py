"""Pass all samples through one backbone once, and measure the cost.

Loading is not counted. Where any activation came from the cache, the time says nothing about the network: then the
speed is the one that was measured earlier in this process, or is not known.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import nan
from typing import Any

import numpy as np

from sktransfer._cache_control import cache_info
from sktransfer._computing._reuse import Pass
from sktransfer._feature_extractor import PretrainedFeatureExtractor
from sktransfer._training._prediction import extract

# Samples per second, by what they depend on beside the machine: as measured in passes that computed every sample.
_SPEEDS: dict[tuple[str | None, str, str | None], float] = {}


@dataclass(frozen=True)
class Cost:
    """Cost of one backbone.

    Parameters
    ----------
    seconds : float
        Of one pass of all samples, without loading; NaN where that is not known.
    samples_per_second : float
        The same as a rate; NaN where it is not known.
    n_passed : int
        Samples that passed through the network from its input in this ranking; the others came from the cache.
    n_parameters : int
        Of the layers that compute the features.
    n_bytes : int
        Of the whole network's `state_dict`.
    input_size : str
        What one prepared sample is.
    n_features : int
        Number of features.
    """

    seconds: float
    samples_per_second: float
    n_passed: int
    n_parameters: int
    n_bytes: int
    input_size: str
    n_features: int


def pass_once(
    extractor: PretrainedFeatureExtractor, X: Any, count: Callable[[int], None]
) -> tuple[np.ndarray, Cost, str]:
    """Compute the features of all samples.

    Parameters
    ----------
    extractor : PretrainedFeatureExtractor
        Fitted or not; it stays as it is.
    X : array-like
        As it takes it.
    count : callable
        Told how many samples are done, batch by batch.

    Returns
    -------
    features : float32 ndarray of shape (n_samples, n_features)
        One row per sample.
    cost : Cost
        What it took.
    kind : str
        What the samples are: `"images"`, `"texts"`, `"sounds"` or `"vectors"`.

    Raises
    ------
    ValueError
        If a sample cannot be read, or the network gives NaN or infinity.
    """
    if "backbone_" in vars(extractor):
        work = extractor._way_through(extractor._part(), extractor._read(X, extractor.on_bad_sample == "nan"))
        backbone, reader = extractor.backbone_, extractor._reader
    else:
        # Not sklearn's clone, which copies networks: they are never changed.
        extractor = type(extractor)(**extractor.get_params(deep=False))
        learned, work = extractor._prepare(X, stacklevel=5)
        backbone, reader = learned["backbone_"], learned["_reader"]
    work.part.ready(work.execution.device, work.execution.bfloat16)  # made ready before the clock starts
    features, seconds, rate, n_passed = _timed(work, extractor.on_bad_sample == "nan", count)
    _refuse_strange(features)
    parameters = list(work.part.network().parameters())
    tensors = backbone.network.state_dict().values()
    most = extractor.max_length or backbone.preprocessing.record.get("max_length")
    width = getattr(extractor, "n_features_in_", None)
    size = f"{most} {reader.varying or 'tokens'}" if most else " x ".join(map(str, reader.example(1, width).shape[1:]))
    cost = Cost(
        seconds,
        rate,
        n_passed,
        sum(parameter.numel() for parameter in parameters),
        sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        size,
        features.shape[1],
    )
    return features, cost, reader.kind


def _timed(work: Pass, tolerant: bool, count: Callable[[int], None]) -> tuple[np.ndarray, float, float, int]:
    """Return features, seconds and samples per second of a pass, and how many samples it computed."""
    before, start = cache_info(), time.perf_counter()
    features, problems = extract(replace(work, count=count), tolerant)
    seconds, after = time.perf_counter() - start, cache_info()
    if problems:
        row, problem = next(iter(problems.items()))
        raise ValueError(
            f"Got {len(problems)} of {len(features)} samples that cannot be read, the first in row {row}: {problem} "
            "Remove them from X, y and groups."
        )
    n_passed = after.misses - before.misses
    found = after.hits - before.hits + after.continued - before.continued
    key = work.part.identity, work.execution.arithmetic, work.samples.recipe
    if n_passed and not found:
        _SPEEDS[key] = rate = n_passed / seconds
        return features, seconds, rate, n_passed
    rate = _SPEEDS.get(key, nan) if work.part.identity is not None else nan
    return features, len(features) / rate, rate, n_passed


def _refuse_strange(features: np.ndarray) -> None:
    strange = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(strange):
        raise ValueError(
            f"The network returned NaN or infinity for {len(strange)} of {len(features)} samples, the first in row "
            f"{strange[0]}; expected numbers."
        )
