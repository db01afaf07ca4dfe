"""Hold the results of compared backbones: one row for each, in order, and the best of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sktransfer._feature_extractor import PretrainedFeatureExtractor
from sktransfer._messages import named_extra
from sktransfer._ranking._one_pass import Cost


@dataclass(frozen=True)
class Row:
    """Result of one backbone.

    Parameters
    ----------
    name : str
        Name of the backbone.
    scores : float64 ndarray of shape (n_folds,)
        One per fold; empty if the backbone failed.
    cost : Cost or None, default=None
        Cost of the pass; `None` if the backbone failed.
    error : str, default=""
        Why the backbone failed, in one sentence.
    """

    name: str
    scores: np.ndarray
    cost: Cost | None = None
    error: str = ""

    @property
    def score(self) -> float:
        """Mean over folds."""
        return float(self.scores.mean())

    @property
    def std(self) -> float:
        """Standard deviation over folds; 0 of a single one."""
        return float(self.scores.std(ddof=1)) if len(self.scores) > 1 else 0.0

    @property
    def standard_error(self) -> float:
        """Of the mean."""
        return self.std / float(np.sqrt(len(self.scores)))


class Comparison:
    """Results of compared backbones, the best first and the failed ones last.

    Parameters
    ----------
    rows : list of Row
        One per backbone, in the order in which the backbones were given.
    extractors : dict of str to PretrainedFeatureExtractor
        Extractors by name.
    metric, probe, kind : str
        Name of the score, name of the probe, and kind of the samples.
    n_samples : int
        Number of samples.
    """

    def __init__(
        self,
        rows: list[Row],
        extractors: dict[str, PretrainedFeatureExtractor],
        metric: str,
        probe: str,
        kind: str,
        n_samples: int,
    ):
        done = sorted((row for row in rows if row.cost), key=lambda row: -row.score)
        self.rows = [*done, *(row for row in rows if not row.cost)]
        self.n_samples, self.n_folds = n_samples, len(done[0].scores)
        self.metric, self.probe, self.kind = metric, probe, kind
        self.extractors_ = extractors
        self.best_ = done[0].name
        self.best_extractor_ = extractors[self.best_]
        self.by_size_ = max(done, key=_n_parameters).name
        self.fold_scores_ = {row.name: row.scores for row in done}

    @property
    def size_ranks(self) -> dict[str, int]:
        """Rank of each backbone by its number of parameters, by name. 1 has the most."""
        order = sorted((row for row in self.rows if row.cost), key=_n_parameters, reverse=True)
        return {row.name: place for place, row in enumerate(order, 1)}

    @property
    def results_(self) -> Any:
        """DataFrame with one row per backbone, indexed by name, the best first and the failed ones last.

        Columns: `score`, `std` and `standard_error` over the folds; `seconds` of one pass of all samples without
        loading, and `samples_per_second` (both NaN if unknown); `n_passed`, the number of samples that were computed
        and not found in the cache; `n_parameters` of the layers that compute the features, and `size_rank` by it (1 has
        the most); `megabytes` of the `state_dict` of the whole network; `input_size`; `n_features`; and `error`, the
        reason of a failure.
        """
        with named_extra("A table of results needs the package pandas", "plot"):
            import pandas as pd
        return pd.DataFrame([self._record(row) for row in self.rows]).set_index("backbone")

    def _record(self, row: Row) -> dict[str, Any]:
        cost = row.cost
        failed = cost is None
        return {
            "backbone": row.name,
            "score": np.nan if failed else row.score,
            "std": np.nan if failed else row.std,
            "standard_error": np.nan if failed else row.standard_error,
            "seconds": np.nan if cost is None else cost.seconds,
            "samples_per_second": np.nan if cost is None else cost.samples_per_second,
            "n_passed": 0 if cost is None else cost.n_passed,
            "n_parameters": np.nan if cost is None else cost.n_parameters,
            "size_rank": np.nan if failed else self.size_ranks[row.name],
            "megabytes": np.nan if cost is None else cost.n_bytes / 1e6,
            "input_size": "" if cost is None else cost.input_size,
            "n_features": np.nan if cost is None else cost.n_features,
            "error": row.error,
        }


def _n_parameters(row: Row) -> int:
    return row.cost.n_parameters if row.cost else 0
