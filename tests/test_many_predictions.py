"""A model that serves one picture at a time for days neither slows down nor fills memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="memory is measured as Unix has it")

SERVE = """
import gc, json, statistics, sys, time
import numpy as np
from networks import tiny_cnn
import sktransfer
from sktransfer import FineTunedClassifier

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 2**20

cache, n = (None if sys.argv[1] == "None" else sys.argv[1]), 10_000
rng = np.random.default_rng(0)
sktransfer.set_cache_limit(memory=2**20)  # so small that activations leave again
X = rng.integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
model = FineTunedClassifier(tiny_cnn, feature_cache=cache, random_state=0).fit(X, [0, 1] * 4)
seconds, memory = [], []
for number in range(n):
    picture = rng.integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    start = time.thread_time()
    model.predict(picture)
    seconds.append(time.thread_time() - start)
    if number in (1999, n - 1):
        gc.collect()
        memory.append(resident())
print(json.dumps([statistics.median(seconds[:1000]), statistics.median(seconds[-1000:]), *memory]))
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell resident memory so")
@pytest.mark.parametrize("cache", ["None", "auto"])
def test_ten_thousand_single_predictions_neither_slow_down_nor_fill_memory(cache):
    """Processor time of this thread is compared, which other processes hardly change, within a factor of 2."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SERVE, cache],
        cwd=Path(__file__).parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, last, early, late = json.loads(done.stdout)
    assert last < 2 * first, f"{1000 * first:.2f} ms at first, {1000 * last:.2f} ms at last"
    assert late - early < 16, f"{early:.0f} MiB after 2,000 predictions, {late:.0f} MiB after 10,000"
