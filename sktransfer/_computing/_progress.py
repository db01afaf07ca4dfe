"""Show progress with `verbose=1`: a bar for long work, and lines that stay. Neither has colours."""

from functools import partial
from typing import Any

from tqdm.auto import tqdm

# Seconds from which on a bar is shown, and a line says how long it took.
LONG = 2.0

# Prints a line at once, also where the output is a file that someone follows.
say = partial(print, flush=True)


def progress_bar(n_samples: int, what: str, shown: bool) -> Any:
    """Return a bar of samples with their rate and the time that is left. It goes when it is closed.

    Parameters
    ----------
    n_samples : int
        All of them.
    what : str
        Stands before the bar.
    shown : bool
        Whether to show it, once it takes longer than `LONG`.

    Returns
    -------
    tqdm
        To be closed.
    """
    return tqdm(total=n_samples, desc=what, unit="sample", delay=LONG, leave=False, disable=not shown)


def took(what: str, n_samples: int, seconds: float) -> str:
    """Return a sentence that says how long something took.

    Parameters
    ----------
    what : str
        What was done with the samples.
    n_samples : int
        How many there were.
    seconds : float
        How long.

    Returns
    -------
    str
        A line for `say`.
    """
    return f"{what} {n_samples:,} samples in {seconds:.1f} s ({n_samples / seconds:,.1f} samples/s)."
