"""Run activations through a suffix, or up to its features, without training it."""

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import torch
from torch import nn

from sktransfer._computing._execution import Execution, lend
from sktransfer._computing._forward import run_batches
from sktransfer._process._seeding import generator_kept
from sktransfer._training._activation_sources import Activations, take_batches
from sktransfer._training._suffix_network import FeaturesOf, SuffixNetwork


def features_of(module: SuffixNetwork, source: Activations, rows: np.ndarray, execution: Execution) -> np.ndarray:
    """Return the features of some rows of activations.

    Parameters
    ----------
    module : SuffixNetwork
        The suffix.
    source : Activations
        What enters it.
    rows : ndarray of int
        Which rows.
    execution : Execution
        How.

    Returns
    -------
    float32 ndarray of shape (n, n_features)
        In the order of `rows`.
    """
    return _compute(module, FeaturesOf(module), source, rows, execution)


def outputs_of(module: SuffixNetwork, source: Activations, rows: np.ndarray, execution: Execution) -> np.ndarray:
    """Return what the head makes of some rows of activations.

    Parameters
    ----------
    module, source, rows, execution : object
        As in `features_of`.

    Returns
    -------
    float32 ndarray of shape (n, n_outputs)
        In the order of `rows`.
    """
    return _compute(module, module, source, rows, execution)


def count_widths(module: SuffixNetwork, first: torch.Tensor, execution: Execution) -> list[int]:
    """Return the number of features of each layer.

    Parameters
    ----------
    module : SuffixNetwork
        The suffix.
    first : Tensor of shape (1, ...)
        One activation.
    execution : Execution
        How.

    Returns
    -------
    list of int
        Those of the last layer at the end.
    """
    module.compute_in(execution.bfloat16)
    with lend(module, execution.device), generator_kept(), torch.inference_mode():
        return [vector.shape[1] for vector in module.vectors(first.to(execution.device))]


def _compute(
    module: SuffixNetwork, compute: nn.Module, source: Activations, rows: np.ndarray, execution: Execution
) -> np.ndarray:
    module.compute_in(execution.bfloat16)
    places: list[np.ndarray] = []

    def batches() -> Iterator[torch.Tensor]:
        for some, batch in take_batches(source, rows, execution.batch_size):
            places.append(some)
            yield batch

    with (
        lend(module, execution.device),
        generator_kept(),
        closing(run_batches(compute, batches(), execution)) as results,
    ):
        parts = [result.cpu().numpy() for result in results]
    result = np.empty((len(rows), parts[0].shape[1]), dtype=np.float32)
    for some, part in zip(places, parts, strict=True):
        result[some] = part
    return result
