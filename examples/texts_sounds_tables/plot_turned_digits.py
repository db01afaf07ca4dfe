"""
Numbers instead of classes: by how many degrees is a digit turned?
==================================================================

You want a number from a picture: an angle, an age, a dose. Does a pretrained network help there too?

:class:`~sktransfer.FineTunedRegressor` predicts two numbers here, angle and size, of the digits 5 to 9. They lie
anywhere in the picture. The network has four convolutions and is pretrained on the digits 0 to 4, by the package
itself: it tells quarter turns of them apart. ``save_backbone`` writes what it has learned, and ``weights=`` reads it.
Nothing is downloaded.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn.functional import affine_grid, grid_sample

import sktransfer
from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor

SIDE = 16  # pixels
n_threads = torch.get_num_threads()
torch.set_num_threads(1)  # for so small a network, a second thread costs more than it brings


def turn(digits, largest_angle, seed):
    """Put digits somewhere in noisy pictures, turned, of any size.

    Returns uint8 ndarray of shape (n_samples, SIDE * SIDE), and angle in degrees and size in pixels: float64 ndarray of
    shape (n_samples, 2).
    """
    rng, n = np.random.default_rng(seed), len(digits)
    angle, size = rng.uniform(-largest_angle, largest_angle, n), rng.uniform(8, 14, n)
    part = size / SIDE
    x, y = rng.uniform(-1, 1, (2, n)) * (1 - part)
    cos, sin = np.cos(np.radians(angle)) / part, np.sin(np.radians(angle)) / part
    to_digit = np.array([[cos, -sin, sin * y - cos * x], [sin, cos, -sin * x - cos * y]]).transpose(2, 0, 1)
    grid = affine_grid(torch.from_numpy(to_digit), (n, 1, SIDE, SIDE), align_corners=False)
    pictures = grid_sample(torch.from_numpy(digits[:, None] / 16), grid, align_corners=False)[:, 0].numpy()
    pixels = (255 * (pictures + rng.normal(0, 0.1, pictures.shape)).clip(0, 1)).astype(np.uint8)
    return pixels.reshape(n, -1), np.column_stack([angle, size])


def small_network(n_classes=20):
    """Return four convolutions, an average over all places, and a classification layer."""

    def block(inward, outward, size, stride):
        return [nn.Conv2d(inward, outward, size, stride, size // 2), nn.BatchNorm2d(outward), nn.ReLU()]

    convolutions = [*block(1, 16, 5, 2), *block(16, 32, 3, 1), *block(32, 48, 3, 2), *block(48, 64, 3, 1)]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, n_classes))


# %%
# A network that knows other digits
# ---------------------------------

flat = {"image_shape": (SIDE, SIDE), "random_state": 0}
scratch = {"weights": None, "freeze_depth": 0, "strategy": "fine_tune", "train_bn": True, **flat}
digits, folder = load_digits(), tempfile.TemporaryDirectory()
old = np.concatenate([np.rot90(digits.images[digits.target < 5], quarter, (1, 2)) for quarter in range(4)])
classes = np.concatenate([digits.target[digits.target < 5] + 5 * quarter for quarter in range(4)])
first = FineTunedClassifier(small_network, lr=1e-2, head_lr=1e-2, max_epochs=6, batch_size=128, **scratch)
first.fit(np.concatenate([turn(old, 15, seed)[0] for seed in (1, 2)]), np.tile(classes, 2))
weights = Path(folder.name, "digits_0_to_4.safetensors")
first.save_backbone(weights)

# %%
# Five ways from pixels to two numbers
# ------------------------------------

penalties = np.logspace(-3, 5, 17)
models = {
    "PCA + RidgeCV": make_pipeline(PCA(0.9), StandardScaler(), RidgeCV(penalties)),
    "the network, from scratch": FineTunedRegressor(
        small_network, lr=1e-2, head_lr=1e-2, max_epochs=15, batch_size=16, **scratch
    ),
    "frozen features + RidgeCV": make_pipeline(
        PretrainedFeatureExtractor(small_network, weights=weights, **flat), StandardScaler(), RidgeCV(penalties)
    ),
    "FineTunedRegressor, frozen": FineTunedRegressor(small_network, weights=weights, **flat),
    "FineTunedRegressor, freeze_depth=1": FineTunedRegressor(
        small_network, weights=weights, freeze_depth=1, lr=5e-3, max_epochs=10, batch_size=16, **flat
    ),
}

LABELLED = [20, 100, 300]
X, y = turn(digits.images[digits.target >= 5], 60, seed=0)
order = np.random.default_rng(0).permutation(len(X))
others = order[max(LABELLED) :]
print(f"R2 on {len(others)} others, mean of both numbers, by the number of labelled pictures")
print(f"   {'':<36}" + "".join(f"{number:>8}" for number in LABELLED))
curves = {}
for name, model in models.items():
    fitted = (model.fit(X[order[:number]], y[order[:number]]) for number in LABELLED)
    curves[name] = [r2_score(y[others], each.predict(X[others])) for each in fitted]
    print(f"   {name:<36}" + "".join(f"{value:>8.3f}" for value in curves[name]))

# %%
# Depth and rate, by cross-validation
# -----------------------------------

few = order[: max(LABELLED)]
sktransfer.clear_cache()
grid = {"freeze_depth": [1, 2], "lr": [1e-3, 5e-3]}
search = GridSearchCV(models["FineTunedRegressor, freeze_depth=1"], grid, cv=2, scoring="r2").fit(X[few], y[few])
n_passes, predicted = sktransfer.cache_info().misses, search.predict(X[others])
print(f"Best: {search.best_params_}; the frozen part ran {n_passes} times for {len(few)} pictures in 9 fits.")
errors = np.abs(predicted - y[others]).mean(axis=0)
print(f"On others it is wrong by {errors[0]:.1f} degrees and {errors[1]:.2f} pixels on average.")

# %%
# The picture
# -----------

figure = plt.figure(figsize=(10.5, 6), layout="constrained")
places = figure.add_gridspec(2, 2, height_ratios=[1, 3.6], width_ratios=[1.35, 1])
strip = places[0, :].subgridspec(1, 9)
for number in range(9):
    axes = figure.add_subplot(strip[number])
    axes.imshow(X[others[number]].reshape(SIDE, SIDE), cmap="gray")
    axes.set_title(f"{y[others[number], 0]:.0f}°, {predicted[number, 0]:.0f}°", fontsize=11)
    axes.set_axis_off()
figure.suptitle("By how many degrees is the digit turned? The truth, and what FineTunedRegressor says", fontsize=13)

axes = figure.add_subplot(places[1, 0])
colours = ["#000000", "#D55E00", "#56B4E9", "#009E73", "#0072B2"]
for (name, values), colour, marker in zip(curves.items(), colours, "^vsDo", strict=True):
    axes.plot(LABELLED, values, label=name, marker=marker, color=colour, linewidth=2.5)
axes.axhline(0, color="black", linestyle=":")
axes.text(LABELLED[-1], 0.01, "the mean for all", ha="right", va="bottom")
axes.set(xscale="log", xlabel="labelled pictures", ylabel="R2 on other pictures", ylim=(-0.15, 1))
axes.set_xticks(LABELLED, LABELLED)
axes.minorticks_off()
axes.spines[["top", "right"]].set_visible(False)
handles, names = axes.get_legend_handles_labels()
axes.legend(handles[::-1], names[::-1], frameon=False, fontsize=10, loc="lower right", bbox_to_anchor=(1, 0.14))

axes = figure.add_subplot(places[1, 1])
axes.plot(y[others, 0], predicted[:, 0], ".", color="#0072B2", alpha=0.5)
axes.plot([-60, 60], [-60, 60], color="black", linestyle=":")
axes.set(xlabel="angle, in degrees", ylabel="predicted angle, in degrees", title=f"{len(few)} labelled pictures")
axes.spines[["top", "right"]].set_visible(False)
torch.set_num_threads(n_threads)
folder.cleanup()
