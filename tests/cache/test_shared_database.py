"""Nobody waits long for a folder of activations: not for a process that was stopped, nor for one that was killed."""

import hashlib
import itertools
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from networks import tiny_cnn

from sktransfer import PretrainedFeatureExtractor, cache_info, clear_cache
from sktransfer._cache import _shared_database as shared
from sktransfer._cache._disk_store import DiskStore
from sktransfer._cache._folders import store_for

MIB = 2**20
PATIENCE = 2.0

stops = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")
forks = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")


def key(number):
    return hashlib.blake2b(str(number).encode(), digest_size=32).digest()


def value(number, size=300):
    return np.random.default_rng(number).standard_normal(size).astype(np.float32)


@contextmanager
def recorded():
    """Collect what is warned of."""
    said = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    said.extend(str(warning.message) for warning in caught)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "PATIENCE", PATIENCE)
    store = DiskStore(tmp_path / "cache", 100 * MIB)
    store.put([(key(number), value(number)) for number in range(5)])
    return store


STOPPED = """
import os, signal, sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    db.execute(statement).fetchone()
print("stops", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
db.close()
"""
WRITES = "BEGIN IMMEDIATE", "INSERT INTO entries (key, used, size) VALUES (x'00', 1, 1)", "PRAGMA cache_spill = 1"
READS = "BEGIN", "SELECT * FROM entries"


@pytest.fixture
def stopped(store):
    """Start processes that are stopped in the middle of something, and end them when the test is over."""
    processes = []

    def start(*statements, file=None):
        (found,) = [file] if file else store.folder.glob("*.sqlite")
        process = subprocess.Popen([sys.executable, "-c", STOPPED, str(found), *statements], stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout.readline() == b"stops\n"
        os.waitpid(process.pid, os.WUNTRACED)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@stops
def test_a_writer_that_is_stopped_is_waited_for_once_and_reading_goes_on(store, stopped):
    stopped(*WRITES)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = DiskStore(store.folder, store.limit)  # as another process opens it
        for number in range(100):
            assert store.contains([key(number % 5), key(99)]) == [True, False]
            np.testing.assert_array_equal(again.get([key(number % 5)])[0], value(number % 5))
    assert time.perf_counter() - started < PATIENCE, "reading waits for nobody"
    with recorded() as said:
        for number in range(5, 105):
            store.put([(key(number), value(number))])
            assert store.get([key(number)]) == [None]
    (message,) = said
    assert re.search("could not be written to: another process .*continue or end it", message)
    assert len(message) < 600
    assert time.perf_counter() - started < 3 * PATIENCE, "one wait, not one hundred"


@stops
@pytest.mark.parametrize("end", [signal.SIGCONT, signal.SIGKILL])
def test_what_is_computed_is_kept_again_once_the_writer_goes_on_or_is_gone(end, store, stopped):
    process = stopped(*WRITES)
    with pytest.warns(UserWarning, match="could not be written to"):
        store.put([(key(5), value(5))])
    process.send_signal(end)
    process.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store.put([(key(6), value(6))])
    assert store.contains([key(number) for number in range(7)]) == [True] * 5 + [False, True]


@stops
def test_threads_that_read_do_not_queue_behind_one_that_waits(store, stopped):
    stopped(*WRITES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        writers = [threading.Thread(target=store.put, args=([(key(9), value(9))],)) for _ in range(4)]
        started = time.perf_counter()
        for writer in writers:
            writer.start()
        for number in range(100):
            assert store.get([key(number % 5)])[0] is not None
        assert any(writer.is_alive() for writer in writers), "the reads were over before the wait was"
        for writer in writers:
            writer.join()
    assert time.perf_counter() - started < 2 * PATIENCE, "they wait together, not one after another"


@stops
def test_old_entries_are_read_and_damaged_ones_dropped_without_a_wait(store, stopped):
    """Both write: in which order entries leave, and which are gone."""
    store.limit = 2 * store.n_bytes - 1  # from here on it matters what was used last
    store._database.write(lambda db: db.execute("UPDATE activations SET value = x'00' WHERE id = 1"))
    stopped(*WRITES)
    started = time.perf_counter()
    with recorded() as said:
        for _ in range(50):
            found = store.get([key(number) for number in range(5)])
            assert [array is None for array in found] == [True, False, False, False, False]
    assert len(said) == 1
    assert "damaged" in said[0]
    assert time.perf_counter() - started < PATIENCE


@stops
def test_emptying_a_folder_ends_and_says_each_time_that_it_could_not(store, stopped):
    stopped(*WRITES)
    for _ in range(2):
        started = time.perf_counter()
        with pytest.warns(UserWarning, match="could not be emptied: another process"):
            store.clear()
        assert time.perf_counter() - started < 3 * PATIENCE
    assert len(store) == 5


@stops
def test_a_process_that_is_stopped_while_it_makes_the_file_is_waited_for_once(store, stopped, tmp_path):
    other = DiskStore(tmp_path / "other", MIB)
    (tmp_path / "other").mkdir(mode=0o700)
    stopped("CREATE TABLE other (x)", "BEGIN EXCLUSIVE", "INSERT INTO other VALUES (1)", file=other._database.path)
    started = time.perf_counter()
    with recorded() as said:
        for number in range(30):
            assert other.get([key(number)]) == [None]
            other.put([(key(number), value(number))])
    assert 1 <= len(said) <= 2
    assert all("another process holds it" in message for message in said)
    assert time.perf_counter() - started < 4 * PATIENCE


@stops
def test_the_log_does_not_grow_without_end_while_a_reader_is_stopped(store, stopped, monkeypatch):
    monkeypatch.setattr(shared, "_LOG_PAGES", 64)
    process = stopped(*READS)
    log = store._database.path.with_name(store._database.path.name + "-wal")
    started = time.perf_counter()
    with recorded() as said:
        for number in range(5, 205):
            store.put([(key(number), value(number, 25_000))])  # 100 kB each
    assert [message for message in said if "could not be written to" in message] == said != []
    assert log.stat().st_size < 4 * 64 * shared.PAGE
    assert time.perf_counter() - started < 5 * PATIENCE
    assert store.contains([key(0), key(5)]) == [True, True]
    process.kill()
    process.wait()
    store.put([(key(999), value(999))])
    assert store.contains([key(999)]) == [True]


def test_a_writer_that_goes_on_is_waited_for_longer(store):
    """Each of many small writes shows that there is nothing to give up for."""
    database, gap = store._database, PATIENCE / 8
    stop = threading.Event()

    def busy():
        other = shared.SharedDatabase(database.path, database._tables)
        while not stop.is_set():
            # Nearly always at it: what comes in between has to be lucky.
            other.write(lambda db: (db.execute("UPDATE entries SET used = used"), time.sleep(gap)))

    waiting = shared._Waiting((database.path, database._beside("-wal")))
    thread = threading.Thread(target=busy)
    thread.start()
    try:
        deadline = time.monotonic() + 2 * PATIENCE
        while time.monotonic() < deadline:
            assert waiting.go_on()
    finally:
        stop.set()
        thread.join()
    begun = time.monotonic()
    while waiting.go_on():
        assert time.monotonic() - begun < 2 * PATIENCE
    waiting._began -= shared.LONGEST
    database.path.touch()
    assert not waiting.go_on(), "not even then for ever"


@stops
def test_an_extractor_goes_on_beside_a_process_that_was_stopped(pictures, store, stopped):
    X, _ = pictures
    how = {"random_state": 0, "feature_cache": store.folder, "batch_size": 4}
    expected = PretrainedFeatureExtractor(tiny_cnn, **how).fit_transform(X[:8])
    stopped(*WRITES)
    clear_cache()
    started = time.perf_counter()
    with recorded() as said:
        for _ in range(5):
            found = PretrainedFeatureExtractor(tiny_cnn, **how).fit_transform(X)
    assert len([message for message in said if "could not be written to" in message]) == 1
    assert time.perf_counter() - started < 5 * PATIENCE
    assert cache_info().hits >= 5 * 8
    np.testing.assert_allclose(found[:8], expected, atol=1e-2)


def test_opening_what_is_there_and_reading_take_no_lock_of_writers(store):
    began = []
    with sqlite_lock(store):
        again = DiskStore(store.folder, store.limit)
        again._database.read(lambda db: began.append(db.in_transaction), None)
        assert again.contains([key(0)]) == [True]
        assert len(again) == 5
        assert again.n_bytes > 0
    assert began == [False]


def sqlite_lock(store):
    """Hold the lock of writers, as a process does that writes."""
    return shared._transaction(shared.SharedDatabase(store._database.path, store._database._tables)._open(make=False))


MAKER = """
import sys, time, warnings
from pathlib import Path
import numpy as np
from sktransfer._cache._disk_store import DiskStore
warnings.simplefilter("error")
print("ready", flush=True)
sys.stdin.readline()
for number in range(8):
    DiskStore(Path(sys.argv[1], str(number)), 10**8).put([(sys.argv[2].encode(), np.ones(3, np.float32))])
"""


@pytest.mark.exhaustive
def test_processes_that_make_a_folder_at_once_all_keep_what_they_have(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MAKER, str(tmp_path), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for number in range(3)
    ]
    for process in processes:
        assert process.stdout.readline() == b"ready\n"
    for process in processes:
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    for number in range(8):
        assert DiskStore(tmp_path / str(number), MIB).contains([b"0", b"1", b"2"]) == [True] * 3


# Forks


@forks
def test_a_child_that_is_forked_while_a_thread_writes_reads_and_writes(store):
    stop = threading.Event()

    def write():
        for number in itertools.count(1000):
            if stop.is_set():
                return
            store.put([(key(number), value(number))])

    def child():
        found = store.get([key(0)])[0]
        store.put([(key("child"), value(1))])
        os._exit(0 if np.array_equal(found, value(0)) and store.contains([key("child")])[0] else 1)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is what is tried
            for _ in range(10):
                process = multiprocessing.get_context("fork").Process(target=child)
                process.start()
                process.join(60)
                assert process.exitcode == 0
    finally:
        stop.set()
        thread.join()


# Handles and deleted folders


def open_files(folder):
    """Files below a folder that this process has open."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("this system does not tell which files are open")
    names = []
    for handle in Path("/proc/self/fd").iterdir():
        try:
            names.append(str(handle.readlink()))
        except OSError:
            continue
    return [name for name in names if name.startswith(str(folder))]


MANY = """
import resource, sys, warnings
from pathlib import Path
import numpy as np
from sktransfer import clear_cache
from sktransfer._cache._folders import store_for
warnings.simplefilter("error")
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
for _ in range(2):
    for number in range(150):
        store = store_for(Path(sys.argv[1], str(number)))
        found = store.get([b"a"])[0]
        store.put([(b"a", np.float32([number]))])
    assert found.tolist() == [149] if _ else found is None
clear_cache(folders=True)
assert [len(store_for(Path(sys.argv[1], str(number)))) for number in range(150)] == [0] * 150
"""


@pytest.mark.exhaustive
def test_hundreds_of_folders_need_few_handles_and_all_are_used_and_emptied(tmp_path):
    pytest.importorskip("resource")
    done = subprocess.run([sys.executable, "-c", MANY, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_folders_used_by_many_threads_at_once_stay_usable(tmp_path, monkeypatch):
    monkeypatch.setattr(shared, "OPEN_AT_ONCE", 2)
    stores = [DiskStore(tmp_path / str(number), MIB) for number in range(8)]
    wrong = []

    def work(seed):
        for number in np.random.default_rng(seed).integers(0, 8, 40).tolist():
            stores[number].put([(key(number), value(number))])
            wrong.extend(n for n in [number] if not np.array_equal(stores[n].get([key(n)])[0], value(n)))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    stores[0].contains([key(0)])
    assert len({Path(name).parent for name in open_files(tmp_path)}) <= 2


@pytest.mark.parametrize("next_cache", ["auto", None, "another folder"])
def test_a_deleted_folder_is_let_go_of(next_cache, pictures, tmp_path):
    X, _ = pictures
    PretrainedFeatureExtractor(tiny_cnn, feature_cache=tmp_path / "cache").fit_transform(X)
    assert open_files(tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    PretrainedFeatureExtractor(
        tiny_cnn, feature_cache=tmp_path / "b" if next_cache == "another folder" else next_cache
    ).fit(X)
    assert not open_files(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_clearing_folders_makes_none_anew(pictures, tmp_path):
    X, _ = pictures
    folders = [tmp_path / name for name in ("deleted", "emptied", "never used", "there")]
    for folder in folders:
        if folder.name == "never used":
            store_for(folder)
        else:
            PretrainedFeatureExtractor(tiny_cnn, feature_cache=folder).fit_transform(X)
    shutil.rmtree(folders[0])
    for file in folders[1].iterdir():
        file.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clear_cache(folders=True)
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["emptied", "there"]
    assert list(folders[1].iterdir()) == []
    assert len(store_for(folders[3])) == 0


def test_looking_into_a_folder_that_is_not_there_makes_none(tmp_path):
    store = DiskStore(tmp_path / "cache", MIB)
    assert store.contains([key(0)]) == [False]
    assert store.get([key(0)]) == [None]
    assert (len(store), store.n_bytes) == (0, 0)
    store.put([])
    store.clear()
    assert not (tmp_path / "cache").exists()


def test_a_home_that_is_not_known_is_said(pictures):
    with pytest.raises(ValueError, match=r"Got feature_cache='~nosuchuser/cache'.*home folder.*not known; expected"):
        PretrainedFeatureExtractor(tiny_cnn, feature_cache="~nosuchuser/cache").fit(pictures[0])


READ_ONLY = """
import os, sys, warnings
from pathlib import Path
folder = Path(sys.argv[1])
from sktransfer._cache._disk_store import DiskStore
if os.geteuid() == 0:
    os.setuid(12345)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    store = DiskStore(folder, 10**8)
    assert store.get([b"there"])[0].tolist() == [1.0, 2.0]
    assert not caught, caught
    for number in range(3):
        store.put([(bytes([number]), store.get([b"there"])[0])])
    store.clear()
print(*[str(warning.message) for warning in caught], sep="\\n")
"""


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owners here")
def test_a_folder_that_is_read_only_is_read(tmp_path):
    store = DiskStore(tmp_path / "cache", MIB)
    store.put([(b"there", np.float32([1, 2]))])
    store.close()
    for place in (store.folder, *store.folder.iterdir()):
        place.chmod(0o500 if place.is_dir() else 0o400)
        if os.geteuid() == 0:
            os.chown(place, 12345, -1)
    for parent in list(tmp_path.parents)[:3]:
        if os.geteuid() == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(store.folder)], capture_output=True, text=True, check=False
    )
    store.folder.chmod(0o700)
    assert done.returncode == 0, done.stderr
    used, emptied = done.stdout.splitlines()
    assert "could not be used" in used
    assert "could not be emptied" in emptied
