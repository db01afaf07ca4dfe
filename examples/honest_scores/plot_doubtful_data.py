"""
Three doubts about data: copies, wrong labels, a telling mark
=============================================================

Is the score too good because copies of a picture are on both sides of a split? Which labels are probably wrong? Does
the model use a mark that gives the label away? Each question takes a few lines.

The pictures are scikit-learn's digits. The network is small and has random weights: its features tell digits apart
well enough. Wrong labels are found with the package cleanlab (``pip install cleanlab``); without it, that part says so
and is left out.
"""

from importlib.util import find_spec

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GroupKFold, KFold, cross_val_predict, cross_val_score, train_test_split
from torch import nn

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.inspection import MistakesDisplay, duplicate_groups


def small_network():
    """Return three convolutions with random weights."""
    layers = []
    for before, after in ((1, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(512, 10))


model = FineTunedClassifier(small_network, layer=None, random_state=0)
digits = load_digits()
pictures, labels = (digits.images * (255 / 16)).astype(np.uint8), digits.target

# %%
# Copies
# ------
# The same pictures, brighter or darker, make scores of cross-validation too good unless they stay together.
# :func:`~sktransfer.inspection.duplicate_groups` finds them.

X, X_new, y, y_new = train_test_split(pictures, labels, train_size=150, random_state=0, stratify=labels)
rng = np.random.default_rng(0)
brighter = np.clip(X * rng.uniform(0.85, 1.15, (len(X), 1, 1)), 0, 255).astype(np.uint8)
X, y = np.concatenate([X, brighter, X]), np.tile(y, 3)

groups = duplicate_groups(X, backbone=PretrainedFeatureExtractor(small_network, random_state=0), threshold=0.999)
shuffled = cross_val_score(model, X, y, cv=KFold(5, shuffle=True, random_state=0)).mean()
grouped = cross_val_score(model, X, y, cv=GroupKFold(5), groups=groups).mean()
new = model.fit(X, y).score(X_new, y_new)
print(f"Copies: {len(X)} samples in {groups.max() + 1} groups.")
print(f"    shuffled {shuffled:.3f}, in groups {grouped:.3f}; on new samples {new:.3f}")

figure, axes = plt.subplots(figsize=(6.4, 3), layout="constrained")
names = ["shuffled folds", "folds that keep\ncopies together", "new digits:\nthe truth"]
bars = axes.barh(names, [shuffled, grouped, new], color=["#D55E00", "#0072B2", "#777777"])
axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=13)
axes.axvline(new, color="black", linestyle=":")
axes.invert_yaxis()
axes.set(xlim=(0.85, 1.02), xlabel="accuracy (the axis starts at 0.85)", title="Copies make shuffled folds too good")
axes.spines[["top", "right"]].set_visible(False)

# %%
# Wrong labels
# ------------
# A model that has not seen a sample doubts its label. We give 60 of 600 digits a wrong label, and see which are found.

X, X_new, y, y_new = train_test_split(pictures, labels, train_size=600, random_state=0, stratify=labels)
rng = np.random.default_rng(0)
wrong, given = rng.permutation(len(y))[:60], y.copy()
given[wrong] = (y[wrong] + rng.integers(1, 10, len(wrong))) % 10
probabilities = cross_val_predict(model, X, given, cv=5, method="predict_proba")

if find_spec("cleanlab"):
    from cleanlab.filter import find_label_issues

    found = find_label_issues(given, probabilities, return_indices_ranked_by="self_confidence")
    rest = np.delete(np.arange(len(X)), found)
    with_all = model.fit(X, given).score(X_new, y_new)
    without = model.fit(X[rest], given[rest]).score(X_new, y_new)
    print(f"Wrong labels: {len(wrong)} of {len(X)}. Doubted: {len(found)}, rightly {np.isin(found, wrong).sum()}.")
    print(f"    on new samples {with_all:.3f}, without doubted samples {without:.3f}")
else:
    print("Wrong labels: needs `pip install cleanlab`. The most doubtful labels are drawn without it.")

# %%
# Without any other package, the mistakes that the model is most certain of show wrong labels too.

display = MistakesDisplay.from_predictions(X, given, probabilities, n_samples=12)
_ = display.figure_.suptitle("Look here first: most of these labels are wrong", fontsize=13)

# %%
# A mark that gives the label away
# --------------------------------
# A bright bar stands above 95 % of the odd digits and 5 % of the even ones, as a clinic's own mark would. The model
# learns the bar instead of the digit. The accuracy of each group shows it. Weights by which each group counts the same
# mend most of it. (``class_weight="balanced"`` does the same for rare classes, whatever their source.) fairlearn's
# ``MetricFrame`` shows any metric by group.


def mark(X, odd, share, rng):
    """Draw a bar above some digits; return the pictures and the group of each: odd or even, with or without a bar."""
    has_bar = (rng.random(len(odd)) < share) == odd
    X = np.pad(X, ((0, 0), (2, 0), (0, 0)))
    X[has_bar, 0] = 255
    return X, np.char.add(np.where(odd, "odd", "even"), np.where(has_bar, " with bar", " without bar"))


def scores_by_group(y, predicted, groups):
    """Return the accuracy of each group."""
    return {str(group): accuracy_score(y[groups == group], predicted[groups == group]) for group in np.unique(groups)}


odd, found = labels % 2 == 1, {"as it is": [], "with weights": []}
for seed in range(3):
    rng = np.random.default_rng(seed)
    known, new = train_test_split(np.arange(len(odd)), train_size=500, random_state=seed, stratify=labels)
    X, groups = mark(pictures[known], odd[known], 0.95, rng)
    X_new, groups_new = mark(pictures[new], odd[new], 0.5, rng)
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    for name, weights in (("as it is", None), ("with weights", len(groups) / (len(counts) * counts[group]))):
        predicted = model.fit(X, odd[known], sample_weight=weights).predict(X_new)
        found[name].append(scores_by_group(odd[new], predicted, groups_new))

means = {name: {group: np.mean([s[group] for s in draws]) for group in draws[0]} for name, draws in found.items()}
print("A mark: accuracy by group, mean of 3 draws.")
for group, plain in means["as it is"].items():
    print(f"    {group:<17} {plain:.3f}, with weights {means['with weights'][group]:.3f}")
worst = {name: np.mean([min(scores.values()) for scores in draws]) for name, draws in found.items()}
print(f"    worst group       {worst['as it is']:.3f}, with weights {worst['with weights']:.3f}")

figure, axes = plt.subplots(figsize=(7.4, 3.6), layout="constrained")
for place, (name, colour) in enumerate((("as it is", "#D55E00"), ("with weights", "#0072B2"))):
    bars = axes.bar(np.arange(4) + 0.4 * place, list(means[name].values()), 0.38, color=colour, label=name)
    axes.bar_label(bars, fmt="%.2f", fontsize=11)
axes.set_xticks(np.arange(4) + 0.2, [group.replace(" ", "\n", 1) for group in means["as it is"]], fontsize=11)
axes.set(ylim=(0, 1.3), ylabel="accuracy", title="The bar stood above odd digits: who is misjudged?")
axes.legend(loc="upper center", ncols=2)
axes.spines[["top", "right"]].set_visible(False)

# sphinx_gallery_thumbnail_number = 3
