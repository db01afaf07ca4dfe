"""
VGG16 with a dense head
=======================

How do I write the recipe of the Keras tutorials: VGG16 without its top, frozen, then global average pooling, a dense
layer of 256 units, dropout of 0.5 and two classes? And how do I choose the size of the dense layer without running
VGG16 for each try?

The weights are torchvision's, if they are in torch's folder of downloads. Otherwise they are random, so that the
example runs offline. Then the accuracies say nothing about VGG16, and the seconds are the same.
"""

import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d
from sklearn.model_selection import GridSearchCV

import sktransfer
from sktransfer import FineTunedClassifier
from sktransfer.inspection import SearchDisplay

weights = next(Path(torch.hub.get_dir(), "checkpoints").glob("vgg16-*.pth"), None)
print("weights:", weights or "random")

# %%
# Two classes of pictures
# -----------------------
# They are patches of scikit-learn's two sample photos: a Chinese temple and a flower.

patches = [extract_patches_2d(photo, (96, 96), max_patches=20, random_state=0) for photo in load_sample_images().images]
X, y = np.concatenate(patches), np.repeat(["temple", "flower"], 20)

# %%
# The recipe
# ----------
# ``layer="features"`` is what Keras calls ``include_top=False``. Without it, the features are those that enter VGG16's
# own last layer, and there is nothing left to pool.

recipe = {"layer": "features", "pooling": "avg", "hidden_layer_sizes": (256,), "dropout": 0.5, "head_epochs": 30}
model = FineTunedClassifier("vgg16", weights=weights, random_state=0, **recipe)
start = time.perf_counter()
model.fit(X, y)
seconds = {"first fit": time.perf_counter() - start}
print(f"{len(model.history_)} epochs; {model.backbone_.summary().n_trainable:,} weights of VGG16 were tuned")

# %%
# Six heads for the price of one
# ------------------------------
# A frozen network gives the same result for the same picture. The package computes it once and caches it. So the 18
# fits of this search run no VGG16 at all.

grid = {"hidden_layer_sizes": [(), (64,), (256,)], "dropout": [0.2, 0.5]}
start = time.perf_counter()
search = GridSearchCV(model, grid, cv=3, refit=False, error_score="raise").fit(X, y)
seconds["18 fits of a search"] = time.perf_counter() - start
print(f"VGG16 ran {sktransfer.cache_info().misses} times for {len(X)} pictures, in 19 fits.")

figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.6), layout="constrained", width_ratios=[1, 1.3])
bars = left.bar(list(seconds), list(seconds.values()), color=["#D55E00", "#0072B2"], width=0.6)
left.bar_label(bars, fmt="%.1f s", fontsize=13)
left.set(ylabel="seconds", title="VGG16 runs in the first fit only")
left.margins(y=0.15)
left.spines[["top", "right"]].set_visible(False)
display = SearchDisplay.from_search(search, x="dropout", y="hidden_layer_sizes", ax=right)
_ = figure.suptitle(f"Six dense heads behind a frozen VGG16 ({'pretrained' if weights else 'random'} weights)")
