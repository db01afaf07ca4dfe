"""
DenseNet on grey pictures with a rare finding
=============================================

How do I use DenseNet121 on grey pictures such as X-rays, where the finding is rare?

Grey pictures need no preparation. ``class_weight="balanced"`` gives each class the same weight, however rare it is.
The pictures here are drawn: two dark lungs, ribs, noise, and in some of them a bright spot. If torchvision's weights
are not in torch's folder of downloads, the network has random ones. Then the figures show what the weights of classes
do, and nothing about DenseNet.

Before you believe a score on real X-rays, read :ref:`sphx_glr_auto_examples_honest_scores_plot_few_x_rays.py`.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from sklearn.metrics import recall_score
from sklearn.model_selection import train_test_split

from sktransfer import FineTunedClassifier
from sktransfer.inspection import SamplesDisplay

weights = next(Path(torch.hub.get_dir(), "checkpoints").glob("densenet121-*.pth"), None)
print("weights:", weights or "random")


def draw_chest(has_finding, rng, side=96):
    """Draw what looks a little like a chest X-ray: uint8 ndarray of shape (side, side)."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    lungs = np.exp(-(((np.abs(x) - 0.45) / 0.33) ** 4) - ((y + rng.normal(0, 0.05)) / 0.75) ** 4)
    image = 0.75 - 0.5 * lungs * (1 + 0.15 * np.sin(16 * y + 5 * np.abs(x) + rng.uniform(0, 6)))
    image += 0.35 * gaussian_filter(rng.normal(size=image.shape), 1.5)
    if has_finding:
        place = rng.choice([-0.45, 0.45]) + rng.uniform(-0.1, 0.1), rng.uniform(-0.4, 0.4)
        image += 0.28 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / 0.03)
    return (255 * image.clip(0, 1)).astype(np.uint8)


rng = np.random.default_rng(0)
y = np.repeat(["finding", "none"], [16, 84])
X = np.array([draw_chest(label == "finding", rng) for label in y])
display = SamplesDisplay.from_data(X, y, n_samples=8, random_state=0)

# %%
# The recipe
# ----------
# The last dense block is tuned, behind ``features.transition3``.

X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)
recipe = {"freeze_depth": "features.transition3", "max_epochs": 4, "lr": 1e-4, "batch_size": 16, "random_state": 0}
recalls = {}
for class_weight in (None, "balanced"):
    model = FineTunedClassifier("densenet121", weights=weights, class_weight=class_weight, **recipe)
    predicted = model.fit(X_train, y_train).predict(X_test)
    recalls[class_weight] = recall_score(y_test, predicted, labels=["finding", "none"], average=None)
    print(f"class_weight={class_weight!r:<11} found {recalls[class_weight][0]:.2f} of the findings,", end=" ")
    print(f"and {recalls[class_weight][1]:.2f} of those without")

figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
for place, (class_weight, colour) in enumerate(((None, "#777777"), ("balanced", "#0072B2"))):
    bars = axes.bar(np.arange(2) + 0.4 * place, recalls[class_weight], 0.38, color=colour)
    bars.set_label(f"class_weight={class_weight!r}")
    axes.bar_label(bars, fmt="%.2f", fontsize=12)
axes.set_xticks([0.2, 1.2], [f"finding ({np.sum(y_train == 'finding')} of {len(y_train)})", "none"], fontsize=11)
axes.set(ylim=(0, 1.35), ylabel="share that is found", title="What the weights of classes do")
axes.legend(loc="upper center", ncols=2)
axes.spines[["top", "right"]].set_visible(False)

# sphinx_gallery_thumbnail_number = 2
