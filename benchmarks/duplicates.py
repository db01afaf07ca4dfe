"""Measure at which threshold `duplicate_groups` finds changed copies, and how often different pictures pass for one.

    python benchmarks/duplicates.py [--assets FOLDER] [--pictures 60] [--quick] [--output FOLDER]

Pictures of each set are copied with one change each. A copy is found where its cosine similarity with its original
reaches the threshold. A picture is mistaken for a copy where its similarity with any other original does; some of these
pairs are real copies, or show the same thing twice. duplicates.md holds the table.
"""

import argparse
import datetime
import io
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
from accuracy_networks import NETWORKS, Network
from accuracy_sets import QUICK_SETS, SETS
from measuring import machine
from PIL import Image, ImageEnhance

from sktransfer import PretrainedFeatureExtractor

HERE = Path(__file__).resolve().parent
CHOSEN_SETS = ["hymenoptera", "cifar10", "drawn_digits", "spoken_digits"]
CHOSEN_NETWORKS = ["squeezenet1_1", "mobilenet_v2", "efficientnet_lite0"]
THRESHOLDS = (0.85, 0.9, 0.95, 0.98)


def compressed(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def cropped(picture: Image.Image, share: float) -> Image.Image:
    x, y = (int(side * (1 - share) / 2) for side in picture.size)
    return picture.crop((x, y, picture.width - x, picture.height - y))


CHANGES = {
    "20 % brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.2),
    "JPEG 75": lambda picture: compressed(picture, 75),
    "half the size": lambda picture: picture.resize((max(8, picture.width // 2), max(8, picture.height // 2))),
    "cropped to 90 %": lambda picture: cropped(picture, 0.9),
    "mirrored": lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned by 5°": lambda picture: picture.rotate(5, Image.Resampling.BILINEAR),
}


def opened(sample: object) -> Image.Image:
    picture = Image.fromarray(sample) if isinstance(sample, np.ndarray) else Image.open(str(sample))
    return picture.convert("RGB")


def measure(pictures: list[Image.Image], network: Network) -> dict[str, np.ndarray]:
    """Return similarities with the original of each kind of copy, and the greatest with any other original."""
    extractor = PretrainedFeatureExtractor(**network.parameters).fit(pictures)

    def directions(of: list[Image.Image]) -> np.ndarray:
        features = extractor.transform(of)
        return features / np.linalg.norm(features, axis=1, keepdims=True)

    originals = directions(pictures)
    others = originals @ originals.T
    np.fill_diagonal(others, -1)
    few = pictures[: len(pictures) // 2]
    own = originals[: len(few)]
    found = {name: (own * directions([change(p) for p in few])).sum(axis=1) for name, change in CHANGES.items()}
    return found | {"different": others.max(axis=1)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    beside = HERE.parents[1] / "shared" / "assets"
    parser.add_argument("--assets", type=Path, default=Path(os.environ.get("SKTRANSFER_ASSETS", beside)))
    parser.add_argument("--pictures", type=int, default=60, help="originals of each set; half of them are copied")
    parser.add_argument("--quick", action="store_true", help="few digits, random weights")
    parser.add_argument("--output", type=Path, help="folder (default: results beside this file)")
    given = parser.parse_args()
    if given.output is None:
        given.output = Path(tempfile.mkdtemp()) if given.quick else HERE / "results"
    if given.quick:
        given.pictures = 8
    elif not (given.assets / "weights").is_dir():
        parser.error("no real weights and data: give --assets, or set SKTRANSFER_ASSETS, or try --quick")
    return given


def main() -> int:
    given = arguments()
    warnings.filterwarnings("ignore", message="Got image values")
    sets = {"few_digits": QUICK_SETS["few_digits"]} if given.quick else {name: SETS[name] for name in CHOSEN_SETS}
    lines = [
        f"Share of copies that are found at a threshold of {' / '.join(map(str, THRESHOLDS))}, and share of different "
        "pictures that are taken for a copy of another one.",
        "",
        "| set | network | " + " | ".join([*CHANGES, "different pictures"]) + " |",
        "|---|---|" + "---|" * (len(CHANGES) + 1),
    ]
    for load in sets.values():
        data = load(given.assets)
        rows = np.random.default_rng(0).permutation(len(data.X))[: given.pictures]
        pictures = [opened(data.X[row]) for row in rows]
        for name in ["squeezenet1_1"] if given.quick else CHOSEN_NETWORKS:
            network = Network(name, "images", name, None) if given.quick else NETWORKS[name](given.assets)
            cells = [
                " / ".join(f"{np.mean(values >= threshold):.2f}" for threshold in THRESHOLDS)
                for values in measure(pictures, network).values()
            ]
            lines.append(f"| {data.name} | {name} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    place, quick = machine(), "; a quick trial, not a measurement" if given.quick else ""
    lines += [
        "",
        f"- {given.pictures} pictures of each set; {datetime.date.today().isoformat()}, torch {place['torch']}, "
        f"{place['processor']}{quick}.",
    ]
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "duplicates.md").write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
