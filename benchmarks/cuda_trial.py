"""What a part of `cuda.py` is given, and where its findings go: each is printed and written as soon as it is known.

So whoever stops a part, or is stopped for taking too long, keeps what it has found.
"""

import json
import os
import statistics
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from measuring import Record
from pictures import Pictures
from reporting import figure

# The least share of a plain loop's speed that is accepted.
BAR = 0.8


@dataclass(frozen=True)
class Trial:
    """Where a part runs, on how much, and the file that takes its findings, one JSON object per line."""

    device: torch.device
    quick: bool
    folder: Path  # shared by all parts
    findings: Path

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    @property
    def repeats(self) -> int:
        return self.size(3, 1)

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    @cached_property
    def pictures(self) -> Pictures:
        return Pictures(None, self.folder, n_drawn=self.size(120, 24))

    def measured(self, record: Record, bar: float | None = None) -> None:
        """Take a figure; where there is a bar, the median of how many times as fast ours is has to reach it."""
        found = record.as_json()
        if bar is not None:
            found |= {"bar": bar, "bar is met": statistics.median(record.ratios) >= bar}
        line = f"  {record.name}: {figure(found['ours'], record.unit)}"
        if record.peer:
            line += f"; {record.peer_name}: {figure(found['peer'], record.unit)}"
        if record.ratios:
            line += f"; {figure(found['times as fast'], '')} times as fast"
        if bar is not None:
            line += f", {'at least' if found['bar is met'] else 'BELOW'} {bar}"
        print(line, flush=True)
        self._write({"record": found})

    def checked(self, what: str, held: bool | None, seen: str = "") -> None:
        """Take a check; `None` is one that this device cannot make."""
        outcome = {True: "holds", False: "DOES NOT HOLD", None: "not checked"}[held]
        print(f"  {outcome}: {what}" + (f" ({seen})" if seen else ""), flush=True)
        self._write({"check": {"name": what, "held": held, "seen": seen}})

    def _write(self, finding: dict) -> None:
        with self.findings.open("a") as file:
            file.write(json.dumps(finding) + "\n")


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
