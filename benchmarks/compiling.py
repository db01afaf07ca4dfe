"""Measure what torch.compile would bring on the CPU, and what it costs, for the choice not to use it.

    python benchmarks/compiling.py [--output benchmarks/results/compiling.md]

Both run ResNet-18 as the package does: BatchNorm folded, channels last, the precision that `"auto"` chooses, eight
images at once in one thread. Weights are random. Needs a C++ compiler.
"""

import argparse
import time
from pathlib import Path

import torch
from measuring import in_turns, machine, rates, summary

from sktransfer._computing._execution import Execution
from sktransfer.backbones import load_backbone

HERE = Path(__file__).resolve().parent
IMAGES = 8


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=HERE / "results" / "compiling.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    run = Execution.plan(32, None, "cpu", "auto", 0)
    plain = load_backbone("resnet18", weights=None).feature_part().ready(run.device, run.bfloat16)
    compiled = torch.compile(plain)
    batch = torch.rand(IMAGES, 3, 224, 224).contiguous(memory_format=torch.channels_last)

    def forward(network):
        with torch.no_grad(), run.autocast():
            return network(batch)

    start = time.perf_counter()
    forward(compiled)
    took = time.perf_counter() - start
    forward(plain)
    seconds = in_turns({"as it is": lambda: forward(plain), "compiled": lambda: forward(compiled)}, 30)
    speeds = {name: summary(rates(IMAGES, spent)) for name, spent in seconds.items()}
    saved = 1 / speeds["as it is"]["median"] - 1 / speeds["compiled"]["median"]
    after = f"pays back after {took / saved:,.0f} images" if saved > 0 else "never pays back"
    facts = machine()
    lines = [
        "| ResNet-18, one thread | images/s | |",
        "|---|---|---|",
        *(f"| {n} | {s['median']:.1f} | {s['min']:.1f} to {s['max']:.1f} |" for n, s in speeds.items()),
        "",
        f"Compiling took {took:.1f} s and {after}. {facts['processor']}, torch {facts['torch']}, "
        f"{'bfloat16' if run.bfloat16 else 'float32'}.",
    ]
    print("\n".join(lines))
    given.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
