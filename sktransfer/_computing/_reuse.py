"""Plan a pass: which activations are cached, which continue from an earlier cut, and which start from samples.

An activation is a pure function of (weights, cut, preprocessing, precision, sample), so it is looked up before it is
computed, and computed from what an earlier cut has left of the same sample where that was kept. Here is the plan, as
data; `_planned_pass.py` runs it.
"""

from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise, tee

import numpy as np
import torch

from sktransfer._cache._memory_store import COUNTS, ActivationStore, activation_keys
from sktransfer._computing._execution import Execution
from sktransfer._computing._forward import Change, Outputs, compute_all
from sktransfer.backbones._feature_network import FeatureNetwork, StoppingNetwork
from sktransfer.backbones._frozen_part import FrozenPart
from sktransfer.inputs._base import Samples, each

Batches = Generator[torch.Tensor, None, None]

# Samples of different sizes are computed in the order of their sizes, so many at a time: enough that those of one size
# fill a batch, few enough that memory does not grow with the number of samples.
SORTED_AT_ONCE = 4096

# Bytes of one kept activation beyond which it is not worth reading to save the layers before it: those that are larger
# stand so near the input that decoding the image and computing them anew takes about as long.
WORTH_READING = 2**20

# Rows that are looked up to learn which earlier cuts have left something.
LOOKED_AT = 16


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
    stops : tuple of FrozenPart, default=()
        Parts of the network that end before it does, in order: what a sample is there is kept too, for passes to
        other ends to go on from, if it fits.
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
    stops: tuple[FrozenPart, ...] = ()
    report: Callable[[str], None] = tell_nobody
    count: Callable[[int], None] = count_nothing

    @property
    def store(self) -> ActivationStore | None:
        """Store for activations; `None` if caching does not pay, or could mix up two networks."""
        writable = self.samples.recipe is not None and self.part.identity is not None  # of vectors there is no recipe
        return self.cache if writable else None

    def keys(self, part: FrozenPart, digests: Sequence[bytes]) -> list[bytes]:
        """Return what the activations of some samples, at the end of a part, are kept under."""
        assert part.identity is not None
        return activation_keys(digests, self._recipe, part.identity, self.execution.arithmetic)

    def claim_names(self, digests: Sequence[bytes]) -> list[bytes]:
        """Return what is claimed while anything is computed of some samples, up to whatever cut of the network."""
        return activation_keys(digests, self._recipe, f"{self.part.digest} claimed", self.execution.arithmetic)

    def compute(self, rows: Iterable[int]) -> Batches:
        """Run some rows through the network from its input."""
        with closing(replace(self, stops=()).compute_stops(rows)) as computed:
            for (batch,) in computed:
                yield batch

    def compute_stops(self, rows: Iterable[int]) -> Generator[Outputs, None, None]:
        """Run some rows through the network from its input, and yield what they are at each stop and at the end."""
        rows, coming = tee(rows)
        change = self.variant.change if self.variant else None
        ways = [replace(self, part=part) for part in (*self.stops, self.part)]
        parts = [ways[0]._ready(ways[0].part)]
        for before, way in pairwise(ways):
            parts.append(way._ready(way.part.behind(before.part, ())))  # vectors come one by one, not in one tensor
        ready = StoppingNetwork(parts) if self.stops else parts[0]
        for outputs in compute_all(ready, self.samples, rows, self.execution, change):
            COUNTS.add(misses=len(outputs[0]))
            for activation, row in zip(outputs[-1], coming, strict=False):
                if self.samples.is_blank(row):
                    activation.fill_(torch.nan)
            yield outputs

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
    def _recipe(self) -> str:
        return f"{self.samples.recipe} {self.variant.recipe if self.variant else ''}"

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

    def go_on(self, left: "Left", rows: Iterable[int]) -> Generator[Outputs, None, None]:
        """Run what an earlier cut has left of some rows through the rest of the network, without a stop."""
        ready = self._ready(self.part.behind(left.before.part, left.before.widths()))
        for outputs in compute_all(ready, left, rows, self.execution):
            COUNTS.add(continued=len(outputs[0]))
            yield outputs


class Left(Samples):
    """Activations of an earlier cut, by row of the samples.

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
    """Fate of each row: it is found, or a step computes it, or another row with the same content.

    Parameters
    ----------
    keys : list of hashable
        What tells the content of each row.
    digests : list of bytes
        Of the content of each row, where anything is kept.
    found : set of hashable
        Contents whose activations are kept; those that others add later are added while the plan is run.
    steps : list of Step
        How the others are computed.
    stamps : list of object
        What each row's sample was when it was looked at: what it is no more is not kept.
    """

    keys: list[Hashable]
    digests: list[bytes] = field(default_factory=list)
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
    steps = list(steps_of(work, work.store, missing, digests)) if missing else []
    return Plan(list(keys), digests, set(found), steps, stamps)


def steps_of(work: Pass, store: ActivationStore, missing: list[int], digests: list[bytes]) -> Iterator[Step]:
    """Say how rows are computed: from the deepest cut that has left something of them, or from their samples.

    Parameters
    ----------
    work : Pass
        What is wanted.
    store : ActivationStore
        Where it is kept.
    missing : list of int
        Rows, at least one.
    digests : list of bytes
        Of all samples.

    Yields
    ------
    Step
        Each row is in one of them.
    """
    for before, example, of_row in _passes_that_left_something(work, store, missing, digests):
        keys = before.keys(before.part, [digests[row] for row in missing])
        kept = {row: key for row, (key, held) in zip(missing, _looked_up(store, keys), strict=True) if held}
        if not kept:
            continue
        work.report(f"Continued {len(kept)} samples from cached outputs of an earlier cut.")
        yield Step(list(kept), Left(before, example, of_row, kept))
        missing = [row for row in missing if row not in kept]
        if not missing:
            return
    yield Step(missing)


def _passes_that_left_something(
    work: Pass, store: ActivationStore, missing: list[int], digests: list[bytes]
) -> Iterator[tuple[Pass, np.ndarray, int]]:
    """Yield the ways up to earlier cuts, the deepest first, that have left something worth reading.

    The first few rows, or some others, stand for all. What was found is returned too, with its stop.
    """
    n = len(missing)
    places = (
        range(n) if n <= LOOKED_AT else [*range(LOOKED_AT // 4), *np.linspace(0, n - 1, LOOKED_AT * 3 // 4, dtype=int)]
    )
    rows = list(dict.fromkeys(missing[place] for place in places))
    passes = [replace(work, part=part, stops=()) for part in work.part.parts_before()]
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
