"""Regression: by how many degrees is a digit turned, and how large is it? Two numbers per image, from few of them.

    python examples/plot_turned_digits.py [--output turned_digits.png]

Nothing is downloaded. The network is that of quickstart.py: four convolutions, trained on the digits 0 to 4 alone. The
images here show digits 5 to 9 that lie anywhere in them. Two models go without what it has learned, PCA +
RidgeCV and the network from scratch; the others see its frozen features, or tune it.
"""

import argparse
import tempfile
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from quickstart import IMAGES, SIDE, pretrain, small_network
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn.functional import affine_grid, grid_sample

import sktransfer
from sktransfer import FineTunedRegressor, PretrainedFeatureExtractor

mpl.use("Agg")  # draws into a file, with or without a screen
from matplotlib import pyplot as plt

LABELLED = [20, 50, 100, 200, 400]
TARGETS = ["angle", "size"]
PCA_RIDGE, SCRATCH, FROZEN = "PCA + RidgeCV", "the network, from scratch", "frozen features + RidgeCV"
SOLVED, TUNED = "FineTunedRegressor, frozen", "FineTunedRegressor, freeze_depth=1"


def turn(digits, seed):
    """Put each digit somewhere in a noisy image, turned and of any size.

    Returns
    -------
    uint8 ndarray of shape (n_samples, SIDE * SIDE)
        Pixels.
    float64 ndarray of shape (n_samples, 2)
        Angle in degrees, from -60 to 60, and size in pixels, from 8 to 14.
    """
    rng, n = np.random.default_rng(seed), len(digits)
    angle, size = rng.uniform(-60, 60, n), rng.uniform(8, 14, n)
    part = size / SIDE
    x, y = rng.uniform(-1, 1, (2, n)) * (1 - part)
    cos, sin = np.cos(np.radians(angle)) / part, np.sin(np.radians(angle)) / part
    to_digit = np.array([[cos, -sin, sin * y - cos * x], [sin, cos, -sin * x - cos * y]]).transpose(2, 0, 1)
    grid = affine_grid(torch.from_numpy(to_digit), (n, 1, SIDE, SIDE), align_corners=False)
    images = grid_sample(torch.from_numpy(digits[:, None] / 16), grid, align_corners=False)[:, 0].numpy()
    pixels = (255 * (images + rng.normal(0, 0.1, images.shape)).clip(0, 1)).astype(np.uint8)
    return pixels.reshape(n, -1), np.column_stack([angle, size])


def make_models(path):
    """Return five ways from pixels to two numbers, by name; settings were chosen on other draws (--first-draw 100)."""
    penalties = np.logspace(-3, 5, 17)
    scratch = {"weights": None, "freeze_depth": 0, "strategy": "fine_tune", "train_bn": True}
    return {
        PCA_RIDGE: make_pipeline(PCA(0.9), StandardScaler(), RidgeCV(penalties)),
        SCRATCH: FineTunedRegressor(
            small_network, lr=1e-2, head_lr=1e-2, max_epochs=30, batch_size=16, **scratch, **IMAGES
        ),
        FROZEN: make_pipeline(
            PretrainedFeatureExtractor(small_network, weights=path, **IMAGES), StandardScaler(), RidgeCV(penalties)
        ),
        SOLVED: FineTunedRegressor(small_network, weights=path, **IMAGES),
        TUNED: FineTunedRegressor(
            small_network, weights=path, freeze_depth=1, lr=5e-3, max_epochs=15, batch_size=16, **IMAGES
        ),
    }


def compare(models, X, y, draws):
    """Print the R2 of all models, and return it by name: ndarray of shape (n_sizes, n_draws)."""
    print(f"   {'R2, mean of both numbers':<36}" + "".join(f"{number:>15}" for number in LABELLED))
    results = {}
    for name, model in models.items():
        scores = np.empty((len(LABELLED), len(draws)))
        for column, draw in enumerate(draws):
            order = np.random.default_rng(draw).permutation(len(X))
            others = order[max(LABELLED) :]
            for row, number in enumerate(LABELLED):
                few = order[:number]
                scores[row, column] = r2_score(y[others], model.fit(X[few], y[few]).predict(X[others]))
        cells = [f"{each.mean():.3f} ± {each.std():.3f}" for each in scores]
        print(f"   {name:<36}" + "".join(f"{cell:>15}" for cell in cells), flush=True)
        results[name] = scores
    return results


def draw_picture(X, y, predicted, results, path):
    """Draw some images with their angles, the curves, and predictions beside the truth."""
    plt.rcParams.update({"font.size": 12, "axes.titlesize": 12})
    figure = plt.figure(figsize=(11, 6), layout="constrained")
    places = figure.add_gridspec(2, 2, height_ratios=[1, 3.6], width_ratios=[1.35, 1])
    strip = places[0, :].subgridspec(1, 9)
    for number in range(9):
        axes = figure.add_subplot(strip[number])
        axes.imshow(X[number].reshape(SIDE, SIDE), cmap="gray")
        axes.set_title(f"{y[number, 0]:.0f}°, {predicted[number, 0]:.0f}°", fontsize=11)
        axes.set_axis_off()
    figure.suptitle("By how many degrees is the digit turned? The truth, and what FineTunedRegressor says", fontsize=13)

    axes = figure.add_subplot(places[1, 0])
    colours = {PCA_RIDGE: "#000000", SCRATCH: "#D55E00", FROZEN: "#56B4E9", SOLVED: "#009E73", TUNED: "#0072B2"}
    for (name, colour), marker in zip(colours.items(), "^vsDo", strict=True):
        mean, spread = results[name].mean(axis=1), results[name].std(axis=1)
        axes.plot(LABELLED, mean, label=name, marker=marker, color=colour, linewidth=3 if name == TUNED else 1.8)
        axes.fill_between(LABELLED, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(0, color="#777777", linestyle=":")
    axes.text(LABELLED[-1], 0.01, "the mean for all", ha="right", va="bottom", color="#555555")
    axes.set(xscale="log", xlabel="labelled images", ylabel="R2 on other images", ylim=(-0.05, 1))
    axes.set_xticks(LABELLED, LABELLED)
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], frameon=False, fontsize=10, loc="lower right", bbox_to_anchor=(1, 0.1))

    axes = figure.add_subplot(places[1, 1])
    axes.plot(y[:, 0], predicted[:, 0], ".", color="#0072B2", alpha=0.5)
    axes.plot([-60, 60], [-60, 60], color="#777777", linestyle=":")
    axes.set(xlabel="angle, in degrees", ylabel="predicted angle", title=f"{max(LABELLED)} labelled images")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("turned_digits.png"), help="picture (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=3, help="how often labelled images are drawn (default: 3)")
    parser.add_argument("--first-draw", type=int, default=0, help="100: the draws that settings were chosen on")
    options = parser.parse_args()

    torch.set_num_threads(1)  # for so small a network, a second thread costs more than it brings
    start = time.perf_counter()
    digits = load_digits()
    old = digits.target < 5
    X, y = turn(digits.images[~old], seed=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits_0_to_4.pth"
        print(f"1. Pretraining a network on {old.sum()} images of the digits 0 to 4 ...")
        pretrain(digits.images[old], digits.target[old], path)
        models = make_models(path)
        print(
            f"2. Angle and size of digits 5 to 9, from few labelled images; {len(X) - max(LABELLED)} others judge ..."
        )
        draws = range(options.first_draw, options.first_draw + options.draws)
        results = compare(models, X, y, draws)

        order = np.random.default_rng(options.first_draw).permutation(len(X))
        few, others = order[: max(LABELLED)], order[max(LABELLED) :]
        print(f"3. GridSearchCV of FineTunedRegressor, 3 folds of {len(few)} images ...")
        sktransfer.clear_cache()
        grid = {"freeze_depth": [1, 2, 3], "lr": [1e-3, 5e-3]}
        search = GridSearchCV(models[TUNED], grid, cv=3, scoring="r2").fit(X[few], y[few])
        passes, predicted = sktransfer.cache_info().misses, search.predict(X[others])
        print(f"   Best: {search.best_params_}; its frozen part ran {passes} times for {len(few)} images in 19 fits.")
        errors = np.abs(predicted - y[others]).mean(axis=0)
        print(f"   On others it is wrong by {errors[0]:.1f} degrees and {errors[1]:.2f} pixels in the mean.")
    draw_picture(X[others], y[others], predicted, results, options.output)
    print(f"4. Drawn: {options.output}. {time.perf_counter() - start:.0f} s in all.")


if __name__ == "__main__":
    main()
