"""With `feature_cache="auto"`, processes of one search share what they compute; nothing of it outlives their parent."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
from networks import rest_exhaustive, tiny_cnn

from sktransfer import PretrainedFeatureExtractor, cache_info, clear_cache
from sktransfer._cache import _family_store
from sktransfer._cache._disk_store import DiskStore
from sktransfer._cache._family_store import FamilyStore, process_store
from sktransfer._cache._memory_store import PROCESS_CACHE, MemoryStore
from sktransfer._process import _living

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes share nothing there")

forks = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """A temporary folder of this test's own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    clear_cache()
    yield tmp_path / "temporary"
    clear_cache()


class Parent:
    """Stands for the parent of this process."""

    pid = os.getpid()


@pytest.fixture
def as_worker(monkeypatch):
    """Let this process be a worker; its parent has the same number, so that nothing else is in the way."""
    monkeypatch.setattr(_family_store, "parent_process", Parent)


def run(code, folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code), *map(str, arguments)],
        cwd=Path(__file__).parents[1],
        env={
            **os.environ, "TMPDIR": str(folder), "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


SEARCH = """
import os, sys, numpy as np
from pathlib import Path
from networks import tiny_cnn
from sklearn.model_selection import GridSearchCV
from sktransfer import FineTunedClassifier, cache_info

def score(estimator, X, y):
    value = estimator.score(X, y)
    return {"score": value, "misses": cache_info().misses, "process": os.getpid()}

cache, n = eval(sys.argv[1]), int(sys.argv[2])
rng = np.random.default_rng(0)
y = np.tile([0, 1], 30)
X = rng.integers(0, 120, size=(60, 20, 24, 3)).astype(np.uint8)
X[y == 1, ::2, :, 0] += 120
how = {"max_epochs": 1, "random_state": 0, "batch_size": 4, "feature_cache": cache}
search = GridSearchCV(
    FineTunedClassifier(tiny_cnn, **how), {"freeze_depth": ["all", 3, 1], "lr": [1e-4, 1e-3]}, cv=3,
    n_jobs=n, scoring=score, refit="score", error_score="raise",
)
found = search.fit(X, y).cv_results_
misses, processes = (
    np.concatenate([found[f"split{split}_test_{name}"] for split in range(3)]) for name in ("misses", "process")
)
in_workers = sum(misses[processes == one].max() for one in set(processes))
print(int(in_workers), cache_info().misses, *[path.name for path in Path(os.environ["TMPDIR"]).glob("sktransfer-*")])
"""


@pytest.mark.parametrize("n", rest_exhaustive([2, 4], 2))
def test_workers_of_a_search_pass_each_sample_once_in_all_and_the_refit_finds_it(n, temporary):
    in_workers, in_parent, *folders = run(SEARCH, temporary, "'auto'", n).split()
    assert (in_workers, in_parent) == ("60", "0")
    assert len(folders) == 1
    assert list(temporary.glob("sktransfer-*")) == [], "the parent took it away"


def test_without_a_cache_workers_share_nothing(temporary):
    in_workers, in_parent, *folders = run(SEARCH, temporary, "None", 2).split()
    assert int(in_workers) > 2 * 60
    assert int(in_parent) > 0
    assert folders == []


@forks
def test_forked_workers_share_with_each_other_and_their_parent(pictures, temporary):
    X, _ = pictures
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        for _ in range(2):
            with multiprocessing.get_context("fork").Pool(1) as pool:
                features = pool.apply(_features, (X,))
    (folder,) = temporary.glob("sktransfer-*")
    assert folder.stat().st_mode & 0o077 == 0
    assert cache_info().misses == 0
    np.testing.assert_array_equal(_features(X), features)
    assert cache_info().misses == 0, "the parent looks there too"
    clear_cache()
    assert len(process_store().folder) == 0
    _features(X)
    assert cache_info().misses == len(X)


def _features(X):
    return PretrainedFeatureExtractor(tiny_cnn, random_state=0).fit_transform(X)


# The folder


def test_a_process_that_no_other_started_makes_no_folder(pictures, temporary):
    _features(pictures[0])
    assert process_store() is PROCESS_CACHE
    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("as_worker")
@pytest.mark.parametrize("what", ["link", "file", "open to others"])
def test_what_is_no_folder_of_this_user_alone_is_not_used(what, pictures, temporary, tmp_path):
    (place,) = (process_store().folder.folder,)
    shutil.rmtree(place)
    if what == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "elsewhere")
    elif what == "file":
        place.touch()
    else:
        place.mkdir()
        place.chmod(0o755)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _features(pictures[0])
    assert process_store() is PROCESS_CACHE
    assert not (tmp_path / "elsewhere").exists() or not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.usefixtures("as_worker")
def test_a_folder_of_another_user_is_not_used():
    os.chown(process_store().folder.folder, 12345, -1)
    assert process_store() is PROCESS_CACHE


@pytest.mark.usefixtures("as_worker")
def test_without_a_temporary_folder_memory_alone_serves(pictures, temporary):
    shutil.rmtree(temporary)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _features(pictures[0])
        _features(pictures[0])
    assert cache_info().misses == len(pictures[0])


@pytest.mark.usefixtures("as_worker")
def test_a_full_disk_costs_neither_a_result_nor_a_word(pictures, monkeypatch):
    import sqlite3

    def full(self, db):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(DiskStore, "_evict", full)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _features(pictures[0])
        _features(pictures[0])
    assert cache_info().misses == len(pictures[0])


def test_a_killed_parents_folder_goes_when_the_next_is_made(temporary):
    code = """
        import multiprocessing, os, signal, sys
        def work():
            from sktransfer._cache._family_store import process_store
            print(process_store().folder.folder, flush=True)
        if __name__ == "__main__":
            child = multiprocessing.get_context("fork").Process(target=work)
            child.start()
            child.join()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    left = Path(killed.stdout.strip())
    assert left.parent == temporary
    assert left.is_dir()
    run(SEARCH, temporary, "'auto'", 2)
    assert not left.exists()


@pytest.mark.usefixtures("as_worker")
def test_only_folders_of_gone_parents_are_removed(temporary):
    here, mine = _family_store._here(), os.getpid()
    number = subprocess.Popen([sys.executable, "-c", ""])
    number.communicate()
    names = {
        f"sktransfer-{here}-{number.pid}-1": True,
        f"sktransfer-{here}-{mine}-{_living.begun(mine)}-more": _living.begun(mine) != "",
        "sktransfer-elsewhere-1-1": False,
        "sktransfer-notes": False,
        "another": False,
    }
    for name in names:
        (temporary / name).mkdir(mode=0o700)
    old = temporary / "sktransfer-longago-1-1"
    old.mkdir(mode=0o700)
    os.utime(old, (1, 1))
    process_store()
    assert {name: not (temporary / name).exists() for name in names} == names
    assert not old.exists()


# The store


def test_memory_is_asked_first_and_what_the_folder_had_is_in_memory_then(tmp_path):
    folder = DiskStore(tmp_path / "folder", 2**20)
    store = FamilyStore(MemoryStore(2**19), folder, keeps=True)
    value = np.arange(8, dtype=np.float32)
    store.put([(b"a", value)])
    folder.put([(b"b", value + 1)])
    assert store.contains([b"a", b"b", b"c"]) == [True, True, False]
    assert folder.contains([b"a", b"b"]) == [True, True]
    np.testing.assert_array_equal(np.stack(store.get([b"b", b"a"])), [value + 1, value])
    assert store.memory.contains([b"b"]) == [True]
    assert store.get([b"c", b"a"])[0] is None
    assert store.limit == folder.limit == 2**19
    store.clear()
    assert (len(store), len(folder), store.n_bytes) == (0, 0, 0)


def test_a_parent_only_looks(tmp_path):
    folder = DiskStore(tmp_path / "folder", 2**20)
    store = FamilyStore(MemoryStore(1000), folder, keeps=False)
    store.put([(b"a", np.zeros(2, np.float32))])
    assert folder.contains([b"a"]) == [False]
    assert store.claims() is None
