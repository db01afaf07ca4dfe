"""
Does transfer help when labels are few?
=======================================

You have a few labelled images per class, and a network that was trained on something else. Is it worth using?

Here the task is to tell the handwritten digits 5 to 9 apart. They lie anywhere in a larger image, vary in size and are
turned a little. The network has four convolutions and was trained on the digits 0 to 4 only. We compare five ways,
with 2 to 40 labels per class, and then search depth and learning rate with
:class:`~sklearn.model_selection.GridSearchCV`.

Nothing is downloaded: the digits come with scikit-learn, and the network is pretrained here, in seconds. With your own
photos you skip that part, because ``FineTunedClassifier("mobilenet_v2")`` comes with weights that were trained on
ImageNet.
"""

import tempfile
import time
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, learning_curve
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor

mpl.use("Agg")  # draws into a file, with or without a screen
from matplotlib import pyplot as plt

start, n_threads = time.perf_counter(), torch.get_num_threads()
torch.set_num_threads(1)  # for so small a network, a second thread costs more than it brings

# %%
# The images
# ----------
# Each digit of 8 x 8 pixels is put somewhere in a noisy image of 16 x 16 pixels.

SIDE = 16  # pixels


def scatter(digits, seed):
    """Return digits somewhere in noisy images: uint8 ndarray of shape (n_samples, 16, 16)."""
    rng, n = np.random.default_rng(seed), len(digits)
    size, angle = rng.uniform(9, 13, n) / SIDE, rng.uniform(-0.25, 0.25, n)
    x, y = rng.uniform(-1, 1, (2, n)) * (1 - size)
    cos, sin = np.cos(angle) / size, np.sin(angle) / size
    to_digit = np.array([[cos, -sin, sin * y - cos * x], [sin, cos, -sin * x - cos * y]]).transpose(2, 0, 1)
    grid = affine_grid(torch.from_numpy(to_digit), (n, 1, SIDE, SIDE), align_corners=False)
    images = grid_sample(torch.from_numpy(digits[:, None] / 16), grid, align_corners=False)[:, 0].numpy()
    return (255 * (images + rng.normal(0, 0.1, images.shape)).clip(0, 1)).astype(np.uint8)


digits = load_digits()
old = digits.target < 5
X, y = scatter(digits.images[~old], seed=0).reshape(-1, SIDE * SIDE), digits.target[~old]

# %%
# A network that knows other digits
# ---------------------------------
# It is trained as PyTorch's users do it, and its weights are saved to a file. Quarter turns of a digit are classes
# too: telling 20 classes apart takes richer features than telling 5 apart.


def small_network(n_classes=20):
    """Return four convolutions, an average over all places, and a classification layer."""

    def block(inward, outward, size, stride):
        return [nn.Conv2d(inward, outward, size, stride, size // 2), nn.BatchNorm2d(outward), nn.ReLU()]

    convolutions = [*block(1, 16, 5, 2), *block(16, 32, 3, 1), *block(32, 48, 3, 2), *block(48, 64, 3, 1)]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, n_classes))


def pretrain(digits, labels, path, epochs=8):
    """Train the network, save its weights, and return the accuracy in the last epoch."""
    digits = np.concatenate([np.rot90(digits, turn, (1, 2)) for turn in range(4)])
    labels = torch.from_numpy(np.concatenate([labels + 5 * turn for turn in range(4)]))
    torch.manual_seed(0)
    network, n_batches = small_network(), -(-len(digits) // 128)
    optimizer = torch.optim.AdamW(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, epochs=epochs, steps_per_epoch=n_batches)
    for epoch in range(epochs):
        images = torch.from_numpy(scatter(digits, seed=epoch + 1) / 255).float()[:, None]  # new places in each epoch
        n_right = 0
        for batch in torch.randperm(len(digits)).split(128):
            logits = network(images[batch])
            optimizer.zero_grad()
            cross_entropy(logits, labels[batch]).backward()
            optimizer.step()
            schedule.step()
            n_right += int((logits.argmax(1) == labels[batch]).sum())
    torch.save(network.state_dict(), path)
    return n_right / len(digits)


folder = tempfile.TemporaryDirectory()
weights = Path(folder.name) / "digits_0_to_4.pth"
print(f"1. Pretraining a network on {old.sum()} images of the digits 0 to 4, and quarter turns of them ...")
accuracy = pretrain(digits.images[old], digits.target[old], weights)
print(f"   It tells these 20 classes apart with accuracy {accuracy:.3f}. Its weights are saved.")

# %%
# Five ways from pixels to classes
# --------------------------------
# Rows of pixels feed PCA and networks alike; ``image_shape`` tells a network how to read them. The settings had the
# best mean accuracy over all numbers of labels, on other draws of the labelled images than the ones shown.

PIXELS, PCA_SVC, SCRATCH = "pixels + LogisticRegression", "PCA + SVC", "the network, from scratch"
FROZEN, TUNED = "frozen features + LogisticRegression", "FineTunedClassifier"
flat = {"image_shape": (SIDE, SIDE), "random_state": 0}
models = {
    PIXELS: make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)),
    PCA_SVC: make_pipeline(PCA(0.8), SVC(C=10)),
    SCRATCH: FineTunedClassifier(
        small_network,
        weights=None,
        freeze_depth=0,
        strategy="fine_tune",
        train_bn=True,
        lr=2e-2,
        head_lr=2e-2,
        max_epochs=15,
        batch_size=16,
        **flat,
    ),
    FROZEN: make_pipeline(
        PretrainedFeatureExtractor(small_network, weights=weights, **flat),
        StandardScaler(),
        LogisticRegression(C=0.1, max_iter=1000),
    ),
    TUNED: FineTunedClassifier(small_network, weights=weights, freeze_depth=1, lr=1e-3, max_epochs=5, **flat),
}

# %%
# Accuracy against the number of labels
# -------------------------------------
# Three times, 40 images per class are drawn. :func:`~sklearn.model_selection.learning_curve` learns from the first of
# them, and tests on all images that were not drawn.

PER_CLASS, N_DRAWS = [2, 5, 10, 20, 40], 3
draws = []
for seed in range(N_DRAWS):
    rng = np.random.default_rng(seed)
    by_class = [rng.choice(np.flatnonzero(y == label), max(PER_CLASS), replace=False) for label in np.unique(y)]
    labelled = np.column_stack(by_class).ravel()  # classes take turns
    draws.append((labelled, np.setdiff1d(np.arange(len(y)), labelled)))

print(
    f"2. Digits 5 to 9 from few labels: accuracy on {len(draws[0][1])} others, mean ± spread over {N_DRAWS} draws ..."
)
print(f"   {'labels per class':<36}" + "".join(f"{number:>15}" for number in PER_CLASS))
sizes, curves = [number * 5 for number in PER_CLASS], {}
for name, model in models.items():
    n_jobs = 2 if name == SCRATCH else None  # two processes: it takes the longest, and finds nothing in a cache
    _, _, curves[name] = learning_curve(model, X, y, train_sizes=sizes, cv=draws, n_jobs=n_jobs, error_score="raise")
    cells = [f"{accuracies.mean():.3f} ± {accuracies.std():.3f}" for accuracies in curves[name]]
    print(f"   {name:<36}" + "".join(f"{cell:>15}" for cell in cells), flush=True)

# %%
# One grid search over all kinds of models
# ----------------------------------------
# With 20 labels per class, one grid holds settings of four kinds of models. The pretrained network takes part in 36
# fits. Its frozen part still sees each image once, because its results are cached.

SEARCHED = 20  # labels per class
DEPTHS, RATES = [1, 2, 3], [4e-4, 2e-3, 1e-2]
few = draws[0][0][: SEARCHED * 5]
others = np.setdiff1d(np.arange(len(y)), few)
grids = [
    # The shallowest depth comes first: deeper ones go on from what it left of each image.
    {"model": [models[TUNED]], "model__freeze_depth": DEPTHS, "model__lr": RATES},
    {"model": [models[FROZEN]], "model__logisticregression__C": [0.01, 0.1, 1]},
    {"model": [models[PCA_SVC]], "model__pca__n_components": [0.7, 0.8, 0.9], "model__svc__C": [1, 10]},
    {"model": [models[PIXELS]], "model__logisticregression__C": [0.001, 0.01, 0.1]},
]
print(f"3. GridSearchCV, 3 folds of {len(few)} images ({SEARCHED} per class): the best of each kind ...")
sktransfer.clear_cache()
search = GridSearchCV(Pipeline([("model", models[TUNED])]), grids, cv=3, refit=False, error_score="raise")
search.fit(X[few], y[few])
n_passes = sktransfer.cache_info().misses

print(f"   {'':<36}{'3 folds':>9}{'others':>9}")
for name in (PIXELS, PCA_SVC, FROZEN, TUNED):
    tried = zip(search.cv_results_["params"], search.cv_results_["mean_test_score"], strict=True)
    best, accuracy = max(((s, a) for s, a in tried if s["model"] is models[name]), key=lambda pair: pair[1])
    best = {key.removeprefix("model__"): value for key, value in best.items() if key != "model"}
    other = clone(models[name]).set_params(**best).fit(X[few], y[few]).score(X[others], y[others])
    words = ", ".join(f"{key.rpartition('__')[2]}={value:g}" for key, value in best.items())
    print(f"   {name:<36}{accuracy:>9.3f}{other:>9.3f}   {words}")
n_fits = 3 * (len(DEPTHS) * len(RATES) + 3)
print(f"   {n_fits} fits use the pretrained network: its frozen part ran {n_passes} times for {len(few)} images.")

# %%
# The picture
# -----------
# With few labels per class, both ways that use the pretrained network are far ahead. Tuning its last three blocks wins
# as labels grow in number.

plt.rcParams.update({"font.size": 12, "axes.titlesize": 12})
figure = plt.figure(figsize=(10.5, 5.8), layout="constrained")
places = figure.add_gridspec(2, 2, height_ratios=[1, 4.2], width_ratios=[1.75, 1])

strip = figure.add_subplot(places[0, :])
images = X[draws[0][0][:20]].reshape(-1, SIDE, SIDE)
strip.imshow(np.hstack([np.pad(image, 1, constant_values=255) for image in images]), cmap="gray")
strip.set_title("The task: digits 5 to 9, anywhere in the image. The network was trained on 0 to 4 only.")
strip.set_axis_off()

axes = figure.add_subplot(places[1, 0])
styles = {PIXELS: "#777777", PCA_SVC: "#000000", SCRATCH: "#D55E00", FROZEN: "#56B4E9", TUNED: "#0072B2"}
for (name, colour), marker in zip(styles.items(), "vs^Do", strict=True):
    mean, spread = curves[name].mean(axis=1), curves[name].std(axis=1)
    style = {"marker": marker, "color": colour, "linewidth": 3 if name == TUNED else 1.8}
    axes.plot(PER_CLASS, mean, label=name.removesuffix(" + LogisticRegression"), **style)
    axes.fill_between(PER_CLASS, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)
axes.axhline(0.2, color="#777777", linestyle=":")
axes.text(PER_CLASS[-1], 0.21, "guessing", ha="right", va="bottom", color="#555555")
axes.set(xscale="log", xlabel="labelled images per class", ylabel="accuracy on other images", ylim=(0, 1))
axes.set_xticks(PER_CLASS, PER_CLASS)
axes.minorticks_off()
axes.spines[["top", "right"]].set_visible(False)
handles, labels = axes.get_legend_handles_labels()
axes.legend(handles[::-1], labels[::-1], loc="lower left", ncols=2, frameon=False, fontsize=10.5)

# GridSearchCV varies the parameter that is last in the alphabet fastest, and the grid of this model comes first.
table = search.cv_results_["mean_test_score"][: len(DEPTHS) * len(RATES)].reshape(len(DEPTHS), len(RATES))
axes = figure.add_subplot(places[1, 1])
axes.imshow(table, cmap="Blues", aspect="auto", vmin=table.min() - 0.02)
for (row, column), accuracy in np.ndenumerate(table):
    colour = "white" if accuracy > (table.min() + table.max()) / 2 else "black"
    weight = "bold" if accuracy == table.max() else "normal"
    axes.text(column, row, f"{accuracy:.3f}", ha="center", va="center", color=colour, weight=weight, fontsize=14)
axes.set_xticks(range(len(RATES)), [f"{rate:g}" for rate in RATES])
axes.set_yticks(range(len(DEPTHS)), [f"{depth} of 4" for depth in DEPTHS])
axes.set(xlabel="lr", ylabel="freeze_depth, in blocks", title=f"GridSearchCV, {SEARCHED} labels per class")

if "__file__" in globals():  # run as a script: the gallery shows the figure itself
    figure.savefig("quickstart.png", dpi=120)
    print(f"4. Drawn: quickstart.png. {time.perf_counter() - start:.0f} s in all.")
torch.set_num_threads(n_threads)
folder.cleanup()
