"""Report a fit as a tree of tasks, whose begin and end scikit-learn's callbacks see.

scikit-learn has such callbacks from version 1.9 on. This file alone knows whether they are there; without them, a task
does nothing.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from sklearn.utils.metaestimators import available_if

from sktransfer._process._seeding import generator_kept

R = TypeVar("R")

# Attributes that an estimator has besides what it learned: the callbacks that were set, and the fit that is running.
CALLBACKS = "_skl_callbacks"
OF_A_RUNNING_FIT = ("_callback_fit_ctx", "_parent_callback_ctx", "_skl_callbacks_to_teardown")

# What an estimator has while a callback watches it: one of its own, or one of a search around it.
_WATCHED = (CALLBACKS, "_parent_callback_ctx")

# Tasks of one phase that count samples, at most: each costs a few calls, and a progress bar shows no more.
MOST_STEPS = 100


def _has_callbacks(estimator: Any) -> bool:
    try:
        import sklearn.callback  # noqa: F401 (whether it is there)
    except ImportError:
        return False
    return True


class CallbackSupport:
    """Takes callbacks of scikit-learn, where it has them.

    What scikit-learn's own mixin does is done by it; but it is imported when it is first needed, with the library that
    draws its progress bars.
    """

    @available_if(_has_callbacks)  # type: ignore[untyped-decorator]
    def set_callbacks(self, *callbacks: Any) -> Any:
        """Set scikit-learn's callbacks for this estimator.

        Parameters
        ----------
        *callbacks : callback instances
            Callbacks, such as `sklearn.callback.ProgressBar()`. Without any, those that were set are removed.

        Returns
        -------
        estimator
            The same estimator.
        """
        from sklearn.callback import CallbackSupportMixin

        return CallbackSupportMixin.set_callbacks(self, *callbacks)

    def _init_callback_context(self, **task: Any) -> Any:
        from sklearn.callback import CallbackSupportMixin

        return CallbackSupportMixin._init_callback_context(self, **task)


class FitTask:
    """A fit, a phase of it, or an epoch: callbacks see it begin and end. Without arguments, no one sees it.

    Parameters
    ----------
    context : sklearn.callback.CallbackContext or None, default=None
        Its place in the tree.
    shown : dict or None, default=None
        What the hooks are given each time: the estimator, X, y, and metadata.
    attributes : callable, default=dict
        From what training would return if it stopped now to the attributes of a fitted estimator.
    """

    def __init__(
        self,
        context: Any = None,
        shown: dict[str, Any] | None = None,
        attributes: Callable[[Any], dict[str, Any]] = dict,
    ):
        self._context, self._shown, self._attributes = context, shown, attributes

    def subtask(self, name: str, n_subtasks: int = 0, stopped: Callable[[], Any] | None = None) -> "FitTask":
        """Begin a part of this task.

        Parameters
        ----------
        name : str
            As callbacks show it.
        n_subtasks : int, default=0
            Parts of it, at most.
        stopped : callable or None, default=None
            Returns what training would return if it stopped now. It is called only for callbacks that ask for a fitted
            estimator.

        Returns
        -------
        FitTask
            To be ended.
        """
        if self._context is None:
            return FitTask()
        context = self._context.subcontext(task_name=name, max_subtasks=n_subtasks)
        part = FitTask(context, self._shown, self._attributes)
        part._tell(context.call_on_fit_task_begin, stopped)
        return part

    def end(self, stopped: Callable[[], Any] | None = None) -> bool:
        """End this task.

        Parameters
        ----------
        stopped : callable or None, default=None
            As for `subtask`.

        Returns
        -------
        bool
            Whether a callback asks to leave out the tasks that would follow this one on its level.
        """
        if self._context is None:
            return False
        asked = self._tell(self._context.call_on_fit_task_end, stopped)
        self._context = None
        return bool(asked)

    def counter(self, n_samples: int, batch_size: int) -> Callable[[int], None]:
        """Return a function that takes the number of finished samples: each part of this task is some of them.

        Parameters
        ----------
        n_samples : int
            All of them.
        batch_size : int
            Samples of a part, at least.

        Returns
        -------
        callable
            Takes the number of samples that were just done.
        """
        n_steps, done, ended = count_steps(n_samples, batch_size), 0, 0

        def count(n_done: int) -> None:
            nonlocal done, ended
            done += n_done
            while ended < min(n_steps, done * n_steps // n_samples):
                self.subtask("samples").end()
                ended += 1

        return count

    def _tell(self, call: Callable[..., Any], stopped: Callable[[], Any] | None) -> Any:
        fitted = None if stopped is None else lambda: self._attributes(stopped())
        with generator_kept():  # what callbacks draw does not change what is learned
            return call(**(self._shown or {}), reconstruction_attributes=fitted)


def count_steps(n_samples: int, batch_size: int) -> int:
    """Return in how many parts samples are counted.

    Parameters
    ----------
    n_samples : int
        All of them.
    batch_size : int
        Samples of a part, at least.

    Returns
    -------
    int
        At least 1.
    """
    return max(1, min(MOST_STEPS, -(-n_samples // batch_size)))


def run_as_task(
    estimator: Any,
    learn: Callable[[FitTask], R],
    attributes: Callable[[R], dict[str, Any]],
    n_subtasks: int,
    X: Any,
    y: Any = None,
    sample_weight: Any = None,
) -> R:
    """Learn while the callbacks of an estimator watch. However it ends, they learn that it is over.

    Parameters
    ----------
    estimator : BaseEstimator
        What is fitted.
    learn : callable
        Is given the task, and returns what was learned.
    attributes : callable
        From what `learn` returns to the attributes of a fitted estimator.
    n_subtasks : int
        Parts of the task, at most.
    X, y, sample_weight : object
        As they were given to `fit`. Callbacks score on them.

    Returns
    -------
    object
        What `learn` returned.
    """
    if not any(name in vars(estimator) for name in _WATCHED):
        return learn(FitTask())
    from sklearn.callback import with_callbacks

    def run(estimator: Any) -> R:
        metadata = None if sample_weight is None else {"sample_weight": sample_weight}
        shown = {"estimator": estimator, "X": X, "y": y, "metadata": metadata}
        context = estimator._init_callback_context(max_subtasks=n_subtasks)
        context.call_on_fit_task_begin(**shown)
        task = FitTask(context, shown, attributes)
        learned = learn(task)
        task.end(lambda: learned)
        return learned

    result: R = with_callbacks(run)(estimator)
    return result
