"""Which activations are found, which go on from an earlier cut, which are computed from samples, and what is kept.

An activation is a pure function of (weights, cut, preprocessing, precision, sample), so it is looked up before it is
computed, and computed from what an earlier cut has left of the same sample where that was kept. First there is a plan,
as data; then it is run, and what it computes is kept.
"""

from collections import Counter
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from sktransfer._cache._memory_store import COUNTS, ActivationStore, activation_keys
from sktransfer._computing._execution import Execution
from sktransfer._computing._forward import Change, compute
from sktransfer.backbones._feature_network import FeatureNetwork
from sktransfer.backbones._frozen_part import FrozenPart
from sktransfer.inputs._base import Samples, batches_of, each

Batches = Generator[torch.Tensor, None, None]

# Samples of different sizes are computed in the order of their sizes, so many at a time: enough that those of one size
# fill a batch, few enough that memory does not grow with the number of samples.
SORTED_AT_ONCE = 4096

# Bytes of one kept activation beyond which it is not worth reading to save the layers before it: those that are larger
# stand so near the input that decoding the image and computing them anew takes about as long.
WORTH_READING = 2**20


def tell_nobody(message: str) -> None:
    """Take a report of where activations came from, for who did not ask.

    Parameters
    ----------
    message : str
        The report.
    """


def count_nothing(n_samples: int) -> None:
    """Take the number of samples that were just done, for who does not count.

    Parameters
    ----------
    n_samples : int
        Their number.
    """


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


def by_size(samples: Samples, rows: Sequence[int]) -> list[int]:
    """Put rows of one size together, among `SORTED_AT_ONCE` that follow one another.

    Parameters
    ----------
    samples : Samples
        Whose rows they are.
    rows : sequence of int
        Some of them.

    Returns
    -------
    list of int
        The same.
    """
    return [
        row
        for start in range(0, len(rows), SORTED_AT_ONCE)
        for row in sorted(rows[start : start + SORTED_AT_ONCE], key=samples.size)
    ]


@dataclass(frozen=True)
class Pass:
    """One way of samples through a frozen network.

    Parameters
    ----------
    part : FrozenPart
        The network.
    samples : Samples
        What to run.
    execution : Execution
        How.
    cache : ActivationStore or None, default=None
        Where activations may be kept.
    variant : Variant or None, default=None
        How they are changed first.
    report : callable, default=nothing
        Told in a sentence where activations came from, and how long it took.
    count : callable, default=nothing
        Told how many samples are done, batch by batch.
    """

    part: FrozenPart
    samples: Samples
    execution: Execution
    cache: ActivationStore | None = None
    variant: Variant | None = None
    report: Callable[[str], None] = tell_nobody
    count: Callable[[int], None] = count_nothing

    @property
    def store(self) -> ActivationStore | None:
        """Where activations are kept: nowhere where that is not worth it, or would take one network's for another's."""
        writable = self.samples.recipe is not None and self.part.identity is not None  # of vectors there is no recipe
        return self.cache if writable else None

    def keys(self, part: FrozenPart, digests: Sequence[bytes]) -> list[bytes]:
        """Return what the activations of some samples, at the end of a part, are kept under."""
        recipe = f"{self.samples.recipe} {self.variant.recipe if self.variant else ''}"
        assert part.identity is not None
        return activation_keys(digests, recipe, part.identity, self.execution.arithmetic)

    def compute(self, rows: Sequence[int]) -> Batches:
        """Run some rows through the network from its input."""
        ready = self._ready(self.part)
        change = self.variant.change if self.variant else None
        coming = iter(rows)
        for batch in compute(ready, self.samples, rows, self.execution, change):
            COUNTS.add(misses=len(batch))
            for activation, row in zip(batch, coming, strict=False):
                if self.samples.is_blank(row):
                    activation.fill_(torch.nan)
            yield batch

    def widths(self) -> list[int]:
        """Return the widths of the vectors that the part takes from layers on the way, and of the one at its end.

        They are seen when samples pass; where all were found in a cache, a batch of none passes, or of a blank one.
        """
        if not self.part.layers:
            return []
        known, key = self.part.loaded.widths, self._layers
        if key not in known:
            ready, blank = self._ready(self.part), self.samples.blank()[None].to(self.execution.device)
            with torch.no_grad(), self.execution.autocast():
                prepared = self.samples.prepare(blank)
                try:
                    ready(prepared[:0])
                except (RuntimeError, AssertionError, TypeError, IndexError, ValueError):
                    ready(prepared)
        return known[key]

    @property
    def _layers(self) -> tuple[Hashable, ...]:
        names = tuple(layer.name for layer in self.part.layers)
        shape = tuple(self.samples.blank().shape) if self.part.pooling == "flatten" else ()
        return names, self.part.end.name if self.part.as_vector else None, self.part.pooling, shape

    def _ready(self, part: FrozenPart) -> FeatureNetwork:
        ready = part.ready(self.execution.device, self.execution.bfloat16)
        if self.part.layers and self._layers not in self.part.loaded.widths:
            ready.on_vectors = self._note_widths
        return ready

    def _note_widths(self, vectors: list[torch.Tensor]) -> None:
        self.part.loaded.widths[self._layers] = [vector.shape[1] for vector in vectors]

    def go_on(self, left: "Left", rows: Sequence[int]) -> Batches:
        """Run what an earlier cut has left of some rows through the rest of the network."""
        ready = self._ready(self.part.behind(left.before.part, left.before.widths()))
        for batch in compute(ready, left, rows, self.execution):
            COUNTS.add(continued=len(batch))
            yield batch


class Left(Samples):
    """What an earlier cut has left of some samples, by row of these.

    Parameters
    ----------
    before : Pass
        The way of the same samples up to that cut.
    found : ndarray
        What it has left of one of them.
    row : int
        Of which.
    keys : dict of int to bytes
        What the activations of each row are kept under.
    """

    def __init__(self, before: Pass, found: np.ndarray, row: int, keys: dict[int, bytes]):
        self.before, self._shape, self._keys = before, found.shape, keys
        self._per_size = max(1, found.size // before.samples.size(row))

    def __len__(self) -> int:
        return len(self._keys)

    def load(self, index: int) -> torch.Tensor:
        assert self.before.store is not None
        (value,) = self.before.store.get([self._keys[index]])
        if value is None:  # it left in the meantime
            with closing(self.before.compute([index])) as computed:
                return next(computed)[0]
        return torch.from_numpy(value.copy())

    def size(self, index: int) -> int:
        return self.before.samples.size(index)

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


# The plan


@dataclass(frozen=True)
class Step:
    """Rows that are computed one way: from what an earlier cut has left of them, or from their samples."""

    rows: list[int]
    left: Left | None = None


@dataclass(frozen=True)
class Plan:
    """What becomes of each row: it is found, or a step computes it, or another row of the same content.

    Parameters
    ----------
    keys : list of hashable
        What tells the content of each row.
    found : set of hashable
        Contents whose activations are kept.
    steps : list of Step
        How the others are computed.
    stamps : list of object
        What each row's sample was when it was looked at: what it is no more is not kept.
    """

    keys: list[Hashable]
    found: set[Hashable] = field(default_factory=set)
    steps: list[Step] = field(default_factory=list)
    stamps: list[object] = field(default_factory=list)


def plan(work: Pass) -> Plan:
    """Look up what is kept, and say how the rest is computed.

    Parameters
    ----------
    work : Pass
        What is wanted.

    Returns
    -------
    Plan
        For each row.
    """
    samples, n = work.samples, len(work.samples)
    if work.store is None:
        return Plan(list(range(n)), steps=[Step(by_size(samples, range(n)))])
    stamps = [samples.stamp(row) for row in range(n)]
    digests = each(samples.digest, range(n), samples.are_far)
    keys = work.keys(work.part, digests)
    found = {key for key, held in _looked_up(work.store, keys) if held}
    first = {key: row for row, key in reversed(list(enumerate(keys)))}
    missing = by_size(samples, [row for row, key in enumerate(keys) if key not in found and first[key] == row])
    steps = list(_steps(work, work.store, missing, digests)) if missing else []
    return Plan(list(keys), set(found), steps, stamps)


def _steps(work: Pass, store: ActivationStore, missing: list[int], digests: list[bytes]) -> Iterator[Step]:
    """Yield how rows are computed: from the deepest cut that has left something of them, or from their samples."""
    for before, example, of_row in _passes_that_left_something(work, store, missing, digests):
        keys = before.keys(before.part, [digests[row] for row in missing])
        kept = {row: key for row, (key, held) in zip(missing, _looked_up(store, keys), strict=True) if held}
        if not kept:
            continue
        work.report(f"{len(kept)} activations are computed from those that an earlier cut has left.")
        yield Step(list(kept), Left(before, example, of_row, kept))
        missing = [row for row in missing if row not in kept]
        if not missing:
            return
    yield Step(missing)


def _passes_that_left_something(
    work: Pass, store: ActivationStore, missing: list[int], digests: list[bytes]
) -> Iterator[tuple[Pass, np.ndarray, int]]:
    """Yield the ways up to earlier cuts, the deepest first, that have left something worth reading.

    Of the first row, of the one in the middle or of the last, which stand for all; with what was left, and of which.
    """
    rows = list(dict.fromkeys((missing[0], missing[len(missing) // 2], missing[-1])))
    passes = [replace(work, part=part) for part in work.part.parts_before()]
    asked = [before.keys(before.part, [digests[row] for row in rows]) for before in passes]
    kept = {key for key, held in _looked_up(store, [key for keys in asked for key in keys]) if held}
    for before, keys in zip(passes, asked, strict=True):
        if kept.isdisjoint(keys):
            continue
        found = [(value, row) for row, value in zip(rows, store.get(keys), strict=True) if value is not None]
        if found and found[0][0].nbytes <= WORTH_READING:
            yield before, *found[0]


def _looked_up(store: ActivationStore, keys: list[bytes]) -> Iterator[tuple[bytes, bool]]:
    return zip(keys, store.contains(keys), strict=True)


# The run

Keyed = Generator[list[tuple[Hashable, torch.Tensor]], None, None]


def in_order(work: Pass) -> Batches:
    """Plan a pass and run it.

    Parameters
    ----------
    work : Pass
        What is wanted.

    Yields
    ------
    Tensor of shape (n, ...)
        Float32 activations of the next rows, all of one size, on the CPU.
    """
    planned = plan(work)
    COUNTS.add(hits=sum(key in planned.found for key in planned.keys))
    with ExitStack() as opened:
        coming: dict[Hashable, Keyed] = {}
        for step in planned.steps:
            keyed = opened.enter_context(closing(_computed(work, planned, step)))
            coming |= dict.fromkeys([planned.keys[row] for row in step.rows], keyed)
        yield from _joined(work, planned, coming)


def _joined(work: Pass, planned: Plan, coming: dict[Hashable, Keyed]) -> Iterator[torch.Tensor]:
    """Yield activations in the order of the samples, those that are found and those that are coming."""
    keys, waiting = planned.keys, dict[Hashable, torch.Tensor]()
    uses = Counter(keys)
    for rows in batches_of(work.samples, range(len(keys)), lambda values: work.execution.batch_size):
        if planned.found:
            waiting |= _get(work, {keys[row]: row for row in rows if keys[row] in planned.found})
        for row in rows:
            while keys[row] not in waiting:
                waiting.update(next(coming[keys[row]]))
        yield torch.stack([waiting[keys[row]] for row in rows])
        uses.subtract(keys[row] for row in rows)
        for key in {keys[row] for row in rows}:
            if not uses[key] or key in planned.found:
                del waiting[key]


def _get(work: Pass, row_of: dict[Hashable, int]) -> dict[Hashable, torch.Tensor]:
    """Find what is kept; what left or was damaged in the meantime is computed after all."""
    assert work.store is not None
    keys = list(row_of)
    values = work.store.get([key for key in keys if isinstance(key, bytes)])
    found = {key: torch.from_numpy(value.copy()) for key, value in zip(keys, values, strict=True) if value is not None}
    lost = [key for key in keys if key not in found]
    if lost:
        COUNTS.add(hits=-len(lost))
        with closing(work.compute([row_of[key] for key in lost])) as computed:
            found |= zip(lost, (value for batch in computed for value in batch), strict=True)
    return found


def _computed(work: Pass, planned: Plan, step: Step) -> Keyed:
    """Compute the rows of a step, keep them, and yield them with their keys."""
    keys = iter([planned.keys[row] for row in step.rows])
    computed = work.compute(step.rows) if step.left is None else work.go_on(step.left, step.rows)
    kept = computed if work.store is None else _kept(work, planned, step, computed)
    with closing(kept):
        for batch in kept:
            yield [(next(keys), value) for value in batch]


def _kept(work: Pass, planned: Plan, step: Step, computed: Batches) -> Batches:
    """Keep what is computed, unless so much is to come that it would only push itself out."""
    assert work.store is not None
    size, told, coming = work.samples.size, False, iter(step.rows)
    in_all = sum(map(size, {key: row for row, key in reversed(list(enumerate(planned.keys)))}.values()))
    with closing(computed):  # should keeping be interrupted, threads that compute ahead end with it
        for batch in computed:
            arrived = [(next(coming), value) for value in batch.numpy()]
            needed = arrived[0][1].nbytes * in_all // size(arrived[0][0])
            if needed <= work.store.limit:
                _put(work, planned, arrived)
            elif not told:
                told = True
                work.report(_why_not_kept(needed, work.store.limit))
            yield batch


def _put(work: Pass, planned: Plan, arrived: list[tuple[int, np.ndarray]]) -> None:
    """Keep activations of samples that are what they were: a file that was written to is not what its key says."""
    same = [(row, value) for row, value in arrived if work.samples.stamp(row) == planned.stamps[row]]
    assert work.store is not None
    work.store.put([(key, value) for row, value in same if isinstance(key := planned.keys[row], bytes)])


def _why_not_kept(needed: int, limit: int) -> str:
    return (
        f"Activations are not kept: {needed / 2**20:.1f} MiB would be needed, and the cache holds "
        f"{limit / 2**20:.1f} MiB. They are computed each time; sktransfer.set_cache_limit raises it."
    )
