"""Provide activations to the part that is trained: kept in memory, or computed each time.

This file is the one that knows which: random augmentation lies below the frozen part, so what is augmented anew in each
epoch cannot be kept, only the decoded image below it can; a fixed number of augmented views can be kept like any other
sample; and what would not fit is computed each time.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from sktransfer._cache._memory_store import COUNTS, PROCESS_CACHE, activation_keys
from sktransfer._computing._forward import Change, compute_ahead
from sktransfer._computing._frozen_pass import collect
from sktransfer._computing._reuse import Pass, Variant
from sktransfer._process._seeding import seeded
from sktransfer.inputs._base import Augmentation, Samples, SamplesOf
from sktransfer.inputs.images._augmentation import augment_batch

# Bytes of activations that are held for training; more are computed anew in each epoch.
KEPT_BYTES = 2 * 2**30


class Activations(ABC):
    """Input of the trained part of a network, row by row."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of samples."""

    @abstractmethod
    def take(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        """Return the float32 activations of some rows, joined as `join` does."""

    def batches(self, groups: Sequence[np.ndarray]) -> Generator[torch.Tensor, None, None]:
        """Yield the activations of each group of rows; the next ones may be computed meanwhile."""
        yield from map(self.take, groups)

    def size(self, row: int) -> int:
        """Return what tells activations of different shapes apart."""
        return 1


def join(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Join activations that may be of different lengths.

    Parameters
    ----------
    tensors : list of float32 Tensor of shape (length, ...)
        One a sample.

    Returns
    -------
    Tensor of shape (n, longest, ...)
        The shorter ones are followed by NaN, which nothing else in it may be: a network of layers takes it for absence.

    Raises
    ------
    ValueError
        If one of them holds NaN.
    """
    if len({tensor.shape for tensor in tensors}) == 1:
        return torch.stack(tensors)
    if any(bool(tensor.isnan().any()) for tensor in tensors):
        raise ValueError(
            "The frozen part of the network returned NaN for a sample; expected numbers. Check X for extreme values, "
            "or "
            'set precision="float32".'
        )
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=torch.nan)


class KeptActivations(Activations):
    """Computed once, held in memory.

    Parameters
    ----------
    values : ndarray of shape (n_samples, ...), or list of ndarray
        The activations.
    """

    def __init__(self, values: "np.ndarray | list[np.ndarray]"):
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        if isinstance(self.values, np.ndarray):
            return torch.from_numpy(self.values[rows])
        return join([torch.from_numpy(self.values[row]) for row in rows])

    def size(self, row: int) -> int:
        return 1 if isinstance(self.values, np.ndarray) else len(self.values[row])


class ViewedActivations(Activations):
    """Several views of each sample, held in memory; each time one of them is drawn from torch's generator.

    Parameters
    ----------
    views : list of ndarray of shape (n_samples, ...), or of lists of ndarray
        The activations of each view.
    """

    def __init__(self, views: "list[np.ndarray] | list[list[np.ndarray]]"):
        self.views = views

    def __len__(self) -> int:
        return len(self.views[0])

    def take(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        drawn = torch.randint(len(self.views), (len(rows),)).tolist()
        return join([torch.from_numpy(self.views[view][row]) for view, row in zip(drawn, rows, strict=True)])


class ComputedActivations(Activations):
    """Computed each time they are wanted, from samples that may change at random each time.

    Parameters
    ----------
    work : Pass
        The samples, and their way through the frozen part.
    augmentation : callable or None
        Changes a loaded sample at random.
    draws_from_torch : bool, default=False
        Whether that draws by torch's functions alone.
    """

    def __init__(self, work: Pass, augmentation: Augmentation | None, draws_from_torch: bool = False):
        self.part, self.samples, self.execution = work.part, work.samples, work.execution
        self._change = None if augmentation is None else _each(augmentation)
        self._draws_from_torch = draws_from_torch

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, rows: Sequence[int] | np.ndarray) -> torch.Tensor:
        with closing(self.batches([np.asarray(rows)])) as batches:
            return next(batches)

    def batches(self, groups: Sequence[np.ndarray]) -> Generator[torch.Tensor, None, None]:
        ready = self.part.ready(self.execution.device, self.execution.bfloat16)
        sizes = [np.array([self.samples.size(int(row)) for row in rows]) for rows in groups]
        orders = [some.argsort(kind="stable") for some in sizes]
        by_size = [rows[order] for rows, order in zip(groups, orders, strict=True)]
        how = self._change, self._draws_from_torch
        with closing(compute_ahead(ready, self.samples, by_size, self.execution, *how)) as coming:
            for order, some, parts in zip(orders, sizes, coming, strict=True):
                COUNTS.add(misses=len(order))
                if (some == some[0]).all():
                    yield parts[0] if len(parts) == 1 else torch.cat(parts)
                    continue
                each = [value for part in parts for value in part]
                yield join([each[place] for place in order.argsort()])

    def size(self, row: int) -> int:
        return self.samples.size(row)


def _each(augmentation: Augmentation) -> Change:
    return lambda batch, rows: augment_batch(batch, augmentation)


class _Decoded(SamplesOf):
    """Samples that are loaded more than once: once loaded they are kept, while the process's memory for it lasts."""

    def __init__(self, samples: Samples, recipe: str):
        super().__init__(samples)
        self._recipe = recipe
        self._keys: dict[int, bytes] = {}

    def load(self, index: int) -> torch.Tensor:
        if index not in self._keys:
            (self._keys[index],) = activation_keys([self.digest(index)], self._recipe, "decoded", "")
        (value,) = PROCESS_CACHE.get([self._keys[index]])
        if value is not None:
            return torch.from_numpy(value.copy(order="K"))
        sample = self._samples.load(index)
        PROCESS_CACHE.put([(self._keys[index], sample.numpy())])
        return sample


def decoded_once(work: Pass) -> Samples:
    """Return samples that are decoded once, though several epochs or several depths of a search load them.

    Parameters
    ----------
    work : Pass
        Whose samples are to be trained on, and whether anything is to be kept.

    Returns
    -------
    Samples
        The same, if they are few enough to take a quarter of the process's memory for activations at most.
    """
    samples = work.samples
    if work.cache is None or samples.recipe is None or not samples.decoding_takes_time:
        return samples
    first = samples.load(0)
    fits = first.numel() * first.element_size() * sizes_in_all(samples) <= PROCESS_CACHE.limit // 4
    return _Decoded(samples, samples.recipe) if fits else samples


@dataclass(frozen=True)
class Augmented:
    """Augmentation of samples.

    Parameters
    ----------
    augmentation : callable
        Changes a loaded sample at random.
    name : str or None
        What tells it from others; `None` where nothing can.
    n_views : int or None
        Fixed number of views of each sample; `None` draws anew each time.
    seed : int
        Of the views.
    """

    augmentation: Augmentation
    name: str | None
    n_views: int | None
    seed: int

    def view(self, number: int, samples: Samples) -> Variant:
        """Return the change that makes one view: the same of the same image, wherever and whenever it is met."""

        def change(batch: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
            changed = []
            for image, row in zip(batch, rows, strict=True):
                label = f"{self.seed} {number}".encode()
                drawn = hashlib.blake2b(samples.digest(row), digest_size=8, key=label).digest()
                with seeded(int.from_bytes(drawn, "little") >> 1):
                    changed.append(augment_batch(image[None], self.augmentation))
            return torch.cat(changed)

        return Variant(f"augment={self.name} seed={self.seed} view={number}", change)


def activations(work: Pass, first: torch.Tensor, augmented: Augmented | None = None) -> Activations:
    """Return what a frozen part makes of samples: kept where it can be and fits, else computed each time.

    Parameters
    ----------
    work : Pass
        The samples, and their way through the frozen part.
    first : Tensor of shape (1, ...)
        One activation, to measure.
    augmented : Augmented or None, default=None
        How samples are augmented.

    Returns
    -------
    Activations
        One row per sample.
    """
    views = 1 if augmented is None else augmented.n_views or 0
    needed = int(first.numel() * 4 * sizes_in_all(work.samples) * views)
    if needed > KEPT_BYTES:
        work.report(
            f"Outputs of frozen blocks are computed in each epoch: they need {needed / 2**30:.1f} GiB, and the limit "
            f"is {KEPT_BYTES / 2**30:.1f} GiB."
        )
    elif views == 0:
        work.report("Outputs of frozen blocks are computed in each epoch, because the samples are augmented anew.")
    else:
        work.report(f"Keeping {needed / 2**20:.1f} MiB of outputs of frozen blocks for training.")
        if augmented is None:
            return KeptActivations(collect(work))
        keyed = work if augmented.name is not None else replace(work, cache=None)
        variants = [augmented.view(number, work.samples) for number in range(views)]
        return ViewedActivations([collect(replace(keyed, variant=variant)) for variant in variants])
    if augmented is None:
        return ComputedActivations(work, None)
    return ComputedActivations(work, augmented.augmentation, draws_from_torch=augmented.name is not None)


def take_batches(
    activations: Activations, rows: np.ndarray, batch_size: int
) -> Generator[tuple[np.ndarray, torch.Tensor], None, None]:
    """Take rows in batches, those of one size together.

    Parameters
    ----------
    activations : Activations
        Where they come from.
    rows : ndarray of int
        Which.
    batch_size : int
        Rows a batch.

    Yields
    ------
    places : ndarray of int
        Places in `rows` that the next batch holds.
    batch : Tensor of shape (n, ...)
        The batch.
    """
    sizes = np.array([activations.size(row) for row in rows])
    places = [
        which[start : start + batch_size]
        for which in (np.flatnonzero(sizes == size) for size in np.unique(sizes))
        for start in range(0, len(which), batch_size)
    ]
    with closing(activations.batches([rows[some] for some in places])) as batches:
        yield from zip(places, batches, strict=True)


def sizes_in_all(samples: Samples) -> float:
    """Say how many times as large as the first sample all of them are together.

    Parameters
    ----------
    samples : Samples
        At least one.

    Returns
    -------
    float
        Their number, where they are of one size.
    """
    return sum(map(samples.size, range(len(samples)))) / samples.size(0)
