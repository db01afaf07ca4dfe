"""Processes that share a folder divide the work: each sample is computed by one of them, and nobody waits in vain."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from networks import rest_exhaustive, tiny_cnn

from sktransfer import PretrainedFeatureExtractor, cache_info, clear_cache
from sktransfer._cache import _claims
from sktransfer._cache._disk_store import DiskStore
from sktransfer._process import _living

MIB = 2**20

tells = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="this system does not tell of processes")


@pytest.fixture(autouse=True)
def empty_cache():
    clear_cache()
    yield
    clear_cache()


@pytest.fixture
def images(tmp_path):
    """60 small images, as a file, and their labels."""
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 30)
    X = rng.integers(0, 120, size=(60, 20, 24, 3))
    X[y == 1, ::2, :, 0] += 120
    X = X.astype(np.uint8)
    np.savez(tmp_path / "images.npz", X=X, y=y)
    return X, y


def names(*numbers):
    return [f"{number:032}".encode() for number in numbers]


WORKER = """
import json, sys, time, warnings
import numpy as np, torch
from pathlib import Path
from networks import tiny_cnn
import sktransfer
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, cache_info
from sktransfer.inputs.images import _reader
torch.set_num_threads(1)
warnings.simplefilter("error")
warnings.filterwarnings("ignore", message="Got .*max_epochs")
folder, number = Path(sys.argv[1]), int(sys.argv[2])
data = np.load(folder / "images.npz")
X, y, cache = data["X"], data["y"], folder / "cache"

def slowly(seconds):
    "Let each batch take so long."
    from torch import nn
    original = nn.Conv2d.forward
    def forward(self, x):
        if self.in_channels == 3:
            time.sleep(seconds)
        return original(self, x)
    nn.Conv2d.forward = forward

print("ready", flush=True)
sys.stdin.readline()
"""


class Workers:
    """Processes that run code at the same moment."""

    def __init__(self, folder):
        self.folder, self.running = folder, []

    def start(self, code, n=1):
        """Start processes, and let them begin together."""
        begun = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER + textwrap.dedent(code), str(self.folder), str(number)],
                cwd=Path(__file__).parents[1],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            for number in range(n)
        ]
        self.running += begun
        for process in begun:
            assert process.stdout.readline() == "ready\n", process.stderr.read()
        for process in begun:
            process.stdin.write("\n")
            process.stdin.flush()
        return begun

    def results(self, code, n):
        """Run code in processes and return what each prints at its end, as JSON."""
        results = []
        for process in self.start(code, n):
            output, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
            results.append(json.loads(output.splitlines()[-1]))
        return results


@pytest.fixture
def workers(tmp_path):
    started = Workers(tmp_path)
    yield started
    for process in started.running:
        process.kill()
        process.communicate()


# n passes in all


@pytest.mark.parametrize("n", rest_exhaustive([2, 4], 2))
@pytest.mark.parametrize("order", ["same", "other"])
def test_processes_that_begin_at_once_pass_each_sample_once_in_all(n, order, images, workers):
    code = f"""
        slowly({0.1 * n})
        rows = np.random.default_rng(number).permutation(len(X)) if {order == "other"} else np.arange(len(X))
        extractor = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=cache, batch_size=4)
        features = extractor.fit_transform(X[rows])[np.argsort(rows)]
        print(json.dumps([cache_info()[:3], features.tolist()]))
    """
    counted, features = zip(*workers.results(code, n), strict=True)
    hits, misses, continued = np.array(counted).T
    assert misses.sum() == len(images[0])
    assert np.all(misses > 0), "they share the work"
    assert continued.sum() == 0
    assert np.all(hits + misses >= len(images[0]))
    expected = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=None).fit_transform(images[0])
    for found in features:
        np.testing.assert_array_equal(found, features[0])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", rest_exhaustive([2, 4], 2))
def test_depths_in_several_processes_pass_each_sample_once_in_all(n, images, workers):
    """Each process begins at another depth, and takes what the others have left of shallower ones."""
    code = """
        slowly(0.01)
        how = {"max_epochs": 1, "random_state": 0, "precision": "float32", "batch_size": 4, "feature_cache": cache}
        for depth in (1, 3, "all"):
            FineTunedClassifier(tiny_cnn, freeze_depth=depth, **how).fit(X, y)
        print(json.dumps(cache_info()[:3]))
    """
    _, misses, continued = np.array(workers.results(code, n)).T
    assert misses.sum() == len(images[0])
    assert continued.sum() == 2 * len(images[0])


@pytest.mark.exhaustive
@pytest.mark.parametrize("n", [2, 4])
def test_a_search_in_processes_passes_each_sample_once_in_all(n, images, tmp_path):
    code = """
        import os, sys, numpy as np
        from pathlib import Path
        from networks import tiny_cnn
        from sklearn.model_selection import GridSearchCV
        from sktransfer import FineTunedClassifier, cache_info

        def score(estimator, X, y):
            value = estimator.score(X, y)
            return {"score": value, "misses": cache_info().misses, "process": os.getpid()}

        folder, n = Path(sys.argv[1]), int(sys.argv[2])
        data = np.load(folder / "images.npz")
        how = {"max_epochs": 1, "random_state": 0, "batch_size": 4, "feature_cache": folder / "cache"}
        search = GridSearchCV(
            FineTunedClassifier(tiny_cnn, **how), {"freeze_depth": [1, 3, "all"], "lr": [1e-4, 1e-3]}, cv=3,
            n_jobs=n, scoring=score, refit="score", error_score="raise",
        )
        found = search.fit(data["X"], data["y"]).cv_results_
        misses, processes = (
            np.concatenate([found[f"split{split}_test_{name}"] for split in range(3)]) for name in ("misses", "process")
        )
        print(cache_info().misses + sum(misses[processes == one].max() for one in set(processes)))
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), str(tmp_path), str(n)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == len(images[0])


# What ends a wait


@tells
def test_claims_of_a_killed_process_are_taken_over_at_once(images, workers, monkeypatch):
    monkeypatch.setattr(_claims, "PATIENCE_WITH_LIVING", 1e9)
    (process,) = workers.start(
        """
        slowly(1e6)
        PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=cache, batch_size=4).fit_transform(X)
        """
    )
    store = DiskStore(workers.folder / "cache", 100 * MIB)
    until(lambda: store._database.read(lambda db: db.execute("SELECT COUNT(*) FROM claims").fetchone()[0], 0))
    process.send_signal(signal.SIGKILL)  # it stays a zombie: nobody asked for its end yet
    extractor = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=workers.folder / "cache")
    extractor.fit_transform(images[0])
    assert cache_info().misses == len(images[0])


def until(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@tells
@pytest.mark.parametrize("state", ["stopped", "hanging"])
def test_a_process_that_makes_no_progress_is_not_waited_for_for_long(state, images, workers, monkeypatch):
    monkeypatch.setattr(_claims, "PATIENCE_WITH_LIVING", 0.5 if state == "hanging" else 1e9)
    monkeypatch.setattr(_claims, "PATIENCE_WITH_UNKNOWN", 0.5 if state == "stopped" else 1e9)
    (process,) = workers.start(
        """
        slowly(1e6)
        PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=cache, batch_size=4).fit_transform(X)
        """
    )
    store = DiskStore(workers.folder / "cache", 100 * MIB)
    until(lambda: count_claims(store))
    if state == "stopped":
        process.send_signal(signal.SIGSTOP)
    extractor = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=workers.folder / "cache")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extractor.fit_transform(images[0])
    assert cache_info().misses == len(images[0])


def count_claims(store):
    return store._database.read(lambda db: db.execute("SELECT COUNT(*) FROM claims").fetchone()[0], 0)


@pytest.fixture
def store(tmp_path):
    return DiskStore(tmp_path / "cache", 100 * MIB)


def claims_of(store, process):
    """Claims as of a pass of another process."""
    claims = store.claims()
    claims._process, claims._owner = process, f"{process} 0"
    return claims


def test_two_that_wait_for_each_other_both_end(store, monkeypatch):
    """It does not come to that by itself: nobody waits while it holds claims."""
    monkeypatch.setattr(_claims, "PATIENCE_WITH_UNKNOWN", 0.2)
    one, two = claims_of(store, "elsewhere 1 1"), claims_of(store, "elsewhere 2 2")
    assert one.take(names(1)).mine == two.take(names(2)).mine == [0]
    ended = []
    threads = [
        threading.Thread(target=lambda who=who, what=what: ended.append(who.wait(names(what), 8).mine))
        for who, what in ((one, 2), (two, 1))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert ended == [[0], [0]]


def test_who_makes_progress_is_waited_for(store, monkeypatch):
    monkeypatch.setattr(_claims, "PATIENCE_WITH_UNKNOWN", 1.0)
    one, two = claims_of(store, "elsewhere 1 1"), claims_of(store, "elsewhere 2 2")
    one.take(names(1))
    ended = []
    thread = threading.Thread(target=lambda: ended.append(two.wait(names(1), 8)))
    thread.start()
    began = time.monotonic()
    number = 1
    while time.monotonic() - began < 3:
        number += 1
        one.take(names(number))
        pause = time.monotonic()
        time.sleep(0.05)
        if time.monotonic() - pause > 0.5:
            pytest.skip("this machine is too busy to tell")
    assert not ended
    store.put([], names(1))
    thread.join(60)
    assert ended[0].mine == [0]


def test_passes_of_one_process_do_not_wait_for_each_other(store):
    one, two = store.claims(), store.claims()
    assert one.take(names(1, 2)).mine == two.take(names(1, 2)).mine == [0, 1]
    one.close()
    two.close()
    assert count_claims(store) == 0


def test_what_is_kept_or_given_up_is_claimed_no_more(store):
    one, two = claims_of(store, "elsewhere 1 1"), store.claims()
    one.take(names(1, 2, 3, 4))
    assert two.take(names(1, 2, 3, 4)) == ([], [0, 1, 2, 3], True)
    store.put([(names(9)[0], np.float32([1]))], names(1))
    one.let_go(names(2))
    assert two.take(names(1, 2, 3, 4)).mine == [0, 1]
    one.close()
    assert two.take(names(1, 2, 3, 4)).mine == [0, 1, 2, 3]


def test_only_so_many_are_claimed_as_are_wanted(store):
    one, two = store.claims(), claims_of(store, "elsewhere 1 1")
    assert one.take(names(*range(10)), at_most=3).mine == [0, 1, 2]
    taken = two.take(names(*range(10)))
    assert (taken.mine, taken.others) == (list(range(3, 10)), [0, 1, 2])


@pytest.mark.parametrize("how", ["error", "Ctrl-C", "abandoned"])
def test_however_a_pass_ends_its_claims_end_with_it(how, images, tmp_path, monkeypatch):
    from sktransfer._computing._frozen_pass import stream

    X, _ = images
    extractor = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=tmp_path / "cache", batch_size=4)
    extractor.fit(X[:1])
    store = DiskStore(tmp_path / "cache", 100 * MIB)
    work = extractor._way_through(extractor._part(), extractor._read(X))
    if how == "abandoned":
        coming = stream(work)
        next(coming)
        assert count_claims(store) > 0
        del coming
    else:
        seen = []

        def load(self, index):
            seen.append(count_claims(store))
            if len(seen) > 20:
                raise KeyboardInterrupt if how == "Ctrl-C" else OSError("lost")
            return original(self, index)

        original = type(work.samples).load
        monkeypatch.setattr(type(work.samples), "load", load)
        with pytest.raises(KeyboardInterrupt if how == "Ctrl-C" else OSError), closing(stream(work)) as coming:
            list(coming)
        assert max(seen) > 0
    assert count_claims(store) == 0


def test_what_is_too_large_to_be_kept_is_not_claimed_for_long(images, tmp_path, workers):
    """Who waits for it would wait for nothing."""
    code = """
        sktransfer.set_cache_limit(disk=100_000)
        features = FineTunedClassifier(
            tiny_cnn, freeze_depth=1, max_epochs=1, random_state=0, batch_size=4, feature_cache=cache
        ).fit(X, y)
        print(json.dumps(cache_info()[:3]))
    """
    results = workers.results(code, 2)
    assert all(misses >= len(images[0]) - 8 for _, misses, _ in results)  # the first few are looked at and kept
    assert count_claims(DiskStore(tmp_path / "cache", 100_000)) == 0


# Who is there


@tells
def test_a_process_is_known_by_when_it_began():
    words = _living.this_process()
    assert _living.state_of(words) == _living.ALIVE
    machine, number, began = words.split(" ")
    assert _living.state_of(f"{machine} {number} {int(began) + 1}") == _living.DEAD, "another one under its number"
    assert _living.state_of(f"elsewhere {number} {began}") == _living.UNKNOWN
    assert _living.state_of("nonsense") == _living.UNKNOWN
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    words = f"{machine} {child.pid} {_living.begun(child.pid)}"
    assert _living.state_of(words) == _living.ALIVE
    child.kill()
    until(lambda: _living.state_of(words) == _living.DEAD)  # not buried yet
    child.communicate()
    assert _living.state_of(words) == _living.DEAD


def test_where_nothing_tells_of_processes_their_existence_is_asked_for(monkeypatch):
    monkeypatch.setattr(_living, "_looked_up", lambda number: ("", ""))
    machine = _living.machine()
    assert _living.state_of(f"{machine} {os.getpid()} ") == _living.UNKNOWN
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.communicate()
    if sys.platform != "win32":
        assert _living.state_of(f"{machine} {child.pid} ") == _living.DEAD
