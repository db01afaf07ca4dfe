"""Ways from a few labelled samples to probabilities, made of scikit-learn's estimators and of the package's.

A row is given a task and returns the probabilities of its test samples. What other libraries do is in
accuracy_peers.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from accuracy_networks import Network
from accuracy_sets import LabelledSet
from PIL import Image
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor


@dataclass(frozen=True)
class Task:
    """What a row is given.

    Parameters
    ----------
    data : LabelledSet
        The set.
    network : Network
        The network.
    partner : Network or None
        Another network of the same kind, for the row that joins two.
    training, test : ndarray of int
        Positions of samples.
    seed : int
        Seed of whatever is random.
    quick : bool
        Whether one epoch is enough, because nothing is measured.
    """

    data: LabelledSet
    network: Network
    partner: Network | None
    training: np.ndarray
    test: np.ndarray
    seed: int = 0
    quick: bool = False

    @property
    def X(self) -> np.ndarray:  # noqa: N802
        return self.data.X[self.training]

    @property
    def y(self) -> np.ndarray:
        return self.data.y[self.training]

    @property
    def X_test(self) -> np.ndarray:  # noqa: N802
        return self.data.X[self.test]

    @property
    def n_classes(self) -> int:
        return int(self.data.y.max()) + 1


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Parameters
    ----------
    title : str
        What stands in the table.
    solve : callable
        From a task to probabilities, ndarray of shape (n_test_samples, n_classes).
    kinds : tuple of str
        Kinds of samples that it takes.
    needs : tuple of str
        Packages that it needs.
    uses_network : bool
        Whether it depends on the network; if not, it is measured once per set.
    most_samples : int or None
        Training samples beyond which it takes too long on a CPU.
    """

    title: str
    solve: Callable[[Task], np.ndarray]
    kinds: tuple[str, ...] = ("images", "texts")
    needs: tuple[str, ...] = ()
    uses_network: bool = True
    most_samples: int | None = None


class ParetoScaler(TransformerMixin, BaseEstimator):
    """Centres features and divides each by the root of its standard deviation, then all by one number.

    The mean square of the result is 1. With logistic regression of `C=1` this was the package's head before its penalty
    was chosen by the data: the row "earlier head", which all others are compared with.

    Attributes
    ----------
    mean_, scale_ : ndarray of shape (n_features,)
        What is taken off, and what is divided by.
    """

    def fit(self, X, y=None):
        X = np.asarray(X, dtype=np.float64)
        self.mean_ = X.mean(axis=0)
        variance = X.var(axis=0)
        overall = variance.mean()
        if overall == 0:
            self.scale_ = np.ones_like(variance)
            return self
        scale = np.maximum(variance, 1e-6 * overall) ** 0.25
        self.scale_ = scale * np.sqrt((variance / scale**2).mean())
        return self

    def transform(self, X):
        return (np.asarray(X, dtype=np.float64) - self.mean_) / self.scale_


def earlier_head(n_classes: int):
    """Return the package's head as it was: Pareto-scaled features and `C=1`."""
    return make_pipeline(ParetoScaler(), LogisticRegression(C=1.0, tol=1e-4 * min(1, 10 / n_classes), max_iter=1000))


def _logistic() -> LogisticRegression:
    return LogisticRegression(max_iter=2000)


def _extractor(task: Task, **parameters) -> PretrainedFeatureExtractor:
    return PretrainedFeatureExtractor(**task.network.parameters, **parameters)


def _fitted(model, task: Task) -> np.ndarray:
    return model.fit(task.X, task.y).predict_proba(task.X_test)


def _pixels(X: np.ndarray) -> np.ndarray:
    """Return small pictures as rows of numbers, whether X holds paths or arrays."""
    pictures = (Image.open(x) if isinstance(x, str) else Image.fromarray(x) for x in X)
    rows = [np.asarray(picture.convert("RGB").resize((32, 32))).ravel() for picture in pictures]
    return np.array(rows, dtype=np.float64) / 255


def without_network(task: Task) -> np.ndarray:
    if task.data.kind == "texts":
        return _fitted(make_pipeline(TfidfVectorizer(), _logistic()), task)
    components = min(100, len(task.y) - 1)
    return _fitted(make_pipeline(FunctionTransformer(_pixels), PCA(components, random_state=0), _logistic()), task)


def features(task: Task) -> np.ndarray:
    return _fitted(make_pipeline(_extractor(task), _logistic()), task)


def with_earlier_head(task: Task) -> np.ndarray:
    return _fitted(make_pipeline(_extractor(task), earlier_head(task.n_classes)), task)


def cross_validated(task: Task) -> np.ndarray:
    folds = min(5, int(np.bincount(task.y).min()))
    search = LogisticRegressionCV(Cs=8, cv=folds, scoring="neg_log_loss", max_iter=500)
    return _fitted(make_pipeline(_extractor(task), StandardScaler(), search), task)


def default(task: Task) -> np.ndarray:
    return _fitted(FineTunedClassifier(**task.network.parameters), task)


def tuned(task: Task, freeze_depth: float = 0.75) -> np.ndarray:
    fewer = {"max_epochs": 1} if task.quick else {}
    return _fitted(FineTunedClassifier(**task.network.parameters, freeze_depth=freeze_depth, **fewer), task)


def all_tuned(task: Task) -> np.ndarray:
    return tuned(task, freeze_depth=0)


def stages(task: Task) -> np.ndarray:
    return _fitted(make_pipeline(_extractor(task, layer="stages"), _logistic()), task)


def two_backbones(task: Task) -> np.ndarray:
    """Join the features of two networks or, where there is one alone, of a network and of words."""
    parts = [("first", _extractor(task))]
    if task.partner is not None:
        parts.append(("second", PretrainedFeatureExtractor(**task.partner.parameters)))
    else:
        words = make_pipeline(TfidfVectorizer(), FunctionTransformer(_dense))
        parts.append(("second", words if task.data.kind == "texts" else FunctionTransformer(_pixels)))
    return _fitted(make_pipeline(FeatureUnion(parts), _logistic()), task)


def _dense(matrix) -> np.ndarray:
    return matrix.toarray()


ROWS = {
    "no_network": Row("pixels + PCA, or TF-IDF, + LogisticRegression", without_network, uses_network=False),
    "features": Row("features + LogisticRegression", features),
    "earlier_head": Row("features + earlier head (Pareto scaling, C=1)", with_earlier_head),
    "cross_validated": Row("features + StandardScaler + LogisticRegressionCV", cross_validated),
    "default": Row("FineTunedClassifier()", default),
    "tuned": Row("FineTunedClassifier(freeze_depth=0.75)", tuned),
    "all_tuned": Row("FineTunedClassifier(freeze_depth=0)", all_tuned),
    "stages": Row('features of layer="stages" + LogisticRegression', stages),
    "two_backbones": Row("FeatureUnion of two networks + LogisticRegression", two_backbones),
}
