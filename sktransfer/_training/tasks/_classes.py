"""One label per sample: logistic regression on features, cross-entropy in epochs."""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from sktransfer._training.tasks._base import Task
from sktransfer._training.tasks._labels import read_validation_labels
from sktransfer._training.tasks._weights import check_lengths


class ClassTask(Task):
    """Predict the class of a sample.

    Parameters
    ----------
    classes : ndarray of shape (n_classes,)
        The labels.
    labels : int ndarray of shape (n_samples,)
        Index of each sample's class.
    weights : float64 ndarray of shape (n_samples,)
        Weight of each sample.
    label_smoothing : float, default=0.0
        As in torch's `CrossEntropyLoss`.
    """

    metric: ClassVar[str] = "accuracy"
    nothing_to_choose_by: ClassVar[str] = (
        'Got head_C="auto" and one sample of each class; expected at least two of one class, to choose the penalty on '
        "held-out samples."
    )

    def __init__(self, classes: np.ndarray, labels: np.ndarray, weights: np.ndarray, label_smoothing: float = 0.0):
        super().__init__(np.asarray(labels, dtype=np.int64), weights, len(classes))
        self.classes, self.label_smoothing = classes, float(label_smoothing)

    @property
    def can_be_solved(self) -> bool:
        return not self.label_smoothing

    def solve(
        self, features: np.ndarray, rows: np.ndarray, widths: Sequence[int], C: Any, samples: np.ndarray | None
    ) -> Any:
        from sktransfer._training._solved_head import solve_head  # which brings scipy's optimizers in

        return solve_head(features, self.targets[rows], self.weights[rows], self.n_outputs, widths, C, samples)

    def loss(self) -> nn.Module:
        return nn.CrossEntropyLoss(reduction="none", label_smoothing=self.label_smoothing)

    def total_loss(self, outputs: np.ndarray, rows: np.ndarray) -> float:
        logarithms = torch.from_numpy(outputs).double().log_softmax(1).numpy()
        return float(-logarithms[np.arange(len(rows)), self.targets[rows]] @ self.weights[rows])

    @staticmethod
    def net_class() -> Any:
        from skorch import NeuralNetClassifier

        return NeuralNetClassifier

    @staticmethod
    def results(outputs: torch.Tensor) -> torch.Tensor:
        return outputs.softmax(dim=1)

    def like(self, y: Any, n_samples: int) -> "ClassTask":
        labels = read_validation_labels(y, self.classes)
        check_lengths(n_samples, len(labels), "X_val", "y_val")
        return ClassTask(self.classes, labels, np.ones(n_samples), self.label_smoothing)

    def spread(self, outputs: np.ndarray) -> np.ndarray:
        return np.square(outputs - outputs.mean(axis=1, keepdims=True)).mean(axis=1)

    def split(self, rows: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.model_selection import train_test_split

        labels = self.targets[rows]
        try:
            training, held_out = train_test_split(rows, test_size=fraction, stratify=labels, random_state=seed)
        except ValueError as error:
            got = f"{len(rows)} samples of {self.n_outputs} classes"
            raise ValueError(f"{got}; expected enough of each class for both parts: {error}") from error
        return training, held_out

    def parts(self, rows: np.ndarray, count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
        from sklearn.model_selection import StratifiedKFold

        labels = self.targets[rows]
        if np.bincount(labels).max() < count:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of classes with fewer samples than parts
            divided = list(StratifiedKFold(count, shuffle=True, random_state=seed).split(labels, labels))
        return [(rows[known], rows[out[np.isin(labels[out], labels[known])]]) for known, out in divided]

    def score(self, outputs: np.ndarray, rows: np.ndarray) -> float:
        return float((outputs.argmax(axis=1) == self.targets[rows]).mean())

    def learned(self) -> dict[str, Any]:
        return {"classes_": self.classes, "_has_several_labels": False}
