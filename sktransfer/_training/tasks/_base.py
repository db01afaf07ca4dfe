"""What training needs of a target, whatever its kind."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from sktransfer._training._activation_sources import Activations
    from sktransfer._training._dataset import ActivationDataset


class Task(ABC):
    """Task to learn.

    Parameters
    ----------
    targets : ndarray of shape (n_samples,) or (n_samples, n_outputs)
        What outputs are compared with.
    weights : float64 ndarray of shape (n_samples,)
        Weight of each sample.
    n_outputs : int
        Width of the head's output.
    """

    # What `history_` records of held-out samples beside the loss, as "valid_" and this: a scorer of scikit-learn's.
    metric: ClassVar[str]
    # How many samples it takes for that.
    least_to_score: ClassVar[int] = 1
    # Why nothing could be chosen by held-out samples, where nothing was.
    nothing_to_choose_by: ClassVar[str] = 'Got head_C="auto" and no samples that could be held out.'

    def __init__(self, targets: np.ndarray, weights: np.ndarray, n_outputs: int):
        self.targets, self.weights, self.n_outputs = targets, weights, n_outputs

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def loss_weights(self) -> np.ndarray:
        """Weight of each sample in the loss, or of each of its outputs."""
        return self.weights

    def of(self, source: "Activations", rows: np.ndarray) -> "ActivationDataset":
        """Join activations with the targets of some rows."""
        from sktransfer._training._dataset import ActivationDataset  # which only training needs

        relative = self.loss_weights / self.loss_weights.mean()
        return ActivationDataset(source, rows, self.targets[rows], relative[rows])

    @property
    @abstractmethod
    def can_be_solved(self) -> bool:
        """Whether its loss makes a convex problem of a linear head that someone solves here."""

    @abstractmethod
    def solve(
        self, features: np.ndarray, rows: np.ndarray, widths: Sequence[int], C: Any, samples: np.ndarray | None
    ) -> Any:
        """Solve a linear head.

        Parameters
        ----------
        features : ndarray of shape (n_rows, n_features)
            What enters it.
        rows : int ndarray of shape (n_rows,)
            Of which sample each row is.
        widths : sequence of int
            Number of features of each layer.
        C : float or "auto"
            Inverse strength of the penalty.
        samples : int ndarray of shape (n_rows,) or None
            What is held out together, if not what is equal.

        Returns
        -------
        Solution
            The head, and how it was found.
        """

    @abstractmethod
    def loss(self) -> nn.Module:
        """Return the loss of each sample: a module from outputs and targets to (n,) or (n, n_outputs)."""

    @staticmethod
    @abstractmethod
    def net_class() -> Any:
        """Return the class of skorch's that predicts such targets."""

    @staticmethod
    @abstractmethod
    def results(outputs: torch.Tensor) -> torch.Tensor:
        """Return what outputs stand for: probabilities, or the outputs themselves."""

    @abstractmethod
    def like(self, y: Any, n_samples: int) -> "Task":
        """Read other targets, which mean what these mean; each of their samples weighs the same."""

    @abstractmethod
    def spread(self, outputs: np.ndarray) -> np.ndarray:
        """Return how far from undecided each row of outputs is, as a mean square; zeros where that means nothing.

        It is what must not grow when the network comes to know its training samples by heart.
        """

    @abstractmethod
    def split(self, rows: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Divide rows into those to train on and those to hold out, as alike as they can be."""

    @abstractmethod
    def parts(self, rows: np.ndarray, count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Divide rows `count` times into those to train on and those to look at; nothing where there are too few."""

    def total_loss(self, outputs: np.ndarray, rows: np.ndarray) -> float:
        """Return the weighted sum of the losses of some rows, in double precision."""
        targets = torch.from_numpy(self.targets[rows])
        targets = targets.double() if targets.is_floating_point() else targets
        losses = self.loss()(torch.from_numpy(outputs).double(), targets).numpy()
        weights = self.loss_weights[rows]
        return float((losses * (weights if losses.ndim == weights.ndim else weights[:, None])).sum())

    @abstractmethod
    def score(self, outputs: np.ndarray, rows: np.ndarray) -> float:
        """Return what `metric` names, of some rows."""

    @abstractmethod
    def learned(self) -> dict[str, Any]:
        """Return the attributes of a fitted estimator that say what outputs mean."""
