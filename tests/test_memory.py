"""However many images there are, memory holds a few batches of them. Each test measures a process of its own."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("resource", reason="peak memory is measured as Unix has it")

# Between 60 and 1,200 images. Held whole, those of 224 x 224 pixels alone would need 170 MiB of 8 bits, 690 of floats.
FLAT_MIB = 48

MEASURE = """
import gc, json, resource, sys, threading, tracemalloc
import numpy as np
import torch
from networks import tiny_cnn
from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor

def peak():
    gc.collect()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
"""


def measure(code, *arguments):
    """Run code in a fresh process and return what it prints, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE + textwrap.dedent(code), *map(str, arguments)],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """1,200 JPEG files, which are small on disk and larger in memory."""
    folder = tmp_path_factory.mktemp("many")
    rng = np.random.default_rng(0)
    for number in range(1200):
        colours = rng.integers(0, 256, (2, 3, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((72, 64)).save(folder / f"{number:04}.jpg")
    return folder


def test_peak_memory_does_not_grow_with_the_number_of_paths(folder):
    peaks = measure(
        """
        import pathlib
        paths = sorted(map(str, pathlib.Path(sys.argv[1]).iterdir()))
        extractor = PretrainedFeatureExtractor(tiny_cnn, n_jobs=2, random_state=0).fit(paths)
        extractor.transform(paths[:60])
        few = peak()
        assert extractor.transform(paths).shape == (1200, 16)
        print(json.dumps([few, peak()]))
        """,
        folder,
    )
    assert peaks[1] - peaks[0] < FLAT_MIB, f"peaks of 60 and of 1200 images: {peaks} MiB"


def test_peak_memory_of_prediction_does_not_grow_with_the_number_of_paths(folder):
    peaks = measure(
        """
        import pathlib
        paths = sorted(map(str, pathlib.Path(sys.argv[1]).iterdir()))
        classifier = FineTunedClassifier(tiny_cnn, n_jobs=2, freeze_depth=2, max_epochs=1, random_state=0)
        classifier.fit(paths[:60], [0, 1] * 30).predict_proba(paths[:60])
        few = peak()
        assert classifier.predict_proba(paths).shape == (1200, 2)
        print(json.dumps([few, peak()]))
        """,
        folder,
    )
    assert peaks[1] - peaks[0] < FLAT_MIB, f"peaks of 60 and of 1200 images: {peaks} MiB"


@pytest.mark.parametrize("shape", [(60, 1000, 1000, 3), (60, 3, 1000, 1000), (60, 3_000_000)], ids=str)
def test_a_memory_mapped_array_is_not_copied_whole(shape, tmp_path):
    """Pages of the file are shared and count for nothing; what NumPy allocates besides must be a few images."""
    np.lib.format.open_memmap(tmp_path / "X.npy", "w+", np.uint8, shape).flush()
    allocated = measure(
        """
        X = np.load(sys.argv[1], mmap_mode="r")
        from sktransfer.backbones import ImagePreprocessing
        def network():
            network = tiny_cnn()
            network.preprocessing = ImagePreprocessing(crop=(32, 32))
            return network
        shape = (1000, 1000, 3) if X.ndim == 2 else None
        extractor = PretrainedFeatureExtractor(network, image_shape=shape, pixel_range=(0, 255), batch_size=4)
        extractor.fit(X[:4]).transform(X[:4])
        tracemalloc.start()
        assert extractor.fit(X).transform(X).shape == (60, 16)
        print(json.dumps(tracemalloc.get_traced_memory()[1] / 2**20))
        """,
        tmp_path / "X.npy",
    )
    assert allocated < 40, f"{allocated:.0f} MiB were allocated for an array of {np.prod(shape) / 2**20:.0f} MiB"
