"""Write down each epoch, under the names of `history_`, as entries and as lines of a table."""

from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np

# What skorch records, and how it is called here.
NAMES = {"train_loss": "train_loss", "valid_loss": "valid_loss", "valid_acc": "valid_accuracy", "dur": "seconds"}

# What skorch notes for itself.
_LEFT_OUT = {"batches", "epoch", "train_batch_count", "valid_batch_count"}
_LEFT_OUT |= {f"{name}_best" for name in (*NAMES, "valid_accuracy", "valid_r2")}


def entries(phase: str, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry per epoch: what we record under our names, and what callbacks record under theirs.

    Parameters
    ----------
    phase : str
        Stands in each entry.
    rows : iterable of mapping
        Rows of skorch's history.

    Returns
    -------
    list of dict
        As `history_` holds them.
    """
    return [
        {
            "phase": phase,
            "epoch": row["epoch"],
            **{name: _plain(row[key]) for key, name in NAMES.items() if key in row},
            **{key: _plain(value) for key, value in row.items() if key not in NAMES and key not in _LEFT_OUT},
        }
        for row in rows
    ]


class Table:
    """Entries as lines, with their names above the first, and again where there are new ones.

    Parameters
    ----------
    write : callable
        Takes a line.
    """

    def __init__(self, write: Callable[[str], None]):
        self._write, self._names = write, list[str]()

    def add(self, entry: Mapping[str, Any]) -> None:
        """Write a line.

        Parameters
        ----------
        entry : mapping
            As `history_` holds it.
        """
        values = {name: _text(value) for name, value in entry.items()}
        if not values.keys() <= set(self._names):
            self._names = list(values)
            self._write("  ".join(name.rjust(9) for name in self._names))
        self._write("  ".join(values.get(name, "").rjust(max(len(name), 9)) for name in self._names))


def _plain(value: Any) -> Any:
    """Return a number of NumPy's as one of Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _text(value: Any) -> str:
    if isinstance(value, bool | Integral) or not isinstance(value, Real):
        return "" if value is None else str(value)
    return f"{float(value):.4f}"
