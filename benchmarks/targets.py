"""Measure numbers and several labels per sample: the solved heads against scikit-learn's on the same features.

    python benchmarks/targets.py [--assets FOLDER] [--draws 3] [--quick] [--output FOLDER]

Photos of ants, bees and CIFAR-10 are changed by known amounts. Numbers to predict: by how many degrees a photo is
turned, how far it is blurred, how far its hue is shifted, how far it is zoomed in. Labels: whether it is turned,
blurred, of another hue, grey, noisy; some are rare. Scores are R2, and micro-averaged F1 beside the mean log loss of
labels. The settings of the package's ridge were chosen on these numbers; nothing was chosen on the labels.

`--quick` takes a few drawn pictures and random weights. targets.json holds all figures, targets.md the table.
"""

import argparse
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from accuracy_networks import NETWORKS, Network, random_networks
from accuracy_sets import ants_and_bees, cifar10
from measuring import machine
from pictures import Pictures
from PIL import Image, ImageFilter
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import f1_score, log_loss, r2_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor

HERE = Path(__file__).resolve().parent
SIDE = 128
TEST = 200
LABELLED = (25, 100, 300)
CHOSEN = ("mobilenet_v2", "squeezenet1_1")
PENALTIES = np.logspace(-4, 6, 21)
HUE = 40
NOISE = 14.0


def photos(assets: Path | None, folder: Path) -> list[Image.Image]:
    """Return square photos of one size."""
    if assets is None:
        sources: list[object] = list(Pictures(None, folder, 80).labelled()[0])
    else:
        sources = [*ants_and_bees(assets).X, *cifar10(assets).X[:400]]
    return [square(one) for one in sources]


def square(source: object) -> Image.Image:
    photo = Image.fromarray(source) if isinstance(source, np.ndarray) else Image.open(str(source))
    photo = photo.convert("RGB")
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    return photo.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))


def turned(photo: Image.Image, degrees: float) -> Image.Image:
    larger = photo.resize((round(SIDE * 1.42), round(SIDE * 1.42))).rotate(degrees, Image.Resampling.BICUBIC)
    edge = (larger.width - SIDE) // 2
    return larger.crop((edge, edge, edge + SIDE, edge + SIDE))


def blurred(photo: Image.Image, radius: float) -> Image.Image:
    return photo.filter(ImageFilter.GaussianBlur(float(radius)))


def shifted(photo: Image.Image, hue: float) -> Image.Image:
    values = np.array(photo.convert("HSV"))
    values[..., 0] = (values[..., 0].astype(int) + int(hue)) % 256
    return Image.fromarray(values, "HSV").convert("RGB")


def zoomed(photo: Image.Image, factor: float) -> Image.Image:
    side = round(SIDE / factor)
    edge = (SIDE - side) // 2
    return photo.crop((edge, edge, edge + side, edge + side)).resize((SIDE, SIDE))


# What is done, and between which amounts.
NUMBERS: dict[str, tuple[Callable[[Image.Image, float], Image.Image], float, float]] = {
    "angle": (turned, -45, 45),
    "blur": (blurred, 0, 3),
    "hue": (shifted, 0, 60),
    "zoom": (zoomed, 1, 2.5),
}
LABELS = {"turned": 0.5, "blurred": 0.3, "of another hue": 0.2, "grey": 0.1, "noisy": 0.4}


def numbers(images: list[Image.Image], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return changed photos, and by how much."""
    change, least, most = NUMBERS[name]
    y = np.random.default_rng(0).uniform(least, most, len(images))
    return np.stack([np.asarray(change(one, amount)) for one, amount in zip(images, y, strict=True)]), y


def labels(images: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    """Return changed photos, and what was done to each: 0 and 1."""
    rng = np.random.default_rng(1)
    Y = (rng.random((len(images), len(LABELS))) < list(LABELS.values())).astype(int)
    X = []
    for one, (is_turned, is_blurred, is_shifted, is_grey, is_noisy) in zip(images, Y, strict=True):
        image = one.transpose(Image.Transpose.ROTATE_90) if is_turned else one
        image = blurred(image, 1.2) if is_blurred else image
        image = shifted(image, HUE) if is_shifted else image
        image = image.convert("L").convert("RGB") if is_grey else image
        noise = NOISE * is_noisy * rng.normal(size=(SIDE, SIDE, 3))
        X.append((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    return np.stack(X), Y


def extractor(network: Network, layer: object) -> PretrainedFeatureExtractor:
    return PretrainedFeatureExtractor(layer=layer, **network.parameters)


def regressors(network: Network) -> dict[str, object]:
    ridge = RidgeCV(PENALTIES)
    return {
        "features + RidgeCV": make_pipeline(extractor(network, None), ridge),
        "features + StandardScaler + RidgeCV": make_pipeline(extractor(network, None), StandardScaler(), ridge),
        'layer="stages" + RidgeCV': make_pipeline(extractor(network, "stages"), ridge),
        'layer="stages" + StandardScaler + RidgeCV': make_pipeline(
            extractor(network, "stages"), StandardScaler(), ridge
        ),
        "**FineTunedRegressor()**": FineTunedRegressor(**network.parameters),
    }


def classifiers(network: Network) -> dict[str, object]:
    one_vs_rest = OneVsRestClassifier(LogisticRegression(max_iter=2000))
    return {
        "features + one-vs-rest": make_pipeline(extractor(network, None), one_vs_rest),
        "features + StandardScaler + one-vs-rest": make_pipeline(
            extractor(network, None), StandardScaler(), one_vs_rest
        ),
        'layer="stages" + one-vs-rest': make_pipeline(extractor(network, "stages"), one_vs_rest),
        'layer="stages" + StandardScaler + one-vs-rest': make_pipeline(
            extractor(network, "stages"), StandardScaler(), one_vs_rest
        ),
        "**FineTunedClassifier()**": FineTunedClassifier(**network.parameters),
    }


def mean_log_loss(Y: np.ndarray, probabilities: np.ndarray) -> float:
    clipped = probabilities.clip(1e-7, 1 - 1e-7)
    return float(np.mean([log_loss(y, p, labels=[0, 1]) for y, p in zip(Y.T, clipped.T, strict=True)]))


def measure(images: list[Image.Image], networks: list[Network], draws: int, sizes: tuple[int, ...]) -> Iterator[dict]:
    """Yield figures: of one model, one target, one draw of so many labelled images."""
    sets = {name: numbers(images, name) for name in NUMBERS} | {"labels": labels(images)}
    test = min(TEST, len(images) // 3)
    for network in networks:
        for target, (X, y) in sets.items():
            models = classifiers(network) if target == "labels" else regressors(network)
            for row, model in models.items():
                for draw in range(draws):
                    order = np.random.default_rng(draw).permutation(len(y))
                    out = order[:test]
                    for n in sizes:
                        few = order[test : test + n]
                        model.fit(X[few], y[few])
                        figure = {"network": network.name, "target": target, "row": row, "draw": draw, "labelled": n}
                        if target == "labels":
                            probabilities = model.predict_proba(X[out])
                            figure["score"] = float(f1_score(y[out], probabilities > 0.5, average="micro"))
                            figure["log loss"] = mean_log_loss(y[out], probabilities)
                        else:
                            figure["score"] = float(r2_score(y[out], model.predict(X[out])))
                        yield figure
            print(f"{network.name}, {target}: done", flush=True)


def table(figures: list[dict], sizes: tuple[int, ...]) -> list[str]:
    """Return the lines of two tables: R2, as means over the numbers, and F1 with the log loss."""
    lines = []
    for title, is_label in (("R2", False), ("micro F1, log loss", True)):
        lines += [
            f"| network | row | {' | '.join(f'{title}, {n} images' for n in sizes)} |",
            "|---|---|" + "---|" * len(sizes),
        ]
        chosen = [figure for figure in figures if (figure["target"] == "labels") == is_label]
        for network, row in dict.fromkeys((figure["network"], figure["row"]) for figure in chosen):
            cells = []
            for n in sizes:
                own = [f for f in chosen if (f["network"], f["row"], f["labelled"]) == (network, row, n)]
                cell = f"{np.mean([f['score'] for f in own]):.3f}"
                cells.append(f"{cell}, {np.mean([f['log loss'] for f in own]):.3f}" if is_label else cell)
            lines.append(f"| {network} | {row} | {' | '.join(cells)} |")
        lines.append("")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--assets", type=Path, default=os.environ.get("SKTRANSFER_ASSETS"), help="real photos, weights")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a few drawn pictures, random weights")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    options = parser.parse_args()
    if options.assets is None and not options.quick:
        parser.error("Give --assets FOLDER, or set SKTRANSFER_ASSETS, or try --quick.")
    warnings.filterwarnings("ignore", category=UserWarning)
    with tempfile.TemporaryDirectory() as name:
        folder, sizes = Path(name), (10, 20) if options.quick else LABELLED
        if options.quick:
            networks = [random_networks(folder)["random_squeezenet"](folder)]
            images, draws = photos(None, folder), 1
        else:
            networks = [NETWORKS[chosen](Path(options.assets)) for chosen in CHOSEN]
            images, draws = photos(Path(options.assets), folder), options.draws
        figures = list(measure(images, networks, draws, sizes))
    about = machine()
    note = "A quick trial: drawn pictures and random weights. " if options.quick else ""
    means = f"Means over draws ({draws}), R2 also over {len(NUMBERS)} numbers; {len(images)} photos."
    origin = ", ".join(f"{key} {about[key]}" for key in ("date", "torch", "scikit-learn", "python") if key in about)
    lines = [*table(figures, sizes), f"{note}{means} {origin}."]
    options.output.mkdir(parents=True, exist_ok=True)
    each = ",\n".join(f"  {json.dumps(figure)}" for figure in figures)
    written = f'{{"run": {json.dumps(about)},\n "figures": [\n{each}\n]}}\n'
    (options.output / "targets.json").write_text(written)
    (options.output / "targets.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
