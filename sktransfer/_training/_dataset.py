"""Draw whole batches of activations, with targets and weights."""

from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from sktransfer._training._activation_sources import Activations


class WeightedTargets(torch.Tensor):
    """Targets that carry the weight of each sample, so that whoever reads a batch finds plain ones in it."""

    weights: torch.Tensor

    @classmethod
    def of(cls, targets: torch.Tensor, weights: torch.Tensor) -> "WeightedTargets":
        """Join the targets and the weights of a batch.

        Parameters
        ----------
        targets : Tensor of shape (n,) or (n, n_outputs)
            Class indices, or numbers.
        weights : float32 Tensor of shape (n,) or (n, n_outputs)
            A weight for each sample, or for each target.

        Returns
        -------
        WeightedTargets
            On the same device.
        """
        joined = targets.as_subclass(cls)
        joined.weights = weights
        return joined

    def to(self, *args: Any, **kwargs: Any) -> "WeightedTargets":
        """Move both."""
        plain = self.as_subclass(torch.Tensor)
        return WeightedTargets.of(plain.to(*args, **kwargs), self.weights.to(*args, **kwargs))


class ActivationDataset(Dataset[Any]):
    """Activations with the target of each row, and its weight.

    Parameters
    ----------
    activations : Activations
        Where rows come from.
    rows : ndarray of int
        Rows of them.
    targets : int64 or float32 ndarray
        A target for each of `rows`.
    weights : float ndarray
        A weight for each of `rows`, or for each of their targets.
    """

    def __init__(self, activations: Activations, rows: np.ndarray, targets: np.ndarray, weights: np.ndarray):
        self.activations, self.rows = activations, rows
        self.targets = torch.as_tensor(targets)
        self.weights = torch.as_tensor(weights, dtype=torch.float32)
        self._coming: Generator[torch.Tensor, None, None] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def sizes(self) -> np.ndarray:
        """Return what tells samples of different shapes apart, for each row."""
        return np.array([self.activations.size(int(row)) for row in self.rows])

    def take(self, which: np.ndarray) -> tuple[torch.Tensor, WeightedTargets]:
        """Return a batch as skorch expects it: X, y."""
        return self.activations.take(self.rows[which]), self._labels(which)

    def batches(self, groups: list[np.ndarray]) -> Generator[tuple[torch.Tensor, WeightedTargets], None, None]:
        """Yield batches; the next ones may be computed meanwhile, until this is closed."""
        self._coming = self.activations.batches([self.rows[which] for which in groups])
        for which, activations in zip(groups, self._coming, strict=True):
            yield activations, self._labels(which)

    def close(self) -> None:
        """End what is computed for batches that nobody takes any more."""
        if self._coming is not None:
            self._coming.close()
            self._coming = None

    def _labels(self, which: np.ndarray) -> WeightedTargets:
        return WeightedTargets.of(self.targets[which], self.weights[which])


# Batches, drawn at random, whose samples are sorted by size among each other: enough that a batch holds samples of like
# size, few enough that it is another batch in each epoch.
SORTED_BATCHES = 16


class SliceBatches:
    """Batches that are taken whole, not put together sample by sample.

    Where samples differ in size, a batch that is drawn at random holds samples of similar size, since the padding of
    shorter ones costs as much as they do.

    Parameters
    ----------
    dataset : ActivationDataset
        What to draw from.
    batch_size : int
        Samples a batch. A last batch of one joins the one before: BatchNorm has no statistics of one.
    shuffle : bool, default=False
        Whether to draw in random order, from torch's generator.
    """

    def __init__(self, dataset: ActivationDataset, batch_size: int, shuffle: bool = False):
        self.dataset, self.batch_size, self.shuffle = dataset, batch_size, shuffle

    def __len__(self) -> int:
        return len(self._starts())

    def _starts(self) -> list[int]:
        n = len(self.dataset)
        starts = list(range(0, n, self.batch_size))
        if len(starts) > 1 and n - starts[-1] == 1:
            starts.pop()
        return starts

    def __iter__(self) -> Iterator[Any]:
        n = len(self.dataset)
        order = torch.randperm(n).numpy() if self.shuffle else np.arange(n)
        sizes = self.dataset.sizes()[order]
        differ = self.shuffle and bool((sizes != sizes[0]).any())
        if differ:
            span = self.batch_size * SORTED_BATCHES
            order = np.concatenate(
                [order[i : i + span][sizes[i : i + span].argsort(kind="stable")] for i in range(0, n, span)]
            )
        starts = self._starts()
        batches = list(zip(starts, [*starts[1:], n], strict=True))
        if differ:
            batches = [batches[place] for place in torch.randperm(len(batches)).tolist()]
        yield from self.dataset.batches([order[start:stop] for start, stop in batches])
