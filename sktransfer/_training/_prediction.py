"""Predict with a trained suffix: samples pass the frozen part first, or are found in the cache.

Nothing of the suffix changes, except where the trained part runs, for the time of the pass.
"""

import copy

import numpy as np
from torch import nn

from sktransfer._computing._execution import lend
from sktransfer._computing._frozen_pass import apply, collect, collect_readable, probe, probe_readable
from sktransfer._computing._reuse import Pass
from sktransfer._messages import shortened
from sktransfer._training._suffix_network import FeaturesOf, SuffixNetwork
from sktransfer.backbones import Backbone


def predict(backbone: Backbone, module: SuffixNetwork, work: Pass, features: bool = False) -> np.ndarray:
    """Run samples through the frozen part and then through what was trained.

    Parameters
    ----------
    backbone : Backbone
        From which what was trained was cut.
    module : SuffixNetwork
        What was trained.
    work : Pass
        The samples, and their way through the frozen part.
    features : bool, default=False
        Whether to stop in front of the head.

    Returns
    -------
    float32 ndarray of shape (n_samples, n_outputs) or (n_samples, n_features)
        Outputs of the head, or features.

    Raises
    ------
    ValueError
        If the network gives NaN or infinity for a sample.
    """
    module.attach(backbone)
    module.compute_in(work.execution.bfloat16)
    suffix = FeaturesOf(module) if features else module
    with lend(suffix, work.execution.device):
        result = apply(suffix, work)
    strange = np.flatnonzero(~np.isfinite(result).all(axis=1))
    if len(strange):
        raise ValueError(
            f"The network returned NaN or infinity for {len(strange)} of {len(result)} samples, the first in row "
            f"{strange[0]}; expected numbers. Check X for extreme values, or fit again with a smaller lr."
        )
    return result


def extract(work: Pass, tolerant: bool) -> tuple[np.ndarray, dict[int, str]]:
    """Run samples through a frozen part that ends in features.

    Parameters
    ----------
    work : Pass
        The samples, and their way through the part.
    tolerant : bool
        Whether a sample that cannot be read is a row of NaN instead of an error.

    Returns
    -------
    features : float32 ndarray of shape (n_samples, n_features)
        A row per sample.
    problems : dict of int to str
        What was wrong with samples that could not be read, in short, by row, in order.
    """
    if not tolerant:
        return np.asarray(collect(work)), {}
    features, problems = collect_readable(work)
    return features, {row: shortened(problem) for row, problem in problems.items()}


def count_features(work: Pass, tolerant: bool) -> int:
    """Run one sample through a frozen part that ends in features, to learn their number.

    Parameters
    ----------
    work, tolerant : object
        As in `extract`.

    Returns
    -------
    int
        Their number.
    """
    return int((probe_readable(work) if tolerant else probe(work)).shape[1])


def copy_suffix(backbone: Backbone, module: SuffixNetwork) -> SuffixNetwork:
    """Return a copy of what was trained, which computes in float32.

    Parameters
    ----------
    backbone : Backbone
        From which it was cut.
    module : SuffixNetwork
        What was trained.

    Returns
    -------
    SuffixNetwork
        With its own tensors, which require no gradient.
    """
    suffix = copy.deepcopy(module).requires_grad_(False)  # the copy is without its tail, as a pickle is
    suffix.attach(backbone)
    suffix.compute_in(bfloat16=False)
    return suffix


def prediction_network(backbone: Backbone, module: SuffixNetwork, results: nn.Module) -> nn.Module:
    """Return what an estimator computes, in float32, as one network.

    Parameters
    ----------
    backbone : Backbone
        What runs frozen; its own layers are used, and not changed.
    module : SuffixNetwork
        What was trained; it is copied.
    results : nn.Module
        From outputs to what is predicted.

    Returns
    -------
    nn.Module
        In eval mode, from prepared samples to predictions.
    """
    frozen = backbone.frozen_part(module.freeze_depth, module.pooling, module.layers)
    return nn.Sequential(frozen.network(), copy_suffix(backbone, module), results).eval()
