"""Turn samples into activations of a frozen network, in order. Cached ones are not computed again.

What is wanted of them differs: all of them, what a network behind makes of them, those of samples that can be read, or
one to measure.
"""

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from sktransfer._computing._forward import run_batches
from sktransfer._computing._progress import LONG, progress_bar, took
from sktransfer._computing._reuse import Batches, Pass, by_size
from sktransfer._messages import shortened
from sktransfer.inputs._base import Samples, SamplesOf, TolerantSamples


def stream(work: Pass) -> Batches:
    """Run all samples through a frozen network, in order.

    Parameters
    ----------
    work : Pass
        The network, the samples, and how.

    Yields
    ------
    Tensor of shape (n, ...)
        Float32 activations of the next batch, on the CPU: of samples of one size.

    Raises
    ------
    ValueError
        If the network does not take such samples.
    """
    if work.cache is not None and work.part.identity is None:
        why = work.part.loaded.why_no_identity
        work.report(f"Outputs of frozen blocks are not cached: {why}, which cannot be part of a cache key.")
    from sktransfer._computing._planned_pass import in_order

    # Generators are closed where they are used, not when the last traceback of an interrupted pass is gone, so that
    # their threads end with it.
    n_samples, started = len(work.samples), time.perf_counter()
    with (
        progress_bar(n_samples, "computing", bool(work.execution.verbose)) as bar,
        closing(in_order(work)) as batches,
    ):
        for batch in batches:
            bar.update(len(batch))
            work.count(len(batch))
            yield batch
    seconds = time.perf_counter() - started
    if seconds >= LONG:
        work.report(took("Computed", n_samples, seconds))


def collect(work: Pass) -> Any:
    """Run all samples through a frozen network and return the result.

    Parameters
    ----------
    work : Pass
        The network, the samples, and how.

    Returns
    -------
    float32 ndarray of shape (n_samples, ...), or list of ndarray
        The activations; a list where they differ in shape. Memory beyond them does not grow with the number of samples.
    """
    result: np.ndarray | None = None
    rest: list[np.ndarray] = []
    start = 0
    with closing(stream(work)) as batches:
        for batch in batches:
            if result is None:
                result = np.empty((len(work.samples), *batch.shape[1:]), dtype=np.float32)
            if rest or batch.shape[1:] != result.shape[1:]:
                rest = rest or list(result[:start])
                rest.extend(batch.numpy())
            else:
                result[start : start + len(batch)] = batch.numpy()
            start += len(batch)
    assert result is not None
    return rest or result


def apply(network: nn.Module, work: Pass) -> np.ndarray:
    """Run all samples through a frozen network and then through another.

    Parameters
    ----------
    network : nn.Module
        What goes on from the activations: vectors out, on the device of the pass.
    work : Pass
        The frozen network, the samples, and how.

    Returns
    -------
    float32 ndarray of shape (n_samples, n_values)
        In the order of the samples, though those of one size are computed together.
    """
    order = by_size(work.samples, range(len(work.samples)))
    with (
        closing(stream(replace(work, samples=_Subset(work.samples, order)))) as batches,
        closing(run_batches(network, batches, work.execution)) as results,
    ):
        parts = [result.cpu().numpy() for result in results]
    computed = np.concatenate(parts)
    result = np.empty_like(computed)
    result[order] = computed
    return result


def collect_readable(work: Pass) -> tuple[np.ndarray, dict[int, str]]:
    """Run all samples through a frozen network, whether each can be read or not.

    Parameters
    ----------
    work : Pass
        The network, the samples, and how.

    Returns
    -------
    activations : float32 ndarray of shape (n_samples, n_features)
        As from `collect`; rows of samples that cannot be read are NaN.
    problems : dict of int to str
        Why, by row, in order.
    """
    tolerant = TolerantSamples(work.samples)
    result = collect(replace(work, samples=tolerant))
    for row in np.flatnonzero(np.isnan(result).any(axis=1)):
        if row not in tolerant.problems:  # the same bytes as another's, which alone were tried
            tolerant.load(int(row))
    return result, dict(sorted(tolerant.problems.items()))


def probe(work: Pass, row: int = 0) -> torch.Tensor:
    """See what becomes of one sample, the first.

    Parameters
    ----------
    work : Pass
        The network, the samples, and how. Where activations are kept, the first batch is computed and kept, so that
        nothing is computed for the look alone; else the first sample.
    row : int, default=0
        Which sample is the first: those before it are left out.

    Returns
    -------
    Tensor of shape (1, ...)
        Its activation.
    """
    from sktransfer._computing._planned_pass import in_order

    n_samples, at_once = len(work.samples), work.execution.batch_size
    few = range(row, row + 1 if work.store is None else min(n_samples, row + at_once))
    with closing(in_order(replace(work, samples=_Subset(work.samples, few)))) as batches:
        return next(batches)[:1]


def probe_readable(work: Pass) -> torch.Tensor:
    """See what becomes of the first sample that can be read.

    Parameters
    ----------
    work : Pass
        As in `probe`. Samples are loaded one by one until one of them can be.

    Returns
    -------
    Tensor of shape (1, ...)
        Its activation.

    Raises
    ------
    ValueError
        If no sample can be read.
    """
    tolerant = TolerantSamples(work.samples)
    for row in range(len(tolerant)):
        tolerant.load(row)
        if not tolerant.is_blank(row):
            return probe(replace(work, samples=tolerant), row)
    raise ValueError(
        f"Got {len(tolerant)} samples, but none of them could be read; expected at least one, to learn the shape of "
        f"the features. The first: {shortened(tolerant.problems[0])}"
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
