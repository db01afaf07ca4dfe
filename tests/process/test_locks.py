"""A forked child predicts and fits, whatever its parent had done and its parent's threads were doing."""

import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import torch
from networks import rest_exhaustive

from sktransfer._computing._execution import Execution
from sktransfer._process import _locks
from sktransfer._process._locks import Lock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

START = """
    import faulthandler, multiprocessing, os, threading, time, warnings
    import numpy as np, torch
    from torch import nn
    from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
    warnings.simplefilter("ignore", DeprecationWarning)  # Python's own of forks beside threads
    torch.set_num_threads(4)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    X = np.random.default_rng(0).integers(0, 256, (120, 48, 48, 3), dtype=np.uint8)
    y = np.arange(120) % 2
    model = FineTunedClassifier(net, freeze_depth=1, max_epochs=1, random_state=0, feature_cache={cache}).fit(X, y)
    want = model.predict_proba(X)

    def in_child(work):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            faulthandler.dump_traceback_later(60, exit=True)
            try:
                os.write(writer, str(work()).encode())
            except BaseException as error:
                os.write(writer, repr(error).encode())
            os._exit(0)
        os.close(writer)
        said = b""
        while part := os.read(reader, 1000):
            said += part
        os.close(reader)
        assert os.waitpid(child, 0)[1] == 0
        return said.decode()
"""


def run(code, folder, cache="auto"):
    start = START.format(cache=repr(str(folder)) if cache == "folder" else repr(cache))
    command = [sys.executable, "-c", textwrap.dedent(start) + textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


@pytest.mark.parametrize("cache", rest_exhaustive(["auto", None, "folder"], "auto"))
def test_a_forked_child_predicts_fits_and_transforms_as_its_parent(cache, tmp_path):
    code = """
        other = X[::-1].copy()
        def predict():
            alike = np.allclose(model.predict_proba(X), want, rtol=1e-3)
            few = model.predict_proba(other[:3]).shape == (3, 2)
            again = FineTunedClassifier(net, freeze_depth=1, max_epochs=1, random_state=0).fit(other, y)
            features = PretrainedFeatureExtractor(net).fit_transform(other + 1)
            return alike and few and again.n_iter_ > 0 and features.shape == (120, 32)
        print(in_child(predict), in_child(torch.get_num_threads), torch.get_num_threads())
    """
    assert run(code, tmp_path, cache) == ["True", "1", "4"]


@pytest.mark.exhaustive
def test_a_child_forked_in_the_middle_of_another_threads_pass_predicts(tmp_path):
    code = """
        ended = threading.Event()
        def busy():
            while not ended.is_set():
                model.predict_proba(X)
                FineTunedClassifier(net, freeze_depth=1, max_epochs=1, random_state=0).fit(X[:20], y[:20])
        threads = [threading.Thread(target=busy) for _ in range(3)]
        for thread in threads:
            thread.start()
        for turn in range(6):
            time.sleep(0.01 * turn)
            print(in_child(lambda: np.allclose(model.predict_proba(X[::-1])[::-1], want, rtol=1e-3)))
        ended.set()
        for thread in threads:
            thread.join()
    """
    assert run(code, tmp_path) == ["True"] * 6


@pytest.mark.exhaustive
def test_processes_of_a_forking_pool_predict(tmp_path):
    code = """
        with multiprocessing.get_context("fork").Pool(2) as pool:
            parts = pool.map(model.predict_proba, [X[:60], X[60:]])
        print(np.allclose(np.concatenate(parts), want, rtol=1e-3))
    """
    assert run(code, tmp_path) == ["True"]


def held_in_a_thread(lock):
    held, over = threading.Event(), threading.Event()

    def hold():
        with lock:
            held.set()
            over.wait(30)

    threading.Thread(target=hold, daemon=True).start()
    held.wait(30)
    return over


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_lock_that_a_thread_holds_is_free_in_a_forked_child_and_still_held_in_the_parent():
    lock = Lock()
    over = held_in_a_thread(lock)
    child = os.fork()
    if not child:
        with lock, lock:
            os._exit(7)
    for _ in range(300):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.1)
    assert os.waitstatus_to_exitcode(status) == 7
    taken = []
    waiting = threading.Thread(target=lambda: lock.__enter__() or taken.append(1) or lock.__exit__(None, None, None))
    waiting.start()
    waiting.join(0.2)
    assert not taken
    over.set()
    waiting.join(30)
    assert taken


def test_every_lock_of_the_package_is_one_that_a_forked_child_finds_free():
    from pathlib import Path

    import sktransfer

    root = Path(sktransfer.__file__).parent
    plain = [
        f"{file.relative_to(root).as_posix()}:{number}"
        for file in sorted(root.rglob("*.py"))
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if "threading.Lock()" in line or "threading.RLock()" in line
    ]
    # The lock itself, one that lives for as long as a pass starts its threads, and those that are held while it forks.
    assert {place.partition(":")[0] for place in plain} <= {
        "_process/_locks.py",
        "_computing/_threads.py",
        "_cache/_shared_database.py",
    }


@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:0"])
def test_a_child_of_a_process_that_used_cuda_is_told_so(device, monkeypatch):
    monkeypatch.setattr(_locks._CUDA, "lost", True)
    with pytest.raises(ValueError, match=r'forked after CUDA was used.*"spawn"'):
        Execution.plan(32, None, device, "auto", 0)
    assert Execution.plan(32, None, "cpu", "auto", 0).device.type == "cpu"


def test_whether_cuda_was_used_is_seen_when_a_process_forks(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(_locks._CUDA, "used", False)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_locks.cuda_was_lost)
    assert not _locks.cuda_was_lost()
