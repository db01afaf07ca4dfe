"""
Thaw block by block, with a learning rate for each
==================================================

Should all tuned blocks start to learn at once, and at the same rate? Two recipes say no. *Gradual unfreezing* trains
the head, then the last block too, then the one before it. *Discriminative learning rates* let early blocks learn more
slowly than late ones.

If torchvision's weights of ResNet18 are not in torch's folder of downloads, the network has random ones. Then look at
what learns when, not at the accuracy.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d
from torchvision.models import resnet18

from sktransfer import FineTunedClassifier
from sktransfer.inspection import TrainingCurveDisplay

folder = tempfile.TemporaryDirectory()
weights = next(Path(torch.hub.get_dir(), "checkpoints").glob("resnet18-*.pth"), None)
print("weights:", weights or "random")
if weights is None:
    weights = Path(folder.name, "random.pth")
    torch.manual_seed(0)
    torch.save(resnet18(zero_init_residual=True).state_dict(), weights)

patches = [extract_patches_2d(photo, (96, 96), max_patches=10, random_state=0) for photo in load_sample_images().images]
X, y = np.concatenate(patches), np.repeat(["temple", "flower"], 10)

# %%
# One block after another
# -----------------------
# ``strategy="gradual"`` thaws blocks from the head down to ``freeze_depth``. The curve begins with the head alone.

model = FineTunedClassifier(
    "resnet18",
    weights=weights,
    strategy="gradual",
    freeze_depth=0.6,
    head_epochs=4,
    max_epochs=8,
    lr=1e-4,
    random_state=0,
).fit(X, y)
display = TrainingCurveDisplay.from_estimator(model)

# %%
# A rate for each block
# ---------------------
# With ``layer_decay=0.5``, each block learns at half the rate of the next. The figure shows how far the weights of
# each block have moved after two epochs in which all blocks learn.

blocks = [f"layer{stage}.{block}." for stage in (1, 2, 3, 4) for block in (0, 1)]
before = torch.load(weights, weights_only=True)
figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
for decay, colour, marker in ((1.0, "#777777", "o"), (0.5, "#0072B2", "s")):
    model = FineTunedClassifier(
        "resnet18",
        weights=weights,
        freeze_depth=0,
        layer_decay=decay,
        strategy="fine_tune",
        max_epochs=2,
        lr=1e-4,
        random_state=0,
    ).fit(X, y)
    model.save_backbone(Path(folder.name, "tuned.safetensors"))
    after = load_file(Path(folder.name, "tuned.safetensors"))
    moved = [
        np.mean([float((after[n] - before[n]).abs().mean()) for n in after if n.startswith(b) and "conv" in n])
        for b in blocks
    ]
    print(f"layer_decay={decay}: the last block moved {moved[-1] / moved[0]:.1f} times as far as the first")
    axes.plot(moved, color=colour, marker=marker, linewidth=2.5, label=f"layer_decay={decay}")
axes.set_xticks(range(len(blocks)), [block[5:-1] for block in blocks])
axes.set(yscale="log", xlabel="block of ResNet18: stage and number", ylabel="mean change of a weight")
axes.set_title("Early blocks learn more slowly")
axes.legend()
axes.spines[["top", "right"]].set_visible(False)
folder.cleanup()

# sphinx_gallery_thumbnail_number = 2
