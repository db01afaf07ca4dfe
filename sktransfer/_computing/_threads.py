"""Compute in threads with one processor each, so that no thread waits for another in every layer.

torch shares a layer among its threads, and all of them wait for the last, layer by layer: where other processes keep
processors busy, that takes many times as long. Threads that compute alone meet once for a whole batch.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from sktransfer._process._locks import Lock
from sktransfer._process._workers import LOOKS_EVERY, in_order

# While threads that compute alone are started, torch gives each new thread one processor.
_STARTING = Lock()


class _Here(threading.local):
    """Number of threads that this thread may use, if torch computes with one in it."""

    threads: int | None = None


_HERE = _Here()


def n_threads() -> int:
    """Return how many threads may compute for this thread: as many as torch would compute with.

    Returns
    -------
    int
        At least 1.
    """
    if _HERE.threads is not None:
        return _HERE.threads
    with _STARTING:
        return torch.get_num_threads()


@contextmanager
def alone() -> Iterator[None]:
    """Let this thread compute alone, and new threads of the caller's with as many as before.

    Yields
    ------
    None
        While torch computes with one thread here. `n_threads` says what it did before.
    """
    threads = n_threads()
    if _HERE.threads is not None or threads == 1:
        yield
        return
    try:
        with _STARTING:
            _HERE.threads = threads
            _compute_with(1, threads)
        yield
    finally:
        with _STARTING:
            torch.set_num_threads(threads)
            _HERE.threads = None


@contextmanager
def each_alone(started: Sequence[threading.Thread]) -> Iterator[Callable[[], None]]:
    """Give threads that are started inside one processor each, and new threads of the caller's as many as before.

    torch knows one number for all threads to come, which a thread takes for good when it first asks. So nobody else
    starts threads here meanwhile; and a thread that wakes when this is over leaves the number alone.

    Parameters
    ----------
    started : sequence of Thread
        The list that they are put into.

    Yields
    ------
    callable
        What each of them does first.
    """
    begun, setting, over = queue.SimpleQueue[threading.Thread](), threading.Lock(), False

    def begin() -> None:
        try:
            with setting:
                if not over:
                    torch.set_num_threads(1)
                    torch.get_num_threads()
        finally:  # whatever happens: the wait for it ends here
            begun.put(threading.current_thread())

    with _STARTING:
        here, others = torch.get_num_threads(), n_threads()
        try:
            yield begin
            coming = set(started)
            while coming:
                try:
                    coming.discard(begun.get(timeout=LOOKS_EVERY))
                except queue.Empty:  # one that has ended does not begin
                    coming = {thread for thread in coming if thread.is_alive()}
        finally:
            with setting:
                over = True
                _compute_with(here, others)


def _compute_with(here: int, others: int) -> None:
    """Let torch compute with so many threads here, and with so many in threads to come: who sets both sets the same."""
    torch.set_num_threads(here)
    if others != here:
        list(in_order(torch.set_num_threads, [others], 1, ahead=0, name="sktransfer-setting"))
