"""Threads that work ahead: results in order, and no thread is left, whatever ends a pass and however late one wakes."""

import gc
import itertools
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import torch
from networks import tiny_cnn, tiny_vectors

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer._process._workers import _Task, in_order, within


@pytest.fixture
def threads():
    """Four threads of torch, which are set back."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield 4
    torch.set_num_threads(before)


def ours():
    return [thread for thread in threading.enumerate() if thread.name.startswith("sktransfer")]


def square(number):
    time.sleep(0.002 * (number % 3))
    return number**2


@pytest.mark.parametrize("n_threads", [1, 2, 7])
@pytest.mark.parametrize("ahead", [0, 1, 5])
@pytest.mark.parametrize("n", [0, 1, 2, 30])
def test_results_come_in_the_order_of_the_items(n, ahead, n_threads):
    results = in_order(square, range(n), n_threads, ahead=ahead, name="sktransfer-test")
    assert list(results) == [number**2 for number in range(n)]
    assert not ours()


def test_work_is_not_taken_further_ahead_than_asked_for():
    taken = []
    results = in_order(square, (taken.append(item) or item for item in range(50)), 2, ahead=3, name="sktransfer-t")
    for number in range(20):
        assert next(results) == number**2
        assert len(taken) == number + 4
    results.close()
    assert not ours()


@pytest.mark.parametrize("bad", [0, 3, 29])
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_reaches_the_taker_and_ends_the_threads(kind, bad):
    def work(number):
        if number == bad:
            raise kind(f"item {number}")
        return number

    taken = []
    with pytest.raises(kind, match=f"item {bad}"):
        taken.extend(in_order(work, range(30), 3, ahead=3, name="sktransfer-test"))
    assert taken == list(range(bad))
    assert not ours()


def test_an_error_in_the_items_ends_the_threads():
    def items():
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(in_order(square, items(), 2, ahead=4, name="sktransfer-test"))
    assert not ours()


def test_a_thread_that_cannot_begin_answers_with_the_reason():
    from contextlib import contextmanager

    @contextmanager
    def beginning(threads):
        def begin():
            raise OSError("not today")

        yield begin

    with pytest.raises(OSError, match="not today"):
        list(in_order(square, range(9), 2, ahead=4, name="sktransfer-test", beginning=beginning))
    assert not ours()


def test_threads_that_cannot_be_started_end_those_that_were(monkeypatch):
    original, count = threading.Thread.start, []

    def start(self):
        count.append(self)
        if len(count) == 3:
            raise RuntimeError("can't start new thread")
        original(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        list(in_order(square, range(9), 4, ahead=4, name="sktransfer-test"))
    assert not ours()


@pytest.fixture(params=["one", "all"])
def ended(request, monkeypatch):
    """Threads that end before they do anything, as a debugger or a tracer can make them."""
    original, names = threading.Thread.run, []

    def run(self):
        if self.name.startswith("sktransfer") and (request.param == "all" or self.name.endswith("_1")):
            names.append(self.name)
        else:
            original(self)

    monkeypatch.setattr(threading.Thread, "run", run)
    monkeypatch.setattr("sktransfer._process._workers.LOOKS_EVERY", 0.02)
    monkeypatch.setattr("sktransfer._computing._threads.LOOKS_EVERY", 0.02)
    return names


def test_a_thread_that_ends_by_itself_leaves_its_work_to_the_others(ended):
    assert list(in_order(square, range(20), 3, ahead=3, name="sktransfer-test")) == [n**2 for n in range(20)]
    assert ended
    assert not ours()


def test_a_pass_whose_threads_end_by_themselves_gives_the_same(ended, threads):
    X = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    extractor = PretrainedFeatureExtractor(tiny_vectors, batch_size=20, random_state=0).fit(X)
    found = extractor.transform(X)
    assert ended
    torch.set_num_threads(1)
    np.testing.assert_allclose(found, extractor.transform(X), atol=1e-6)
    assert not ours()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_with_work_in_hand_leaves_it_to_the_taker(monkeypatch):
    monkeypatch.setattr("sktransfer._process._workers.LOOKS_EVERY", 0.02)
    original, ended = _Task.do, []

    def do(self, failed):
        if threading.current_thread().name.endswith("_1"):
            ended.append(self)
            self._taker = threading.current_thread()
            assert self._claim()
            raise SystemExit
        original(self, failed)

    monkeypatch.setattr(_Task, "do", do)
    assert list(in_order(square, range(20), 2, ahead=3, name="sktransfer-test")) == [n**2 for n in range(20)]
    assert len(ended) == 1
    assert not ours()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_work_that_a_thread_took_and_never_answered_is_done_by_the_taker_of_results():
    class Unanswering:
        def put(self, answer):
            raise SystemExit  # ends a thread without a word

        def get(self, timeout):
            raise queue.Empty

    task = _Task(lambda item: item + 1, 41)
    task._answer = Unanswering()
    thread = threading.Thread(target=task.do, args=(None,))
    thread.start()
    thread.join()
    found = []
    taker = threading.Thread(target=lambda: found.append(task.wait([thread])), daemon=True)
    taker.start()
    taker.join(30)
    assert found == [42]


def test_results_that_were_taken_are_not_held():
    class Large:
        alive = 0

        def __init__(self):
            Large.alive += 1

        def __del__(self):
            Large.alive -= 1

    results = in_order(lambda item: Large(), range(30), 2, ahead=2, name="sktransfer-test")
    for _ in range(20):
        next(results)
        time.sleep(0.01)
        assert Large.alive <= 4, "three in work or done, and the one that was taken"
    results.close()
    gc.collect()
    assert Large.alive == 0


@pytest.fixture
def late(monkeypatch):
    """The second thread that is to compute alone wakes late, each time."""
    original, woken = torch.set_num_threads, []

    def set_num_threads(number):
        if threading.current_thread().name.startswith("sktransfer"):
            woken.append(number)
            if len(woken) % 4 == 2:
                time.sleep(0.2)
        original(number)

    monkeypatch.setattr(torch, "set_num_threads", set_num_threads)
    return woken


def test_a_thread_that_wakes_late_delays_a_pass_and_nothing_else(threads, late, capfd):
    X = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    extractor = PretrainedFeatureExtractor(tiny_vectors, batch_size=20, random_state=0).fit(X)
    results = [extractor.transform(X) for _ in range(3)]
    assert all(np.array_equal(one, results[0]) for one in results)
    assert len(late) == 3 * threads, "they did compute in threads"
    assert torch.get_num_threads() == threads
    assert not ours()
    assert capfd.readouterr().err == ""


def test_a_thread_that_cannot_have_a_processor_of_its_own_says_so_and_keeps_nobody_waiting(threads, monkeypatch):
    original = torch.set_num_threads

    def refuse(number):
        if threading.current_thread().name == "sktransfer-compute_1":
            raise RuntimeError("not today")
        original(number)

    monkeypatch.setattr(torch, "set_num_threads", refuse)
    X = np.random.default_rng(0).normal(size=(2000, 4)).astype(np.float32)
    extractor = PretrainedFeatureExtractor(tiny_vectors, batch_size=20, random_state=0).fit(X)
    with pytest.raises(RuntimeError, match="not today"):
        all(extractor.transform(X).any() for _ in range(20))  # until that thread has work
    assert not ours()


def test_a_thread_whose_start_was_interrupted_is_waited_for(threads, monkeypatch):
    """Ctrl-C while Python waits for a thread to begin: it is there, though nobody was told so."""
    original, bootstrap = threading.Thread.start, threading.Thread._bootstrap_inner

    def slow(self):
        if self.name == "sktransfer-test_1":
            time.sleep(0.3)
        bootstrap(self)

    def start(self):
        if self.name == "sktransfer-test_1":
            monkeypatch.setattr(self._started, "wait", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        original(self)

    monkeypatch.setattr(threading.Thread, "_bootstrap_inner", slow)
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(KeyboardInterrupt):
        list(in_order(square, range(9), 3, ahead=3, name="sktransfer-test"))
    monkeypatch.undo()
    assert not ours()


def test_a_thread_that_wakes_after_the_pass_is_over_leaves_torch_as_it_was(threads, monkeypatch):
    """The pass is interrupted while its threads start; they find that out however late they wake."""
    original, woken = threading.Thread.run, threading.Event()

    def run(self):
        if self.name.startswith("sktransfer-compute"):
            woken.wait(10)
        original(self)

    def interrupted(self):
        started(self)
        if self.name.endswith("_2"):
            raise KeyboardInterrupt

    started = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "run", run)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    X = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    extractor = PretrainedFeatureExtractor(tiny_vectors, batch_size=20, random_state=0).fit(X)
    threading.Timer(0.3, woken.set).start()
    with pytest.raises(KeyboardInterrupt):
        extractor.transform(X)
    monkeypatch.undo()
    assert not ours()
    seen = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [threads], "new threads of the caller's get what they got before"


def test_a_sample_that_cannot_be_read_ends_a_pass_with_late_threads(threads, late, paths, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    classifier = FineTunedClassifier(tiny_cnn, random_state=0, batch_size=2, feature_cache=None)
    classifier.fit(paths, np.arange(len(paths)) % 2)
    for _ in range(3):
        with pytest.raises(ValueError, match=r"broken\.png"):
            classifier.predict([*paths[:5], str(broken), *paths[5:]])
        assert not ours()
    assert torch.get_num_threads() == threads


def test_an_interrupted_pass_leaves_no_thread_though_its_traceback_is_kept(threads, pictures, monkeypatch):
    """A notebook keeps the last traceback, and with it the frames of what was interrupted."""
    from sktransfer.backbones._frozen_part import FrozenPart

    X = np.concatenate([pictures[0]] * 4)
    X = (X + np.arange(len(X), dtype=np.uint8)[:, None, None, None]).astype(np.uint8)  # no two are the same
    extractor = PretrainedFeatureExtractor(tiny_cnn, random_state=0, batch_size=4).fit(X[:4])
    PretrainedFeatureExtractor(tiny_cnn, random_state=0, batch_size=4, layer=1, pooling="flatten").fit_transform(X[:40])
    kept = []
    original = FrozenPart.ready

    def interrupt(*args):
        kept.append(1)
        if len(kept) > 5:
            raise KeyboardInterrupt

    def failing(self, *args):
        network = original(self, *args)
        network.register_forward_hook(interrupt)
        return network

    monkeypatch.setattr(FrozenPart, "ready", failing)
    with pytest.raises(KeyboardInterrupt) as caught:
        extractor.transform(X)
    assert caught.traceback
    assert not ours()


CTRL_C = """
    import faulthandler, os, signal, sys, threading, time
    import numpy as np, torch
    from torch import nn
    from sktransfer import PretrainedFeatureExtractor
    faulthandler.dump_traceback_later(100, exit=True)
    torch.set_num_threads(4)
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    X = np.random.default_rng(0).integers(0, 256, (300, 48, 48, 3), dtype=np.uint8)
    extractor = PretrainedFeatureExtractor(net, feature_cache=None, batch_size=8, n_jobs={n_jobs}).fit(X)
    want = extractor.transform(X)
    interrupted = 0
    for turn in range(24):
        after = threading.Timer(0.002 * (turn % 12), os.kill, (os.getpid(), signal.SIGINT))
        try:
            after.start()
            for _ in range(50):
                extractor.transform(X)
        except KeyboardInterrupt:
            interrupted += 1
        after.join()
        left = [thread.name for thread in threading.enumerate() if thread.name.startswith("sktransfer")]
        assert not left, left
        assert torch.get_num_threads() == 4
    assert np.array_equal(extractor.transform(X), want)
    print("interrupted", interrupted)
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals are those of POSIX")
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_ctrl_c_at_any_moment_leaves_no_thread_and_torch_as_it_was(n_jobs):
    command = [sys.executable, "-c", textwrap.dedent(CTRL_C.format(n_jobs=n_jobs))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={**os.environ})
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[1]) >= 18
    assert done.stderr == ""


@pytest.mark.parametrize("error", [queue.Empty, IndexError, TimeoutError, StopIteration])
def test_what_the_work_raises_is_raised_here_whatever_it_is(error):
    task = _Task(lambda item: next(iter(())) if error is StopIteration else raise_(error("of the work")), 0)
    thread = threading.Thread(target=task.do, args=(None,), daemon=True)
    thread.start()
    with pytest.raises(error):
        task.wait([thread])


def raise_(error):
    raise error


def test_ctrl_c_anywhere_in_a_wait_ends_it_and_breaks_nothing_for_the_thread_with_the_answer(monkeypatch):
    died = []
    monkeypatch.setattr(threading, "excepthook", died.append)

    def wait_interrupted(at):
        """Raise at the so many-th step of Python beneath the wait; return the answer if there were not so many."""
        steps = itertools.count(1)

        def trace(frame, event, argument):
            if next(steps) == at:
                raise KeyboardInterrupt
            return trace

        task = _Task(lambda item: time.sleep(0.01) or item, "answer")
        thread = threading.Thread(target=task.do, args=(None,), daemon=True)
        thread.start()
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            return task.wait([thread])
        finally:
            sys.settrace(before)
            thread.join(10)
            assert not thread.is_alive(), "it waits for a lock"

    for at in itertools.count(1):
        try:
            assert wait_interrupted(at) == "answer"
            break
        except KeyboardInterrupt:
            assert not died
    assert at > 3


def test_a_pass_that_nobody_goes_on_with_does_not_keep_the_process_from_ending():
    code = """
        import time
        from sktransfer._process._workers import _Task, in_order
        kept = in_order(lambda item: time.sleep(0.01) or item, range(100), 4, ahead=4, name="sktransfer-test")
        print(next(kept))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


# Work with an end


def test_work_within_a_time_is_answered_with_its_result_or_its_error():
    assert within(60, lambda: threading.current_thread().name, name="short") == "short"
    with pytest.raises(ZeroDivisionError):
        within(60, lambda: 1 / 0, name="short")


def test_work_that_takes_longer_is_left_to_itself():
    goes_on, done = threading.Event(), threading.Event()

    def work():
        goes_on.wait(60)
        done.set()

    with pytest.raises(TimeoutError, match=r"not done within 0\.05 s"):
        within(0.05, work, name="long")
    assert not done.is_set()
    goes_on.set()
    assert done.wait(60)
