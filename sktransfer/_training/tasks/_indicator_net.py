"""skorch's net for several labels per sample, for callbacks that let it predict."""

from typing import Any

import numpy as np
from skorch import NeuralNet


class IndicatorNet(NeuralNet):
    """A net whose outputs are logits of labels."""

    def predict(self, X: Any) -> np.ndarray:
        """Return which labels each sample has: 0 and 1, int ndarray of shape (n_samples, n_labels)."""
        return (self.predict_proba(X) > 0.5).astype(int)
