"""Make forked children work: with free locks, and with torch on one thread.

A fork copies locks, held or not, but none of the threads that would release them. It copies OpenMP's thread pool
without its threads, and torch would wait for them forever. So every lock of this package is made here and is new in the
child, and torch computes with one thread there, as in the workers of its own DataLoader.
"""

import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType

import torch


class Lock:
    """A reentrant lock for `with`, which is free in a forked child whatever its parent's threads were doing."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        _LOCKS.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._lock.release()

    def __deepcopy__(self, memo: dict[int, object]) -> "Lock":
        return Lock()

    def renew(self) -> None:
        """Start anew, free."""
        self._lock = threading.RLock()


_LOCKS: "weakref.WeakSet[Lock]" = weakref.WeakSet()


class _Cuda:
    """Whether CUDA had been used when this process last forked, and whether it was forked from one that had used it."""

    used = lost = False


_CUDA = _Cuda()


def cuda_was_lost() -> bool:
    """Tell whether CUDA cannot be used because this process was forked from one that had used it.

    Returns
    -------
    bool
        Never where nothing was forked.
    """
    return _CUDA.lost


def cuda_is_in_use() -> bool:
    """Tell whether this process has used CUDA, and still can.

    Returns
    -------
    bool
        Asking does not bring CUDA up.
    """
    ask: Callable[[], bool] = torch.cuda.is_initialized
    return ask()


def _before_fork() -> None:
    _CUDA.used = _CUDA.used or cuda_is_in_use()


def _after_fork_in_child() -> None:
    for lock in list(_LOCKS):
        lock.renew()
    _CUDA.lost = _CUDA.used
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
