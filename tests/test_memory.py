"""However many images there are, memory holds a few batches of them. Each test measures a process of its own."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("resource", reason="peak memory is measured as Unix has it")

# Between 60 and 1,200 images of 160 x 160 pixels, which held whole need 88 MiB as 8 bits and 352 MiB as floats.
FLAT_MIB = 40

MEASURE = """
import gc, json, pathlib, resource, sys, tracemalloc
import numpy as np
from networks import tiny_cnn
from torch import nn
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor
from sktransfer.backbones import ImagePreprocessing

def network():
    network = nn.Sequential(nn.AvgPool2d(8), *tiny_cnn())
    network.preprocessing = ImagePreprocessing(crop=(160, 160))
    return network

def peak():
    gc.collect()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

def mebibytes_allocated(work):
    tracemalloc.start()
    work()
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return highest / 2**20
"""


def measure(code, folder):
    """Run code in a fresh process and return what it prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE + textwrap.dedent(code), str(folder)],
        cwd=Path(__file__).parent,
        # glibc hands blocks back at once only if they are mapped one by one; else what was freed counts as used.
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.exhaustive
def test_peak_memory_does_not_grow_with_the_number_of_paths(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(1200):
        colours = rng.integers(0, 256, (2, 3, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((72, 64)).save(tmp_path / f"{number:04}.jpg")
    peaks = measure(
        """
        paths = sorted(map(str, pathlib.Path(sys.argv[1]).iterdir()))
        how = {"n_jobs": 2, "batch_size": 8, "random_state": 0}
        extractor = PretrainedFeatureExtractor(network, **how).fit(paths)
        # What the cache keeps is bounded by its own limit; without it, what comes on top is seen.
        classifier = FineTunedClassifier(network, freeze_depth=2, max_epochs=1, feature_cache=None, **how)
        classifier.fit(paths[:60], [0, 1] * 30)
        for chosen in (paths[:60], paths):
            assert extractor.transform(chosen).shape == (len(chosen), 16)
            assert classifier.predict_proba(chosen).shape == (len(chosen), 2)
            few, many = (peak(), None) if len(chosen) == 60 else (few, peak())
        print(json.dumps([few, many]))
        """,
        tmp_path,
    )
    assert peaks[1] - peaks[0] < FLAT_MIB, f"peaks of 60 and of 1200 images: {peaks} MiB"


@pytest.mark.exhaustive
def test_a_memory_mapped_array_is_not_copied_whole(tmp_path):
    """Pages of the file are shared and count for nothing; what NumPy allocates besides must be a few images."""
    shapes = {"last": (60, 1000, 1000, 3), "first": (60, 3, 1000, 1000), "flat": (60, 3_000_000)}
    for name, shape in shapes.items():
        np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", np.uint8, shape).flush()
    allocated = measure(
        """
        how = {"image_shape": (1000, 1000, 3), "batch_size": 4, "feature_cache": None}
        extractor = PretrainedFeatureExtractor(network, pixel_range=(0, 255), **how)
        mapped = {path.stem: np.load(path, mmap_mode="r") for path in pathlib.Path(sys.argv[1]).iterdir()}
        allocated = {}
        for name, X in mapped.items():
            extractor.fit(X[:4]).transform(X[:4])
            allocated[name] = mebibytes_allocated(lambda: extractor.fit(X).transform(X))
        print(json.dumps(allocated))
        """,
        tmp_path,
    )
    assert set(allocated) == set(shapes)
    assert max(allocated.values()) < 40, f"{allocated} MiB were allocated for arrays of 172 MiB"


@pytest.mark.exhaustive
def test_tuning_half_of_a_network_on_5000_arrays_holds_them_once(tmp_path):
    """X itself is 70 MiB. On top come a few batches and, where they are kept, 4 MiB of activations: no second X."""
    peaks = measure(
        """
        X = np.random.default_rng(0).integers(0, 256, (5000, 70, 70, 3), dtype=np.uint8)
        def halved():
            network = nn.Sequential(nn.AvgPool2d(7), *tiny_cnn())
            network.preprocessing = ImagePreprocessing(crop=(70, 70))
            return network
        how = {"freeze_depth": 0.5, "max_epochs": 1, "head_epochs": 1, "batch_size": 32, "random_state": 0}
        FineTunedClassifier(halved, feature_cache=None, **how).fit(X[:64], [0, 1] * 32)
        before = peak()
        added = []
        for cache in (None, "auto"):
            model = FineTunedClassifier(halved, feature_cache=cache, **how).fit(X, [0, 1] * 2500)
            assert model.predict(X[:10]).shape == (10,)
            added.append(peak() - before)
        print(json.dumps(added))
        """,
        tmp_path,
    )
    assert max(peaks) < FLAT_MIB, f"{peaks} MiB came on top of 70 MiB of pictures"
