"""torch has one random generator per process. Whoever seeds it holds it alone, and leaves it as it was.

Dropout and initialisation take no generator of their own. Without this, two fits in two threads would draw from each
other's numbers, and neither could be repeated.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from sktransfer._process._locks import Lock, cuda_is_in_use

# Whose turn it is to draw.
_TURN = Lock()


@contextmanager
def turn() -> Iterator[None]:
    """Wait until no other thread draws, and let none begin.

    For whoever needs another lock too: this one comes first, or two threads would wait for each other.

    Yields
    ------
    None
        While it is this thread's turn.
    """
    with _TURN:
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
    with _TURN, torch.random.fork_rng(devices=_devices()):
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
    with torch.random.fork_rng(devices=_devices()):
        yield


def _devices() -> range:
    """Return the GPUs whose generators are there; those of GPUs that nobody has used are not brought up for it."""
    return range(torch.cuda.device_count() if cuda_is_in_use() else 0)
