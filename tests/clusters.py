"""What tests of clusters run in workers, where it has to be importable, and the snippets of the guide that they run."""

import os
import re
import signal
from pathlib import Path

import numpy as np
import torch

from sktransfer import cache_info, clear_cache
from sktransfer.backbones._loaded_network import LoadedNetwork

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "guide" / "on_a_cluster.md"

# What tells each snippet of the guide from the others, and the engine whose tests run it.
SNIPPETS = {
    "from dask.distributed import Client": "dask",
    "from ray.util.joblib import register_ray": "ray",
    "map_partitions": "dask",
    "map_batches": "ray",
    "mapInPandas": "spark",
    "s3://": "dask",
}

_BUILT: list[int] = []


def blocks():
    """Return the snippets of the guide."""
    return re.findall(r"^```python\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE)


def run_snippet(told_by, names, replaced):
    """Run one snippet of the guide as a script would, with other words in place of some."""
    (code,) = [block for block in blocks() if told_by in block]
    for old, new in replaced.items():
        assert old in code, f"the snippet with {told_by!r} has no {old!r}"
        code = code.replace(old, new)
    names |= {"__name__": "__main__"}  # so that what it defines goes to workers as what a script defines
    exec(code, names)
    return names


def watch():
    """Count from now on what this process builds and passes; a second call changes nothing."""
    if not hasattr(LoadedNetwork, "watched"):
        LoadedNetwork.watched = LoadedNetwork.__init__
        LoadedNetwork.__init__ = _counted
    return os.getpid()


def _counted(self, *arguments, **named):
    _BUILT.append(1)
    LoadedNetwork.watched(self, *arguments, **named)


def begin_anew():
    """Forget what was kept and counted."""
    watch()
    clear_cache()
    _BUILT.clear()


def seen():
    """Return what this process did: images passed, networks built, threads."""
    return {"passed": cache_info().misses, "built": len(_BUILT), "threads": torch.get_num_threads()}


def noted_log_loss(model, X, y):
    """Score, and leave in the folder NOTES what this process has passed so far: for engines that do not tell."""
    Path(os.environ["NOTES"], str(os.getpid())).write_text(str(cache_info().misses))
    return log_loss(model, X, y)


def log_loss(model, X, y):
    probabilities = model.predict_proba(X)[np.arange(len(y)), np.searchsorted(model.classes_, y)]
    return float(np.log(probabilities).mean())


def die_while_keeping():
    """Let this process die, as if its machine failed, when it keeps activations for the second time."""
    from sktransfer._cache._disk_store import DiskStore

    put, calls = DiskStore.put, []

    def last(self, *arguments, **named):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return put(self, *arguments, **named)

    DiskStore.put = last
    return os.getpid()


def limit_files(n_bytes):
    """Let the system refuse files that are larger, as where a disk is full; return the limit of before."""
    import resource

    before, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    return before
