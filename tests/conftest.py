"""What all tests share: where real weights and data are, and small real images made on the spot."""

import os
import signal
import sys

os.environ["SCIPY_ARRAY_API"] = "1"  # before SciPy comes in, so that scikit-learn's array API checks run
os.environ["MPLBACKEND"] = "Agg"  # displays are drawn without a screen

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

# Tiny networks gain nothing from threads, and lose much where other programs want the processors too.
torch.set_num_threads(1)

# A shell that starts the tests in the background has Ctrl-C ignored, and tests of Ctrl-C would wait for nothing.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Take a worker for each processor with `-n auto`, and no more than there is surely memory for."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder of real weights and data."""
    folder = Path(os.environ.get("SKTRANSFER_ASSETS", ""))
    if not os.environ.get("SKTRANSFER_ASSETS") or not (folder / "weights").is_dir():
        pytest.skip("real weights and data are not here: SKTRANSFER_ASSETS names no folder that holds them")
    return folder


@pytest.fixture(scope="session")
def pictures() -> tuple[np.ndarray, np.ndarray]:
    """24 RGB images of 20 x 24 pixels of two classes that differ in colour and texture, and their labels."""
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 12)
    X = rng.integers(0, 120, size=(24, 20, 24, 3))
    X[y == 1, ::2, :, 0] += 120
    X[y == 0, :, ::3, 2] += 100
    return X.astype(np.uint8), np.array(["leaf", "stone"])[y]


@pytest.fixture(scope="session")
def paths(pictures: tuple[np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The same images as PNG files."""
    folder = tmp_path_factory.mktemp("pictures")
    files = []
    for number, pixels in enumerate(pictures[0]):
        files.append(str(folder / f"{number:02}.png"))
        Image.fromarray(pixels).save(files[-1])
    return np.array(files, dtype=object)


@pytest.fixture(autouse=True)
def _unseeded() -> None:
    """No test leans on the seed of another."""
    torch.seed()


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
