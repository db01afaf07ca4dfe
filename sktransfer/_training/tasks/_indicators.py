"""Several labels per sample: one logistic regression per label on the same features, binary cross-entropy in epochs.

Samples are held out at random: which labels occur together says how one would stratify, and nobody has enough samples
of each combination.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.utils import compute_class_weight
from torch import nn

from sktransfer._messages import shown
from sktransfer._training.tasks._base import Task
from sktransfer._training.tasks._indicator_matrix import read_indicators
from sktransfer._training.tasks._weights import check_lengths, read_weights, refuse_no_weight

# Logits beyond this are as good as certain, and say nothing about how sure the others are.
CERTAIN = 30.0


class IndicatorTask(Task):
    """Predict the labels of a sample.

    Parameters
    ----------
    indicators : ndarray of shape (n_samples, n_labels)
        0 and 1.
    weights : float64 ndarray of shape (n_samples,)
        Weight of each sample.
    label_weights : float64 ndarray of shape (n_samples, n_labels) or None, default=None
        What each sample counts in the loss of each label; `None` is its weight.
    label_smoothing : float, default=0.0
        Part of the way from 0 and 1 to a half that targets go.
    """

    metric: ClassVar[str] = "accuracy"
    nothing_to_choose_by: ClassVar[str] = (
        'Got head_C="auto", but no label that at least two samples have and two do not have; expected at least one, to '
        "choose the penalty on held-out samples."
    )

    def __init__(
        self,
        indicators: np.ndarray,
        weights: np.ndarray,
        label_weights: np.ndarray | None = None,
        label_smoothing: float = 0.0,
    ):
        super().__init__(np.asarray(indicators, dtype=np.float32), weights, indicators.shape[1])
        self._label_weights = np.tile(weights[:, None], self.n_outputs) if label_weights is None else label_weights
        self.label_smoothing = float(label_smoothing)

    @property
    def loss_weights(self) -> np.ndarray:
        return self._label_weights

    @property
    def can_be_solved(self) -> bool:
        return not self.label_smoothing

    def solve(
        self, features: np.ndarray, rows: np.ndarray, widths: Sequence[int], C: Any, samples: np.ndarray | None
    ) -> Any:
        from sktransfer._training._solved_head import solve_label_heads  # which brings scipy's optimizers in

        indicators = self.targets[rows].astype(int)
        return solve_label_heads(
            features, indicators, self.weights[rows], self._label_weights[rows], widths, C, samples
        )

    def loss(self) -> nn.Module:
        return _SmoothedLoss(self.label_smoothing)

    def total_loss(self, outputs: np.ndarray, rows: np.ndarray) -> float:
        logits, targets = torch.from_numpy(outputs).double(), torch.from_numpy(self.targets[rows]).double()
        return float((_SmoothedLoss(0.0)(logits, targets).numpy() * self._label_weights[rows]).sum())

    @staticmethod
    def net_class() -> Any:
        from sktransfer._training.tasks._indicator_net import IndicatorNet

        return IndicatorNet

    @staticmethod
    def results(outputs: torch.Tensor) -> torch.Tensor:
        return outputs.sigmoid()

    def like(self, y: Any, n_samples: int) -> "IndicatorTask":
        indicators = read_indicators(y, "y_val")
        if indicators is None or indicators.shape[1] != self.n_outputs:
            width = "one label per sample" if indicators is None else f"{indicators.shape[1]} columns"
            raise ValueError(f"Got y_val with {width}; expected {self.n_outputs} columns of 0 and 1, as y has.")
        check_lengths(n_samples, len(indicators), "X_val", "y_val")
        return IndicatorTask(indicators, np.ones(n_samples), None, self.label_smoothing)

    def spread(self, outputs: np.ndarray) -> np.ndarray:
        return np.square(np.clip(outputs, -CERTAIN, CERTAIN)).mean(axis=1)

    def split(self, rows: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.model_selection import train_test_split

        try:
            training, held_out = train_test_split(rows, test_size=fraction, random_state=seed)
        except ValueError as error:
            raise ValueError(f"{len(rows)} samples; expected enough for both parts: {error}") from error
        return training, held_out

    def parts(self, rows: np.ndarray, count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
        from sklearn.model_selection import KFold

        if len(rows) < 2 * count:
            return []
        divided = KFold(count, shuffle=True, random_state=seed).split(rows)
        return [(rows[known], rows[out]) for known, out in divided]

    def score(self, outputs: np.ndarray, rows: np.ndarray) -> float:
        return float(((outputs > 0) == (self.targets[rows] > 0)).all(axis=1).mean())

    def learned(self) -> dict[str, Any]:
        return {"classes_": np.arange(self.n_outputs), "_has_several_labels": True}


class _SmoothedLoss(nn.Module):
    """Binary cross-entropy of each label."""

    def __init__(self, smoothing: float):
        super().__init__()
        self.smoothing = smoothing

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        softened = targets * (1 - self.smoothing) + self.smoothing / 2
        return nn.functional.binary_cross_entropy_with_logits(logits, softened, reduction="none")


def indicator_task(
    indicators: np.ndarray, sample_weight: Any, class_weight: Any, label_smoothing: float
) -> IndicatorTask:
    """Weigh samples and labels.

    Parameters
    ----------
    indicators : int ndarray of shape (n_samples, n_labels)
        0 and 1.
    sample_weight : array-like of shape (n_samples,), float or None
        As `fit` takes it.
    class_weight : dict, list of dict, "balanced" or None
        As the classifier takes it.
    label_smoothing : float
        As the classifier takes it.

    Returns
    -------
    IndicatorTask
        What is to be learned.

    Raises
    ------
    ValueError
        If weights are not as described, or leave nothing of a label.
    """
    n_samples, n_labels = indicators.shape
    weights = read_weights(sample_weight, n_samples)
    refuse_no_weight(weights)
    if class_weight is None:
        return IndicatorTask(indicators, weights, None, label_smoothing)
    if isinstance(class_weight, list) and len(class_weight) != n_labels:
        raise ValueError(
            f"Got class_weight with {len(class_weight)} dicts for {n_labels} labels; expected one dict per label, "
            "such as "
            '{0: 1, 1: 2}, or one dict for all, or "balanced".'
        )
    label_weights = np.empty(indicators.shape)
    for label, column in enumerate(indicators.T):
        own = class_weight[label] if isinstance(class_weight, list) else class_weight
        present = np.unique(column)
        if isinstance(own, dict) and set(own) - {0, 1}:
            raise ValueError(
                f"Got class_weight={shown(own)} for a label that a sample has (1) or does not have (0); expected the "
                "keys 0 and 1."
            )
        known = {key: weight for key, weight in own.items() if key in present} if isinstance(own, dict) else own
        of_values = dict(zip(present, compute_class_weight(known, classes=present, y=column), strict=True))
        label_weights[:, label] = weights * np.array([of_values[value] for value in column])
        refuse_no_weight(label_weights[:, label], f", with class_weight={shown(class_weight)},")
    return IndicatorTask(indicators, weights, label_weights, label_smoothing)
