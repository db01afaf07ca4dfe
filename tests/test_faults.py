"""Interrupted, crowded, starved or given the absurd: what was there stays, and no answer is quietly wrong."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import rest_exhaustive, tiny_cnn, tiny_vectors
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback
from torch import nn

import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import load_backbone
from sktransfer.inputs import ImagePreprocessing


class Interrupting(nn.Module):
    """Passes values on, and presses Ctrl-C at the time that is set."""

    calls_left = -1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cls = type(self)
        if cls.calls_left == 0:
            cls.calls_left = -1
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)  # the main thread is told in the meantime
        elif cls.calls_left > 0:
            cls.calls_left -= 1
        return x


@pytest.fixture
def press():
    """Press Ctrl-C in the n-th run of the network from now on."""

    def set_calls(count):
        Interrupting.calls_left = count

    # A shell that starts a program in the background has it ignore the key.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield set_calls
    signal.signal(signal.SIGINT, before)
    Interrupting.calls_left = -1


def interrupting_cnn():
    network = nn.Sequential(Interrupting(), *tiny_cnn())
    network.preprocessing = ImagePreprocessing(crop=(20, 24))
    return network


def interrupted_later_cnn():
    """The same, interrupted behind the second block."""
    layers = list(tiny_cnn())
    network = nn.Sequential(*layers[:5], Interrupting(), *layers[5:])
    network.preprocessing = ImagePreprocessing(crop=(20, 24))
    return network


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def many(pictures):
    """96 different pictures and their labels: enough for several steps of several threads."""
    X, y = pictures
    noise = np.random.default_rng(0).integers(0, 20, size=(4, *X.shape), dtype=np.uint8)
    return np.concatenate(noise + X // 2), np.tile(y, 4)


# Ctrl-C

PHASES = {
    "in the frozen pass": (interrupting_cnn, {"freeze_depth": 2, "max_epochs": 2}, 3),
    "in the epochs of blocks": (interrupted_later_cnn, {"freeze_depth": 1, "max_epochs": 3}, 12),
    "in augmented epochs": (interrupting_cnn, {"freeze_depth": 2, "augment": "light", "head_epochs": 2}, 9),
    "in the solved head": (interrupted_later_cnn, {"freeze_depth": 1, "max_epochs": 1}, 1),
}


@pytest.mark.parametrize("phase", rest_exhaustive(PHASES, "in the frozen pass", "in the solved head"))
@pytest.mark.parametrize("fitted", rest_exhaustive([False, True], True), ids=["unfitted", "fitted before"])
def test_ctrl_c_in_fit_leaves_the_estimator_as_it_was(phase, fitted, many, press, threads):
    network, parameters, calls = PHASES[phase]
    X, y = many
    estimator = FineTunedClassifier(network, random_state=0, feature_cache=None, batch_size=16, **parameters)
    state = torch.get_rng_state()
    if fitted:
        estimator.fit(X[:40], y[:40])
        before, expected = dict(vars(estimator)), estimator.predict_proba(X)
    press(calls)
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(X, y)
    assert Interrupting.calls_left == -1
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    if fitted:
        assert vars(estimator) == before
        np.testing.assert_array_equal(estimator.predict_proba(X), expected)
    else:
        with pytest.raises(NotFittedError):
            check_is_fitted(estimator)
    again = FineTunedClassifier(network, random_state=0, feature_cache=None, batch_size=16, **parameters).fit(X, y)
    np.testing.assert_array_equal(estimator.fit(X, y).predict_proba(X), again.predict_proba(X))


def interrupt_step(number):
    """Return a trace function that raises in the given step of an estimator's own lines, once it was armed."""
    files = ("_backbone_estimator.py", "_fine_tuned_classifier.py", "_fine_tuned_estimator.py", "contextlib.py")

    def trace(frame, event, argument):
        if not frame.f_code.co_filename.endswith(files):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and trace.armed:
            trace.seen += 1
            if trace.seen == number:
                raise KeyboardInterrupt
        return trace

    trace.armed, trace.seen = False, 0
    return trace


@pytest.mark.exhaustive
@pytest.mark.parametrize("trained", [False, True], ids=["while the first is handled", "while results are kept"])
@pytest.mark.parametrize("fitted", [False, True], ids=["unfitted", "fitted before"])
def test_ctrl_c_at_any_step_leaves_all_parameters_and_a_whole_fit_or_none(fitted, trained, monkeypatch):
    X, y = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32), [0, 1] * 4
    model = FineTunedClassifier(tiny_vectors, random_state=0, feature_cache=None)
    done = FineTunedClassifier(tiny_vectors, random_state=0, feature_cache=None).fit(X, y)
    parameters, learned = model.get_params(), vars(done).keys() - model.get_params().keys()

    def train(*args):
        tracer.armed = True
        if trained:
            return done  # it has the names of what training returns
        raise KeyboardInterrupt

    done.net, done.history, done.n_iter, done.solution = done.net_, done.history_, done.n_iter_, None
    monkeypatch.setattr("sktransfer._training._strategies.train", train)
    before = sys.gettrace()
    for number in itertools.count(1):
        tracer = interrupt_step(number)
        if fitted:
            vars(model).update({name: vars(done)[name] for name in learned})
        try:
            sys.settrace(tracer)
            model.fit(X, y)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
        left = vars(model).keys() - parameters.keys()
        assert model.get_params() == parameters
        assert left == learned or (not fitted and left <= {"n_features_in_"}), number
        for name in left:
            delattr(model, name)
        if tracer.seen < number:
            break
    assert number > 10
    monkeypatch.undo()
    np.testing.assert_array_equal(model.fit(X, y).predict_proba(X), done.predict_proba(X))


@pytest.mark.parametrize("cache", ["auto", "folder", None])
def test_ctrl_c_in_transform_costs_what_was_under_way_and_nothing_else(cache, many, press, threads, tmp_path):
    X = many[0]
    how = {"random_state": 0, "precision": "float32", "batch_size": 8}
    expected = PretrainedFeatureExtractor(interrupting_cnn, feature_cache=None, **how).fit_transform(X)
    sktransfer.clear_cache()
    where = tmp_path / "cache" if cache == "folder" else cache
    extractor = PretrainedFeatureExtractor(interrupting_cnn, feature_cache=where, **how).fit(X[:3])
    before = threading.active_count()
    press(6)
    with pytest.raises(KeyboardInterrupt):
        extractor.transform(X)
    assert torch.get_num_threads() == threads
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before, "no thread is left behind"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(extractor.transform(X), expected, atol=1e-5)


@pytest.mark.exhaustive
def test_ctrl_c_in_a_process_ends_it_promptly_and_leaves_the_folder_whole(tmp_path, many):
    """As it is pressed in a terminal, in the middle of computing on two threads."""
    np.save(tmp_path / "X.npy", np.repeat(many[0], 100, axis=0))
    code = """
        import signal, sys, numpy as np, torch, sktransfer
        from networks import tiny_cnn
        signal.signal(signal.SIGINT, signal.default_int_handler)
        torch.set_num_threads(2)
        X = np.load(sys.argv[1] + "/X.npy")
        X = (X + np.arange(len(X)).reshape(-1, 1, 1, 1) % 7).astype(np.uint8)
        how = {"random_state": 0, "feature_cache": sys.argv[1] + "/cache"}
        extractor = sktransfer.PretrainedFeatureExtractor(tiny_cnn, **how)
        extractor.fit(X[:3])
        print("ready", flush=True)
        while True:
            extractor.transform(X)
            sktransfer.clear_cache(folders=True)
    """
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code), str(tmp_path)]
    with subprocess.Popen(
        command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as worker:
        try:
            assert worker.stdout.readline() == "ready\n"
            time.sleep(0.5)
            worker.send_signal(signal.SIGINT)
            _, errors = worker.communicate(timeout=20)
        finally:
            worker.kill()  # else a worker that goes on would be waited for, and the failure never seen
    assert "KeyboardInterrupt" in errors
    assert worker.returncode != 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extractor = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=tmp_path / "cache")
        cached = extractor.fit_transform(many[0])
    plain = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=None).fit_transform(many[0])
    np.testing.assert_allclose(cached, plain, atol=1e-2)


# Threads


@pytest.mark.parametrize("n_threads", rest_exhaustive([2, 8], 8))
@pytest.mark.parametrize("cache", rest_exhaustive(["auto", None], "auto"))
def test_threads_that_share_one_estimator_get_the_answers_of_one(n_threads, cache, many, threads):
    X, y = many
    how = {"random_state": 0, "feature_cache": cache, "precision": "float32", "batch_size": 16}
    classifier = FineTunedClassifier(tiny_cnn, freeze_depth=2, max_epochs=1, **how).fit(X, y)
    extractor = PretrainedFeatureExtractor(tiny_cnn, **how).fit(X)
    expected = classifier.predict_proba(X), extractor.transform(X)
    sktransfer.clear_cache()
    barrier = threading.Barrier(n_threads)

    def work(number):
        rows = np.roll(np.arange(len(X)), 31 * number)
        barrier.wait()
        return rows, classifier.predict_proba(X[rows]), extractor.transform(X[rows])

    with ThreadPoolExecutor(n_threads) as pool:
        for rows, probabilities, features in pool.map(work, range(n_threads)):
            np.testing.assert_allclose(probabilities, expected[0][rows], atol=1e-5)
            np.testing.assert_allclose(features, expected[1][rows], atol=1e-5)
    assert torch.get_num_threads() == threads


def test_threads_that_use_a_model_first_after_a_pickle_get_the_answers_of_one(pictures, tmp_path):
    """Weights that were left out are found, and blocks cut again, while all wait for it."""
    import pickle

    X, y = pictures
    torch.save(tiny_cnn().state_dict(), tmp_path / "tiny.pth")
    classifier = FineTunedClassifier(
        tiny_cnn, weights=tmp_path / "tiny.pth", freeze_depth=2, layer=3, max_epochs=1, store_backbone=False
    ).fit(X, y)
    expected = classifier.predict_proba(X)
    for _ in range(5):
        sktransfer.clear_cache()
        again = pickle.loads(pickle.dumps(classifier))
        barrier = threading.Barrier(8)

        def work(_, again=again, barrier=barrier):
            barrier.wait()
            return again.predict_proba(X)

        with ThreadPoolExecutor(8) as pool:
            for probabilities in pool.map(work, range(8)):
                np.testing.assert_allclose(probabilities, expected, atol=1e-3)


def test_networks_are_loaded_while_others_compute(pictures):
    """torch traces by taking over every module of the process: other threads must not notice."""
    X, y = pictures
    classifier = FineTunedClassifier(tiny_cnn, freeze_depth=0, max_epochs=1, random_state=0, feature_cache=None)
    expected = classifier.fit(X, y).predict_proba(X)
    module, plain = tiny_cnn().eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        wanted = module(plain)
    stop = threading.Event()
    wrong = []

    def compute():
        while not stop.is_set():
            with torch.no_grad():
                wrong.append(not torch.equal(module(plain), wanted))
            wrong.append(not np.allclose(classifier.predict_proba(X[:4]), expected[:4], atol=1e-2))

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(compute) for _ in range(3)]
        call = torch.nn.Module.__call__
        loading = [pool.submit(load_backbone, "squeezenet1_1", None, seed=seed) for seed in range(4)]
        loaded = [future.result() for future in loading]
        stop.set()
        for future in running:
            future.result()
    assert len(wrong) > 20
    assert not any(wrong)
    assert {len(backbone.blocks) for backbone in loaded} == {9}
    assert torch.nn.Module.__call__ is call, "nothing is left of the tracing"


def test_loading_in_one_thread_does_not_hang_on_a_fit_in_another(pictures, tmp_path):
    """Each waits for the other's locks in turn: weights are found again while a fit asks what is loaded."""
    import pickle

    X, y = pictures
    torch.save(tiny_cnn().state_dict(), tmp_path / "tiny.pth")
    absent = FineTunedClassifier(tiny_cnn, weights=tmp_path / "tiny.pth", store_backbone=False).fit(X, y)
    content = pickle.dumps(absent)
    in_training, loading = threading.Event(), threading.Event()

    class Meddling(Callback):
        def on_epoch_begin(self, net, **kwargs):
            in_training.set()
            loading.wait(5)
            time.sleep(0.2)  # the other thread has come to what it waits for
            sktransfer.cache_info()
            load_backbone("squeezenet1_1", None, seed=1)

    def predict():
        in_training.wait(20)
        sktransfer.clear_cache()
        loading.set()
        return pickle.loads(content).predict_proba(X)

    def fit():
        how = {"freeze_depth": 2, "max_epochs": 2, "head_epochs": 1, "random_state": 0}
        return FineTunedClassifier(tiny_cnn, callbacks=[Meddling()], **how).fit(X, y)

    threads = [threading.Thread(target=work, daemon=True) for work in (fit, predict)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "two threads wait for each other"


def test_fits_in_several_threads_give_the_bits_of_fits_one_after_another(pictures):
    X, y = pictures

    def fit(seed):
        how = {"dropout": 0.3, "hidden_layer_sizes": (8,), "head_epochs": 2, "augment": "light", "max_epochs": 2}
        classifier = FineTunedClassifier(tiny_cnn, freeze_depth=2, random_state=seed, **how)
        return classifier.fit(X, y).predict_proba(X)

    expected = [fit(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(fit, range(4)), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


# Training that goes wrong, and data that is odd


def assert_probabilities(classifier, X):
    probabilities = classifier.predict_proba(X)
    assert probabilities.dtype == np.float64
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert set(classifier.predict(X)) <= set(classifier.classes_.tolist())


@pytest.mark.parametrize("strategy", ["fine_tune", "lp_ft", "gradual", "linear_probe"])
@pytest.mark.parametrize("rate", [1e3, 1e6, 1e12, 1e30])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_learning_rate_beyond_reason_ends_in_numbers_or_in_advice(strategy, rate, optimizer, pictures):
    X, y = pictures
    classifier = FineTunedClassifier(
        tiny_cnn, freeze_depth=0, strategy=strategy, lr=rate, head_lr=rate, head_epochs=2, max_epochs=3,
        optimizer=optimizer, weight_decay=0, batch_size=8, random_state=0,
    )  # fmt: skip
    try:
        classifier.fit(X, y)
    except ValueError as error:
        assert "Training stopped" in str(error)  # noqa: PT017
        assert "learning rate ten times smaller" in str(error)  # noqa: PT017
        with pytest.raises(NotFittedError):
            check_is_fitted(classifier)
    else:
        assert_probabilities(classifier, X)


def test_weights_that_overflow_in_the_last_step_are_noticed(pictures):
    """The loss of each step is finite; what the last one left is not."""
    X, y = pictures
    classifier = FineTunedClassifier(
        tiny_cnn, freeze_depth=0, strategy="fine_tune", lr=1e38, head_lr=1e38, max_epochs=1, optimizer="sgd",
        weight_decay=0, batch_size=len(X), random_state=0,
    )  # fmt: skip
    with pytest.raises(ValueError, match="Training stopped: the logits became NaN or infinite in epoch 1"):
        classifier.fit(X, y)


def test_samples_that_overflow_the_network_are_named_not_given_nan():
    X = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    classifier = FineTunedClassifier(tiny_vectors, random_state=0).fit(X, [0, 1] * 4)
    X[5] = 3e38
    for result_of in (classifier.predict_proba, classifier.predict):
        with pytest.raises(ValueError, match="NaN or infinity for 1 of 8 samples, the first in row 5"):
            result_of(X)


@pytest.mark.parametrize("train_bn", [False, True])
@pytest.mark.parametrize("n_samples", [2, 3, 9])
def test_small_and_uneven_batches_with_batch_norm_give_numbers(train_bn, n_samples, pictures):
    X, y = pictures[0][:n_samples], pictures[1][:n_samples]
    classifier = FineTunedClassifier(
        tiny_cnn, freeze_depth=0, train_bn=train_bn, batch_size=2 if train_bn else 1, max_epochs=2, random_state=0
    ).fit(X, y)
    assert_probabilities(classifier, X)


def test_a_class_with_one_member_is_learned(pictures):
    X, y = pictures[0], np.array(["common"] * 23 + ["rare"])
    for parameters in ({}, {"freeze_depth": 2, "class_weight": "balanced", "max_epochs": 2}):
        classifier = FineTunedClassifier(tiny_cnn, random_state=0, **parameters).fit(X, y)
        assert_probabilities(classifier, X)
        assert classifier.classes_.tolist() == ["common", "rare"]
    with pytest.raises(ValueError, match="least populated class"):
        FineTunedClassifier(tiny_cnn, early_stopping=True).fit(X, y)


@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_ten_thousand_classes_are_learned_without_a_hang():
    n = 10_000
    X = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    classifier = FineTunedClassifier(tiny_vectors, head_epochs=1, batch_size=512, random_state=0)
    started = time.monotonic()
    assert_probabilities(classifier.fit(X, np.arange(n)), X[:50])
    assert time.monotonic() - started < 60
    assert len(classifier.classes_) == n


def test_a_head_of_too_many_logits_to_solve_is_trained(pictures, monkeypatch):
    X, y = pictures
    solved = FineTunedClassifier(tiny_cnn, random_state=0).fit(X, y)
    assert solved.history_ == []
    monkeypatch.setattr("sktransfer._training._phases.SOLVABLE", 2 * len(X) - 1)
    trained = FineTunedClassifier(tiny_cnn, random_state=0).fit(X, y)
    assert [entry["phase"] for entry in trained.history_] == ["head"] * len(trained.history_)
    assert len(trained.history_) > 5
    assert_probabilities(trained, X)


def test_a_head_of_many_classes_is_solved_to_the_end(monkeypatch):
    """With scikit-learn's own tolerance the solver stops after a few steps."""
    from sktransfer._training import _logistic_problem, _solved_head

    rng = np.random.default_rng(0)
    y = np.arange(3000) % 600
    centres = rng.normal(size=(600, 40))
    X = np.abs(centres[y] + 0.9 * rng.normal(size=(3000, 40))).astype(np.float32)
    losses = []
    for tolerance in (_logistic_problem.TOLERANCE, 1e-8):
        monkeypatch.setattr(_logistic_problem, "TOLERANCE", tolerance)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            solution = _solved_head.solve_head(X, y, np.ones(3000), 600, C=300.0)
        with torch.no_grad():
            losses.append(float(nn.functional.cross_entropy(solution.head(torch.from_numpy(X)), torch.from_numpy(y))))
        assert solution.n_iter > 25
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


@pytest.mark.parametrize(
    "parameters", [{}, {"freeze_depth": 2, "max_epochs": 2}, {"freeze_depth": 0, "train_bn": True}]
)
def test_constant_images_give_equal_numbers(parameters):
    X = np.full((12, 10, 10, 3), 128, dtype=np.uint8)
    classifier = FineTunedClassifier(tiny_cnn, random_state=0, **parameters).fit(X, [0, 1, 2] * 4)
    assert_probabilities(classifier, X)
    np.testing.assert_allclose(classifier.predict_proba(X), classifier.predict_proba(X[:1])[[0] * 12], atol=1e-6)


def test_the_same_image_in_several_folds_has_one_activation_and_no_hang(pictures):
    X, y = np.repeat(pictures[0][:8], 6, axis=0), np.repeat(pictures[1][:8], 6)
    sktransfer.clear_cache()
    classifier = FineTunedClassifier(tiny_cnn, freeze_depth=2, max_epochs=2, random_state=0)
    before = sktransfer.cache_info().misses
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    probabilities = cross_val_predict(classifier, X, y, cv=folds, method="predict_proba")
    assert sktransfer.cache_info().misses - before == 8
    assert np.isfinite(probabilities).all()
    sktransfer.clear_cache()


# Clocks


def test_clocks_that_jump_change_no_result(paths, tmp_path, monkeypatch):
    """Files dated before 1970 and after today, and a clock that leaps to and fro."""
    rng = np.random.default_rng(0)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + rng.integers(-(10**8), 10**8))
    plain = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=None).fit_transform(paths)
    X = np.array([str(tmp_path / f"{row}.png") for row in range(len(paths))], dtype=object)
    for source, copy, when in zip(paths, X, np.linspace(-(10**9), 4 * 10**9, len(paths)), strict=True):
        shutil.copy(source, copy)
        os.utime(copy, (when, when))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for _ in range(3):
            extractor = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=tmp_path / "cache")
            np.testing.assert_allclose(extractor.fit_transform(X), plain, atol=1e-2)
        y = np.arange(len(X)) % 2
        FineTunedClassifier(tiny_cnn, freeze_depth=2, max_epochs=2, feature_cache=tmp_path / "cache").fit(X, y)


def test_a_file_that_is_rewritten_under_an_older_date_is_read_anew(paths, tmp_path):
    extractor = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=tmp_path / "cache").fit(paths)
    expected = extractor.transform(paths[:2])
    copy = tmp_path / "copy.png"
    for row, when in ((0, 2 * 10**9), (1, 10**9)):
        shutil.copy(paths[row], copy)
        os.utime(copy, (when, when))
        np.testing.assert_allclose(extractor.transform([copy]), expected[row : row + 1], atol=1e-2)
