"""What reaches the part of a network that is trained: activations held in memory, or computed each time.

This file is the one that knows which: random augmentation lies below the frozen part, so what is augmented cannot be
kept, and what would not fit is not.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from sktransfer._frozen_pass import Run, collect, forward, probe
from sktransfer.inputs import Augmentation, Samples, augment_batch, load_batches

# Bytes of activations that are held for training; more are computed anew in each epoch.
KEPT_BYTES = 2 * 2**30


class Activations(ABC):
    """What reaches the part of a network that is trained, row by row."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def take(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Return the float32 activations of some rows."""


class KeptActivations(Activations):
    """Computed once, held in memory.

    Parameters
    ----------
    values : ndarray of shape (n_samples, ...)
        The activations.
    """

    def __init__(self, values: np.ndarray):
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.values[rows])


class ComputedActivations(Activations):
    """Computed each time they are wanted, from samples that may change at random each time.

    Parameters
    ----------
    prefix : nn.Module
        The frozen part.
    samples : Samples
        What enters it.
    run : Run
        How it is run.
    augmentation : callable or None
        Changes a loaded sample at random.
    """

    def __init__(self, prefix: nn.Module, samples: Samples, run: Run, augmentation: Augmentation | None):
        self.prefix, self.samples, self.run, self.augmentation = prefix, samples, run, augmentation

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        (batch,) = load_batches(self.samples, rows, len(rows), self.run.n_jobs)
        if self.augmentation is not None:
            batch = augment_batch(batch, self.augmentation)
        with torch.no_grad(), self.run.autocast():
            prepared = self.samples.prepare(batch.to(self.run.device))
            return forward(self.prefix, prepared, self.run.batch_size)


def take_batches(activations: Activations, rows: np.ndarray, batch_size: int) -> Iterator[torch.Tensor]:
    """Take rows in batches.

    Parameters
    ----------
    activations : Activations
        Where they come from.
    rows : ndarray of int
        Which, in the order wanted.
    batch_size : int
        Rows a batch.

    Yields
    ------
    Tensor of shape (n, ...)
        The next batch.
    """
    for start in range(0, len(rows), batch_size):
        yield activations.take(rows[start : start + batch_size])


def activations(
    prefix: nn.Module,
    samples: Samples,
    run: Run,
    augmentation: Augmentation | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> Activations:
    """Return what a frozen prefix makes of samples: kept where it can be and fits, else computed each time.

    Parameters
    ----------
    prefix : nn.Module
        The frozen part, in eval mode.
    samples : Samples
        What enters it.
    run : Run
        How it is run.
    augmentation : callable or None, default=None
        Changes a loaded sample at random, so that nothing can be kept.
    report : callable, default=nothing
        Told in a sentence what was decided.

    Returns
    -------
    Activations
        One row a sample.
    """
    if augmentation is not None:
        report("Activations are computed in each epoch: the samples below them are augmented.")
        return ComputedActivations(prefix, samples, run, augmentation)
    first = probe(prefix, samples, run)
    needed = first.nbytes * len(samples)
    if needed > KEPT_BYTES:
        report(
            f"Activations are computed in each epoch: {needed / 2**30:.1f} GiB would be needed to keep them, and "
            f"{KEPT_BYTES / 2**30:.1f} GiB are kept at most."
        )
        return ComputedActivations(prefix, samples, run, None)
    report(f"Activations are kept: {needed / 2**20:.1f} MiB.")
    return KeptActivations(collect(prefix, samples, run))
