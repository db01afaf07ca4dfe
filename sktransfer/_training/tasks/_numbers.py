"""Numbers per sample: ridge regression on features, squared, absolute or Huber loss in epochs."""

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from sktransfer._messages import shown
from sktransfer._training.tasks._base import Task
from sktransfer._training.tasks._number_matrix import read_numbers
from sktransfer._training.tasks._weights import check_lengths, read_weights, refuse_no_weight

# Of numbers with standard deviation 1; Huber's loss grows like the difference from one standard deviation on.
LOSSES = {"squared_error": nn.MSELoss, "absolute_error": nn.L1Loss, "huber": nn.HuberLoss}

# Number of bins of similar numbers. Samples are held out from each bin.
BINS = 10


class NumberTask(Task):
    """Numbers that each sample has, in units of their standard deviation around their mean.

    Parameters
    ----------
    numbers : float64 ndarray of shape (n_samples, n_outputs)
        As they were given.
    weights : float64 ndarray of shape (n_samples,)
        Weight of each sample.
    loss : str
        `"squared_error"`, `"absolute_error"` or `"huber"`.
    mean, scale : float64 ndarray of shape (n_outputs,)
        What is taken from numbers, and what they are divided by then.
    is_flat : bool
        Whether there is one number per sample, without a column axis.
    """

    metric: ClassVar[str] = "r2"
    least_to_score: ClassVar[int] = 2

    def __init__(
        self,
        numbers: np.ndarray,
        weights: np.ndarray,
        loss: str,
        mean: np.ndarray,
        scale: np.ndarray,
        is_flat: bool,
    ):
        standardised = (numbers - mean) / scale
        super().__init__(standardised.astype(np.float32), weights, numbers.shape[1])
        self.standardised, self.mean, self.scale = standardised, mean, scale
        self._loss, self.is_flat = loss, is_flat

    @property
    def can_be_solved(self) -> bool:
        return True

    def solve(
        self, features: np.ndarray, rows: np.ndarray, widths: Sequence[int], C: Any, samples: np.ndarray | None
    ) -> Any:
        from sktransfer._training._solved_ridge import solve_ridge

        numbers, weights = self.standardised[rows], self.weights[rows]
        return solve_ridge(features, numbers, weights, widths, C, samples, self._loss)

    def loss(self) -> nn.Module:
        return LOSSES[self._loss](reduction="none")

    @staticmethod
    def net_class() -> Any:
        from skorch import NeuralNetRegressor

        return NeuralNetRegressor

    @staticmethod
    def results(outputs: torch.Tensor) -> torch.Tensor:
        return outputs

    def like(self, y: Any, n_samples: int) -> "NumberTask":
        numbers, _ = read_numbers(y, "y_val")
        if numbers.shape[1] != self.n_outputs:
            raise ValueError(f"Got y_val with {numbers.shape[1]} columns; expected {self.n_outputs}, as y has.")
        check_lengths(n_samples, len(numbers), "X_val", "y_val")
        return NumberTask(numbers, np.ones(n_samples), self._loss, self.mean, self.scale, self.is_flat)

    def spread(self, outputs: np.ndarray) -> np.ndarray:
        return np.zeros(len(outputs))

    def split(self, rows: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        from sklearn.model_selection import train_test_split

        held_out = max(1, int(np.ceil(fraction * len(rows))))
        if held_out >= len(rows):
            raise ValueError(f"{len(rows)} samples; expected enough for both parts.")
        bins = self._bins(rows, min(BINS, held_out, len(rows) - held_out))
        try:
            training, out = train_test_split(rows, test_size=held_out, stratify=bins, random_state=seed)
        except ValueError:  # some numbers are so frequent that bins are too few or too uneven
            training, out = train_test_split(rows, test_size=held_out, random_state=seed)
        return training, out

    def _bins(self, rows: np.ndarray, count: int) -> np.ndarray:
        """Return which of several parts, of like numbers and as many samples each, the first number is in."""
        order = np.argsort(self.standardised[rows, 0], kind="stable")
        bins = np.empty(len(rows), dtype=int)
        bins[order] = np.arange(len(rows)) * max(1, count) // len(rows)
        return bins

    def parts(self, rows: np.ndarray, count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
        from sklearn.model_selection import KFold

        if len(rows) < 2 * count:
            return []
        divided = KFold(count, shuffle=True, random_state=seed).split(rows)
        return [(rows[known], rows[out]) for known, out in divided]

    def score(self, outputs: np.ndarray, rows: np.ndarray) -> float:
        from sklearn.metrics import r2_score

        return float(r2_score(self.standardised[rows], outputs))

    def learned(self) -> dict[str, Any]:
        return {"_target_mean": self.mean, "_target_scale": self.scale, "_has_flat_target": self.is_flat}


def number_task(
    y: Any,
    sample_weight: Any,
    loss: str,
    n_samples: int | None,
    units: tuple[np.ndarray, np.ndarray] | None = None,
) -> NumberTask:
    """Read numbers and weights.

    Parameters
    ----------
    y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        As `fit` takes it.
    sample_weight : array-like of shape (n_samples,), float or None
        As `fit` takes it.
    loss : str
        As the regressor takes it.
    n_samples : int or None
        Samples in X, where that is known.
    units : tuple of ndarray of shape (n_outputs,) or None, default=None
        Mean and standard deviation of the numbers that were learned before, if that is to go on.

    Returns
    -------
    NumberTask
        What is to be learned.

    Raises
    ------
    ValueError
        If y or the weights are not as described.
    """
    numbers, is_flat = read_numbers(y)
    check_lengths(n_samples, len(numbers))
    if len(numbers) < 2:
        raise ValueError(f"Got y with {len(numbers)} sample; expected at least two samples with different values.")
    weights = read_weights(sample_weight, len(numbers))
    refuse_no_weight(weights)
    if units is not None and len(units[0]) == numbers.shape[1]:
        return NumberTask(numbers, weights, loss, *units, is_flat)
    greatest = np.abs(numbers).max(axis=0, initial=0.0)  # so that no square overflows
    greatest[greatest == 0] = 1.0
    shares, relative = weights / weights.sum(), numbers / greatest
    mean = shares @ relative
    deviation = np.sqrt(shares @ np.square(relative - mean))
    varies = deviation > 1e-12  # constant up to rounding counts as constant
    if not varies.any():
        values = shown(numbers[0].tolist() if numbers.shape[1] > 1 else float(numbers[0, 0]))
        warnings.warn(
            f"Got y that is {values} for all samples: every prediction will be the same.", UserWarning, stacklevel=5
        )
    scale = np.where(varies, deviation, 1.0) * greatest
    return NumberTask(numbers, weights, loss, mean * greatest, scale, is_flat)
