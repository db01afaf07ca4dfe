"""Photos of ants and bees: pixels, frozen features, a tuned network and a grid search, each by cross-validation.

    python plot_ants_and_bees.py                                    # downloads 47 MB of photos and 14 MB of weights
    python plot_ants_and_bees.py --data FOLDER --weights PATH       # downloads nothing

The photos are those of PyTorch's transfer-learning tutorial. `--data` takes any folder of class folders instead, or
one that holds the same class folders in `train/` and in `val/`; then the photos of both are used. X is the array of
paths, and whatever opens them is part of the estimator, so each is cross-validated as it would be used.
"""

import argparse
import socket
import sys
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, load_image_folder
from sktransfer.backbones import load_backbone

mpl.use("Agg")  # draws into a file, with or without a screen
from matplotlib import pyplot as plt

PHOTOS = "https://download.pytorch.org/tutorial/hymenoptera_data.zip"
GRID = {"freeze_depth": [0.75, 0.9, "all"], "lr": [1e-5, 1e-4]}


def grey_pixels(paths):
    """Open photos as 32 x 32 grey pixels: float64 ndarray of shape (n_samples, 1024), from 0 to 1."""
    rows = []
    for path in np.ravel(paths):
        with Image.open(path) as photo:
            photo.draft("L", (64, 64))  # a JPEG need not be decoded at full size for this
            rows.append(np.asarray(photo.convert("L").resize((32, 32))).ravel() / 255)
    return np.array(rows)


def download_photos(cache):
    """Return the folder of the tutorial's photos; the first call downloads them."""
    from torchvision.datasets.utils import download_and_extract_archive

    folder = cache / "hymenoptera_data"
    if not folder.is_dir():
        download_and_extract_archive(PHOTOS, cache)
    return folder


def read_photos(folder):
    """Return paths, labels and class names of a folder of class folders, or of its train/ and val/."""
    halves = [folder / "train", folder / "val"]
    photos = [load_image_folder(half) for half in (halves if all(half.is_dir() for half in halves) else [folder])]
    names = photos[0].target_names
    if photos[-1].target_names != names:
        raise ValueError(
            f"Got {str(folder)!r}, whose train/ and val/ hold the classes {names} and {photos[-1].target_names}; "
            "expected the same classes in both."
        )
    return np.concatenate([part.data for part in photos]), np.concatenate([part.target for part in photos]), names


def find_inputs(options):
    """Return the photos, and see to it that the weights are there before anything is computed."""
    socket.setdefaulttimeout(30)  # a network that says nothing is no network
    try:
        photos = read_photos(options.data or download_photos(options.cache))
        weights = load_backbone(options.backbone, options.weights).weights_name
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(
            f"This example needs either a network, to download the photos and the weights of {options.backbone}, or "
            f"both in files, as --data FOLDER --weights PATH ({error.__cause__ or error})."
        )
    print(f"{options.backbone} with weights {weights}")
    return photos


def make_table(X, y, options):
    """Cross-validate three ways from photos to classes; return their accuracies by name, one for each fold."""
    pretrained = {"backbone": options.backbone, "weights": options.weights, "n_jobs": options.n_jobs}
    rows = {
        "pixels, PCA, logistic regression": make_pipeline(
            FunctionTransformer(grey_pixels), PCA(0.9, random_state=0), LogisticRegression(max_iter=1000)
        ),
        "frozen features, logistic regression": make_pipeline(
            PretrainedFeatureExtractor(**pretrained), StandardScaler(), LogisticRegression(max_iter=1000)
        ),
        "FineTunedClassifier, defaults": FineTunedClassifier(**pretrained, random_state=0),
    }
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    table = {}
    print(f"\nAccuracy, mean and spread over {folds.get_n_splits()} folds")
    for name, model in rows.items():
        start = time.perf_counter()
        table[name] = cross_val_score(model, X, y, cv=folds, error_score="raise")
        seconds = time.perf_counter() - start
        print(f"  {name:<38} {table[name].mean():.3f} ± {table[name].std():.3f}   {seconds:5.1f} s", flush=True)
    return table


def search_depth_and_rate(X, y, options):
    """Cross-validate how much stays frozen against how fast the rest learns."""
    model = FineTunedClassifier(
        options.backbone, weights=options.weights, n_jobs=options.n_jobs, max_epochs=3, random_state=0
    )
    # The best of six, chosen by these folds, looks a little better than it is: what counts here is the pattern.
    search = GridSearchCV(
        model, GRID, cv=StratifiedKFold(3, shuffle=True, random_state=0), refit=False, error_score="raise"
    )
    start = time.perf_counter()
    search.fit(X, y)
    print(f"\nAccuracy, mean over 3 folds, of 6 settings of FineTunedClassifier   {time.perf_counter() - start:.1f} s")
    for setting, accuracy in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True):
        print(f"  freeze_depth={setting['freeze_depth']!s:<5} lr={setting['lr']:<8g} {accuracy:.3f}")
    return search


def draw(table, search, title, path):
    """Draw the table as bars and the grid as a heat map."""
    figure, (bars, grid) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
    figure.suptitle(title)
    names = [name.replace(", ", "\n", 1) for name in table]
    means = [accuracies.mean() for accuracies in table.values()]
    bars.barh(names, means, xerr=[accuracies.std() for accuracies in table.values()], color="#4878a8", capsize=3)
    for position, mean in enumerate(means):
        bars.text(0.02, position, f"{mean:.3f}", va="center", color="white")
    bars.invert_yaxis()
    bars.set(xlim=(0, 1.05), xlabel="accuracy, mean and spread over 5 folds")
    bars.spines[["top", "right"]].set_visible(False)

    # GridSearchCV varies the parameter that is last in the alphabet fastest.
    accuracies = search.cv_results_["mean_test_score"].reshape(len(GRID["freeze_depth"]), len(GRID["lr"]))
    image = grid.imshow(accuracies, cmap="viridis", aspect="auto")
    middle = (accuracies.min() + accuracies.max()) / 2
    for (row, column), accuracy in np.ndenumerate(accuracies):
        colour = "black" if accuracy > middle else "white"
        grid.text(column, row, f"{accuracy:.3f}", ha="center", va="center", color=colour)
    grid.set_xticks(range(len(GRID["lr"])), [f"{rate:g}" for rate in GRID["lr"]])
    grid.set_yticks(range(len(GRID["freeze_depth"])), GRID["freeze_depth"])
    grid.set(xlabel="lr", ylabel="freeze_depth", title="FineTunedClassifier, 3 epochs")
    figure.colorbar(image, label="accuracy, mean over 3 folds")
    figure.savefig(path, dpi=120)
    print(f"\nDrawn: {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of class folders (default: the tutorial's photos)")
    parser.add_argument("--weights", default="DEFAULT", help="path to .pth or .safetensors (default: torchvision's)")
    parser.add_argument("--backbone", default="mobilenet_v2", help="a torchvision network (default: %(default)s)")
    parser.add_argument("--n-jobs", type=int, help="threads that decode photos (default: 1)")
    parser.add_argument("--output", type=Path, default=Path("ants_and_bees.png"), help="picture (default: %(default)s)")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path("~/.cache/sktransfer-examples").expanduser(),
        help="where downloaded photos are kept (default: %(default)s)",
    )
    options = parser.parse_args()

    start = time.perf_counter()
    X, y, names = find_inputs(options)
    print(f"{len(X)} photos: " + ", ".join(f"{np.sum(y == name)} {name}" for name in names))
    table = make_table(X, y, options)
    search = search_depth_and_rate(X, y, options)
    draw(table, search, f"{' or '.join(names)}: {len(X)} photos, {options.backbone}", options.output)
    print(f"{time.perf_counter() - start:.0f} s in all")


if __name__ == "__main__":
    main()
