"""Measure the choices behind FineTunedClassifier's defaults on five small sets and two networks.

    python benchmarks/defaults.py [--assets FOLDER] [--splits 2] [--per-class 20] [--output FILE.json]

The sets: photos of ants and bees, CIFAR-10, handwritten digits, spoken digits as spectrograms, and parts of two photos
turned by a quarter, whose turn is the class. Each split trains on a few samples a class and tests on 200 at most.
Prints a table of mean accuracies, and writes it with every single figure.
"""

import argparse
import json
import os
import platform
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.datasets import load_digits, load_sample_images
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, load_image_folder

HERE = Path(__file__).resolve().parent
NETWORKS = {
    "mobilenet_v2": "mobilenet_v2-int8-dequantized.pth",
    "squeezenet1_1": "squeezenet1_1-float16-rounded.pth",
}
TUNED = {"freeze_depth": 0.75}
# The recipe of many tutorials: a head by ten epochs of Adam, then the last part of the network at a small rate.
TWO_PHASES = {**TUNED, "head_epochs": 10, "lr": 1e-5, "optimizer": "adam", "weight_decay": 0.0}
CANDIDATES = {
    "features + LogisticRegression": None,
    "defaults: solved head": {},
    "head by 10 epochs": {"head_epochs": 10},
    "head by 30 epochs": {"head_epochs": 30},
    "hidden 256, dropout 0.5, 30 epochs": {"hidden_layer_sizes": (256,), "dropout": 0.5},
    "two-phase recipe": TWO_PHASES,
    "0.75 frozen, defaults": TUNED,
    "0.75 frozen, 5 epochs": {**TUNED, "max_epochs": 5},
    "0.75 frozen, no weight decay": {**TUNED, "weight_decay": 0.0},
    "0.75 frozen, lr 1e-5, head_lr 1e-4": {**TUNED, "lr": 1e-5, "head_lr": 1e-4},
    "0.75 frozen, fine_tune": {**TUNED, "strategy": "fine_tune"},
    "0.75 frozen, gradual": {**TUNED, "strategy": "gradual"},
    "0.75 frozen, train_bn": {**TUNED, "train_bn": True},
}


def image_sets(assets: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    folder = assets / "data" / "hymenoptera"
    parts = [load_image_folder(folder / part) for part in ("train", "val")]
    yield "ants and bees", np.concatenate([p.data for p in parts]), np.concatenate([p.target for p in parts])
    small = load_image_folder(assets / "data" / "cifar10" / "test")
    yield "cifar10", small.data, small.target
    digits = load_digits()
    yield "digits", digits.images, digits.target
    yield ("spoken digits", *spoken_digits(assets / "data" / "fsdd"))
    yield ("turned photos", *turned_photos())


def spoken_digits(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    from scipy.io import wavfile
    from scipy.signal import spectrogram

    images, labels = [], []
    for path in sorted(folder.glob("*/*.wav")):
        rate, sound = wavfile.read(path)
        sound = np.pad(sound[:8000], (0, max(0, 8000 - len(sound)))).astype(float)
        power = np.log1p(spectrogram(sound, rate, nperseg=256, noverlap=192)[2])
        images.append((255 * power / power.max()).astype(np.uint8))
        labels.append(int(path.parent.name))
    return np.array(images), np.array(labels)


def turned_photos() -> tuple[np.ndarray, np.ndarray]:
    rng, photos = np.random.default_rng(0), load_sample_images().images
    images = []
    for number in range(240):
        photo = photos[number % 2]
        top, left = rng.integers(0, photo.shape[0] - 128), rng.integers(0, photo.shape[1] - 128)
        images.append(np.rot90(photo[top : top + 128, left : left + 128], number % 4))
    return np.array(images), np.arange(240) % 4


def measure(network: str, weights: Path, X, y, splits: int, per_class: int) -> Iterator[tuple[str, list[float], float]]:
    train = min(per_class * len(np.unique(y)), int(0.6 * len(y)))
    folds = StratifiedShuffleSplit(splits, train_size=train, test_size=min(200, len(y) - train), random_state=0)
    common = {"weights": weights, "pixel_range": "auto", "n_jobs": 2}
    for name, parameters in CANDIDATES.items():
        if parameters is None:
            extractor = PretrainedFeatureExtractor(network, **common)
            model = make_pipeline(extractor, LogisticRegression(max_iter=2000))
        else:
            model = FineTunedClassifier(network, random_state=0, **common, **parameters)
        start = time.perf_counter()
        scores = [float(model.fit(X[a], y[a]).score(X[b], y[b])) for a, b in folds.split(np.zeros(len(y)), y)]
        yield name, scores, (time.perf_counter() - start) / splits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    beside = HERE.parents[1] / "shared" / "assets"
    parser.add_argument("--assets", type=Path, default=Path(os.environ.get("SKTRANSFER_ASSETS", beside)))
    parser.add_argument("--splits", type=int, default=2)
    parser.add_argument("--per-class", type=int, default=20)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "defaults.json")
    given = parser.parse_args()
    if not (given.assets / "weights").is_dir():
        parser.error("no real weights and data: give --assets, or set SKTRANSFER_ASSETS")
    warnings.filterwarnings("ignore", message="Got image values")
    scores: dict[str, dict[str, list[float]]] = {name: {} for name in CANDIDATES}
    seconds: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    for title, X, y in image_sets(given.assets):
        for network, file in NETWORKS.items():
            print(f"{title}, {network}", flush=True)
            path = given.assets / "weights" / file
            for name, figures, spent in measure(network, path, X, y, given.splits, given.per_class):
                scores[name][f"{title}, {network}"] = figures
                seconds[name].append(spent)
                print(f"  {name:<40} {np.mean(figures):.3f}  {spent:5.1f} s", flush=True)
    columns = list(next(iter(scores.values())))
    titles = list(dict.fromkeys(column.rpartition(", ")[0] for column in columns))
    lines = [
        "| | " + " | ".join(titles) + " | mean | seconds |",
        "|---|" + "---|" * (len(titles) + 2),
    ]
    for name, row in scores.items():
        means = [np.mean([np.mean(v) for c, v in row.items() if c.startswith(title)]) for title in titles]
        cells = " | ".join(f"{mean:.3f}" for mean in means)
        lines.append(f"| {name} | {cells} | {np.mean(means):.3f} | {np.mean(seconds[name]):.1f} |")
    print("\n".join(lines))
    given.output.parent.mkdir(parents=True, exist_ok=True)
    versions = {"torch": torch.__version__, "scikit-learn": sklearn.__version__, "python": platform.python_version()}
    machine = f"{os.cpu_count()} processors, {platform.machine()}"
    setting = {"splits": given.splits, "training samples a class": given.per_class}
    result = {
        "machine": machine,
        "setting": setting,
        "versions": versions,
        "accuracy": scores,
        "seconds a fit": seconds,
    }
    given.output.write_text(json.dumps(result, indent=1) + "\n")
    given.output.with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
