"""torch has one generator of random numbers a process, so whoever seeds it has it alone, and leaves it as it was.

Dropout and initialisation take no generator of their own. Without this, two fits in two threads would draw from each
other's numbers, and neither could be repeated.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class _Turn:
    """Whose turn it is to draw; a forked child starts with a free one, whatever its parent's threads were doing."""

    lock = threading.RLock()

    @classmethod
    def renew(cls) -> None:
        cls.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Turn.renew)


@contextmanager
def turn() -> Iterator[None]:
    """Wait until no other thread draws, and let none begin.

    For whoever needs another lock too: this one comes first, or two threads would wait for each other.

    Yields
    ------
    None
        While it is this thread's turn.
    """
    with _Turn.lock:
        yield


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generators, here and on GPUs, and put them back afterwards; other threads wait.

    Parameters
    ----------
    seed : int
        Of what is drawn inside.

    Yields
    ------
    None
        While they are seeded.
    """
    with _Turn.lock, torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@contextmanager
def generator_kept() -> Iterator[None]:
    """Put torch's generators back where they were: for networks that draw numbers even where nothing depends on them.

    What is drawn after it then does not depend on how often they ran. Only for whoever has the turn: it would put back
    what another thread has drawn.

    Yields
    ------
    None
        While they may draw.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield
