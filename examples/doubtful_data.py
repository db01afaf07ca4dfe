"""Three doubts about data, and what to do: copies, wrong labels, and a mark that gives the label away.

    python doubtful_data.py

runs in seconds and needs no download: small digits, and a small network with random weights. Each recipe is a function
of a few lines that takes your X and y. Wrong labels are found with the package cleanlab; where it is not installed,
that part says so.

Copies: the same pictures, brighter or shifted, make scores of cross-validation too good unless they stay together.
Wrong labels: a model that has not seen a sample doubts its label.
Source bias: a mark that most samples of a class share, as of the clinic that they come from, is learned instead of the
class. The score of the worst group shows it, and weights of samples mend most of it. (`class_weight="balanced"` does
the same for rare classes, whatever their source.)
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GroupKFold, KFold, cross_val_predict, cross_val_score, train_test_split
from torch import nn

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.inspection import duplicate_groups


def scores_with_and_without_copies(model, X, y, backbone, threshold=0.95):
    """Return cross-validated accuracy on shuffled samples, and with copies kept together; and the groups."""
    groups = duplicate_groups(X, backbone=backbone, threshold=threshold)
    shuffled = cross_val_score(model, X, y, cv=KFold(5, shuffle=True, random_state=0)).mean()
    grouped = cross_val_score(model, X, y, cv=GroupKFold(5), groups=groups).mean()
    return shuffled, grouped, groups


def doubtful_labels(model, X, y):
    """Return rows whose labels are probably wrong, the most doubtful first: look at them, and mend or leave them out.

    Each sample is judged by a model that has not seen it. Labels are 0, 1, 2, ... as cleanlab wants them.
    """
    from cleanlab.filter import find_label_issues

    probabilities = cross_val_predict(model, X, y, cv=5, method="predict_proba")
    return find_label_issues(y, probabilities, return_indices_ranked_by="self_confidence")


def scores_by_group(y, predicted, groups):
    """Return the accuracy of each group; fairlearn's MetricFrame shows the same of any metrics.

    MetricFrame(metrics=accuracy_score, y_true=y, y_pred=predicted, sensitive_features=groups).by_group
    """
    return {str(group): accuracy_score(y[groups == group], predicted[groups == group]) for group in np.unique(groups)}


def weights_of_groups(groups):
    """Return weights by which each group, such as the samples of one class from one clinic, counts the same."""
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return len(groups) / (len(counts) * counts[group])


# A small network and small digits, for what is shown


def small_network():
    """Three convolutions with random weights: their features tell digits apart well enough."""
    layers = []
    for before, after in ((1, 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(512, 10))


def digits():
    """Return digits as uint8 of shape (n, 8, 8), and their labels."""
    bunch = load_digits()
    return (bunch.images * (255 / 16)).astype(np.uint8), bunch.target


def classifier():
    return FineTunedClassifier(small_network, layer=None, random_state=0)


def copies():
    X, y = digits()
    X, X_new, y, y_new = train_test_split(X, y, train_size=150, random_state=0, stratify=y)
    rng = np.random.default_rng(0)
    louder = np.clip(X * rng.uniform(0.85, 1.15, (len(X), 1, 1)), 0, 255).astype(np.uint8)
    X, y = np.concatenate([X, louder, X]), np.tile(y, 3)
    backbone = PretrainedFeatureExtractor(small_network, random_state=0)
    shuffled, grouped, groups = scores_with_and_without_copies(classifier(), X, y, backbone, threshold=0.999)
    new = classifier().fit(X, y).score(X_new, y_new)
    print(f"Copies: {len(X)} samples in {groups.max() + 1} groups.")
    print(f"    shuffled {shuffled:.3f}, in groups {grouped:.3f}; on new samples {new:.3f}")


def wrong_labels():
    X, y = digits()
    X, X_new, y, y_new = train_test_split(X, y, train_size=600, random_state=0, stratify=y)
    rng = np.random.default_rng(0)
    wrong = rng.permutation(len(y))[:60]
    given = y.copy()
    given[wrong] = (y[wrong] + rng.integers(1, 10, len(wrong))) % 10
    try:
        found = doubtful_labels(classifier(), X, given)
    except ImportError:
        print("Wrong labels: needs `pip install cleanlab`.")
        return
    right = np.isin(found, wrong).sum()
    rest = np.delete(np.arange(len(X)), found)
    with_all = classifier().fit(X, given).score(X_new, y_new)
    without = classifier().fit(X[rest], given[rest]).score(X_new, y_new)
    print(f"Wrong labels: {len(wrong)} of {len(X)}. Doubted: {len(found)}, rightly {right}.")
    print(f"    on new samples {with_all:.3f}, without doubted samples {without:.3f}")


def marked(X, y, share, rng):
    """Draw a bright bar above some digits, as a clinic's own mark: over odd ones with this probability, else even."""
    has_mark = (rng.random(len(y)) < share) == (y % 2 == 1)
    X = np.pad(X, ((0, 0), (2, 0), (0, 0)))
    X[has_mark, 0] = 255
    groups = np.where(y % 2 == 1, "odd", "even") + np.where(has_mark, " from A", " from B").astype(object)
    return X, groups.astype(str)


def source_bias(n_draws=5):
    X, y = digits()
    before, after = [], []
    for seed in range(n_draws):
        rng = np.random.default_rng(seed)
        known, new = train_test_split(np.arange(len(y)), train_size=500, random_state=seed, stratify=y)
        X_train, groups = marked(X[known], y[known], 0.95, rng)
        X_new, groups_new = marked(X[new], y[new], 0.5, rng)
        odd, odd_new = y[known] % 2 == 1, y[new] % 2 == 1
        for found, weights in ((before, None), (after, weights_of_groups(groups))):
            model = classifier().fit(X_train, odd, sample_weight=weights)
            found.append(scores_by_group(odd_new, model.predict(X_new), groups_new))
    print(f"Source bias: accuracy by group, mean of {n_draws} draws.")
    for group in before[0]:
        plain, weighted = (np.mean([scores[group] for scores in found]) for found in (before, after))
        print(f"    {group:<12} {plain:.3f}, with weights {weighted:.3f}")
    worst = [np.mean([min(scores.values()) for scores in found]) for found in (before, after)]
    print(f"    worst group  {worst[0]:.3f}, with weights {worst[1]:.3f}")


def main():
    copies()
    wrong_labels()
    source_bias()


if __name__ == "__main__":
    main()
