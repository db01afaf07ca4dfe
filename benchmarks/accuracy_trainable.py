"""Which parameters of tuned blocks learn: accuracy, seconds, memory and the size of files, for each `trainable`.

    python benchmarks/accuracy.py --trainable [--assets FOLDER] [--networks NETWORK ...] [--labels 5 20 1000]
                                              [--missing] [--quick] [--output FOLDER]

Each of three draws of the training samples is measured in a new process, so that its memory is its own. Learning rates
were chosen on other sentences than these. `--quick` tries one draw of made-up samples with random weights.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from accuracy_networks import NETWORKS, random_networks
from accuracy_sets import QUICK_SETS, SETS
from measuring import Others, in_new_process, machine, peak_memory
from sklearn.base import clone

from sktransfer import FineTunedClassifier, save

# Learning rates of blocks: what learns fewer parameters takes greater steps.
RATES = {"all": 1e-4, "norm": 3e-3, "bias": 3e-3, "lora": 1e-3}
# Sets, depths and how long to train, by network.
OF_NETWORK = {
    "minilm": ("film_reviews", 4, {"strategy": "fine_tune", "max_epochs": 3}),
    "mobilenet_v2": ("hymenoptera", 0.75, {"strategy": "lp_ft", "max_epochs": 10}),
    "random_bert": ("generated_texts", 1, {"max_epochs": 1}),
    "random_squeezenet": ("few_digits", 0.75, {"max_epochs": 1}),
}
LABELS = (5, 20, 1000)
DRAWS = 3
# Epochs of a few samples take next to no steps.
LEAST_STEPS = 20


def measure(assets: Path, network: str, trainable: str, labels: int, draw: int, quick: bool) -> dict[str, float]:
    """Return what tuning on one draw comes to: accuracy, seconds of `fit`, megabytes at most, kilobytes of files."""
    name, depth, how = OF_NETWORK[network]
    with tempfile.TemporaryDirectory() as folder:
        networks = random_networks(Path(folder)) if quick else NETWORKS
        used = networks[network](assets)
        data = (QUICK_SETS if quick else SETS)[name](assets)
        training, test = data.draw(draw, labels)
        steps = -(-len(training) // 32)  # of an epoch
        if not quick:
            how = {**how, "max_epochs": max(how["max_epochs"], -(-LEAST_STEPS // steps))}
        if trainable == "norm" and network == "random_squeezenet":
            return {}  # it has none
        model = FineTunedClassifier(
            **used.parameters, freeze_depth=depth, trainable=trainable, lr=RATES[trainable], lora_rank=8, **how
        )
        X, y = data.X[training], data.y[training]
        few = np.concatenate([np.flatnonzero(y == label)[:2] for label in np.unique(y)])
        clone(model).set_params(max_epochs=1).fit(X[few], y[few])  # so that what is imported and loaded once is there
        before, others, start = peak_memory(), Others(), time.perf_counter()
        model.fit(X, y)
        seconds, busy = time.perf_counter() - start, others.cores() or 0.0
        memory = peak_memory()
        sizes = {}
        for stored in (True, False):
            path = Path(folder) / f"{stored}.safetensors"
            save(model.set_params(store_backbone=stored), path)
            sizes[stored] = path.stat().st_size / 1000
        return {
            "training samples": len(training),
            "trained parameters": model.backbone_.summary().n_trainable,
            "accuracy": float(np.mean(model.predict(data.X[test]) == data.y[test])),
            "seconds": seconds,
            "cores that others took": busy,
            "MB in fit": (memory - before) / 1e6,
            "file, kB": sizes[True],
            "file without backbone, kB": sizes[False],
        }


def run(given: argparse.Namespace) -> int:
    """Measure all that was asked for, write trainable.json and trainable.md, and return 0."""
    file = given.output / "trainable.json"
    given.output.mkdir(parents=True, exist_ok=True)
    figures = json.loads(file.read_text())["figures"] if file.exists() else {}
    networks = [name for name in OF_NETWORK if name.startswith("random_") == given.quick]
    for network in [name for name in networks if not given.networks or name in given.networks or given.quick]:
        for labels in given.labels:
            for trainable in RATES:
                for draw in range(1 if given.quick else DRAWS):
                    key = f"{network}, {trainable}, {labels}, {draw}"
                    if given.missing and key in figures:
                        continue
                    measured = in_new_process(
                        __file__, given.assets, network, trainable, labels, draw, int(given.quick)
                    )
                    if measured:
                        figures[key] = {name: float(f"{value:.5g}") for name, value in measured.items()}
                        print(f"{key}: {figures[key]}", flush=True)
                    results = {"machine": machine(), "quick": given.quick, "figures": figures}
                    file.write_text(json.dumps(results, indent=1))
    lines = report(figures, given.quick)
    (given.output / "trainable.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


def report(figures: dict[str, dict[str, float]], quick: bool) -> list[str]:
    """Return the lines of the table."""
    lines = [
        "| network | trainable | lr | trained parameters | samples | accuracy | seconds of fit | memory of fit | "
        "file | file without backbone |",
        "|" + "---|" * 10,
    ]
    draws: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for key, measured in figures.items():
        network, trainable, labels, _ = key.split(", ")
        draws.setdefault((network, labels, trainable), []).append(measured)
    for (network, _, trainable), measured in draws.items():
        accuracies = [each["accuracy"] for each in measured]
        least = min(measured, key=lambda each: each["seconds"])
        busy = "*" if least["cores that others took"] > 0.1 else ""
        f = measured[0]
        lines.append(
            f"| {network} | {trainable} | {RATES[trainable]:g} | {f['trained parameters']:,.0f} "
            f"| {f['training samples']:.0f} | {np.mean(accuracies):.3f} ± {np.std(accuracies):.3f} "
            f"| {least['seconds']:.1f}{busy} | {f['MB in fit']:.0f} MB "
            f"| {f['file, kB']:,.0f} kB | {f['file without backbone, kB']:,.0f} kB |"
        )
    lines += [
        "",
        "MiniLM is tuned on film reviews, in its upper half (freeze_depth=4), and tested on 250 others. MobileNetV2 is "
        "tuned on photos of ants and bees, in its last quarter of blocks, and tested on 96 others. Accuracy is "
        "the mean and standard deviation over the draws of training samples, seconds are the fewest. Memory is what "
        "the process's peak grew by during fit. *: other processes kept more than 0.1 cores busy, so the seconds are "
        "too many. A file without backbone of MiniLM holds its tokenizer too, 1.3 MB.",
    ]
    return [*lines, "", "A quick trial with random weights, not a measurement."] if quick else lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("assets", type=Path)
    parser.add_argument("network", choices=OF_NETWORK)
    parser.add_argument("trainable", choices=RATES)
    parser.add_argument("labels", type=int)
    parser.add_argument("draw", type=int)
    parser.add_argument("quick", type=int)
    given = parser.parse_args()
    chosen = (given.network, given.trainable, given.labels, given.draw)
    print(json.dumps(measure(given.assets, *chosen, bool(given.quick))))


if __name__ == "__main__":
    main()
