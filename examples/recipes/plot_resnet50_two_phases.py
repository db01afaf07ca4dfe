"""
ResNet50 in two phases
======================

How do I train the new head first, and then the last part of ResNet50 at a small learning rate? And does the frozen
part really stay as it was?

Here the head is trained for 5 epochs at 1e-3, then the last stage too, for 10 epochs at 1e-5. If torchvision's weights
are not in torch's folder of downloads, the network has random ones, so that the example runs offline. Then look at
what changes, not at the accuracy.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d
from torchvision.models import resnet50

from sktransfer import FineTunedClassifier
from sktransfer.inspection import TrainingCurveDisplay

folder = tempfile.TemporaryDirectory()
weights = next(Path(torch.hub.get_dir(), "checkpoints").glob("resnet50-*.pth"), None)
print("weights:", weights or "random")
if weights is None:
    weights = Path(folder.name, "random.pth")
    torch.manual_seed(0)
    torch.save(resnet50(zero_init_residual=True).state_dict(), weights)

patches = [extract_patches_2d(photo, (96, 96), max_patches=16, random_state=0) for photo in load_sample_images().images]
X, y = np.concatenate(patches), np.repeat(["temple", "flower"], 16)

# %%
# The recipe
# ----------
# ``freeze_depth="layer3.5"`` freezes all blocks up to and including that one. ``strategy="lp_ft"`` trains the head
# first.

model = FineTunedClassifier(
    "resnet50",
    weights=weights,
    freeze_depth="layer3.5",
    strategy="lp_ft",
    layer=None,
    head_epochs=5,
    head_lr=1e-3,
    max_epochs=10,
    lr=1e-5,
    random_state=0,
).fit(X, y)
display = TrainingCurveDisplay.from_estimator(model)

# %%
# What has changed?
# -----------------
# The tuned network is saved under torchvision's names, and compared with the one that was loaded.

model.save_backbone(Path(folder.name, "tuned.safetensors"))
before, after = torch.load(weights, weights_only=True), load_file(Path(folder.name, "tuned.safetensors"))
parts = ["conv1", "layer1", "layer2", "layer3", "layer4"]
changes = [
    max(float((after[name] - before[name]).abs().max()) for name in after if name.startswith(part)) for part in parts
]
for part, change in zip(parts, changes, strict=True):
    print(f"  {part:<8} largest change of a weight: {change:.1e}")

figure, axes = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
bars = axes.bar(parts, changes, color=["#56B4E9"] * 4 + ["#D55E00"])
axes.bar_label(bars, ["0" if change == 0 else f"{change:.0e}" for change in changes], fontsize=12)
axes.set(ylabel="largest change of a weight", title="Frozen stays frozen: only the last stage has changed")
axes.margins(y=0.15)
axes.spines[["top", "right"]].set_visible(False)

# %%
# The summary lists blocks and what was trained of them, as Keras's ``model.summary()`` does.

print(model.backbone_.summary())
folder.cleanup()

# sphinx_gallery_thumbnail_number = 2
