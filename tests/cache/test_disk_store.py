"""A folder of activations serves several processes, survives their death, and never returns what was not put in."""

import hashlib
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from networks import tiny_cnn

from sktransfer import PretrainedFeatureExtractor, cache_info, clear_cache, set_cache_limit
from sktransfer._cache._disk_store import DiskStore
from sktransfer._cache._folders import DISK_LIMIT

MIB = 2**20


def key(number):
    return hashlib.blake2b(str(number).encode(), digest_size=32).digest()


def value(number, size=300):
    return np.random.default_rng(number).standard_normal(size).astype(np.float32)


@pytest.fixture
def store(tmp_path):
    return DiskStore(tmp_path / "cache", 100 * MIB)


def database(store):
    (path,) = store.folder.glob("*.sqlite")
    return path


def test_what_was_kept_is_found_by_another_handle_with_shape_and_bits(store):
    values = {key(0): value(0), key(1): value(1, 24).reshape(2, 3, 4), key(2): np.float32([]).reshape(0, 5)}
    store.put(values.items())
    again = DiskStore(store.folder, store.limit)
    assert again.contains([key(1), key(9), key(0)]) == [True, False, True]
    assert len(again) == 3
    for found, expected in zip(again.get(list(values)), values.values(), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)
    assert again.get([key(9)]) == [None]


def test_more_keys_than_one_question_holds(store):
    numbers = range(1234)
    store.put((key(number), value(number, 3)) for number in numbers)
    found = store.get([key(number) for number in reversed(numbers)])
    np.testing.assert_array_equal(np.stack(found), np.stack([value(number, 3) for number in reversed(numbers)]))


def test_the_folder_is_its_owners_alone(store):
    store.put([(key(0), value(0))])
    assert store.folder.stat().st_mode & 0o077 == 0


def test_the_limit_holds_and_the_least_recently_used_leave_first(tmp_path):
    store = DiskStore(tmp_path, 4 * MIB)
    for start in range(0, 100, 5):
        store.put([(key(number), value(number, 25_000)) for number in range(start, start + 5)])  # 100 kB each
        assert store.get([key(0)])[0] is not None, "used all the time"
        assert store.n_bytes <= store.limit
    kept = store.contains([key(number) for number in range(100)])
    assert kept[99]
    assert not any(kept[1:50])
    assert 25 <= sum(kept) <= 40
    assert database(store).stat().st_size <= store.limit + MIB


def test_clear_empties_it(store):
    store.put([(key(number), value(number, 100_000)) for number in range(10)])
    before = store.n_bytes
    store.clear()
    assert len(store) == 0
    assert database(store).stat().st_size < before / 10


# Damage and faults


def test_damaged_entries_are_found_out_and_dropped(store):
    store.put([(key(number), value(number)) for number in range(4)])
    damage = {
        1: "UPDATE activations SET value = substr(value, 1, 100) || x'00ff' || substr(value, 103) WHERE id = 1",
        2: "UPDATE activations SET shape = '3,100' WHERE id = 2",
        3: "UPDATE activations SET value = (SELECT value FROM activations WHERE id = 4) WHERE id = 3",
    }
    with sqlite3.connect(database(store)) as db:
        for statement in damage.values():
            db.execute(statement)
    with pytest.warns(UserWarning, match="3 activations in .* were damaged"):
        found = store.get([key(number) for number in range(4)])
    assert [array is not None for array in found] == [False, False, False, True]
    np.testing.assert_array_equal(found[3], value(3))
    assert len(store) == 1
    store.put([(key(0), value(0))])
    np.testing.assert_array_equal(store.get([key(0)])[0], value(0))


@pytest.mark.parametrize("where", [0, 100, 16384 * 2, 16384 * 5 + 7])
def test_a_damaged_file_gives_right_values_or_none_and_works_again(where, tmp_path):
    numbers = range(300)
    first = DiskStore(tmp_path, 100 * MIB)
    first.put([(key(number), value(number)) for number in numbers])
    first.close()
    with database(first).open("r+b") as file:
        file.seek(where)
        file.write(os.urandom(4000))
    again = DiskStore(tmp_path, 100 * MIB)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        for _ in range(2):
            found = again.get([key(number) for number in numbers])
            for number, array in zip(numbers, found, strict=True):
                assert array is None or np.array_equal(array, value(number))
            again.put([(key(number), value(number)) for number in numbers])
        found = again.get([key(number) for number in numbers])
    assert all(np.array_equal(array, value(number)) for number, array in zip(numbers, found, strict=True))


def test_every_single_damaged_byte_of_an_entry_is_noticed(store):
    store.put([(key(0), value(0, 8))])
    with sqlite3.connect(database(store)) as db:
        (content,) = db.execute("SELECT value FROM activations").fetchone()
    for place in range(len(content)):
        wrong = bytearray(content)
        wrong[place] ^= 1
        with sqlite3.connect(database(store)) as db:
            db.execute("UPDATE activations SET value = ?", (bytes(wrong),))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            assert store.get([key(0)]) == [None]
            store.put([(key(0), value(0, 8))])


def test_a_folder_that_disappears_is_made_again(store):
    store.put([(key(0), value(0))])
    shutil.rmtree(store.folder)
    assert store.get([key(0)]) == [None]
    store.put([(key(1), value(1))])
    assert store.contains([key(1)]) == [True]


def test_a_folder_that_cannot_be_written_costs_a_warning_and_no_result(pictures, tmp_path):
    X, _ = pictures
    file = tmp_path / "file"
    file.write_text("not a folder")
    broken = DiskStore(file / "below a file", MIB)
    with pytest.warns(UserWarning, match="could not be used"):
        broken.put([(key(0), value(0))])
    assert broken.get([key(0)]) == [None]
    with pytest.raises(ValueError, match="which is a file; expected a folder"):
        PretrainedFeatureExtractor(tiny_cnn, feature_cache=file).fit(X)


def test_a_full_disk_costs_a_warning_and_no_result(store, monkeypatch):
    def full(db):
        raise sqlite3.OperationalError("database or disk is full")

    store.put([(key(0), value(0))])
    monkeypatch.setattr(store, "_evict", full)
    with pytest.warns(UserWarning, match="database or disk is full"):
        store.put([(key(1), value(1))])
    assert store.contains([key(0), key(1)]) == [True, False], "what was half written is undone"


# Threads and processes


def test_threads_share_a_store(store):
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(30):
            numbers = rng.integers(0, 60, 5).tolist()
            store.put([(key(number), value(number)) for number in numbers])
            found = store.get([key(number) for number in numbers])
            wrong.extend(n for n, array in zip(numbers, found, strict=True) if not np.array_equal(array, value(n)))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert 50 < len(store) <= 60


WORKER = textwrap.dedent(
    """
    import hashlib, sys
    from pathlib import Path
    import numpy as np
    from sktransfer._cache._disk_store import DiskStore
    store = DiskStore(Path(sys.argv[1]), 8 * 2**20)
    rng = np.random.default_rng(int(sys.argv[2]))
    key = lambda n: hashlib.blake2b(str(n).encode(), digest_size=32).digest()
    value = lambda n: np.random.default_rng(n).standard_normal(20_000).astype(np.float32)
    print("ready", flush=True)
    for _ in range(int(sys.argv[3])):
        numbers = rng.integers(0, 300, 8).tolist()
        for n, found in zip(numbers, store.get([key(n) for n in numbers])):
            assert found is None or np.array_equal(found, value(n)), n
        store.put([(key(n), value(n)) for n in numbers])
    print("done", flush=True)
    """
)


def start(folder, seed, rounds):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WORKER, str(folder), str(seed), str(rounds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.exhaustive
def test_four_processes_one_killed_at_random_ten_times(tmp_path):
    """No wrong row, no damage, no lock left behind: warnings are errors in the workers."""
    rng = np.random.default_rng(0)
    workers = [start(tmp_path, seed, 200) for seed in range(3)]
    for seed in range(10):
        victim = start(tmp_path, 100 + seed, 100_000)
        assert victim.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.0, 0.3))
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        victim.stdout.close()
        victim.stderr.close()
    for worker in workers:
        output, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
        assert output.endswith("done\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        store = DiskStore(tmp_path, 8 * MIB)
        started = time.perf_counter()
        store.put([(key("after"), value(0))])
        assert time.perf_counter() - started < 5, "no lock is left"
        assert store.n_bytes <= store.limit
        kept = [number for number in range(300) if store.contains([key(number)])[0]]
        assert kept
        for number in kept:
            np.testing.assert_array_equal(store.get([key(number)])[0], value(number, 20_000))
    with sqlite3.connect(database(store)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert (
            db.execute("SELECT COUNT(*) FROM entries").fetchone()
            == db.execute("SELECT COUNT(*) FROM activations").fetchone()
        )


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="there is no fork here")
def test_a_forked_child_opens_the_database_itself(store):
    store.put([(key(0), value(0))])
    queue = multiprocessing.get_context("fork").Queue()

    def child():
        store.put([(key(1), value(1))])
        queue.put(np.array_equal(store.get([key(0)])[0], value(0)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads, which is what is tried
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
    assert queue.get(timeout=30)
    process.join()
    assert store.contains([key(0), key(1)]) == [True, True]


# As a user meets it


@pytest.mark.exhaustive
def test_another_process_finds_what_this_one_computed(pictures, tmp_path):
    X, _ = pictures
    np.save(tmp_path / "X.npy", X)
    how = {"feature_cache": tmp_path / "cache", "random_state": 0}
    expected = PretrainedFeatureExtractor(tiny_cnn, **how).fit_transform(X)
    code = """
        import sys, numpy as np, sktransfer
        from pathlib import Path
        from networks import tiny_cnn
        folder = Path(sys.argv[1])
        X = np.load(folder / "X.npy")[::-1]
        extractor = sktransfer.PretrainedFeatureExtractor(tiny_cnn, feature_cache=str(folder / "cache"), random_state=0)
        features = extractor.fit_transform(X)
        assert sktransfer.cache_info().misses == 0, sktransfer.cache_info()
        np.save(folder / "features.npy", features)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "features.npy")[::-1], expected)


def test_the_disk_limit_can_be_set(pictures, tmp_path):
    X, _ = pictures
    try:
        set_cache_limit(disk=0)
        PretrainedFeatureExtractor(tiny_cnn, feature_cache=tmp_path / "cache", random_state=0).fit_transform(X)
        before = cache_info().misses
        PretrainedFeatureExtractor(tiny_cnn, feature_cache=tmp_path / "cache", random_state=0).fit_transform(X)
        assert cache_info().misses > before + len(X) - 1
    finally:
        set_cache_limit(disk=DISK_LIMIT)
        clear_cache()


# Other users


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owners here")
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_folder_that_others_may_write_is_refused_with_a_warning(mode, pictures, tmp_path):
    X, _ = pictures
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(mode)
    expected = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=None).fit_transform(X)
    with pytest.warns(UserWarning, match=r"other users may write to .*cache'.*chmod go-w") as caught:
        found = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=folder).fit_transform(X)
    assert len(caught) == 1
    np.testing.assert_allclose(found, expected, atol=1e-2)
    assert list(folder.iterdir()) == []
    folder.chmod(0o755)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=folder).fit_transform(X)
    assert list(folder.glob("*.sqlite"))


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owners here")
def test_a_database_that_others_may_write_is_refused_with_a_warning(store):
    store.put([(key(0), value(0))])
    database(store).chmod(0o666)
    with pytest.warns(UserWarning, match=r"other users may write to .*\.sqlite'"):
        assert DiskStore(store.folder, store.limit).get([key(0)]) == [None]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_a_folder_of_another_user_is_refused_with_a_warning(store):
    store.folder.mkdir()
    os.chown(store.folder, 12345, -1)
    with pytest.warns(UserWarning, match="owner 12345; expected one of yours"):
        store.put([(key(0), value(0))])
    assert list(store.folder.iterdir()) == []


QUOTA = textwrap.dedent(
    """
    import resource, sys, warnings
    import numpy as np
    from networks import tiny_cnn
    from sktransfer import PretrainedFeatureExtractor
    folder = sys.argv[1]
    X = np.load(folder + "/X.npy")
    PretrainedFeatureExtractor(tiny_cnn, feature_cache=None).fit_transform(X)  # whatever else wants files has them now
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        extractor = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=folder + "/cache", batch_size=8)
        features = extractor.fit(X).transform(X)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    np.save(folder + "/features.npy", features)
    print(len(caught), *[str(warning.message) for warning in caught])
    """
)


@pytest.mark.exhaustive
@pytest.mark.parametrize("room", [0, 4096, 70_000])
def test_a_disk_that_really_fills_up_costs_a_warning_and_no_result(room, pictures, tmp_path):
    """The system refuses to write, as where a quota or a disk is full; a cache that was there is still whole."""
    pytest.importorskip("resource")
    X = pictures[0]
    np.save(tmp_path / "X.npy", X)
    expected = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=None).fit_transform(X)
    PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=tmp_path / "cache").fit_transform(X[:1])
    done = subprocess.run(
        [sys.executable, "-c", QUOTA, str(tmp_path), str(room)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 The activation cache in "), done.stdout
    np.testing.assert_allclose(np.load(tmp_path / "features.npy"), expected, atol=1e-2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=tmp_path / "cache").fit_transform(X)
    np.testing.assert_allclose(again, expected, atol=1e-2)


def test_a_folder_deleted_in_mid_run_costs_no_result(pictures, tmp_path):
    X, _ = pictures
    expected = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=None).fit_transform(X)
    extractor = PretrainedFeatureExtractor(tiny_cnn, random_state=0, feature_cache=tmp_path / "cache", batch_size=2)
    extractor.fit(X)
    stop = threading.Event()

    def delete():
        while not stop.is_set():
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)
            time.sleep(0.003)

    thread = threading.Thread(target=delete)
    thread.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            for _ in range(10):
                np.testing.assert_allclose(extractor.transform(X), expected, atol=1e-2)
    finally:
        stop.set()
        thread.join()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(extractor.transform(X), expected, atol=1e-2)
