"""scikit-learn's callbacks: they see a fit as a tree of tasks, may end it, and change nothing of what it learns."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import torch
from networks import tiny_cnn, tiny_vectors
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback, EpochScoring

import sktransfer
from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
from sktransfer._process._fit_tasks import OF_A_RUNNING_FIT

callback = pytest.importorskip("sklearn.callback", reason="scikit-learn has callbacks from version 1.9 on")

WAYS = {
    "solved head": {"freeze_depth": "all"},
    "head in epochs": {"freeze_depth": "all", "head_epochs": 3, "dropout": 0.2},
    "lp_ft": {"freeze_depth": 2},
    "lp_ft of a head in epochs": {"freeze_depth": 2, "hidden_layer_sizes": (4,), "head_epochs": 2},
    "fine_tune": {"freeze_depth": 1, "strategy": "fine_tune", "train_bn": True},
    "gradual": {"freeze_depth": 0, "strategy": "gradual", "augment": "light"},
    "interpolated": {"freeze_depth": 2, "interpolation": 0.5},
    "early stopping": {"freeze_depth": 2, "early_stopping": True, "validation_fraction": 0.3},
    "norms": {"freeze_depth": 0, "trainable": "norm", "train_bn": True},
    "low-rank updates": {"freeze_depth": 2, "trainable": "lora", "lora_rank": 2, "interpolation": 0.5},
}


class Recorder:
    """Keeps what it is told, and asks to stop where it is told to."""

    def __init__(self, stops_at=lambda context: False, asks=False, max_propagation_depth=None):
        self.stops_at, self.asks, self.max_propagation_depth = stops_at, asks, max_propagation_depth
        self.begun, self.ended, self.fitted, self.set_up = [], [], [], 0

    def setup(self, estimator, context):
        self.set_up += 1

    def teardown(self, estimator, context):
        self.set_up -= 1

    def on_fit_task_begin(self, estimator, context):
        torch.rand(3)  # it must not change what is learned
        self.begun.append((context.task_name, context.max_subtasks))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        torch.rand(2)
        self.ended.append(context.task_name)
        if self.asks and fitted_estimator is not None:
            self.fitted.append((context.task_name, fitted_estimator))
        return self.stops_at(context)

    @property
    def n_epochs(self):
        return self.ended.count("epoch")


class Silent(Recorder):
    """The same without asking for a fitted estimator."""

    def on_fit_task_end(self, estimator, context):
        return super().on_fit_task_end(estimator, context)


def classifier(way="lp_ft", **parameters):
    length = {} if WAYS[way]["freeze_depth"] == "all" else {"max_epochs": 3}
    return FineTunedClassifier(tiny_cnn, **{"random_state": 0, **length, **WAYS[way], **parameters})


def regressor(**parameters):
    return FineTunedRegressor(tiny_cnn, **{"random_state": 0, "max_epochs": 3, "freeze_depth": 2, **parameters})


def wide_vectors():
    return tiny_vectors(16)


def numbers(y):
    return np.where(y == y[0], 3.0, 40.0) + np.linspace(0, 1, len(y))


def weights(estimator):
    return estimator.net_.module_.to_record()[1]


def assert_same_fit(one, other):
    """Both have learned the same bits."""
    assert weights(one).keys() == weights(other).keys()
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(other)[name]), name
    without_time = [
        [{key: value for key, value in entry.items() if key != "seconds"} for entry in fitted.history_]
        for fitted in (one, other)
    ]
    assert without_time[0] == without_time[1]
    assert one.n_iter_ == other.n_iter_


@pytest.fixture(autouse=True)
def _empty_cache():
    """Activations that one test leaves would be another's, with the rounding of their batch."""
    sktransfer.clear_cache()
    yield
    sktransfer.clear_cache()


@pytest.fixture(autouse=True)
def _no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
        yield


# The tree


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("solved head", [("fit", 2), ("features", 1), ("head", 0)]),
        ("head in epochs", [("fit", 2), ("features", 1), ("head", 3), *[("epoch", 0)] * 3]),
        ("lp_ft", [("fit", 3), ("features", 1), ("head", 0), ("fine_tune", 3), *[("epoch", 0)] * 3]),
        ("fine_tune", [("fit", 2), ("features", 1), ("fine_tune", 3), *[("epoch", 0)] * 3]),
    ],
)
def test_phases_and_epochs_are_known_before_they_begin(pictures, way, expected):
    seen = Recorder()
    classifier(way).set_callbacks(seen).fit(*pictures)
    assert [task for task in seen.begun if task[0] != "samples"] == expected
    assert sorted(seen.ended) == sorted(name for name, _ in seen.begun)


def test_steps_of_features_are_batches_and_at_most_a_hundred(pictures):
    X, y = pictures
    seen = Recorder()
    classifier("solved head", batch_size=5).set_callbacks(seen).fit(X, y)
    assert ("features", 5) in seen.begun
    assert seen.ended.count("samples") == 5
    many = Recorder()
    rows = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    FineTunedRegressor(tiny_vectors, batch_size=1).set_callbacks(many).fit(rows, rows[:, 0])
    assert ("features", 100) in many.begun
    assert many.ended.count("samples") == 100


def test_what_is_computed_later_is_no_step_of_features(pictures):
    seen = Recorder()
    classifier("gradual").set_callbacks(seen).fit(*pictures)
    assert ("features", 1) in seen.begun
    assert "samples" not in seen.ended


def test_trainings_that_choose_the_interpolation_are_parts_of_one_phase(pictures):
    seen = Recorder()
    classifier(interpolation="auto").set_callbacks(seen).fit(*pictures)
    assert ("fit", 4) in seen.begun
    assert ("interpolation", 3) in seen.begun
    assert (seen.n_epochs, seen.ended.count("part")) == (3, 3)


def test_the_extractor_is_one_task(pictures):
    seen = Recorder(asks=True)
    extractor = PretrainedFeatureExtractor(tiny_cnn, random_state=0).set_callbacks(seen).fit(pictures[0])
    assert seen.begun == [("fit", 0)]
    ((_, fitted),) = seen.fitted
    np.testing.assert_array_equal(fitted.transform(pictures[0]), extractor.transform(pictures[0]))


def test_training_that_begins_again_for_want_of_memory_has_no_more_epochs(pictures, monkeypatch):
    seen, failed = Recorder(), []

    class Full(Callback):
        def on_batch_end(self, net, training=False, **kwargs):
            if training and len(net.history) == 2 and not failed:
                failed.append(1)
                raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr("sktransfer._computing._execution.warnings.warn", lambda *args, **kwargs: None)
    fitted = classifier(callbacks=[Full()]).set_callbacks(seen).fit(*pictures)
    assert failed
    assert seen.begun.count(("epoch", 0)) == seen.n_epochs == 3
    assert len(fitted.history_) == 3


# What is learned, and what a fit would have come to


@pytest.mark.parametrize("kind", [Recorder, Silent])
@pytest.mark.parametrize("way", WAYS)
def test_the_same_bits_are_learned_with_callbacks(pictures, way, kind):
    seen = kind(asks=True)
    watched = classifier(way).set_callbacks(seen, callback.ScoringMonitor(scoring="accuracy")).fit(*pictures)
    assert_same_fit(watched, classifier(way).fit(*pictures))


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("early stopping", "solved head")])
def test_a_fitted_estimator_is_what_stopping_there_would_give(pictures, way):
    X, y = pictures
    seen = Recorder(asks=True)
    whole = classifier(way).set_callbacks(seen).fit(X, y)
    phase = whole.history_[-1]["phase"]
    epochs = [one for name, one in seen.fitted if name == "epoch"][-3:]
    for number, fitted in enumerate(epochs, start=1):
        n_before = len([one for one in whole.history_ if one["phase"] != phase])
        stops = Recorder(
            lambda context, number=number: (
                context.task_name == "epoch" and context.parent.task_name == phase and context.task_id + 1 == number
            )
        )
        stopped = classifier(way).set_callbacks(stops).fit(X, y)
        assert len(stopped.history_) == n_before + number
        assert_same_fit(fitted, stopped)
        np.testing.assert_array_equal(fitted.predict_proba(X), stopped.predict_proba(X))
    assert not np.array_equal(epochs[0].predict_proba(X), epochs[1].predict_proba(X))


class Predicts(Recorder):
    """Predicts at the beginning and at the end of each task."""

    def __init__(self, X):
        super().__init__(stops_at=None)
        self.X, self.at_once = X, []

    def on_fit_task_begin(self, estimator, context, *, fitted_estimator=None):
        self.on_fit_task_end(estimator, context, fitted_estimator=fitted_estimator)

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        if fitted_estimator is not None:
            assert not fitted_estimator.net_.module_.training
            self.at_once.append((fitted_estimator, fitted_estimator.predict_proba(self.X)))

    def __reduce__(self):
        return Predicts, (None,)


def test_a_fitted_estimator_stays_as_it_was_when_training_goes_on(pictures):
    X, y = pictures
    seen = Predicts(X)
    whole = classifier("lp_ft of a head in epochs").set_callbacks(seen).fit(X, y)
    assert_same_fit(whole, classifier("lp_ft of a head in epochs").fit(X, y))
    assert [len(fitted.history_) for fitted, _ in seen.at_once] == [0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 5]
    for fitted, expected in seen.at_once:
        np.testing.assert_array_equal(fitted.predict_proba(X), expected)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).predict_proba(X), expected)
        assert not any(name in vars(fitted) for name in OF_A_RUNNING_FIT)


def test_a_second_fit_shows_the_second(pictures):
    X, y = pictures
    seen = Recorder(asks=True)
    twice = classifier(warm_start=True).fit(X, y)
    before = twice.predict_proba(X)
    twice.set_callbacks(seen).fit(X, y)
    assert [name for name, _ in seen.begun if name != "samples"][:3] == ["fit", "features", "fine_tune"]
    assert not np.array_equal(seen.fitted[-1][1].predict_proba(X), before)
    np.testing.assert_array_equal(seen.fitted[-1][1].predict_proba(X), twice.predict_proba(X))


@pytest.mark.parametrize("way", ["lp_ft", "interpolated", "head in epochs"])
def test_the_last_phase_ends_with_what_is_returned(pictures, way):
    X, y = pictures
    noisy = np.where(np.arange(len(y)) % 5 == 0, y[::-1], y)
    seen = Recorder(asks=True)
    longer = {} if way == "head in epochs" else {"lr": 3e-2, "max_epochs": 10}
    whole = classifier(way, **longer).set_callbacks(seen).fit(X, noisy)
    assert [name for name, _ in seen.fitted[-2:]] == [whole.history_[-1]["phase"], "fit"]
    for _, fitted in seen.fitted[-2:]:
        assert_same_fit(fitted, whole)


# scikit-learn's own callbacks


def test_a_monitor_scores_each_epoch(pictures):
    X, y = pictures
    monitor = callback.ScoringMonitor(scoring=["accuracy", "neg_log_loss"])
    fitted = classifier(lr=1e-3).set_callbacks(monitor).fit(X, y, sample_weight=np.ones(len(y)))
    rows = monitor.get_logs().data
    assert [row["task_name"] for row in rows] == ["fit", "head", "fine_tune", "epoch", "epoch", "epoch"]
    assert rows[0]["accuracy"] == fitted.score(X, y)
    assert len({row["neg_log_loss"] for row in rows[3:]}) == 3
    assert rows[0]["neg_log_loss"] == rows[2]["neg_log_loss"] == rows[-1]["neg_log_loss"]


def test_a_monitor_scores_samples_of_ones_own_as_history_does(pictures):
    X, y = pictures
    known, others = slice(0, 12), slice(12, None)

    def on_others(model, X_known, y_known):
        return model.score(X[others], y[others])

    monitor = callback.ScoringMonitor(scoring={"valid_accuracy": on_others})
    model = FineTunedClassifier(tiny_cnn, freeze_depth=2, max_epochs=3, lr=1e-2, head_C=0.01, random_state=0)
    model.set_callbacks(monitor).fit(X[known], y[known], X_val=X[others], y_val=y[others])
    seen = monitor.get_logs().data_as_pandas.query("task_name == 'epoch'")["valid_accuracy"]
    assert len(seen) == 3
    assert seen.tolist() == [entry["valid_accuracy"] for entry in model.history_ if entry["phase"] == "fine_tune"]


def test_a_monitor_scores_each_epoch_of_a_regressor(pictures):
    X, y = pictures[0], numbers(pictures[1])
    monitor = callback.ScoringMonitor(scoring="r2")
    fitted = regressor(lr=1e-3).set_callbacks(monitor).fit(X, y)
    rows = monitor.get_logs().data
    scores = [row["r2"] for row in rows if row["task_name"] == "epoch"]
    assert len(set(scores)) == 3
    assert scores[-1] == rows[0]["r2"] == fitted.score(X, y)


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_callbacks_work_in_scikit_learns_tools(pictures, n_jobs, capsys):
    pytest.importorskip("rich")
    X, y = pictures
    monitor = callback.ScoringMonitor(scoring="accuracy")
    bar = callback.ProgressBar(max_propagation_depth=None)
    watched = classifier(max_epochs=2).set_callbacks(monitor)
    search = GridSearchCV(watched, {"lr": [1e-3, 1e-4]}, cv=2, n_jobs=n_jobs).set_callbacks(bar).fit(X, y)
    assert "FineTunedClassifier - fine_tune" in capsys.readouterr().out
    for _ in range(100 if n_jobs else 1):  # other processes send what they log
        epochs = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
        if len(epochs) == 2 * (2 * 2 + 1):
            break
        time.sleep(0.05)
    assert len(epochs) == 2 * (2 * 2 + 1)
    assert not any(name in vars(search.best_estimator_) for name in OF_A_RUNNING_FIT)
    cross_validate(clone(watched).set_callbacks(monitor, callback.ProgressBar()), X, y, cv=2, n_jobs=n_jobs)
    if n_jobs is None:
        assert len(monitor.get_logs("all")) == 3


def test_callbacks_work_in_a_pipeline_and_are_not_saved_with_it(pictures, tmp_path):
    X, y = pictures
    extractor = PretrainedFeatureExtractor(tiny_cnn, random_state=0).set_callbacks(
        callback.ScoringMonitor(scoring="accuracy")
    )
    vectors = FineTunedClassifier(wide_vectors, random_state=0, freeze_depth=1, max_epochs=2)
    pipeline = make_pipeline(extractor, vectors)
    seen = Recorder()
    pipeline.set_callbacks(seen).fit(X, y)
    assert seen.n_epochs == 2
    assert ("fit", 0) in seen.begun
    assert not hasattr(vectors, "_parent_callback_ctx")
    pytest.importorskip("skops")
    sktransfer.save(pipeline, tmp_path / "pipeline.safetensors")
    loaded = sktransfer.load(
        tmp_path / "pipeline.safetensors",
        backbone={"tiny_cnn": tiny_cnn, "wide_vectors": wide_vectors},
    )
    np.testing.assert_array_equal(loaded.predict_proba(X), pipeline.predict_proba(X))
    assert not getattr(loaded, "_skl_callbacks", None)


# Ending


def test_a_callback_ends_a_phase_at_an_epoch(pictures):
    seen = Recorder(lambda context: context.task_name == "epoch" and context.task_id == 1)
    fitted = classifier(max_epochs=8).set_callbacks(seen).fit(*pictures)
    assert (seen.n_epochs, len(fitted.history_)) == (2, 2)
    fitted.predict(pictures[0])


def test_a_callback_that_always_asks_ends_with_a_head(pictures):
    X, y = pictures
    seen = Recorder(lambda context: True)
    fitted = classifier("lp_ft of a head in epochs", interpolation="auto").set_callbacks(seen).fit(X, y)
    assert [entry["phase"] for entry in fitted.history_] == ["head"]
    assert {"head", "fit"} < set(seen.ended)
    assert "fine_tune" not in seen.ended
    expected = fitted.predict_proba(X)
    fitted.interpolation_ = 0.0
    np.testing.assert_array_equal(fitted.predict_proba(X), expected)


def test_early_stopping_ends_the_last_epoch_too(pictures):
    seen = Recorder(asks=True)
    X, y = pictures
    fitted = classifier("early stopping", max_epochs=20, n_iter_no_change=2, lr=1e-9)
    fitted.set_callbacks(seen).fit(X, y)
    n_epochs = sum(entry["epoch"] > 0 for entry in fitted.history_)
    assert seen.begun.count(("epoch", 0)) == seen.n_epochs == n_epochs < 20
    last = [one for name, one in seen.fitted if name == "epoch"][-1]
    np.testing.assert_array_equal(last.predict_proba(X), fitted.predict_proba(X))


# State


class Fails(Recorder):
    """Ends a fit in the middle with an error of its own."""

    expected = pytest.raises(ValueError, match="mine")

    def on_fit_task_begin(self, estimator, context):
        if context.task_name == "epoch" and context.task_id == 1:
            raise ValueError("mine")


class PressesCtrlC(Recorder):
    """Sends the signal of Ctrl-C; callbacks of skorch raise KeyboardInterrupt instead."""

    expected = pytest.raises(KeyboardInterrupt)

    def on_fit_task_end(self, estimator, context):
        if context.task_name == "epoch":
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("ends", [Fails, PressesCtrlC])
@pytest.mark.parametrize("fitted_before", [False, True])
def test_a_fit_that_fails_is_torn_down_and_undone(pictures, ends, fitted_before):
    X, y = pictures
    estimator = classifier()
    if fitted_before:
        expected = estimator.fit(X, y).predict_proba(X)
    failing, other = ends(), Recorder()
    estimator.set_callbacks(failing, other)
    before = vars(estimator).copy()
    with ends.expected:
        estimator.fit(X, y)
    assert ("epoch", 0) in other.begun
    assert (failing.set_up, other.set_up) == (0, 0)
    assert vars(estimator) == before
    if fitted_before:
        np.testing.assert_array_equal(estimator.predict_proba(X), expected)
    else:
        with pytest.raises(NotFittedError):
            check_is_fitted(estimator)


def test_x_that_is_refused_leaves_nothing_behind(pictures):
    seen = Recorder()
    estimator = classifier().set_callbacks(seen)
    with pytest.raises(ValueError, match="inconsistent numbers"):
        estimator.fit(pictures[0], pictures[1][:-1])
    assert seen.set_up == 0
    assert not any(name in vars(estimator) for name in OF_A_RUNNING_FIT)


def test_callbacks_are_cloned_copied_and_pickled_but_not_saved(pictures, tmp_path):
    X, y = pictures
    monitor = callback.ScoringMonitor(scoring="accuracy")
    fitted = classifier().set_callbacks(monitor)
    assert clone(fitted)._skl_callbacks == [monitor]
    fitted.fit(X, y)
    assert not any(name in vars(fitted) for name in OF_A_RUNNING_FIT)
    assert clone(fitted)._skl_callbacks == [monitor]
    for other in (copy.copy(fitted), copy.deepcopy(fitted), pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(other.predict_proba(X), fitted.predict_proba(X))
        assert len(other._skl_callbacks) == 1
    record, _ = fitted._to_record()
    assert not [name for name in record if "callback" in name or "skl" in name]
    sktransfer.save(fitted, tmp_path / "watched.safetensors")
    loaded = sktransfer.load(tmp_path / "watched.safetensors", backbone=tiny_cnn)
    assert not hasattr(loaded, "_skl_callbacks")
    sktransfer.save(classifier().fit(X, y), tmp_path / "alone.safetensors")
    assert len((tmp_path / "watched.safetensors").read_bytes()) == pytest.approx(
        len((tmp_path / "alone.safetensors").read_bytes()), abs=50
    )


def test_skorchs_callbacks_are_the_constructors(pictures):
    with pytest.raises(ValueError, match="expected skorch's callbacks"):
        classifier(callbacks=[Recorder()]).fit(*pictures)
    with pytest.raises(TypeError, match="FitCallback"):
        classifier().set_callbacks(EpochScoring("accuracy"))
    seen = Recorder()
    fitted = classifier(
        callbacks=[EpochScoring("f1_macro", name="f1", on_train=True, lower_is_better=False)]
    ).set_callbacks(seen)
    assert "f1" in fitted.fit(*pictures).history_[-1]
    assert seen.n_epochs == 3


def test_a_scikit_learn_without_callbacks_fits_as_well():
    code = """
import sys
import numpy as np, skorch.helper, sklearn.linear_model, sklearn.model_selection
sys.modules["sklearn.callback"] = None  # which Python takes for a module that is not there
from networks import tiny_vectors
from sktransfer import FineTunedClassifier, FineTunedRegressor, PretrainedFeatureExtractor
X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
for estimator, y in (
    (FineTunedClassifier(tiny_vectors, freeze_depth=1, max_epochs=2), X[:, 0] > 0),
    (FineTunedRegressor(tiny_vectors), X[:, 0]),
    (PretrainedFeatureExtractor(tiny_vectors), None),
):
    assert not hasattr(estimator, "set_callbacks")
    estimator.fit(X, y).transform(X)
print("fitted")
"""
    places = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": places},
    )
    assert done.stdout == "fitted\n", done.stderr
