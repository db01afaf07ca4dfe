"""Writes a folder of small models as this version does: `PYTHONPATH=tests python tests/earlier_models/make.py NUMBER`.

A folder, once committed, is never written again: `tests/test_earlier_models.py` loads all of them with today's code.
Some are written by the oldest versions of torch and scikit-learn that the package allows: `about.json` says by which.
"""

import json
import pickle
import sys
from importlib.metadata import version
from pathlib import Path

import joblib
import numpy as np
import torch
from networks import tiny_cnn, tiny_vectors

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor


def make(folder: Path) -> None:
    torch.manual_seed(0)
    folder.mkdir()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(12, 12, 10, 3), dtype=np.uint8)
    vectors = rng.normal(size=(12, 4)).astype(np.float32)
    y = np.array(["ant", "bee", "caf\u00e9"])[np.arange(12) % 3]
    how = {"random_state": 0, "precision": "float32"}
    models = {
        "features": (PretrainedFeatureExtractor(tiny_cnn, layer=[2, 4], **how), images, "transform"),
        "probe": (FineTunedClassifier(tiny_vectors, **how), vectors, "predict_proba"),
        "tuned": (
            FineTunedClassifier(tiny_cnn, freeze_depth=2, max_epochs=2, lr=0.01, train_bn=True, **how),
            images,
            "predict_proba",
        ),
        "hidden": (
            FineTunedClassifier(
                tiny_cnn(), hidden_layer_sizes=(8,), dropout=0.2, head_epochs=3, early_stopping=True,
                validation_fraction=0.25, **how,
            ),
            images,
            "predict_proba",
        ),
    }  # fmt: skip
    np.savez_compressed(folder / "data.npz", images=images, vectors=vectors, y=y)
    expected = {}
    for name, (model, X, method) in models.items():
        model.fit(X, y)
        expected[name] = getattr(model, method)(X)
        joblib.dump(model, folder / f"{name}.joblib", compress=3)
        if name == "probe":
            (folder / f"{name}.pickle").write_bytes(pickle.dumps(model, protocol=4))
        if hasattr(sktransfer, "save"):
            sktransfer.save(model, folder / f"{name}.safetensors")
    np.savez(folder / "expected.npz", **expected)
    packages = ("torch", "torchvision", "scikit-learn", "skorch", "numpy", "joblib")
    about = {"versions": {package: version(package) for package in packages}, "python": sys.version.split()[0]}
    (folder / "about.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    make(Path(__file__).parent / sys.argv[1])
