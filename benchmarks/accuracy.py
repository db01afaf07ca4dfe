"""Measure accuracy against the number of labels, on small sets of images and texts, beside other ways to get there.

    python benchmarks/accuracy.py [--assets FOLDER] [--only SET ...] [--networks NETWORK ...] [--rows ROW ...]
                                  [--draws 5] [--labels 5 20 60] [--missing] [--quick] [--output FOLDER]

Each draw chooses training samples and test samples anew. The same draw is the same for all rows, so that they can be
compared in pairs. Every figure is written to accuracy.json as soon as it is measured; figures of other rows, sets and
networks stay in that file. accuracy.md holds the table, and accuracy.png the picture. With `--missing`, only figures
that are not in the file are measured. With `--report`, nothing is measured, and table and picture are made anew.
`--quick` tries every row on a few digits and made-up texts with random weights. With `--trainable`, nothing of that is
measured but what accuracy_trainable.py is about: which parameters of tuned blocks learn.
"""

import argparse
import datetime
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import accuracy_trainable
import numpy as np
import torch
from accuracy_networks import NETWORKS, Network, random_networks
from accuracy_peers import PEERS
from accuracy_report import Figure, Results
from accuracy_rows import ROWS, Row, Task
from accuracy_sets import QUICK_SETS, SETS, LabelledSet
from measuring import Others, machine

from sktransfer import set_cache_limit

HERE = Path(__file__).resolve().parent
ALL_ROWS: dict[str, Row] = {**ROWS, **PEERS}
# Bytes of activations that are kept in memory, so that tuned networks of one set find those of other draws.
CACHE = 4 * 2**30
# Bins of the calibration error.
BINS = 15
PARTNERS = {
    "mobilenet_v2": "efficientnet_lite0",
    "squeezenet1_1": "mobilenet_v2",
    "efficientnet_lite0": "mobilenet_v2",
    "efficientnet_lite1": "mobilenet_v2",
    "efficientnet_lite2": "mobilenet_v2",
}


def measure(task: Task, solve: Callable[[Task], np.ndarray]) -> dict[str, float]:
    """Return accuracy, log loss and calibration error on the test samples, and the seconds of training and testing."""
    start, others = time.perf_counter(), Others()
    probabilities = solve(task)
    seconds, busy = time.perf_counter() - start, others.cores()
    y = task.data.y[task.test]
    if probabilities.shape != (len(y), task.n_classes) or not np.isfinite(probabilities).all():
        raise ValueError(
            f"Got probabilities of shape {probabilities.shape}, or not finite ones; expected one per class"
        )
    return {
        "accuracy": float((probabilities.argmax(1) == y).mean()),
        "log loss": float(-np.log(np.maximum(probabilities[np.arange(len(y)), y], 1e-15)).mean()),
        "calibration error": calibration_error(probabilities, y),
        "seconds": seconds,
        "cores that others took": busy or 0.0,
    }


def calibration_error(probabilities: np.ndarray, y: np.ndarray) -> float:
    """Return the expected calibration error: how far accuracy is from the top probability, in bins of equal width."""
    top, right = probabilities.max(1), probabilities.argmax(1) == y
    bins = np.minimum((top * BINS).astype(int), BINS - 1)
    gaps = [abs(top[bins == b].sum() - right[bins == b].sum()) for b in range(BINS)]
    return float(np.sum(gaps) / len(y))


def available(
    kind: str, loaders: dict[str, Callable[[Path], object]], chosen: list[str], assets: Path, notes: dict[str, str]
) -> Iterator[object]:
    """Yield what can be loaded, and note what cannot."""
    for name in chosen:
        try:
            yield loaders[name](assets)
        except FileNotFoundError as error:
            print(f"{kind} {name} is left out: {error}", flush=True)
            notes[name] = f"The {kind} {name} was left out: it was not installed or not found"


def rows_for(task: Task, chosen: list[str], first: bool, notes: dict[str, str]) -> Iterator[str]:
    """Yield the rows that can be measured on a task; those without a network, only with the first network."""
    for name in chosen:
        row = ALL_ROWS[name]
        lacking = [package for package in row.needs if find_spec(package) is None]
        if lacking:
            notes[name] = f"{row.title} was left out: {', '.join(lacking)} was not installed"
        elif task.data.kind in row.kinds and (first or row.uses_network):
            yield name


def run(given: argparse.Namespace, results: Results, sets: dict, networks: dict) -> int:
    """Measure everything that was asked for, and return how many rows failed."""
    notes: dict[str, str] = {}
    found: list[Network] = list(available("network", networks, given.networks, given.assets, notes))
    failed: set[tuple[str, str]] = set()
    for data in available("set", sets, given.only, given.assets, notes):
        for number, network in enumerate(network for network in found if network.kind == data.kind):
            partner = partner_of(network, networks, given.assets)
            for task, draw, labels in tasks(given, data, network, partner):
                for name in rows_for(task, given.rows, number == 0, notes):
                    used = network.name if ALL_ROWS[name].uses_network else ""
                    figure = Figure(data.name, used, name, labels, draw, len(task.training))
                    if (given.missing and results.holds(figure)) or (name, network.name) in failed:
                        continue
                    try:
                        results.add(figure, measure(task, ALL_ROWS[name].solve))
                    except Exception as error:  # of one row among many, in a run of hours
                        failed.add((name, network.name))
                        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:160]}"
                        notes[name] = f"{ALL_ROWS[name].title} failed with {network.name} ({reason})"
                        print(f"  {notes[name]}", flush=True)
    results.finish(notes, {*given.rows, *given.networks, *given.only})
    return len(failed)


def tasks(
    given: argparse.Namespace, data: LabelledSet, network: Network, partner: Network | None
) -> Iterator[tuple[Task, int, int]]:
    for draw in range(given.draws):
        print(f"{data.name}, {network.name}, draw {draw + 1} of {given.draws}", flush=True)
        for labels in given.labels:
            training, test = data.draw(draw, labels)
            yield Task(data, network, partner, training, test, seed=draw, quick=given.quick), draw, labels


def partner_of(network: Network, networks: dict, assets: Path) -> Network | None:
    """Return the network whose features are joined to those of another one, whichever networks were asked for."""
    name = PARTNERS.get(network.name)
    try:
        return networks[name](assets) if name in networks else None
    except FileNotFoundError:
        return None


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    beside = HERE.parents[1] / "shared" / "assets"
    parser.add_argument("--assets", type=Path, default=Path(os.environ.get("SKTRANSFER_ASSETS", beside)))
    parser.add_argument("--only", nargs="+", metavar="SET", help=f"of {', '.join(SETS)}")
    parser.add_argument("--networks", nargs="+", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--rows", nargs="+", metavar="ROW", choices=ALL_ROWS, default=list(ALL_ROWS))
    parser.add_argument("--draws", type=int, default=5, help="how often samples are chosen")
    parser.add_argument("--labels", nargs="+", type=int, help="training samples per class (default: 5 20 60)")
    parser.add_argument("--trainable", action="store_true", help="measure which parameters of tuned blocks learn")
    parser.add_argument("--missing", action="store_true", help="measure only what the file does not hold")
    parser.add_argument("--report", action="store_true", help="measure nothing; make table and picture anew")
    parser.add_argument("--quick", action="store_true", help="few samples, random weights, one draw")
    parser.add_argument("--output", type=Path, help="folder (default: results beside this file)")
    given = parser.parse_args()
    given.labels = given.labels or list(accuracy_trainable.LABELS if given.trainable else (5, 20, 60))
    if given.quick:
        given.draws, given.labels = 1, [5]
    if given.output is None:
        given.output = Path(tempfile.mkdtemp()) if given.quick else HERE / "results"
    known = {"only": QUICK_SETS if given.quick else SETS, "networks": {} if given.quick else NETWORKS}
    for name, choices in known.items():
        unknown = [value for value in getattr(given, name) or () if value not in choices]
        if unknown and choices:
            parser.error(f"Got {unknown[0]!r}; expected one of {', '.join(choices)}")
        if not getattr(given, name):
            setattr(given, name, list(choices))
    if not given.quick and not given.report and not (given.assets / "weights").is_dir():
        parser.error("no real weights and data: give --assets, or set SKTRANSFER_ASSETS, or try --quick")
    return given


def main() -> int:
    given = arguments()
    warnings.filterwarnings("ignore", category=FutureWarning, module="sklearn")
    warnings.filterwarnings("ignore", message="Got image values")
    if given.trainable:
        return accuracy_trainable.run(given)
    set_cache_limit(memory=CACHE)
    titles = {name: row.title for name, row in ALL_ROWS.items()}
    place = {"date": datetime.date.today().isoformat(), "quick": given.quick, "threads": torch.get_num_threads()}
    place |= machine()
    results = Results(given.output, titles, place)
    failed = 0
    if not given.report:
        with tempfile.TemporaryDirectory() as folder:
            networks = random_networks(Path(folder)) if given.quick else NETWORKS
            if given.quick:
                given.networks = list(networks)
            failed = run(given, results, QUICK_SETS if given.quick else SETS, networks)
    print("\n".join(results.write_report()))
    print(f"Written: {given.output}")
    return int(failed > 0)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    raise SystemExit(main())
