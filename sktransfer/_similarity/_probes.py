"""Cross-validated linear probes of features at each depth, and of the input without a network.

A probe is ridge regression, of classes by their indicators, with a penalty that samples left out one at a time choose:
it has a closed form, so a score at each of ten depths costs seconds. It compares features; it is not the head that the
package trains.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sktransfer._probing._targets import Targets

# Penalties that are tried, on features of variance 1.
PENALTIES = np.logspace(-1, 5, 7)
COMPONENTS = 100


@dataclass(frozen=True)
class Score:
    """Cross-validated score.

    Parameters
    ----------
    mean, error : float
        Mean over the folds, and its standard error.
    """

    mean: float
    error: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.error:.3f}"


def score(
    features: Any, targets: Targets, folds: Sequence[tuple[np.ndarray, np.ndarray]], pixels: bool = False
) -> Score:
    """Score a probe on features.

    Parameters
    ----------
    features : ndarray or sparse matrix of shape (n_samples, n_features)
        Of all samples.
    targets : Targets
        Of all samples.
    folds : sequence of tuple of ndarray
        From `folds_of`.
    pixels : bool, default=False
        Whether to take the first principal components instead of scaled features.

    Returns
    -------
    Score
        Accuracy, micro-averaged F1, or R2.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import RidgeClassifierCV, RidgeCV
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    ridge: Any = RidgeCV(PENALTIES) if targets.kind == "numbers" else RidgeClassifierCV(PENALTIES)
    least = min(len(rows) for rows, _ in folds)
    if not isinstance(features, np.ndarray):  # counts of words, scaled already
        model = ridge
    elif pixels:
        model = make_pipeline(PCA(min(COMPONENTS, least - 1, features.shape[1]), random_state=0), ridge)
    else:
        model = make_pipeline(StandardScaler(), ridge)
    scoring = {"classes": "accuracy", "labels": "f1_micro", "numbers": "r2"}[targets.kind]
    found = cross_val_score(model, features, targets.values, cv=folds, scoring=scoring)
    return Score(float(found.mean()), float(found.std(ddof=1) / np.sqrt(len(found))))


def words(texts: Sequence[str]) -> Any:
    """Return texts as weighted counts of words, a sparse matrix: what a probe without a network sees of them."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(token_pattern=r"\S+").fit_transform([text if text.split() else "-" for text in texts])  # noqa: S106
