"""Measure how far samples are from the training data of a network, and describe it in words.

Two things are measured. How unlike the samples look to the network, by what enters its BatchNorms; and, with targets,
what its features are worth behind each depth, beside random weights and beside no network at all.
"""

import html
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from sktransfer._backbone_estimator import BackboneEstimator
from sktransfer._messages import named_extra
from sktransfer._probing._folds import folds_of
from sktransfer._probing._targets import Targets, read_targets
from sktransfer._similarity._passes import Seen, chosen_depths, look
from sktransfer._similarity._probes import Score, score, words
from sktransfer._similarity._reading import Read, as_estimator, check_most, choose_rows, predicts_numbers, read
from sktransfer.backbones import Backbone
from sktransfer.inputs._rows import Rows

# From this gap on samples are called so. See benchmarks/results/domain_gap.md: photos 0.2, crops of photos 0.3, photos
# of 32 x 32 pixels and drawings 0.5, textures, spectrograms and radiographs 0.5 to 0.7, noise 0.8.
LEVELS = ((0.0, "near"), (0.3, "some way off"), (0.5, "far"), (0.7, "very far"))

# Depths at which probes are scored, at most.
MOST_DEPTHS = 8


@dataclass(frozen=True)
class BlockGap:
    """Measurements of one block.

    Parameters
    ----------
    number : int
        Number of the block; 1 is the first.
    name : str
        Name, as in `backbone.blocks`.
    gap : float
        Mean gap over the channels of the block's BatchNorms; NaN if it has none.
    score, random_score : Score or None
        Score of a probe on the output of the block, with the network's weights and with random weights; or `None`.
    """

    number: int
    name: str
    gap: float
    score: Score | None = None
    random_score: Score | None = None


@dataclass(frozen=True)
class DomainGap:
    """How far samples are from the training data of a network.

    Prints as a sentence and a table with one row per block.

    Attributes
    ----------
    backbone, weights : str
        Names of the network and of its weights.
    n_samples : int
        Number of samples that were measured.
    blocks : tuple of BlockGap
        Blocks in order from the input, with `number`, `name`, `gap`, and `score` and `random_score` with `mean` and
        `error`.
    baseline : Score or None
        Score of a probe without a network, on the same folds; `None` without y.
    baseline_name : str
        Input of that probe, such as `"pixels + PCA"`.
    score_name : str
        `"accuracy"`, `"micro F1"` or `"R2"`; empty without y.
    reference_gap : float or None
        Gap of the samples that were given as `reference`.
    """

    backbone: str
    weights: str
    n_samples: int
    blocks: tuple[BlockGap, ...]
    baseline: Score | None = None
    baseline_name: str = ""
    score_name: str = ""
    reference_gap: float | None = None

    @property
    def gap(self) -> float:
        """Mean gap over the blocks with BatchNorms, in running standard deviations; NaN if there are none."""
        known = [block.gap for block in self.blocks if not math.isnan(block.gap)]
        return float(np.mean(known)) if known else math.nan

    @property
    def relative_gap(self) -> float:
        """Gap divided by the gap of the reference: 1 is as near as the reference. NaN without a reference."""
        return math.nan if self.reference_gap is None else self.gap / max(self.reference_gap, 1e-12)

    @property
    def level(self) -> str | None:
        """`"near"`, `"some way off"`, `"far"` or `"very far"`; `None` without BatchNorms, or with random weights."""
        return (
            None
            if math.isnan(self.gap) or self._is_random
            else [word for least, word in LEVELS if self.gap >= least][-1]
        )

    @property
    def best_block(self) -> BlockGap | None:
        """Block with the best probe; `None` without y."""
        scored = [block for block in self.blocks if block.score is not None]
        return max(scored, key=lambda block: block.score.mean if block.score else 0.0) if scored else None

    @property
    def last_block(self) -> BlockGap:
        """Block whose output is the features."""
        return self.blocks[-1]

    @property
    def earlier_is_better(self) -> bool:
        """Whether the probe of an earlier block beats that of the features by more than both standard errors."""
        best, last = self.best_block, self.last_block.score
        if best is None or best.score is None or last is None:
            return False
        return best.score.mean - last.mean > best.score.error + last.error

    @property
    def negative_transfer(self) -> bool | None:
        """Whether even the best block has a worse probe than using no network; `None` without y."""
        best = self.best_block
        return (
            None
            if best is None or best.score is None or self.baseline is None
            else best.score.mean < self.baseline.mean
        )

    def as_frame(self) -> Any:
        """Return one row per block as a pandas DataFrame.

        Returns
        -------
        DataFrame
            With columns `block`, `name`, `gap`, `score`, `score_error`, `random_score`, `random_score_error` and
            `baseline`.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        with named_extra("A table needs the package pandas", "examples"):
            import pandas as pd
        nothing = Score(math.nan, math.nan)
        return pd.DataFrame(
            [
                {
                    "block": block.number,
                    "name": block.name,
                    "gap": block.gap,
                    "score": (block.score or nothing).mean,
                    "score_error": (block.score or nothing).error,
                    "random_score": (block.random_score or nothing).mean,
                    "random_score_error": (block.random_score or nothing).error,
                    "baseline": (self.baseline or nothing).mean,
                }
                for block in self.blocks
            ]
        )

    def describe(self) -> str:
        """Describe the result in a few sentences.

        Returns
        -------
        str
            One paragraph.
        """
        return " ".join([self._of_looks(), *self._of_probes()])

    @property
    def _is_random(self) -> bool:
        return self.weights.startswith("random, seed")

    def _of_looks(self) -> str:
        if self._is_random:
            return f"{self.backbone} has random weights. It was not trained on any data, so no gap is measured."
        if self.level is None:
            return (
                f"{self.backbone} has no BatchNorm, so the gap between these {self.n_samples} samples and its training "
                "data cannot be measured."
            )
        more = "" if self.reference_gap is None else f", {self.relative_gap:.1f} times that of the reference"
        return f"{self.level}: gap {self.gap:.2f} of {self.n_samples} samples to {self.backbone}{more}."

    def _of_probes(self) -> list[str]:
        best, baseline = self.best_block, self.baseline
        if best is None or best.score is None or baseline is None:
            return []
        name = self.score_name
        if self.negative_transfer:
            said = [
                f"Negative transfer: the best block, {best.name}, has {name} {best.score}, below {baseline} of "
                f"{self.baseline_name}. Try another network, or train all of this one."
            ]
        else:
            said = [f"The best block is {best.name}: {name} {best.score}, against {baseline} of {self.baseline_name}."]
            if best.score.mean - baseline.mean < best.score.error + baseline.error:
                said.append("This is not a clear gain.")
        if self.earlier_is_better:
            said.append(f"Features get worse towards the end: {self.last_block.score} after the last block.")
        random = max((block.random_score for block in self.blocks if block.random_score), key=lambda each: each.mean)
        if random.mean >= best.score.mean:
            said.append(f"Random weights do as well ({random}): what the network learned does not help here.")
        return said

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                str(block.number),
                block.name,
                "" if math.isnan(block.gap) else f"{block.gap:.2f}",
                *((str(block.score or ""), str(block.random_score or "")) if self.score_name else ()),
            )
            for block in self.blocks
        ]

    @property
    def _header(self) -> tuple[str, ...]:
        return ("", "block", "gap", *((self.score_name, "random weights") if self.score_name else ()))

    def __repr__(self) -> str:
        table = [self._header, *self._cells()]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if column == 1 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in table
        ]
        return "\n".join([self.describe(), "", *lines])

    def _repr_html_(self) -> str:
        rows = [("th", self._header), *(("td", cells) for cells in self._cells())]
        body = "".join(
            "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>" for tag, cells in rows
        )
        return f"<p>{html.escape(self.describe())}</p><table>{body}</table>"


def measure(given: Any, X: Any, y: Any, reference: Any, cv: Any, max_samples: Any, random_state: Any) -> DomainGap:
    """Measure how far X is from what a network was trained on; y is checked before the network is loaded.

    Parameters
    ----------
    given, X, y, reference, cv, max_samples, random_state : object
        As `sktransfer.inspection.domain_gap` takes them.

    Returns
    -------
    DomainGap
        What was found.
    """
    check_most(max_samples)
    estimator = as_estimator(given)
    n_samples = len(Rows(X, estimator.image_shape))
    if n_samples < 2:
        raise ValueError("Got 1 sample; expected at least 2, to compute a mean and a variance. Give more samples.")
    targets = None if y is None else read_targets(y, n_samples, predicts_numbers(estimator))
    return measure_read(estimator, X, targets, reference, cv, max_samples, random_state)


def measure_read(
    estimator: BackboneEstimator,
    X: Any,
    targets: Targets | None,
    reference: Any,
    cv: Any,
    max_samples: int,
    random_state: Any,
) -> DomainGap:
    """Do what `measure` does, of targets that are read already."""
    rows = choose_rows(len(Rows(X, estimator.image_shape)), int(max_samples), targets, random_state)
    targets = None if targets is None else targets.of(rows)
    folds = None if targets is None else folds_of(targets, cv, None)
    opened = read(estimator, X)
    backbone = opened.backbone
    known = None if reference is None else _reference_gap(estimator, reference, max_samples, random_state)
    depths = chosen_depths(len(backbone.blocks), MOST_DEPTHS)
    seen = look(backbone, depths, opened.samples, rows, opened.execution)
    scores: dict[int, Score] = {}
    random_scores: dict[int, Score] = {}
    baseline, name = None, ""
    if targets is not None and folds is not None:
        drawn = look(backbone, depths, opened.samples, rows, opened.execution, redrawn_by=0)
        scores = {d: score(v, targets, folds) for d, v in zip(depths, seen.vectors, strict=True)}
        random_scores = {d: score(v, targets, folds) for d, v in zip(depths, drawn.vectors, strict=True)}
        name, plain = _without_network(opened, seen, rows)
        baseline = score(plain, targets, folds, pixels=True)
    gaps = _by_block(backbone, seen.distances)
    return DomainGap(
        backbone=backbone.name,
        weights=backbone.weights_name,
        n_samples=len(rows),
        blocks=tuple(
            BlockGap(number, block.name, gaps[number - 1], scores.get(number), random_scores.get(number))
            for number, block in enumerate(backbone.blocks, start=1)
        ),
        baseline=baseline,
        baseline_name=name,
        score_name="" if targets is None else targets.score_name,
        reference_gap=known,
    )


def _reference_gap(estimator: BackboneEstimator, reference: Any, max_samples: int, random_state: Any) -> float:
    """Return the gap of other samples, or the one that was measured before."""
    found = (
        reference
        if isinstance(reference, DomainGap)
        else measure(estimator, reference, None, None, None, max_samples, random_state)
    )
    if math.isnan(found.gap):
        raise ValueError(
            "Got a reference for a network without BatchNorm, whose gap cannot be measured; expected "
            "reference=None. Give y instead, to score probes at each depth."
        )
    return found.gap


def _without_network(opened: Read, seen: Seen, rows: np.ndarray) -> tuple[str, Any]:
    if opened.texts is not None:
        return "words (TF-IDF)", words([opened.texts[row] for row in rows])
    return {"images": "pixels + PCA"}.get(opened.samples.kind, "the input + PCA"), seen.small


def _by_block(backbone: Backbone, distances: dict[str, np.ndarray]) -> list[float]:
    """Return the mean distance of channels that each block normalises."""
    gaps = []
    for block in backbone.blocks:
        names = {name.removesuffix(".running_mean") for name in block.buffer_names if name.endswith(".running_mean")}
        found = [distances[name] for name in names & distances.keys()]
        gaps.append(float(np.concatenate(found).mean()) if found else math.nan)
    return gaps
