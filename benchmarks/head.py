"""Measure how features are best scaled, and how strongly the head is best penalised, before a linear head is solved.

    python benchmarks/head.py [--assets FOLDER] [--output benchmarks/results/head.md]

Five sets (see defaults.py) and two networks. Each cell is the mean accuracy of logistic regression over 5 folds and
over 4 splits that train on 10 samples a class.
"""

import argparse
import os
import warnings
from pathlib import Path

import numpy as np
from defaults import HERE, NETWORKS, image_sets
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktransfer import PretrainedFeatureExtractor
from sktransfer._training._solved_head import solve_head

SAMPLES = 500


class SolvedHead(LogisticRegression):
    """The head of the package, on features."""

    def fit(self, X, y):
        self.classes_, labels = np.unique(y, return_inverse=True)
        head = solve_head(X, labels, np.ones(len(X)), len(self.classes_)).head
        self.coef_, self.intercept_ = head.weight.numpy(force=True), head.bias.numpy(force=True)
        return self

    def decision_function(self, X):
        return X @ self.coef_.T + self.intercept_

    def predict(self, X):
        return self.classes_[self.decision_function(X).argmax(1)]


def rows():
    for C in (0.1, 1.0, 10.0):
        yield f"as they are, C = {C:g}", make_pipeline(FunctionTransformer(), LogisticRegression(C=C, max_iter=2000))
    for C in (0.1, 1.0):
        yield f"standardised, C = {C:g}", make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000))
    yield "Pareto scaling, C = 1: FineTunedClassifier", SolvedHead()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    beside = HERE.parents[1] / "shared" / "assets"
    parser.add_argument("--assets", type=Path, default=Path(os.environ.get("SKTRANSFER_ASSETS", beside)))
    parser.add_argument("--output", type=Path, default=HERE / "results" / "head.md")
    given = parser.parse_args()
    if not (given.assets / "weights").is_dir():
        parser.error("no real weights and data: give --assets, or set SKTRANSFER_ASSETS")
    warnings.filterwarnings("ignore", message="Got image values")
    table = {name: [] for name, _ in rows()}
    titles = []
    for title, X, y in image_sets(given.assets):
        titles.append(title)
        few = np.sort(np.random.default_rng(0).permutation(len(y))[:SAMPLES])
        y = y[few]
        features = [
            PretrainedFeatureExtractor(network, weights=given.assets / "weights" / file).fit_transform(X[few])
            for network, file in NETWORKS.items()
        ]
        small = min(10 * len(np.unique(y)), len(y) // 2)
        for name, model in rows():
            scores = [
                cross_val_score(model, F.astype(float), y, cv=folds).mean()
                for F in features
                for folds in (
                    StratifiedKFold(5, shuffle=True, random_state=0),
                    StratifiedShuffleSplit(4, train_size=small, random_state=1),
                )
            ]
            table[name].append(np.mean(scores))
            print(f"{title}: {name}: {np.mean(scores):.3f}", flush=True)
    lines = ["| features | " + " | ".join(titles) + " | mean |", "|---|" + "---|" * (len(titles) + 1)]
    for name, means in table.items():
        lines.append(f"| {name} | " + " | ".join(f"{mean:.3f}" for mean in means) + f" | {np.mean(means):.4f} |")
    print("\n".join(lines))
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
