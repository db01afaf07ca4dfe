"""From samples to the activations of a frozen network: each computed once, kept, and found again.

An activation is a pure function of (weights, cut, preprocessing, precision, sample), so it is looked up before it is
computed, and computed from what an earlier cut has left of the same sample where that was kept.
"""

from collections import Counter
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from sktransfer._cache._memory_store import COUNTS, ActivationStore, activation_keys
from sktransfer._computing._execution import Execution
from sktransfer._computing._forward import Change, compute, run_batch
from sktransfer._messages import shortened
from sktransfer.backbones import FrozenPart
from sktransfer.inputs import Samples, SamplesOf, TolerantSamples, batches_of

Batches = Generator[torch.Tensor, None, None]

# Samples of different sizes are computed in the order of their sizes, so many at a time: enough that those of one size
# fill a batch, few enough that memory does not grow with the number of samples.
SORTED_AT_ONCE = 4096

# Bytes of one kept activation beyond which it is not worth reading to save the layers before it: those that are larger
# stand so near the input that decoding the image and computing them anew takes about as long.
WORTH_READING = 2**20


@dataclass(frozen=True)
class Variant:
    """A change to samples that gives the same result for the same sample each time.

    Parameters
    ----------
    recipe : str
        What tells it from others; a part of the key.
    change : callable
        Applied to what was loaded.
    """

    recipe: str
    change: Change


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
        closing(_stream(_Pass(part, samples, execution, variant, report))) as batches,
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
    order = _by_size(samples, range(len(samples)))
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
    kept = execution.store is not None and samples.recipe is not None and part.identity is not None
    few = _Subset(samples, range(row, min(len(samples), row + execution.batch_size) if kept else row + 1))
    with closing(_stream(_Pass(part, few, execution, None, report))) as batches:
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


def _by_size(samples: Samples, rows: Sequence[int]) -> list[int]:
    """Put rows of one size together, within stretches of `SORTED_AT_ONCE`."""
    return [
        row
        for start in range(0, len(rows), SORTED_AT_ONCE)
        for row in sorted(rows[start : start + SORTED_AT_ONCE], key=samples.size)
    ]


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


class _Left(Samples):
    """What an earlier cut has left of some samples, by row of these."""

    def __init__(self, work: "_Pass", before: FrozenPart, found: np.ndarray, row: int, keys: dict[int, bytes]):
        self._work, self._shape, self._keys = work, found.shape, keys
        self._per_size = max(1, found.size // work.samples.size(row))
        self._before = replace(work, part=before)

    def __len__(self) -> int:
        return len(self._keys)

    def load(self, index: int) -> torch.Tensor:
        assert self._work.execution.store is not None
        (value,) = self._work.execution.store.get([self._keys[index]])
        if value is None:  # it left in the meantime
            with closing(self._before.compute([index])) as computed:
                return next(computed)[0]
        return torch.from_numpy(value.copy())

    def size(self, index: int) -> int:
        return self._work.samples.size(index)

    def blank(self) -> torch.Tensor:
        return torch.zeros(self._shape)

    def prepare(self, batch: torch.Tensor) -> torch.Tensor:
        return batch

    @property
    def n_values(self) -> int:
        return self._per_size

    @property
    def recipe(self) -> None:
        return None

    def digest(self, index: int) -> bytes:
        return self._keys[index]


@dataclass(frozen=True)
class _Pass:
    """One way of samples through a network."""

    part: FrozenPart
    samples: Samples
    execution: Execution
    variant: Variant | None
    report: Callable[[str], None]

    def compute(self, rows: Sequence[int]) -> Batches:
        """Run some rows through the network from its input."""
        ready = self.part.ready(self.execution.device, self.execution.bfloat16)
        change = self.variant.change if self.variant else None
        coming = iter(rows)
        for batch in compute(ready, self.samples, rows, self.execution, change):
            COUNTS.add(misses=len(batch))
            for activation, row in zip(batch, coming, strict=False):
                if self.samples.is_blank(row):
                    activation.fill_(torch.nan)
            yield batch

    def go_on(self, behind: FrozenPart, left: _Left, rows: Sequence[int]) -> Batches:
        """Run what is left of some rows through the rest of the network."""
        for batch in compute(behind.ready(self.execution.device, self.execution.bfloat16), left, rows, self.execution):
            COUNTS.add(continued=len(batch))
            yield batch

    def keys(self, part: FrozenPart, digests: Sequence[bytes]) -> list[bytes]:
        recipe = f"{self.samples.recipe} {self.variant.recipe if self.variant else ''}"
        assert part.identity is not None
        return activation_keys(digests, recipe, part.identity, self.execution.arithmetic)

    @property
    def store(self) -> ActivationStore | None:
        """Where activations are kept: nowhere where that is not worth it, or would take one network's for another's."""
        return (
            None if self.samples.recipe is None or self.part.identity is None else self.execution.store
        )  # of vectors, none


Keyed = Generator[list[tuple[Hashable, torch.Tensor]], None, None]


def _stream(work: _Pass) -> Batches:
    n, store = len(work.samples), work.store
    if store is None:
        keys: list[Hashable] = list(range(n))
        held: dict[Hashable, bool] = {}
        order = _by_size(work.samples, range(n))
        ways: list[tuple[Sequence[int], Batches]] = [(order, work.compute(order))]
    else:
        stamps = [work.samples.stamp(row) for row in range(n)]
        digests = [work.samples.digest(row) for row in range(n)]
        contents = work.keys(work.part, digests)
        keys = list(contents)
        held = dict(zip(keys, store.contains(contents), strict=True))
        first = {key: row for row, key in reversed(list(enumerate(contents)))}
        missing = _by_size(
            work.samples, [row for row, key in enumerate(contents) if not held[key] and first[key] == row]
        )
        ways = [
            (rows, _keeping(computed, rows, contents, stamps, work, store, sum(map(work.samples.size, first.values()))))
            for rows, computed in _ways(work, store, missing, digests)
        ]
        COUNTS.add(hits=sum(map(held.__getitem__, keys)))
    with ExitStack() as opened:
        coming: dict[Hashable, Keyed] = {}
        for rows, computed in ways:
            keyed = opened.enter_context(closing(_with_keys(computed, iter([keys[row] for row in rows]))))
            coming |= dict.fromkeys([keys[row] for row in rows], keyed)
        yield from _in_order(work, keys, held, coming)


def _in_order(
    work: _Pass, keys: list[Hashable], held: dict[Hashable, bool], coming: dict[Hashable, Keyed]
) -> Iterator[torch.Tensor]:
    """Yield activations in the order of the samples, those that are held and those that are coming."""
    waiting: dict[Hashable, torch.Tensor] = {}
    uses = Counter(keys)
    for rows in batches_of(work.samples, range(len(keys)), lambda values: work.execution.batch_size):
        if held:
            waiting |= _look_up(work, {keys[row]: row for row in rows if held[keys[row]]})
        for row in rows:
            while keys[row] not in waiting:
                waiting.update(next(coming[keys[row]]))
        yield torch.stack([waiting[keys[row]] for row in rows])
        uses.subtract(keys[row] for row in rows)
        for key in {keys[row] for row in rows}:
            if not uses[key] or held.get(key):
                del waiting[key]


def _with_keys(computed: Batches, keys: Iterator[Hashable]) -> Keyed:
    with closing(computed):
        for batch in computed:
            yield [(next(keys), value) for value in batch]


def _look_up(work: _Pass, row_of: dict[Hashable, int]) -> dict[Hashable, torch.Tensor]:
    """Find what is kept; what left or was damaged in the meantime is computed after all."""
    assert work.execution.store is not None
    keys = list(row_of)
    values = work.execution.store.get([key for key in keys if isinstance(key, bytes)])
    found = {key: torch.from_numpy(value.copy()) for key, value in zip(keys, values, strict=True) if value is not None}
    lost = [key for key in keys if key not in found]
    if lost:
        COUNTS.add(hits=-len(lost))
        with closing(work.compute([row_of[key] for key in lost])) as computed:
            found |= zip(lost, (value for batch in computed for value in batch), strict=True)
    return found


def _ways(
    work: _Pass, store: ActivationStore, missing: list[int], digests: list[bytes]
) -> Iterator[tuple[list[int], Batches]]:
    """Yield rows and how they are computed: from the deepest cut that has left something of them, or from the input."""
    if not missing:
        return
    seen = list(dict.fromkeys((missing[0], missing[len(missing) // 2], missing[-1])))
    asked = [digests[row] for row in seen]
    parts = work.part.parts_before()
    probed = [work.keys(before, asked) for before in parts]
    there = {key for key, held in _answers(store, [key for keys in probed for key in keys]) if held}
    for before, keys in zip(parts, probed, strict=True):
        if there.isdisjoint(keys):
            continue
        found = [(row, value) for row, value in zip(seen, store.get(keys), strict=True) if value is not None]
        if not found or found[0][1].nbytes > WORTH_READING:
            continue
        keys = work.keys(before, [digests[row] for row in missing])
        left = {row: key for row, (key, held) in zip(missing, _answers(store, keys), strict=True) if held}
        rows = list(left)
        work.report(f"{len(rows)} activations are computed from those that an earlier cut has left.")
        yield rows, work.go_on(work.part.behind(before), _Left(work, before, found[0][1], found[0][0], left), rows)
        missing = [row for row in missing if row not in left]
        if not missing:
            return
    if missing:
        yield missing, work.compute(missing)


def _answers(store: ActivationStore, keys: list[bytes]) -> Iterator[tuple[bytes, bool]]:
    return zip(keys, store.contains(keys), strict=True)


def _keeping(
    computed: Batches,
    rows: Sequence[int],
    keys: list[bytes],
    stamps: list[object],
    work: _Pass,
    store: ActivationStore,
    total_size: int,
) -> Batches:
    """Keep what is computed, unless so much is to come that it would only push itself out."""
    coming = iter(rows)
    told = False
    with closing(computed):  # should keeping be interrupted, threads that compute ahead end with it
        for batch in computed:
            arrived = [(next(coming), value) for value in batch.numpy()]
            needed = arrived[0][1].nbytes * total_size // work.samples.size(arrived[0][0])
            if needed <= store.limit:
                # A file that was written to between the look and the load is not what its key says.
                store.put([(keys[row], value) for row, value in arrived if work.samples.stamp(row) == stamps[row]])
            elif not told:
                told = True
                work.report(
                    f"Activations are not kept: {needed / 2**20:.1f} MiB would be needed, and the cache holds "
                    f"{store.limit / 2**20:.1f} MiB. They are computed each time; sktransfer.set_cache_limit raises it."
                )
            yield batch
