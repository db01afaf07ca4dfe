"""From samples to the activations of a frozen network, in order, each computed once where it can be kept.

What is wanted of them differs: all of them, what a network behind makes of them, those of samples that can be read, or
one to measure.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from sktransfer._computing._execution import Execution
from sktransfer._computing._forward import run_batch
from sktransfer._computing._reuse import Batches, Pass, Variant, by_size, in_order
from sktransfer._messages import shortened
from sktransfer.backbones._frozen_part import FrozenPart
from sktransfer.inputs._base import Samples, SamplesOf, TolerantSamples


def stream(
    part: FrozenPart,
    samples: Samples,
    execution: Execution,
    variant: Variant | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> Batches:
    """Run all samples through a frozen network, in order.

    Parameters
    ----------
    part : FrozenPart
        The network.
    samples : Samples
        What to run.
    execution : Execution
        How.
    variant : Variant or None, default=None
        How they are changed first.
    report : callable, default=nothing
        Told in a sentence where activations came from.

    Yields
    ------
    Tensor of shape (n, ...)
        Float32 activations of the next batch, on the CPU: of samples of one size.

    Raises
    ------
    ValueError
        If the network does not take such samples.
    """
    if execution.store is not None and part.identity is None:
        report(f"No activation goes into the cache: {part.loaded.why_no_identity}, which cannot be written down whole.")
    # Generators are closed where they are used, not when the last traceback of an interrupted pass is gone, so that
    # their threads end with it.
    with (
        tqdm(total=len(samples), unit="sample", disable=not execution.verbose, leave=False) as bar,
        closing(in_order(Pass(part, samples, execution, variant, report))) as batches,
    ):
        for batch in batches:
            bar.update(len(batch))
            yield batch


def collect(
    part: FrozenPart,
    samples: Samples,
    execution: Execution,
    variant: Variant | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> Any:
    """Run all samples through a frozen network and return the result.

    Parameters
    ----------
    part, samples, run, variant, report : object
        As in `stream`.

    Returns
    -------
    float32 ndarray of shape (n_samples, ...), or list of ndarray
        The activations; a list where they differ in shape. Memory beyond them does not grow with the number of samples.
    """
    result: np.ndarray | None = None
    rest: list[np.ndarray] = []
    start = 0
    with closing(stream(part, samples, execution, variant, report)) as batches:
        for batch in batches:
            if result is None:
                result = np.empty((len(samples), *batch.shape[1:]), dtype=np.float32)
            if rest or batch.shape[1:] != result.shape[1:]:
                rest = rest or list(result[:start])
                rest.extend(batch.numpy())
            else:
                result[start : start + len(batch)] = batch.numpy()
            start += len(batch)
    assert result is not None
    return rest or result


def apply(network: nn.Module, part: FrozenPart, samples: Samples, execution: Execution) -> np.ndarray:
    """Run all samples through a frozen network and then through another.

    Parameters
    ----------
    network : nn.Module
        What goes on from the activations: vectors out, on the run's device.
    part, samples, execution : object
        As in `stream`.

    Returns
    -------
    float32 ndarray of shape (n_samples, n_values)
        In the order of the samples, though those of one size are computed together.
    """
    order = by_size(samples, range(len(samples)))
    with closing(stream(part, _Subset(samples, order), execution)) as batches:
        parts = [run_batch(network, batch, execution).cpu().numpy() for batch in batches]
    computed = np.concatenate(parts)
    result = np.empty_like(computed)
    result[order] = computed
    return result


def collect_readable(part: FrozenPart, samples: Samples, execution: Execution) -> tuple[np.ndarray, dict[int, str]]:
    """Run all samples through a frozen network, whether each can be read or not.

    Parameters
    ----------
    part, samples, execution : object
        As in `stream`.

    Returns
    -------
    activations : float32 ndarray of shape (n_samples, n_features)
        As from `collect`; rows of samples that cannot be read are NaN.
    problems : dict of int to str
        Why, by row, in order.
    """
    tolerant = TolerantSamples(samples)
    result = collect(part, tolerant, execution)
    for row in np.flatnonzero(np.isnan(result).any(axis=1)):
        if row not in tolerant.problems:  # the same bytes as another's, which alone were tried
            tolerant.load(int(row))
    return result, dict(sorted(tolerant.problems.items()))


def probe(
    part: FrozenPart,
    samples: Samples,
    execution: Execution,
    report: Callable[[str], None] = lambda message: None,
    row: int = 0,
) -> torch.Tensor:
    """See what becomes of one sample, the first.

    Parameters
    ----------
    part : FrozenPart
        The network.
    samples : Samples
        At least one.
    execution : Execution
        How it is run. Where activations are kept, the first batch is computed and kept, so that nothing is computed for
        the look alone; else the first sample.
    report : callable, default=nothing
        As in `stream`.
    row : int, default=0
        Which sample is the first: those before it are left out.

    Returns
    -------
    Tensor of shape (1, ...)
        Its activation.
    """
    kept = Pass(part, samples, execution).store is not None
    few = _Subset(samples, range(row, min(len(samples), row + execution.batch_size) if kept else row + 1))
    with closing(in_order(Pass(part, few, execution, None, report))) as batches:
        return next(batches)[:1]


def probe_readable(part: FrozenPart, samples: Samples, execution: Execution) -> tuple[torch.Tensor, tuple[int, ...]]:
    """See what becomes of the first sample that can be read.

    Parameters
    ----------
    part, samples, execution : object
        As in `probe`. Samples are loaded one by one until one of them can be.

    Returns
    -------
    activation : Tensor of shape (1, ...)
        Its activation.
    shape : tuple of int
        Shape of that sample as the network takes it.

    Raises
    ------
    ValueError
        If no sample can be read.
    """
    tolerant = TolerantSamples(samples)
    for row in range(len(tolerant)):
        sample = tolerant.load(row)
        if not tolerant.is_blank(row):
            shape = tuple(tolerant.prepare(sample[None]).shape[1:])
            return probe(part, tolerant, execution, row=row), shape
    raise ValueError(
        f"Got {len(tolerant)} samples, none of which could be read; expected at least one that can, from which the "
        f"shape of the features is learned. The first: {shortened(tolerant.problems[0])}"
    )


class _Subset(SamplesOf):
    """Some of the samples, in an order of their own."""

    def __init__(self, samples: Samples, rows: Sequence[int]):
        super().__init__(samples)
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def load(self, index: int) -> torch.Tensor:
        return super().load(self._rows[index])

    def size(self, index: int) -> int:
        return super().size(self._rows[index])

    def is_blank(self, index: int) -> bool:
        return super().is_blank(self._rows[index])

    def stamp(self, index: int) -> object:
        return super().stamp(self._rows[index])

    def digest(self, index: int) -> bytes:
        return super().digest(self._rows[index])
