"""Work done in threads ahead of whoever takes the results, in order. No other file of this package starts a thread.

A thread waits for work and for nothing else, least of all for another thread, so one that wakes late keeps nobody but
the taker of its result waiting. Work that was taken is answered, with a result or an error, and all threads end with
the pass, whatever ended it.
"""

import atexit
import contextlib
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Seconds within which a thread that was made begins, however busy the machine is.
BEGINS_WITHIN = 5.0

# Begins a thread's life; entered before threads are started, and left once each has begun.
Beginning = Callable[[int], contextlib.AbstractContextManager[Callable[[], None]]]


@contextlib.contextmanager
def _at_once(n_threads: int) -> Generator[Callable[[], None], None, None]:
    yield lambda: None


def in_order(
    work: Callable[[T], R],
    items: Iterable[T],
    n_threads: int,
    *,
    ahead: int,
    name: str,
    beginning: Beginning = _at_once,
) -> Generator[R, None, None]:
    """Do the same work on each item, in threads, and yield the results in the order of the items.

    Parameters
    ----------
    work : callable
        Called in a thread with one item.
    items : iterable
        Taken one by one in the thread that takes the results.
    n_threads : int
        Threads, at least 1.
    ahead : int
        Items that may be in work, or done, behind the one whose result is taken next.
    name : str
        Of the threads.
    beginning : callable, default=nothing
        Given the number of threads, returns a context around their start, in which they are started; it gives what
        each thread does first.

    Yields
    ------
    object
        What `work` returned; what it raised is raised here, and ends the threads.
    """
    team = _Team(name)
    waiting: deque[Future[R]] = deque()
    try:
        with beginning(n_threads) as begin:
            team.start(n_threads, begin)
        for item in items:
            waiting.append(team.give(work, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        team.end()


class _Team:
    """Threads that take work from one queue."""

    def __init__(self, name: str):
        self._name = name
        self._tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        _TEAMS.add(self)

    def start(self, n_threads: int, begin: Callable[[], None]) -> None:
        for number in range(n_threads):
            # Daemons, so that the end of the process does not wait for a pass that nobody goes on with: see `_end_all`.
            thread = threading.Thread(
                target=_work, args=(self._tasks, begin), name=f"{self._name}_{number}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def give(self, work: Callable[[T], R], item: T) -> Future[R]:
        future: Future[R] = Future()
        self._tasks.put((future, work, item))
        return future

    def end(self) -> None:
        """Let go of what no thread has taken, and wait until each has done what it has in hand."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._tasks.get_nowait()
        self._tasks.put(None)
        for thread in self._threads:
            _join(thread)


def _join(thread: threading.Thread) -> None:
    """Wait for the end of a thread, also of one whose start was interrupted before or after it was made."""
    latest = time.monotonic() + BEGINS_WITHIN
    while thread is not threading.current_thread():
        try:
            thread.join()
            return
        except RuntimeError:  # it has not begun
            if thread not in threading.enumerate() or time.monotonic() > latest:
                return
            time.sleep(0.001)


def _work(tasks: "queue.SimpleQueue[Any]", begin: Callable[[], None]) -> None:
    failed: BaseException | None = None
    try:
        begin()
    except BaseException as error:  # told to whoever takes the results
        failed = error
    while (task := tasks.get()) is not None:
        future, work, item = task
        try:
            if failed is not None:
                raise failed
            future.set_result(work(item))
        except BaseException as error:
            future.set_exception(error)
        del task, future, work, item  # nothing is held while there is nothing to do
    tasks.put(None)  # for the next thread


_TEAMS: "weakref.WeakSet[_Team]" = weakref.WeakSet()


def _end_all() -> None:
    """End passes that were left in the middle before the process ends: no thread may be in torch when that goes."""
    for team in list(_TEAMS):
        team.end()


atexit.register(_end_all)
