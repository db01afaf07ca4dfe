"""Handwritten digits: a small network learns 0 to 4, and 50 labelled images of 5 to 9 are all that the new task has.

    python examples/quickstart.py [--output quickstart.png]

Nothing is downloaded: the images come with scikit-learn, and the network is pretrained here. Its weights are saved and
loaded as those of any pretrained network are. Each row of the table is fitted to the same 50 images and tested on the
rest of 5 to 9, for five draws of the 50.
"""

import argparse
import tempfile
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor

mpl.use("Agg")  # draws into a file, with or without a screen
from matplotlib import pyplot as plt

DRAWS = 5
PER_CLASS = 10
# Flat rows feed PCA and networks alike; this says how to read them.
IMAGES = {"image_shape": (8, 8), "pixel_range": (0, 16), "random_state": 0}


def digits_network(n_classes=5):
    """Three convolutions and a classification layer, for grey images of 8 x 8 pixels."""

    def block(inward, outward):
        return [nn.Conv2d(inward, outward, 3, padding=1), nn.BatchNorm2d(outward), nn.ReLU()]

    return nn.Sequential(
        *block(1, 32),
        *block(32, 64),
        nn.MaxPool2d(2),
        *block(64, 128),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, n_classes),
    )


def from_scratch(**parameters):
    """Return a classifier that trains the whole network, from random weights."""
    return FineTunedClassifier(
        digits_network,
        weights=None,
        freeze_depth=0,
        strategy="fine_tune",
        train_bn=True,
        lr=1e-3,
        **IMAGES,
        **parameters,
    )


def pretrain(X, y, path):
    """Train the network on one task and save its weights; return the accuracy on a fifth of it, held out."""
    # Quarter turns of a digit are classes too: telling them apart takes features that say more than "which digit".
    turned = np.concatenate([np.rot90(X.reshape(-1, 8, 8), turn, (1, 2)).reshape(-1, 64) for turn in range(4)])
    labels = np.concatenate([y + 5 * turn for turn in range(4)])
    held_out = np.tile(np.arange(len(X)) % 5 == 0, 4)
    classifier = from_scratch(max_epochs=10).fit(turned[~held_out], labels[~held_out])
    network = digits_network()
    trained = classifier.net_.module_.tail.state_dict()
    torch.save({name: trained.get(name, tensor) for name, tensor in network.state_dict().items()}, path)
    return classifier.score(turned[held_out], labels[held_out])


def models(path):
    """Return the rows of the table."""
    logistic = {"max_iter": 1000}
    return {
        "pixels + LogisticRegression": make_pipeline(StandardScaler(), LogisticRegression(**logistic)),
        "PCA + LogisticRegression": make_pipeline(PCA(20, random_state=0), LogisticRegression(**logistic)),
        "GradientBoosting": GradientBoostingClassifier(random_state=0),
        "the network, from scratch": from_scratch(max_epochs=40),
        "frozen features + LogisticRegression": make_pipeline(
            PretrainedFeatureExtractor(digits_network, weights=path, **IMAGES),
            StandardScaler(),
            LogisticRegression(**logistic),
        ),
        "FineTunedClassifier, 2 of 3 blocks tuned": FineTunedClassifier(
            digits_network, weights=path, freeze_depth=1, max_epochs=20, lr=3e-4, **IMAGES
        ),
    }


def compare(X, y, path):
    """Return accuracies by row, one for each draw."""
    table = {name: [] for name in models(path)}
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        few = np.concatenate(
            [rng.choice(np.flatnonzero(y == digit), PER_CLASS, replace=False) for digit in np.unique(y)]
        )
        rest = np.setdiff1d(np.arange(len(y)), few)
        for name, model in models(path).items():
            table[name].append(model.fit(X[few], y[few]).score(X[rest], y[rest]))
    return {name: np.array(accuracies) for name, accuracies in table.items()}


def draw_picture(table, path):
    """Draw the table as bars."""
    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    means = [accuracies.mean() for accuracies in table.values()]
    colours = ["#9aa5b1"] * 4 + ["#4878a8"] * 2
    axes.barh(list(table), means, xerr=[accuracies.std() for accuracies in table.values()], color=colours, capsize=3)
    low = min(means) - 0.1
    for position, mean in enumerate(means):
        axes.text(low + 0.005, position, f"{mean:.3f}", va="center", color="white")
    axes.invert_yaxis()
    axes.set(xlim=(low, 1), xlabel=f"accuracy on digits 5 to 9, mean and spread over {DRAWS} draws of 50 images")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("quickstart.png"), help="picture (default: %(default)s)")
    options = parser.parse_args()

    torch.set_num_threads(1)  # for so small a network, a second thread costs more than it brings
    start = time.perf_counter()
    X, y = load_digits(return_X_y=True)
    old, new = y < 5, y >= 5
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits_0_to_4.pth"
        print(f"1. Pretraining a network on {old.sum()} images of the digits 0 to 4, and quarter turns of them ...")
        accuracy = pretrain(X[old], y[old], path)
        print(f"   It tells held-out digits and turns apart with accuracy {accuracy:.3f}. Its weights are saved.")
        print(f"2. Six ways to learn 5 to 9 from 50 images, tested on the other {new.sum() - 50}, {DRAWS} times ...")
        table = compare(X[new], y[new], path)
    print(f"\n   {'':<42} accuracy, mean ± spread over {DRAWS} draws")
    for name, accuracies in table.items():
        print(f"   {name:<42} {accuracies.mean():.3f} ± {accuracies.std():.3f}")
    draw_picture(table, options.output)
    print(f"\n3. Drawn: {options.output}. {time.perf_counter() - start:.0f} s in all.")


if __name__ == "__main__":
    main()
