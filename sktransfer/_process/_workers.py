"""Do work in threads, ahead of the caller and in order. No other file of this package starts a thread.

A thread waits for work and for nothing else, least of all for another thread, so one that wakes late keeps nobody but
the taker of its result waiting. Work that was taken is answered, with a result or an error, and all threads end with
the pass, whatever ended it. Who waits for a thread looks now and then whether it is still there: one that somebody
ended, as a debugger or a tracer can, leaves its work to the taker.
"""

import atexit
import contextlib
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Seconds within which a thread that was made begins, however busy the machine is.
BEGINS_WITHIN = 5.0

# Seconds between two looks whether threads that are waited for are still there.
LOOKS_EVERY = 0.5

# Given the list that threads will be in, returns a context around their start; that gives what each of them does first.
Beginning = Callable[[Sequence[threading.Thread]], contextlib.AbstractContextManager[Callable[[], None]]]


@contextlib.contextmanager
def _at_once(threads: Sequence[threading.Thread]) -> Generator[Callable[[], None], None, None]:
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
        Given a list, returns a context in which threads are started and put into it; the context gives what each of
        them does first.

    Yields
    ------
    object
        What `work` returned; what it raised is raised here, and ends the threads.
    """
    team = _Team(name)
    waiting: deque[_Task[T, R]] = deque()
    try:
        with beginning(team.threads) as begin:
            team.start(n_threads, begin)
        for item in items:
            waiting.append(team.give(_Task(work, item)))
            if len(waiting) > ahead:
                yield team.answer(waiting.popleft())
        while waiting:
            yield team.answer(waiting.popleft())
    finally:
        team.end()


@contextlib.contextmanager
def team(
    n_threads: int, *, name: str, beginning: Beginning = _at_once
) -> Generator[Callable[[Callable[[T], R], Iterable[T]], list[R]], None, None]:
    """Keep threads that help the caller again and again.

    Parameters
    ----------
    n_threads, name, beginning : object
        As in `in_order`. The caller works too, so one thread less than processors is enough.

    Yields
    ------
    callable
        Given work and items, does the work on each, here and in the threads, and returns the results in the order of
        the items, when all are done. What no thread has begun is done here, so that a thread that wakes late keeps
        nobody waiting; of several errors the first is raised.
    """
    helpers = _Team(name)
    try:
        with beginning(helpers.threads) as begin:
            helpers.start(n_threads, begin)
        yield helpers.together
    finally:
        helpers.end()


def within(seconds: float, work: Callable[[], R], *, name: str) -> R:
    """Do work in a thread, and wait for it no longer than some seconds.

    Where it takes longer, the thread is left to itself: only for work that ends by itself, and is nowhere in torch.

    Parameters
    ----------
    seconds : float
        The longest wait. A process that was stopped for longer waits once more.
    work : callable
        Without arguments.
    name : str
        Of the thread.

    Returns
    -------
    object
        What `work` returned; what it raised is raised here.

    Raises
    ------
    TimeoutError
        If it has not ended in time.
    """
    task: _Task[None, R] = _Task(lambda _: work(), None)
    began = time.monotonic()
    threading.Thread(target=task.do, args=(None,), name=name, daemon=True).start()
    with contextlib.suppress(queue.Empty):
        return task.answer(seconds)
    if time.monotonic() - began > 2 * seconds:
        with contextlib.suppress(queue.Empty):
            return task.answer(seconds)
    raise TimeoutError(f"not done within {seconds:g} s")


class _Task(Generic[T, R]):
    """One piece of work, and who took it.

    The answer comes through a queue that is written in C. Waits that are written in Python, such as those of
    `concurrent.futures`, may be left half-way by Ctrl-C, and the thread with the answer then finds a broken lock.
    """

    def __init__(self, work: Callable[[T], R], item: T):
        self._work, self._item = work, item
        self._free = [True]
        self._taker: threading.Thread | None = None
        self._answer: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def do(self, failed: BaseException | None) -> None:
        """Do the work in this thread, or answer with why it cannot."""
        self._taker = threading.current_thread()
        if not self._claim():
            return  # the taker of results did it
        try:
            if failed is not None:
                raise failed
            self._answer.put((self._work(self._item), None))
        except BaseException as error:
            self._answer.put((None, error))

    def wait(self, threads: Sequence[threading.Thread]) -> R:
        """Wait for the answer; where the thread that should give it has ended, do the work here."""
        while True:
            with contextlib.suppress(queue.Empty):
                answer = self._answer.get(timeout=LOOKS_EVERY)
                break
            gone = not all(thread.is_alive() for thread in threads)
            if gone and (self._claim() or not (self._taker is None or self._taker.is_alive())):
                return self._work(self._item)
        return self._told(*answer)

    def answer(self, seconds: float) -> R:
        """Return the answer of a thread; where there is none in time, raise `queue.Empty`."""
        return self._told(*self._answer.get(timeout=seconds))

    def do_or_wait(self, threads: Sequence[threading.Thread]) -> R:
        """Do the work here if no thread has begun it, else wait for the answer."""
        return self._work(self._item) if self._claim() else self.wait(threads)

    def _claim(self) -> bool:
        """Take the work, unless another thread has: of two that try at once, one gets it."""
        with contextlib.suppress(IndexError):
            return self._free.pop()
        return False

    def _told(self, result: Any, error: BaseException | None) -> R:
        try:
            if error is not None:
                raise error
            return result
        finally:
            del error  # its traceback holds this frame


class _Team:
    """Threads that take work from one queue."""

    def __init__(self, name: str):
        self._name = name
        self._tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.threads: list[threading.Thread] = []
        _TEAMS.add(self)

    def start(self, n_threads: int, begin: Callable[[], None]) -> None:
        for number in range(n_threads):
            # Daemons, so that the end of the process does not wait for a pass that nobody goes on with: see `_end_all`.
            thread = threading.Thread(
                target=_work, args=(self._tasks, begin), name=f"{self._name}_{number}", daemon=True
            )
            self.threads.append(thread)
            thread.start()

    def give(self, task: "_Task[T, R]") -> "_Task[T, R]":
        self._tasks.put(task)
        return task

    def answer(self, task: "_Task[T, R]") -> R:
        return task.wait(self.threads)

    def together(self, work: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Do the work on each item, here and in the threads."""
        tasks = [_Task(work, item) for item in items]
        for task in tasks[1:]:
            self.give(task)
        results, failed = [], None
        try:
            for task in tasks:
                try:
                    results.append(task.do_or_wait(self.threads))
                except BaseException as error:  # the others go on with what the caller may change next
                    failed = failed or error
            if failed is not None:
                raise failed
            return results
        finally:
            del failed  # its traceback holds this frame

    def end(self) -> None:
        """Let go of what no thread has taken, and wait until each has done what it has in hand."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._tasks.get_nowait()
        for _ in self.threads:
            self._tasks.put(None)
        for thread in self.threads:
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
        task.do(failed)
        del task  # nothing is held while there is nothing to do


_TEAMS: "weakref.WeakSet[_Team]" = weakref.WeakSet()


def _end_all() -> None:
    """End passes that were left in the middle before the process ends: no thread may be in torch when that goes."""
    for team in list(_TEAMS):
        team.end()


atexit.register(_end_all)
