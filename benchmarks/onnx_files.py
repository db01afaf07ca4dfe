"""What an ONNX file changes: differences, agreement and accuracy of float32, float16 and int8 on real samples.

    python benchmarks/onnx_files.py [--assets FOLDER] [--output benchmarks/results/onnx_files.md] [--quick]

A classifier on frozen features is fitted on some samples and written with `to_onnx(preprocessing=True)`. Others, kept
aside, are predicted by the estimator and by each file: pictures as they are, one at a time, and texts by their tokens.
Calibration takes training samples. `--quick` tries it with a random network on drawn pictures, and writes nothing.
"""

import argparse
import os
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
from accuracy_networks import NETWORKS, random_networks
from accuracy_sets import QUICK_SETS, SETS
from measuring import machine
from PIL import Image

from sktransfer import FineTunedClassifier
from sktransfer.inputs import make_reader

HERE = Path(__file__).resolve().parent
TRIED = {"mobilenet_v2": "hymenoptera", "squeezenet1_1": "hymenoptera", "minilm": "film_reviews"}
PER_CLASS = 60
MOST_TESTED = 100


def inputs_of(model: FineTunedClassifier, X):
    """Yield what a file takes of each sample."""
    if np.ndim(X[0]) == 0 and not str(X[0]).lower().endswith((".jpg", ".png")):
        samples = make_reader("texts", model.backbone_.preprocessing).read(list(X))
        for row in range(len(X)):
            yield {"prepared": samples.load(row)[None].numpy()}
        return
    for sample in X:
        picture = sample if isinstance(sample, np.ndarray) else np.asarray(Image.open(sample).convert("RGB"))
        if picture.ndim == 2:
            picture = np.repeat(picture[:, :, None], 3, axis=2)
        yield {"pictures": np.ascontiguousarray(picture[None])}


def measure(name: str, assets: Path, folder: Path, quick: bool) -> list[str]:
    """Return a row of the table for each precision."""
    network = (random_networks(folder) if quick else NETWORKS)[name](assets)
    data = (QUICK_SETS["few_digits"] if quick else SETS[TRIED[name]])(assets)
    training, test = data.draw(0, 5 if quick else PER_CLASS)
    test = test[:MOST_TESTED]
    X, y = [data.X[row] for row in test], data.y[test]
    model = FineTunedClassifier(**network.parameters, precision="float32", pixel_range=(0, 255) if quick else "auto")
    model.fit([data.X[row] for row in training], data.y[training])
    # Pictures as arrays: paths of large JPEGs are decoded smaller by the estimator.
    opened = [np.asarray(Image.open(one).convert("RGB")) for one in X] if network.kind == "images" and not quick else X
    expected = model.predict_proba(opened)
    rows = []
    for precision in ("float32", "float16", "int8"):
        file = folder / f"{name}_{precision}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            export = model.to_onnx(
                file, preprocessing=True, precision=precision, calibration=[data.X[row] for row in training]
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        found = np.concatenate([session.run(None, given)[0] for given in inputs_of(model, X)])
        rows.append(
            f"| {name}, {data.name} | {precision} | {export.megabytes:.1f} | {np.abs(found - expected).max():.2g} "
            f"| {np.mean(found.argmax(1) == expected.argmax(1)):.3f} | {np.mean(expected.argmax(1) == y):.3f} "
            f"| {np.mean(found.argmax(1) == y):.3f} |"
        )
        print(rows[-1], flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    beside = HERE.parents[1] / "shared" / "assets"
    parser.add_argument("--assets", type=Path, default=Path(os.environ.get("SKTRANSFER_ASSETS", beside)))
    parser.add_argument("--output", type=Path, default=HERE / "results" / "onnx_files.md")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    lines = [
        "| network, set | precision | MB | largest difference | agreement | accuracy of the estimator | of the file |",
        "|" + "---|" * 7,
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name in ["random_squeezenet"] if given.quick else TRIED:
            lines += measure(name, given.assets, Path(folder), given.quick)
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "Pillow"))
    lines += [
        "",
        f"Up to {MOST_TESTED} samples that were not trained on. The largest difference is between probabilities of the "
        "file, which prepares pictures itself, and those of `predict_proba`. Agreement is the share of equal "
        "predictions.",
        "",
        f"{machine()['processor']}, {packages}. `python benchmarks/onnx_files.py`",
    ]
    if not given.quick:
        given.output.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
