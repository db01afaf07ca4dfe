"""Show how well a linear model does on the output of each block: where features stop being general.

Early blocks know edges and colours, which every picture has; late blocks know what the network was trained for. Where
the curve stops rising, deeper blocks no longer help these data.
"""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.base import is_classifier, is_regressor

from sktransfer._backbone_estimator import BackboneEstimator
from sktransfer._probing._folds import folds_of, read_groups
from sktransfer._probing._targets import read_targets
from sktransfer.backbones import Backbone
from sktransfer.inputs._base import Reader
from sktransfer.inputs._rows import Rows
from sktransfer.inspection._drawing import BLUE, GREEN, RED, axes_for, import_pyplot
from sktransfer.inspection._estimators import network_within, read_samples, short_name, way_to_all_blocks
from sktransfer.inspection._linear_probes import (
    score_blocks,
    score_without_samples,
    usual_probe,
    usual_scoring,
    vectors_of_blocks,
)

# Names of blocks that fit below the axis.
_MOST_NAMES = 24


class DepthDisplay:
    """Scores of a linear model on the features of each block, with the depth that an estimator freezes.

    Create it with :meth:`from_estimator`.

    Parameters
    ----------
    block_names : sequence of str
        Names of the blocks, from the input onwards.
    scores : ndarray of shape (n_blocks, n_folds)
        Score per block and fold.
    score_name : str
        Name of the score.
    chance : float or None, default=None
        Score of a guess that ignores the samples.
    depth : float or None, default=None
        Number of blocks that the estimator freezes. A half means a cut inside a block.
    layers : sequence of int, default=()
        Numbers of the blocks that provide the features of the estimator or of its head. 1 is the first block.
    network_name : str, default=""
        Name of the network.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Axes with the drawing.
    figure_ : matplotlib Figure
        Figure that contains the axes.

    See Also
    --------
    sktransfer.inspection.SaliencyDisplay : Shows which part of a sample decides.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer.inspection import DepthDisplay
    >>> display = DepthDisplay(["conv1", "conv2"], np.array([[0.6, 0.7], [0.8, 0.9]]), "accuracy")
    >>> display.best_block
    'conv2'
    """

    ax_: Any
    figure_: Any

    def __init__(
        self,
        block_names: Sequence[str],
        scores: np.ndarray,
        score_name: str,
        *,
        chance: float | None = None,
        depth: float | None = None,
        layers: Sequence[int] = (),
        network_name: str = "",
    ):
        self.block_names = list(block_names)
        self.scores = np.asarray(scores)
        self.score_name = score_name
        self.chance = chance
        self.depth = depth
        self.layers = list(layers)
        self.network_name = network_name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any,
        *,
        cv: Any = 5,
        scoring: Any = None,
        probe: Any = None,
        groups: Any = None,
        ax: Any = None,
    ) -> Self:
        """Score a model on every block of an estimator's network, and draw the scores.

        All blocks share one pass of the samples, and a second call finds its outputs in the cache. The scores are those
        of the pretrained network, even if the estimator has tuned its blocks. Feature maps are pooled as the estimator
        pools them.

        Parameters
        ----------
        estimator : estimator
            PretrainedFeatureExtractor, FineTunedClassifier or FineTunedRegressor, fitted or not; a pipeline that begins
            with one; or a search over one.
        X : array-like
            Samples, as `fit` takes them.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Classes, numbers, or several labels as columns of 0 and 1.
        cv : int, splitter or iterable, default=5
            Folds, as in scikit-learn's `cross_validate`.
        scoring : str, callable or None, default=None
            A scorer, as in scikit-learn. `None` is accuracy for classes, R2 for numbers, and the F1 score over all
            labels (`average="micro"`) for several labels.
        probe : estimator or None, default=None
            Model to fit on the features of each block. `None` standardises the features and fits a
            `LogisticRegression`, one per label for several labels, or a `RidgeCV` for numbers.
        groups : array-like of shape (n_samples,) or None, default=None
            Groups of samples that stay together, with a splitter such as `GroupKFold`.
        ax : matplotlib Axes or None, default=None
            Axes to draw on. `None` creates a figure.

        Returns
        -------
        DepthDisplay
            The display, drawn.

        Raises
        ------
        ValueError
            If X or y is not as described, if y has only one class, or if there are fewer samples than folds.
        ImportError
            If matplotlib is not installed: `pip install "sktransfer[plot]"`.
        """
        import_pyplot()  # said before the network runs
        holder, _ = network_within(estimator)
        known = True if is_regressor(holder) else False if is_classifier(holder) else None
        n_samples = len(Rows(X, holder.image_shape))
        target = read_targets(y, n_samples, known)
        kind, y = target.kind, target.given
        folds = folds_of(target, cv, read_groups(groups, n_samples))
        usual, name = usual_scoring(kind)
        scoring, name = (usual, name) if scoring is None else (scoring, _name_of(scoring))
        reading, samples, backbone, reader = read_samples(holder, X)
        depth, layers = _chosen(holder, backbone, reader, reading)
        with vectors_of_blocks(way_to_all_blocks(reading, samples, backbone)) as vectors:
            scores = score_blocks(vectors, y, folds, usual_probe(kind) if probe is None else probe, scoring)
        display = cls(
            [block.name for block in backbone.blocks],
            scores,
            name,
            chance=score_without_samples(y, folds, kind, scoring),
            depth=depth,
            layers=layers,
            network_name=short_name(backbone.name),
        )
        return display.plot(ax=ax)

    @property
    def best_block(self) -> str:
        """Name of the block with the highest mean score. If several have it, the first of them."""
        return self.block_names[int(self.scores.mean(axis=1).argmax())]

    def plot(self, *, ax: Any = None) -> Self:
        """Draw the mean scores with their spread over the folds.

        Parameters
        ----------
        ax : matplotlib Axes or None, default=None
            Axes to draw on. `None` creates a figure.

        Returns
        -------
        DepthDisplay
            The same display.
        """
        count = len(self.block_names)
        ax = axes_for(ax, (max(6.4, min(12.0, 2.0 + 0.38 * count)), 4.8))
        numbers, means = np.arange(1, count + 1), self.scores.mean(axis=1)
        spread = self.scores.std(axis=1)
        ax.fill_between(numbers, means - spread, means + spread, color=BLUE, alpha=0.2, linewidth=0)
        n_folds = self.scores.shape[1]
        ax.plot(numbers, means, "o-", color=BLUE, label=f"linear probe, mean of {n_folds} folds ± deviation")
        best = int(means.argmax())
        ax.plot(numbers[best], means[best], "*", color="black", markersize=16, label=f"best: {self.best_block}")
        self._draw_choice(ax, means)
        if self.chance is not None:
            ax.axhline(self.chance, color="0.4", linestyle=":", label="guess that ignores the samples")
        step = -(-count // _MOST_NAMES)
        shown = [number for number in numbers if (number - 1) % step == 0]
        ax.set_xticks(shown, [self.block_names[number - 1] for number in shown], rotation=60, ha="right")
        for label in ax.get_xticklabels():
            label.set_rotation_mode("anchor")
        ax.set_xlim(0.3, count + 0.7)
        network = f" of {self.network_name}" if self.network_name else ""
        ax.set(xlabel=f"block{network}, from the input to the output", ylabel=self.score_name)
        ax.grid(axis="y", alpha=0.3)
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize="small")
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _draw_choice(self, ax: Any, means: np.ndarray) -> None:
        if self.layers:
            chosen = np.array(self.layers)
            ax.plot(
                chosen,
                means[chosen - 1],
                "D",
                markerfacecolor="none",
                markeredgecolor=GREEN,
                markeredgewidth=2,
                markersize=11,
                label="features used by the estimator",
            )
        if self.depth is not None:
            ax.axvline(self.depth + 0.5, color=RED, linestyle="--", label="frozen up to here (freeze_depth)")


def _chosen(
    holder: BackboneEstimator, backbone: Backbone, reader: Reader, reading: BackboneEstimator
) -> tuple[float | None, list[int]]:
    """Return how many blocks an estimator keeps frozen, if it says so, and which blocks its features come from."""
    count, pooling = len(backbone.blocks), reading.pooling
    asked = vars(holder).get("layers_", holder.layer)
    layers = reading._shown(backbone, "all", reader).layers(asked, pooling)
    numbers = sorted({_blocks_before(backbone, "all" if layer is None else layer) for layer in layers})
    depth = getattr(holder, "freeze_depth", None)
    if getattr(holder, "strategy", None) == "linear_probe":
        depth = "all"
    chosen = [max(1, min(count, int(np.ceil(number)))) for number in numbers]
    return None if depth is None else _blocks_before(backbone.ending_at(backbone.deepest(layers)), depth), chosen


def _blocks_before(backbone: Backbone, depth: Any) -> float:
    """Count the blocks before a cut; one that is cut through counts a half."""
    frozen = backbone.frozen_names(depth)
    parts = [[name in frozen for name in block.parameter_names] for block in backbone.blocks]
    return float(sum(1.0 if all(part) else 0.5 if any(part) else 0.0 for part in parts))


def _name_of(scoring: Any) -> str:
    name = scoring if isinstance(scoring, str) else getattr(scoring, "__name__", "score")
    return str(name).replace("_", " ")
