"""What a measurement is and how it is taken: in turns, so that a machine that slows down slows all of them alike.

A figure is kept with every single value that it is the median of, and with the machine that it was taken on.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import sklearn
import torch
import torchvision
from pictures import Pictures

# Units of which more is better; of seconds, bytes and passed images, less is.
MORE_IS_BETTER = ("images/s", "sentences/s", "accuracy", "cosine")


@dataclass(frozen=True)
class Setting:
    """What every section is given: pictures, how often to measure, and whether to do so on a few pictures only."""

    pictures: Pictures
    repeats: int
    quick: bool

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full


@dataclass
class Record:
    """One line of the table: our figures and, where there is something to compare with, the peer's.

    Where both were measured equally often, values of the same turn are compared; else each with the peer's median.
    """

    name: str
    unit: str
    ours: list[float]
    peer: list[float] = field(default_factory=list)
    peer_name: str = ""
    note: str = ""
    label: str = ""  # in the chart, where it is to stand there

    @property
    def ratios(self) -> list[float]:
        """How many times as fast ours is as the peer."""
        if not self.peer or self.unit not in ("s", "ms", "images/s", "sentences/s"):
            return []
        peer = self.peer if len(self.peer) == len(self.ours) else [statistics.median(self.peer)] * len(self.ours)
        pairs = zip(self.ours, peer, strict=True)
        return [mine / other if self.unit in MORE_IS_BETTER else other / mine for mine, other in pairs]

    def as_json(self) -> dict:
        figures = {"ours": self.ours, "peer": self.peer, "times as fast": self.ratios}
        return asdict(self) | {name: summary(values) for name, values in figures.items()}


def summary(values: list[float]) -> dict | None:
    if not values:
        return None
    values = [float(value) for value in values]
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": values}


def stopwatch(task: Callable[[], object]) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def in_turns(
    tasks: dict[str, Callable[[], object]], repeats: int, before: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Return the seconds of each task: all of them once, then all once more, and so on; `before` is not timed."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(repeats):
        for name, task in tasks.items():
            before()
            seconds[name].append(stopwatch(task))
    return seconds


def rates(count: int, seconds: list[float]) -> list[float]:
    return [count / spent for spent in seconds]


def in_new_process(script: str, *arguments: object) -> dict:
    """Run a script as somebody would who has just come back, and return the JSON object in its last line."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    return json.loads(done.stdout.splitlines()[-1])


def peak_memory() -> int:
    """Return the most bytes of memory that this process ever held at once."""
    status = Path("/proc/self/status")
    if status.exists():
        # Linux hands the peak of the process that starts another one down to getrusage of the other; this one is new.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Others:
    """What other processes take meanwhile. Threads of torch wait for each other, so a little of it costs a loop a lot.

    Next to another busy process the loop of tutorials was once six times slower, and the package hardly at all: such
    comparisons flatter, and are not to be published.
    """

    def __init__(self) -> None:
        self.start, self.used = time.perf_counter(), _used_by_others()

    def cores(self) -> float | None:
        """Return how many cores others have kept busy since the start, or `None` where the system does not tell."""
        now = _used_by_others()
        if now is None or self.used is None:
            return None
        return max(0.0, now - self.used) / (time.perf_counter() - self.start)


def _used_by_others() -> float | None:
    """Return the seconds of processor time of all processes but this one and those that it has waited for."""
    status = Path("/proc/stat")
    if not status.exists():
        return None
    user, nice, system, _idle, _waiting, *interrupts = map(int, status.read_text().splitlines()[0].split()[1:8])
    own = os.times()
    everything = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
    return everything - own.user - own.system - own.children_user - own.children_system


def machine() -> dict[str, object]:
    """Say what the figures were measured on and with."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "scikit-learn": sklearn.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
