"""Measure what keeping freed memory brings (SKTRANSFER_KEEP_FREED_MEMORY=1), for the choice of its default.

    python benchmarks/allocator.py [--pairs 2] [--rounds 6] [--quick] [--output benchmarks/results/allocator.md]

Two processes have loaded the same network, one with the variable and one without it. They extract the same images in
turns, and each turn of both gives one ratio. Then two new processes do the same. Weights are random, everything else is
as the package sets it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from measuring import Others, machine, peak_memory
from pictures import Pictures
from reporting import short

HERE = Path(__file__).resolve().parent
SWITCH = "SKTRANSFER_KEEP_FREED_MEMORY"
# Of each network, what it is given, and how many images.
CASES = [
    ("resnet18", "arrays", 80),
    ("mobilenet_v3_small", "arrays", 200),
    ("mobilenet_v2", "arrays", 80),
    ("efficientnet_b0", "arrays", 60),
    ("vit_b_16", "arrays", 12),
    ("resnet18", "JPEGs", 80),
    ("mobilenet_v3_small", "JPEGs", 150),
]


def main():
    given = arguments()
    if given.serve:
        serve(*given.serve)
        return
    lines = [
        "| network, given | images | time, without / with | processor time, without / with | page faults per image, "
        "without; with | peak memory in MB, without; with |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    others = Others()
    for line in rows(given):
        print(line, flush=True)
        lines.append(line)
    facts = machine()
    busy = others.cores()
    lines += [
        "",
        f"Above 1: faster with it. Medians of {given.pairs} x {given.rounds} turns (least to greatest). "
        f"{facts['processor']}, {facts['cores']} cores, torch {facts['torch']}, {facts['system']}; other processes "
        f"kept {busy or 0:.1f} cores busy.",
    ]
    print("\n".join(lines[-2:]))
    if not given.quick:
        given.output.write_text("\n".join(lines) + "\n")


def rows(given: argparse.Namespace) -> Iterator[str]:
    """Yield a line of the table per case."""
    with tempfile.TemporaryDirectory() as folder:
        for network, kind, n in CASES[1:2] if given.quick else CASES:
            n = 8 if given.quick else n
            if kind == "JPEGs":
                Pictures(None, Path(folder), n_drawn=60).distinct(n)
            turns = [turn for _ in range(given.pairs) for turn in in_turns(given.rounds, network, kind, n, folder)]
            ratios = [spread([without[name] / kept[name] for without, kept in turns]) for name in ("wall", "cpu")]
            faults, peaks = (
                "; ".join(short(statistics.median(turn[which][name] for turn in turns)) for which in (0, 1))
                for name in ("faults", "peak")
            )
            yield f"| {network}, {kind} | {n} | {ratios[0]} | {ratios[1]} | {faults} | {peaks} |"


def in_turns(rounds: int, *case: object) -> list[tuple[dict, dict]]:
    """Return what each turn of two new processes took: of the one without the variable, and of the one with it."""
    command = [sys.executable, __file__, "--serve", *map(str, case)]
    both = [
        subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, SWITCH: switch}
        )
        for switch in ("0", "1")
    ]
    try:
        for process in both:
            answer(process)  # when the network is loaded
        turns = []
        for number in range(rounds):
            took: dict[int, dict] = {}
            for which in (0, 1) if number % 2 else (1, 0):
                both[which].stdin.write("\n")
                both[which].stdin.flush()
                took[which] = answer(both[which])
            turns.append((took[0], took[1]))
        return turns
    finally:
        for process in both:
            process.stdin.close()  # which ends it
            process.wait()


def answer(process: subprocess.Popen) -> dict:
    line = process.stdout.readline()
    if not line:
        raise RuntimeError("a measuring process ended early; its error stands above")
    return json.loads(line)


def serve(network: str, kind: str, n: str, folder: str) -> None:
    """Load a network, and extract features once for each line of the input."""
    import resource

    import numpy as np
    import torch

    from sktransfer import PretrainedFeatureExtractor

    torch.manual_seed(0)
    if kind == "arrays":
        X = np.random.default_rng(0).integers(0, 256, (int(n), 224, 224, 3), dtype=np.uint8)
    else:
        X = Pictures(None, Path(folder), n_drawn=60).distinct(int(n))
    extractor = PretrainedFeatureExtractor(network, weights=None, feature_cache=None).fit(X[:1])
    extractor.transform(X[:32])
    print("{}", flush=True)
    for _ in sys.stdin:
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        wall, cpu = time.perf_counter(), time.process_time()
        extractor.transform(X)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        print(
            json.dumps({"wall": wall, "cpu": cpu, "faults": faults / len(X), "peak": peak_memory() / 1e6}), flush=True
        )


def spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=2, help="pairs of processes")
    parser.add_argument("--rounds", type=int, default=6, help="turns of each pair")
    parser.add_argument("--quick", action="store_true", help="one network, few images, one turn; printed, not written")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "allocator.md")
    parser.add_argument("--serve", nargs=4, metavar=("NETWORK", "KIND", "N", "FOLDER"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.quick:
        given.pairs = given.rounds = 1
    return given


if __name__ == "__main__":
    main()
