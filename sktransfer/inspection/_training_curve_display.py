"""Draw the loss and the score of each epoch from `history_`, and mark the best epoch."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
from sklearn.utils.validation import check_is_fitted

from sktransfer._fine_tuned_estimator import FineTunedEstimator
from sktransfer._messages import closest
from sktransfer.inspection._drawing import BLACK, BLUE, GREEN, GREY, ORANGE, RED, SKY, axes_for, grid_within
from sktransfer.inspection._estimators import described, steps_of

# How names of `history_` are called in a figure.
_SAID = {
    "train_loss": "training loss",
    "valid_loss": "held-out loss",
    "valid_accuracy": "held-out accuracy",
    "valid_r2": "held-out R²",
}
_PHASES = {"head": "head", "fine_tune": "head and blocks"}
_LOSSES: tuple[str, ...] = ("train_loss", "valid_loss")
_SCORES = ("valid_accuracy", "valid_r2")


class TrainingCurveDisplay:
    """Loss and score per epoch.

    Create it with :meth:`from_estimator`.

    Parameters
    ----------
    epochs : int ndarray of shape (n_entries,)
        Epochs, counted through all phases. 0 is a solved head, before the first epoch.
    phases : list of str
        Phase of each epoch, as in `history_`.
    losses, scores : dict of str to float ndarray of shape (n_entries,)
        Curves by their names in `history_`. NaN where an epoch has no value.
    best_epoch : int or None, default=None
        Epoch of the last phase with the lowest held-out loss.
    is_kept : bool, default=False
        Whether the weights of this epoch were kept, instead of those of the last epoch.

    Attributes
    ----------
    ax_ : matplotlib.axes.Axes
        Axes that enclose the panels.
    axes_ : object ndarray of shape (n_panels,)
        The panel of losses and, if there are scores, the panel of scores.
    figure_ : matplotlib.figure.Figure
        The figure.

    See Also
    --------
    sktransfer.FineTunedClassifier : Has the `history_` that is drawn.

    Examples
    --------
    >>> import numpy as np
    >>> from sktransfer import FineTunedClassifier
    >>> from sktransfer.inspection import TrainingCurveDisplay
    >>> X = np.random.default_rng(0).integers(0, 256, size=(12, 32, 32, 3), dtype=np.uint8)
    >>> classifier = FineTunedClassifier("squeezenet1_1", weights=None, head_epochs=3, random_state=0)
    >>> display = TrainingCurveDisplay.from_estimator(classifier.fit(X, ["ant", "bee"] * 6))
    >>> display.epochs
    array([1, 2, 3])
    """

    ax_: Any
    axes_: np.ndarray
    figure_: Any

    def __init__(
        self,
        *,
        epochs: np.ndarray,
        phases: list[str],
        losses: Mapping[str, np.ndarray],
        scores: Mapping[str, np.ndarray],
        best_epoch: int | None = None,
        is_kept: bool = False,
    ):
        self.epochs = epochs
        self.phases = phases
        self.losses = losses
        self.scores = scores
        self.best_epoch = best_epoch
        self.is_kept = is_kept

    @classmethod
    def from_estimator(cls, estimator: Any, *, scores: str | Sequence[str] | None = None, ax: Any = None) -> Self:
        """Draw the loss and the score of a fitted estimator after each epoch.

        Parameters
        ----------
        estimator : FineTunedClassifier or FineTunedRegressor
            Fitted estimator; a Pipeline that ends in one; or a search over one, whose best estimator is drawn. Held-out
            samples are shown with `early_stopping=True`, or if `fit` was given `X_val` and `y_val`.
        scores : str, list of str or None, default=None
            Names in `history_` to draw as scores, for example those of skorch's `EpochScoring`. `None` is the accuracy,
            or R², of the held-out samples.
        ax : matplotlib.axes.Axes or None, default=None
            Axes to draw the panels in. `None` creates a figure.

        Returns
        -------
        TrainingCurveDisplay
            The display, drawn.

        Raises
        ------
        ImportError
            If matplotlib is not installed: `pip install "sktransfer[plot]"`.
        NotFittedError
            If the estimator is not fitted.
        ValueError
            If it is another estimator, if no epoch was trained, or if a score is not in `history_`.
        """
        check_is_fitted(estimator)
        model = steps_of(estimator)[-1]
        if not isinstance(model, FineTunedEstimator) or not hasattr(model, "history_"):
            raise ValueError(
                f"Got {described(estimator, model)}; expected a fitted FineTunedClassifier or "
                "FineTunedRegressor, a Pipeline that ends in one, or a search for one with refit=True."
            )
        history = model.history_
        if not any(entry["epoch"] > 0 for entry in history):
            raise ValueError(
                f"Got a {type(model).__name__} whose head was solved, not trained in epochs: it has no curve. To train "
                "in epochs, set freeze_depth below 'all', such as 0.75, or a number of head_epochs, such as 30."
            )
        epochs, phases = _epochs(history), [str(entry["phase"]) for entry in history]
        names = {name: None for entry in history for name, value in entry.items() if isinstance(value, float)}
        losses: dict[str, np.ndarray] = {
            name: _values(history, name) for name in ("train_loss", "valid_loss") if name in names
        }
        wanted = [name for name in _SCORES if name in names] if scores is None else _listed(scores)
        for name in wanted:
            if name not in names:
                raise ValueError(
                    f"Got scores={scores!r}, but history_ has no {name!r}; expected {closest(name, names)}"
                )
        best = _best_epoch(epochs, phases, losses, model.tol if model.early_stopping else 0.0)
        return cls(
            epochs=epochs,
            phases=phases,
            losses=losses,
            scores={name: _values(history, name) for name in wanted},
            best_epoch=best,
            is_kept=model.early_stopping,
        ).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or None, default=None
            Axes to draw the panels in. `None` creates a figure.

        Returns
        -------
        TrainingCurveDisplay
            The same display.
        """
        panels = [self.losses, self.scores] if self.scores else [self.losses]
        made = ax is None
        self.ax_ = axes_for(ax, (6.4, 2.9 * len(panels) + 0.3))
        if len(panels) == 1:
            self.axes_ = np.array([self.ax_], dtype=object)
        else:
            self.axes_ = grid_within(self.ax_, len(panels), 1, hspace=None if made else 0.12)[:, 0]
        self.figure_ = self.ax_.figure
        self._draw_curves(self.axes_[0], self.losses, [BLUE, RED])
        self.axes_[0].set_ylabel("loss" if len(self.losses) > 1 else _said(*self.losses))
        if self.scores:
            self._draw_curves(self.axes_[1], self.scores, [GREEN, ORANGE, SKY, BLACK])
            said = [_said(name) for name in self.scores]
            self.axes_[1].set_ylabel(said[0] if len(said) == 1 else "score")
        for panel in self.axes_[:-1]:
            panel.tick_params(labelbottom=False)
        self.axes_[-1].set_xlabel("epoch")
        self._mark_phases()
        self._mark_best()
        for panel in self.axes_:
            if len(panel.get_legend_handles_labels()[0]) > 1:
                panel.legend(fontsize=8)
        return self

    def _draw_curves(self, panel: Any, curves: Mapping[str, np.ndarray], colours: Sequence[str]) -> None:
        styles = ("-", "--", "-.", ":")
        marker = "o" if len(self.epochs) <= 40 else ""
        for place, (name, values) in enumerate(curves.items()):
            seen = np.isfinite(values)
            style = {"color": colours[place % len(colours)], "linestyle": styles[place % len(styles)]}
            panel.plot(self.epochs[seen], values[seen], marker=marker, markersize=3.5, label=_said(name), **style)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.25, linewidth=0.6)
        first, last = int(self.epochs[0]), int(self.epochs[-1])
        room = max(0.5, 0.02 * (last - first))
        panel.set_xlim(first - room, last + room)

    def _mark_phases(self) -> None:
        """Separate phases by a line, and name each above its epochs."""
        starts = [0, *(place for place in range(1, len(self.phases)) if self._begins(place))]
        bounds = [*(self.epochs[place] - 0.5 for place in starts), self.epochs[-1] + 0.5]
        for place, (low, high) in zip(starts, pairwise(bounds), strict=True):
            solved = self.epochs[place] == 0
            name = "head, solved" if solved else _PHASES.get(self.phases[place], self.phases[place])
            narrow = (high - low) / (bounds[-1] - bounds[0]) < 0.02 * len(name)
            self.axes_[0].annotate(
                name,
                (low if narrow else (low + high) / 2, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="left" if narrow else "center",
                va="bottom",
                fontsize=9,
                color=GREY,
            )
            for panel in self.axes_ if low > bounds[0] else ():
                panel.axvline(low, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))

    def _begins(self, place: int) -> bool:
        return self.phases[place] != self.phases[place - 1] or self.epochs[place - 1] == 0

    def _mark_best(self) -> None:
        if self.best_epoch is None:
            return
        last = self.epochs[-1]
        is_kept = self.is_kept or self.best_epoch == last
        kept = "its weights were kept" if is_kept else f"the weights of epoch {last} were kept"
        which = "best epoch of the last phase" if len(set(self.phases)) > 1 else "best epoch"
        for number, panel in enumerate(self.axes_):
            label = f"{which}: {self.best_epoch}; {kept}" if number == 0 else None
            panel.axvline(self.best_epoch, color=BLACK, linewidth=1.0, label=label)
        losses = self.losses["valid_loss"]
        place = int(np.flatnonzero(self.epochs == self.best_epoch)[0])
        self.axes_[0].plot(self.best_epoch, losses[place], marker="*", markersize=12, color=BLACK, linestyle="none")


def _epochs(history: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Count epochs through all phases: 0 for a solved head, then from 1."""
    is_trained = np.array([entry["epoch"] > 0 for entry in history])
    return np.cumsum(is_trained)


def _values(history: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    values = [entry.get(name) for entry in history]
    return np.array([np.nan if value is None else float(value) for value in values])


def _best_epoch(epochs: np.ndarray, phases: Sequence[str], losses: Mapping[str, np.ndarray], tol: float) -> int | None:
    """Return the best epoch of the last phase, as early stopping sees it: a loss must be less by more than `tol`."""
    best, least = None, np.inf
    for epoch, phase, loss in zip(epochs, phases, losses.get("valid_loss", np.array([])), strict=False):
        if phase == phases[-1] and epoch > 0 and loss < least - tol:
            best, least = int(epoch), float(loss)
    return best


def _said(name: str) -> str:
    return _SAID.get(name, name.replace("_", " "))


def _listed(scores: str | Sequence[str]) -> list[str]:
    return [scores] if isinstance(scores, str) else list(scores)
