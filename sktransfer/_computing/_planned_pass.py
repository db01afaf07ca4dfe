"""Run a plan: read what is cached, compute the rest, cache it, and share the work with other processes.

Where several processes keep activations in one place, each claims the samples of a batch before it computes them. What
others have claimed is left until last; by then most of it is there.
"""

from collections import Counter, deque
from collections.abc import Generator, Hashable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import cached_property
from itertools import islice, tee
from typing import TYPE_CHECKING

import numpy as np
import torch

from sktransfer._cache._memory_store import COUNTS
from sktransfer._computing._reuse import (
    LOOKED_AT,
    Batches,
    Pass,
    Plan,
    Step,
    plan,
    steps_of,
    tell_nobody,
)
from sktransfer.inputs._base import batches_of

if TYPE_CHECKING:
    from sktransfer._cache._claims import Claims

Keyed = Generator[list[tuple[Hashable, torch.Tensor]], None, None]

# Rows that are claimed at once, at least: a batch of them, or several small ones.
CLAIMED_AT_ONCE = 8

# Bytes that are computed behind samples that others compute, before these are waited for: results go out in order.
HELD_BYTES = 64 * 2**20

# Part of a store's limit that what samples are on their way may take.
STOPS_SHARE = 4


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
    with ExitStack() as opened:
        claims = work.store.claims() if work.store is not None else None
        if claims is not None:
            opened.enter_context(closing(claims))
        run = _Run(work, plan(work), claims)
        coming: dict[Hashable, Keyed] = {}
        for step in run.planned.steps:
            keyed = opened.enter_context(closing(run.computed(step)))
            coming |= dict.fromkeys([run.planned.keys[row] for row in step.rows], keyed)
        yield from run.joined(coming)


class _Run:
    """The run of a plan.

    Parameters
    ----------
    work : Pass
        What is wanted.
    planned : Plan
        How it comes.
    claims : Claims or None
        What this pass has claimed; `None` where nobody else computes the same.
    """

    def __init__(self, work: Pass, planned: Plan, claims: "Claims | None"):
        self.work, self.planned, self._claims = work, planned, claims
        self._uses = Counter(planned.keys)
        self._others_keep = False
        self._n_bytes = 0
        self._told = False
        self._stops: list[int] | None = None
        COUNTS.add(hits=sum(self._uses[key] for key in planned.found))

    def joined(self, coming: dict[Hashable, Keyed]) -> Iterator[torch.Tensor]:
        """Yield activations in the order of the samples, those that are found and those that are coming."""
        keys, waiting = self.planned.keys, dict[Hashable, torch.Tensor]()
        uses = self._uses.copy()
        for rows in batches_of(self.work.samples, range(len(keys)), lambda values: self.work.execution.batch_size):
            for row in rows:
                while keys[row] not in waiting:
                    if keys[row] in self.planned.found:
                        waiting |= self._read({keys[other]: other for other in rows if keys[other] not in waiting})
                    else:
                        waiting.update(next(coming[keys[row]]))
            yield torch.stack([waiting[keys[row]] for row in rows])
            uses.subtract(keys[row] for row in rows)
            for key in {keys[row] for row in rows}:
                if not uses[key] or key in self.planned.found:
                    del waiting[key]

    def _read(self, row_of: dict[Hashable, int]) -> dict[Hashable, torch.Tensor]:
        """Find what is kept; what left or was damaged in the meantime is computed after all."""
        assert self.work.store is not None
        keys = [key for key in row_of if key in self.planned.found and isinstance(key, bytes)]
        found: dict[Hashable, torch.Tensor] = {
            key: torch.from_numpy(value.copy())
            for key, value in zip(keys, self.work.store.get(keys), strict=True)
            if value is not None
        }
        lost = [key for key in keys if key not in found]
        if lost:
            COUNTS.add(hits=-len(lost))
            with closing(self.work.compute([row_of[key] for key in lost])) as computed:
                found |= zip(lost, (value for batch in computed for value in batch), strict=True)
        return found

    # What is computed

    def computed(self, step: Step) -> Keyed:
        """Compute the rows of a step, keep them, and yield them with their keys; nothing where others did so."""
        if self._claims is None:
            yield from self._run(step, step.rows)
            return
        # Of several steps one may have to wait while another is half-way: none of them may hold claims then.
        alone = len(self.planned.steps) == 1
        ahead = self._chunks(step.rows)
        while ahead:
            rest: list[int] = []
            running = self._run(step, self._claimed(self._claims, step, ahead, rest, alone))
            with closing(running):
                if alone:
                    yield from running
                else:
                    yield [pair for pairs in running for pair in pairs]
            while rest:
                yield self._settle(self._claims, rest)
            yield []  # what is wanted may have been found

    def _claimed(
        self, claims: "Claims", step: Step, ahead: deque[list[int]], rest: list[int], alone: bool
    ) -> Iterator[int]:
        """Yield rows that nobody else computes, and claim a few of them at a time. Add the others to `rest`."""
        n_behind = 0
        while ahead:
            chunk = ahead.popleft()
            taken = claims.take(self._names(chunk))
            rest += [chunk[place] for place in taken.others]
            mine = [chunk[place] for place in taken.mine]
            self._others_keep = self._others_keep or taken.changed or bool(rest)
            if self._others_keep and mine:  # which may have been computed since the plan was made
                mine = self._still_missing(claims, mine)
                if mine and step.left is None:
                    steps = self._steps(mine)
                    rest += [row for other in steps if other.left is not None for row in other.rows]
                    mine = [row for other in steps if other.left is None for row in other.rows]
            yield from mine
            n_behind += len(mine) if rest else 0
            if (mine and not alone) or n_behind * self._n_bytes > HELD_BYTES:
                return

    def _settle(self, claims: "Claims", rest: list[int]) -> list[tuple[Hashable, torch.Tensor]]:
        """Wait for some of the rows that others compute, take them from `rest`, and compute what nobody has."""
        taken = claims.wait(self._names(rest), LOOKED_AT)
        mine = [rest[place] for place in taken.mine]
        gone = set(mine)
        rest[:] = [row for row in rest if row not in gone]
        missing = self._still_missing(claims, mine)
        steps = self._steps(missing) if missing else []
        return [pair for step in steps for pairs in self._run(step, step.rows) for pair in pairs]

    def _still_missing(self, claims: "Claims", rows: list[int]) -> list[int]:
        """Return which rows are not kept yet; the others are found from now on."""
        assert self.work.store is not None
        keys = [self.planned.keys[row] for row in rows]
        held = self.work.store.contains([key for key in keys if isinstance(key, bytes)])
        found = [row for row, is_held in zip(rows, held, strict=True) if is_held]
        if found:
            here = {self.planned.keys[row] for row in found}
            self.planned.found.update(here)
            COUNTS.add(hits=sum(self._uses[key] for key in here))
            claims.let_go(self._names(found))
        return [row for row, is_held in zip(rows, held, strict=True) if not is_held]

    def _steps(self, rows: list[int]) -> list[Step]:
        """Say how rows are computed by now."""
        assert self.work.store is not None
        return list(steps_of(replace(self.work, report=tell_nobody), self.work.store, rows, self.planned.digests))

    def _chunks(self, rows: list[int]) -> deque[list[int]]:
        """Divide rows into what is claimed at once: batches, as they are computed if nobody else computes any."""
        chunks: deque[list[int]] = deque()
        for batch in batches_of(self.work.samples, rows, self.work.execution.at_once):
            if chunks and len(chunks[-1]) + len(batch) <= CLAIMED_AT_ONCE:
                chunks[-1] += batch
            else:
                chunks.append(batch)
        return chunks

    def _names(self, rows: list[int]) -> list[bytes]:
        return self.work.claim_names([self.planned.digests[row] for row in rows])

    def _run(self, step: Step, rows: Iterable[int]) -> Keyed:
        """Compute rows as a step says, keep them, and yield them with their keys."""
        rows, named = tee(rows)
        work = self.work if self._may_stop else replace(self.work, stops=())
        computed = work.compute_stops(rows) if step.left is None else work.go_on(step.left, rows)
        with closing(computed):  # should keeping be interrupted, threads that compute ahead end with it
            for *before, batch in computed:
                some = list(islice(named, len(batch)))
                if self.work.store is not None:
                    self._keep(some, [output.numpy() for output in before], batch.numpy())
                yield [(self.planned.keys[row], value) for row, value in zip(some, batch, strict=True)]

    # What is kept

    @cached_property
    def _size_in_all(self) -> int:
        first = {key: row for row, key in reversed(list(enumerate(self.planned.keys)))}
        return sum(map(self.work.samples.size, first.values()))

    @property
    def _may_stop(self) -> bool:
        """Whether what samples are on the way is kept too: a GPU has computed it anew sooner than it is copied."""
        return self.work.store is not None and self.work.variant is None and self.work.execution.device.type == "cpu"

    def _keep(self, rows: list[int], before: list[np.ndarray], values: np.ndarray) -> None:
        """Keep what is computed, unless so much is to come that it would only push itself out."""
        assert self.work.store is not None
        self._n_bytes, limit = max(self._n_bytes, values[0].nbytes), self.work.store.limit
        needed = values[0].nbytes * self._size_in_all // self.work.samples.size(rows[0])
        if needed <= limit:
            # A file that was written to is not what its key says.
            same = [n for n, row in enumerate(rows) if self.work.samples.stamp(row) == self.planned.stamps[row]]
            digests = [self.planned.digests[rows[n]] for n in same]
            # What goes on from an earlier cut stops nowhere.
            places = self._stops_kept(rows[0], before) if before else []
            kept = {self.work.part: values} | {self.work.stops[place]: before[place] for place in places}
            items = [
                (key, output[n])
                for part, output in kept.items()
                for key, n in zip(self.work.keys(part, digests), same, strict=True)
            ]
            self.work.store.put(items, self._names(rows) if self._claims is not None else ())
        elif not self._told:
            self._told = True
            self.work.report(_why_not_kept(needed, limit))
            if self._claims is not None:
                self._claims.give_up()

    def _stops_kept(self, row: int, before: list[np.ndarray]) -> list[int]:
        """Return at which stops samples are kept: the earliest, from which most can go on, and the last, if all fit."""
        if self._stops is None:
            assert self.work.store is not None
            store, samples = self.work.store, self.work.samples
            room, self._stops = store.limit // STOPS_SHARE, []
            small = [place for place, output in enumerate(before) if output[0].nbytes <= store.largest_stop]
            for place in dict.fromkeys(small[:1] + small[-1:]):
                needed = before[place][0].nbytes * samples.size_in_all() // samples.size(row)
                if needed <= room:
                    room -= needed
                    self._stops.append(place)
        return self._stops


def _why_not_kept(needed: int, limit: int) -> str:
    return (
        f"Outputs of frozen blocks are not cached: they need {needed / 2**20:.1f} MiB, and the limit of the cache is "
        f"{limit / 2**20:.1f} MiB. They are computed each time. To raise the limit, call sktransfer.set_cache_limit."
    )
