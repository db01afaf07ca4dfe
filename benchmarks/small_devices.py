"""Compare networks for small devices: parameters, megabytes and milliseconds per picture, as ONNX files.

    python benchmarks/small_devices.py [--output benchmarks/results/small_devices.md] [--networks NAME ...] [--quick]

Weights are random: sizes and speeds do not depend on them, so nothing is downloaded, and accuracies are not shown. Each
file runs in onnxruntime, with one thread and one prepared picture of 3 x 224 x 224 at a time; the networks take turns,
and the fastest of seven turns counts. Needs `pip install "sktransfer[onnx]"`.
"""

import argparse
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from measuring import machine, stopwatch

from sktransfer import PretrainedFeatureExtractor

HERE = Path(__file__).resolve().parent
NETWORKS = [
    "squeezenet1_1",
    "shufflenet_v2_x0_5",
    "shufflenet_v2_x1_0",
    "mnasnet1_0",
    "mobilenet_v3_small",
    "mobilenet_v3_large",
    "mobilenet_v2",
    "regnet_y_400mf",
    "efficientnet_b0",
    "resnet18",
]
PRECISIONS = ("float32", "float16", "int8")
TURNS = 7


def pictures(n_samples: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n_samples, 224, 224, 3), dtype=np.uint8)


def export(name: str, folder: Path) -> tuple[int, dict[str, Path]]:
    """Write a network in each precision; return its number of parameters, without those of the classification layer."""
    X = pictures(4)
    how = {"weights": None, "precision": "float32", "random_state": 0, "feature_cache": None}
    fitted = PretrainedFeatureExtractor(name, **how).fit(X)
    files = {precision: folder / f"{name}_{precision}.onnx" for precision in PRECISIONS}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch's older exporter wrote")
        warnings.filterwarnings("ignore", ".*is far from the estimator")  # with random weights that tells nothing
        for precision, file in files.items():
            fitted.to_onnx(file, precision=precision, calibration=X)
    return fitted.backbone_.summary("all").n_frozen, files


def milliseconds(files: list[Path], turns: int) -> list[float]:
    """Return the fastest of several turns for each file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    sessions = [onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"]) for file in files]
    prepared = np.random.default_rng(0).random((1, 3, 224, 224), dtype=np.float32)
    tasks = [lambda session=session: session.run(None, {"prepared": prepared}) for session in sessions]
    for task in tasks:
        task()
    times = [[stopwatch(task) for task in tasks] for _ in range(turns)]
    return [min(of_one) * 1e3 for of_one in zip(*times, strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=HERE / "results" / "small_devices.md")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="one network, printed and not written")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sys.modules["onnxscript"] = None  # type: ignore[assignment]  # torch's older exporter writes these ten times as fast
    names = ["squeezenet1_1"] if given.quick else given.networks
    with tempfile.TemporaryDirectory() as temporary:
        found = {}
        for name in names:
            print(f"writing {name}", file=sys.stderr, flush=True)
            found[name] = export(name, Path(temporary))
        speeds = milliseconds([file for _, files in found.values() for file in files.values()], TURNS)
        lines = [
            "| network | million parameters | MB float32 | MB float16 | MB int8 | ms float32 | ms float16 | ms int8 |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for number, (name, (n_parameters, files)) in enumerate(found.items()):
            sizes = [f"{file.stat().st_size / 1e6:.1f}" for file in files.values()]
            times = [f"{one:.1f}" for one in speeds[3 * number : 3 * number + 3]]
            lines.append(f"| {name} | {n_parameters / 1e6:.1f} | {' | '.join([*sizes, *times])} |")
    here = machine()
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnx", "onnxruntime"))
    lines += [
        "",
        "Features, without a classification layer; one prepared picture of 3 x 224 x 224, one thread, "
        f"the fastest of {TURNS} turns. Weights are random: accuracies are not shown. Measure what int8 changes with "
        "`calibration=` on your own pictures.",
        "",
        f"{here['processor']}, {packages}. `python benchmarks/small_devices.py`",
    ]
    print("\n".join(lines))
    if not given.quick:
        given.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
