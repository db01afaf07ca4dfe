"""
From a fitted model to a file
=============================

The model is fitted. How does it get to another process, another machine, or a program without PyTorch?

``sktransfer.save`` writes JSON and tensors, and ``sktransfer.load`` runs no code from the file. ``to_onnx`` writes the
network for runtimes such as onnxruntime. This page compares the answers, the sizes and the seconds.

The network is SqueezeNet. If its weights are neither in torch's folder of downloads nor in that of
``SKTRANSFER_ASSETS``, it has random ones: sizes and seconds are the same. ``pip install "sktransfer[onnx]"
onnxruntime`` brings what the second half needs; without it, that half says so and is left out.
"""

import os
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d

import sktransfer
from sktransfer import FineTunedClassifier

folder = tempfile.TemporaryDirectory()
places = [Path(os.environ.get("SKTRANSFER_ASSETS", "."), "weights"), Path(torch.hub.get_dir(), "checkpoints")]
weights = next((file for place in places for file in place.glob("squeezenet1_1-*.pth")), None)
print("weights:", weights or "random")

patches = [
    extract_patches_2d(photo, (224, 224), max_patches=24, random_state=0) for photo in load_sample_images().images
]
X, y = np.concatenate(patches), np.repeat(["temple", "flower"], 24)
model = FineTunedClassifier("squeezenet1_1", weights=weights, precision="float32", feature_cache=None, random_state=0)
model.fit(X[::2], y[::2])
X_new = X[1::2]
expected = model.predict_proba(X_new)

# %%
# Saved and loaded
# ----------------
# The file holds the whole estimator. ``save_backbone`` would write the weights of the network alone.

files = {"sktransfer.save": Path(folder.name, "model.sktransfer")}
sktransfer.save(model, files["sktransfer.save"])
loaded = sktransfer.load(files["sktransfer.save"])
print("Loaded, and asked again: the same bits:", np.array_equal(loaded.predict_proba(X_new), expected))

# %%
# For programs without PyTorch
# ----------------------------
# The ONNX file takes prepared pictures. The JSON file beside it says how they are prepared.


def seconds(predict):
    """Return the seconds of the fastest of five calls."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        predict()
        times.append(time.perf_counter() - start)
    return min(times)


speeds = {"PyTorch, in sktransfer": 1000 * seconds(lambda: model.predict_proba(X_new)) / len(X_new)}
differences = {}
if find_spec("onnxruntime") and find_spec("onnx"):
    import onnxruntime

    files["to_onnx"] = Path(folder.name, "model.onnx")
    model.to_onnx(files["to_onnx"])
    preprocessing = model.backbone_.preprocessing

    def prepare(pictures):
        """Return pictures as the network expects them: float32 ndarray of shape (n_samples, 3, 224, 224)."""
        from PIL import Image

        sized = np.stack([np.asarray(preprocessing.fit_size(Image.fromarray(picture))) for picture in pictures])
        return preprocessing.normalise(torch.from_numpy(sized).permute(0, 3, 1, 2)).numpy()

    session = onnxruntime.InferenceSession(files["to_onnx"])
    (probabilities,) = session.run(None, {"prepared": prepare(X_new)})
    print(f"onnxruntime: the largest difference of a probability is {np.abs(probabilities - expected).max():.1e}")
    once = seconds(lambda: session.run(None, {"prepared": prepare(X_new)}))
    speeds["onnxruntime"] = 1000 * once / len(X_new)
else:
    print('For ONNX: pip install "sktransfer[onnx]" onnxruntime')

sizes = {name: sum(f.stat().st_size for f in path.parent.glob(f"{path.name}*")) / 1e6 for name, path in files.items()}
for name, size in sizes.items():
    print(f"  {name:<24} {size:.1f} MB")
for name, speed in speeds.items():
    print(f"  {name:<24} {speed:.1f} ms per picture")

figure, axes = plt.subplots(1, 2, figsize=(9, 2.6), layout="constrained")
for ax, values, form, label in ((axes[0], sizes, "%.1f MB", "MB"), (axes[1], speeds, "%.1f ms", "ms per picture")):
    bars = ax.barh(list(values), list(values.values()), color=["#0072B2", "#E69F00"][: len(values)], height=0.6)
    ax.bar_label(bars, fmt=form, padding=4, fontsize=12)
    ax.invert_yaxis()
    ax.margins(x=0.3)
    ax.set_xlabel(label)
    ax.spines[["top", "right"]].set_visible(False)
axes[0].set_title("How large is the file?")
axes[1].set_title(f"How fast are {len(X_new)} pictures?")
folder.cleanup()
