"""Samples are loaded ahead of the network, in order, and never more than a few batches at once."""

import threading
import time

import numpy as np
import pytest
import torch
from joblib import parallel_config
from networks import tiny_cnn
from PIL import Image

from sktransfer import PretrainedFeatureExtractor
from sktransfer.inputs._base import Samples, batches_of
from sktransfer.inputs._base import load_batches as load


class Counted(Samples):
    """Samples that count who loads them; `act` may do something in each load."""

    def __init__(self, n, act=lambda index: None):
        self.n, self.act = n, act
        self.lock = threading.Lock()
        self.started, self.at_once, self.most_at_once = [], 0, 0

    def __len__(self):
        return self.n

    def load(self, index):
        with self.lock:
            self.started.append(index)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.act(index)
        finally:
            with self.lock:
                self.at_once -= 1
        return torch.full((2,), float(index))

    def blank(self):
        return torch.zeros(2)

    def prepare(self, batch):
        return batch

    recipe = "as they are"
    n_values = 2

    def digest(self, index):
        return bytes([index])


def load_batches(samples, order, batch_size, n_jobs):
    return load(samples, list(batches_of(samples, order, lambda values: batch_size)), n_jobs)


def loading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("sktransfer-load")]


def wait_until_quiet(samples):
    """Wait until no load has begun for a while."""
    count = -1
    while count != len(samples.started):
        count = len(samples.started)
        time.sleep(0.1)


@pytest.mark.parametrize("n_jobs", [None, 1, 2, 3, 7, -1])
@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (8, 4), (1, 4), (3, 1), (5, 100)])
def test_batches_come_in_the_order_asked_for(n, batch_size, n_jobs):
    order = np.random.default_rng(0).permutation(n)
    samples = Counted(n, lambda index: time.sleep(0.003 * (index % 3)))
    batches = list(load_batches(samples, order, batch_size, n_jobs))
    assert [len(batch) for batch in batches] == [len(order[i : i + batch_size]) for i in range(0, n, batch_size)]
    np.testing.assert_array_equal(torch.cat(batches)[:, 0], order)
    assert sorted(samples.started) == list(range(n))


def test_some_rows_are_loaded_without_the_others():
    samples = Counted(10)
    (batch,) = load_batches(samples, [7, 7, 2], 3, 2)
    assert batch[:, 0].tolist() == [7, 7, 2]
    assert sorted(samples.started) == [2, 7, 7]


@pytest.mark.parametrize("n_jobs", [1, 2, -1])
def test_features_do_not_depend_on_n_jobs(n_jobs, tmp_path):
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{row}.png" for row in range(23)]
    for file in files:
        Image.fromarray(rng.integers(0, 256, (12, 15, 3), dtype=np.uint8)).save(file)
    alone, several = (
        PretrainedFeatureExtractor(
            tiny_cnn, n_jobs=jobs, batch_size=5, feature_cache=None, random_state=0
        ).fit_transform(files)
        for jobs in (None, n_jobs)
    )
    np.testing.assert_array_equal(several, alone)


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_loading_runs_ahead_of_the_network_but_not_far(n_jobs):
    samples, batch_size = Counted(400), 4
    batches = load_batches(samples, np.arange(400), batch_size, n_jobs)
    for taken in range(1, 20):
        next(batches)
        if taken in (1, 5):
            wait_until_quiet(samples)
            assert len(samples.started) == (taken + n_jobs + 2) * batch_size
        assert len(samples.started) <= (taken + n_jobs + 2) * batch_size
    batches.close()


@pytest.mark.parametrize("n_jobs", [1, 2, 3])
def test_n_jobs_samples_are_loaded_at_once(n_jobs):
    everyone = threading.Barrier(n_jobs)
    samples = Counted(12, lambda index: everyone.wait(timeout=30))
    assert len(list(load_batches(samples, np.arange(12), 2, n_jobs))) == 6
    assert samples.most_at_once == n_jobs


def test_joblibs_configuration_sets_the_number_of_threads():
    samples = Counted(12, lambda index: time.sleep(0.01))
    with parallel_config(backend="threading", n_jobs=3):
        list(load_batches(samples, np.arange(12), 2, None))
    assert samples.most_at_once == 3


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("bad", [0, 9, 39])
def test_an_error_in_a_thread_reaches_the_caller_and_the_threads_end(bad, n_jobs):
    def fail(index):
        if index == bad:
            raise ValueError(f"row {bad} is broken")

    samples = Counted(400, fail)
    taken = []
    with pytest.raises(ValueError, match=f"row {bad} is broken"):
        taken.extend(load_batches(samples, np.arange(400), 4, n_jobs))
    assert len(taken) == bad // 4
    assert loading_threads() == []
    assert len(samples.started) <= bad + 4 * (n_jobs + 3)


def test_threads_end_when_the_caller_stops_early():
    samples = Counted(400)
    batches = load_batches(samples, np.arange(400), 4, 2)
    next(batches)
    assert len(loading_threads()) == 2
    batches.close()
    assert loading_threads() == []
    assert len(samples.started) <= 20


def test_threads_end_when_all_is_loaded():
    list(load_batches(Counted(9), np.arange(9), 4, 2))
    assert loading_threads() == []


def test_nothing_is_loaded_before_it_is_asked_for():
    samples = Counted(9)
    load_batches(samples, np.arange(9), 4, 2)
    assert samples.started == []
