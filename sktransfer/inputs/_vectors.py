"""Plain rows of numbers, given to the network as they are. To scale them, put a scaler before the estimator."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch

from sktransfer.inputs._base import Reader, Samples


class VectorSamples(Samples):
    """Rows of a float32 matrix of shape (n_samples, n_features)."""

    kind = "vectors"

    def __init__(self, X: np.ndarray):
        self._X = X

    def __len__(self) -> int:
        return len(self._X)

    def load(self, index: int) -> torch.Tensor:
        return torch.from_numpy(self._X[index].copy())  # torch refuses negative strides, and warns of read-only rows

    def blank(self) -> torch.Tensor:
        return torch.zeros(self._X.shape[1])

    def prepare(self, batch: torch.Tensor) -> torch.Tensor:
        return batch

    @property
    def n_values(self) -> int:
        return int(self._X.shape[1])

    @property
    def recipe(self) -> str | None:
        return None

    def digest(self, index: int) -> bytes:
        return self._X[index].tobytes()


class VectorReader(Reader):
    """Reads what scikit-learn has already checked to be a finite float32 matrix."""

    kind = "vectors"

    @property
    def record(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        return cls()

    def example(self, n_samples: int, n_features: int | None) -> torch.Tensor:
        return torch.rand(n_samples, n_features or 1, generator=torch.Generator().manual_seed(0))

    def learn(self, X: Any, tolerant: bool = False) -> VectorSamples:
        return VectorSamples(X)

    def read(self, X: Any, tolerant: bool = False) -> VectorSamples:
        return VectorSamples(X)
