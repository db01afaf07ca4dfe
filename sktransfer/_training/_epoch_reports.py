"""Reports after each epoch: to scikit-learn's callbacks, and to whoever reads what `verbose=1` prints."""

from collections.abc import Callable, Sequence
from typing import Any

from skorch.callbacks import Callback

from sktransfer._computing._progress import progress_bar
from sktransfer._process._fit_tasks import FitTask
from sktransfer._training._history import Table, entries


class EpochTasks(Callback):
    """Shows each epoch to scikit-learn's callbacks, and ends training where one of them asks for it.

    It comes last: what other callbacks do at the end of an epoch, and how they end training, is then done.

    Parameters
    ----------
    phase : FitTask, default=FitTask()
        What the epochs are parts of.
    stopped : callable or None, default=None
        Returns, given the rows of whole epochs in skorch's history, what training would return if it stopped now.
    """

    def __init__(self, phase: FitTask | None = None, stopped: Callable[[Any], Any] | None = None):
        self.phase, self.stopped = phase or FitTask(), stopped
        self.n_begun = 0
        self.epoch: FitTask | None = None

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Begin an epoch, unless it was reported already: if memory runs out, training begins again."""
        if len(net.history) > self.n_begun:
            self.n_begun = len(net.history)
            self.epoch = self.phase.subtask("epoch", 0, self._if_asked(net.history[:-1]))

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """End the epoch, and training with it where a callback asks for it."""
        if len(net.history) == self.n_begun and self.end(net):
            raise KeyboardInterrupt  # with which skorch's callbacks end training too

    def end(self, net: Any) -> bool:
        """End the epoch, if it has not ended, and return whether a callback asks for no more of them."""
        epoch, self.epoch = self.epoch, None
        return epoch is not None and epoch.end(self._if_asked(net.history[:]))

    def _if_asked(self, rows: Sequence[Any]) -> Callable[[], Any] | None:
        stopped = self.stopped
        return None if stopped is None else lambda: stopped(rows)


class EpochLines(Callback):
    """Prints a line per epoch, and shows a bar within an epoch that takes long.

    Parameters
    ----------
    phase : str
        As `history_` calls it.
    write : callable or None
        Takes a line; `None` prints nothing.
    """

    def __init__(self, phase: str, write: Callable[[str], None] | None):
        self.phase, self.write = phase, write
        self.bar: Any = None
        self.history: Any = []
        self.n_written = 0
        self.table = None if write is None else Table(write)

    def remark(self, text: str) -> None:
        """Print what another callback says, below the epoch that it speaks of."""
        self.catch_up()
        if self.write is not None:
            self.write(text)

    def on_epoch_begin(self, net: Any, dataset_train: Any = None, dataset_valid: Any = None, **kwargs: Any) -> None:
        """Begin a bar."""
        self.close()
        self.history = net.history
        n_samples = len(dataset_train) + len(dataset_valid or ())
        self.bar = progress_bar(n_samples, f"epoch {len(net.history)}", self.write is not None)

    def on_batch_end(self, net: Any, batch: Any = None, **kwargs: Any) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.bar.update(len(batch[0]))

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Print what is known of the epoch."""
        self.catch_up()

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Print what is known of an epoch that another callback ended."""
        self.catch_up()

    def catch_up(self) -> None:
        """Print epochs that are not printed yet."""
        self.close()
        if self.table is not None:
            for entry in entries(self.phase, self.history[self.n_written :]):
                self.table.add(entry)
            self.n_written = len(self.history)

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None
