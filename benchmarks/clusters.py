"""What a second worker brings on Dask and on Ray, what is sent to workers, and what a folder takes.

Two workers with one thread each do the same work as one worker: a grid search on a shared folder, and features of 2,000
JPEGs, whose rate per worker is compared with that of a plain process with one thread, alone and beside another. All
take turns. Needs two free cores, some ten minutes, and `pip install "sktransfer[distributed]"`.
"""

import importlib.util
import multiprocessing
import os
import pickle
import sqlite3
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import joblib
import pandas as pd
import torch
from measuring import Record, Setting, in_turns, rates
from sklearn.model_selection import GridSearchCV

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, cache_info, clear_cache

HERE = Path(__file__).resolve().parent
# Least ratios that are expected of a machine with two free cores.
TWO_WORKERS, RATE_PER_WORKER = 1.7, 0.9
N_PARTS = 20


def searched(setting: Setting, folder: Path) -> float:
    """Search a grid in a folder that holds nothing yet, and return the best score."""
    X, y = setting.pictures.labelled(24 if setting.quick else None)
    weights = setting.pictures.weights("mobilenet_v2")
    cache = tempfile.mkdtemp(dir=folder)
    how = {"weights": weights, "max_epochs": setting.size(5, 1), "random_state": 0}
    model = FineTunedClassifier("mobilenet_v2", **how, feature_cache=cache, store_backbone=False)
    grid = {"freeze_depth": ["features.15", "features.18"], "lr": [1e-3, 1e-4]}
    return float(GridSearchCV(model, grid, cv=3, refit=False, error_score="raise").fit(X, list(y)).best_score_)


def one_thread(task: Callable[[], object]) -> object:
    """Do a task in a worker with one thread and an empty memory."""
    assert torch.get_num_threads() == 1, f"a worker has {torch.get_num_threads()} threads"
    clear_cache()
    return task()


def extractor(setting: Setting, first: pd.DataFrame) -> PretrainedFeatureExtractor:
    weights = setting.pictures.weights("resnet18")
    return PretrainedFeatureExtractor("resnet18", weights=weights, feature_cache=None, store_backbone=False).fit(first)


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Stay on one core, as a worker does whose neighbours are at work: decoding takes no other one."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[core % len(allowed)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def plainly(ours: PretrainedFeatureExtractor, frame: pd.DataFrame, core: int = 0) -> int:
    """Extract in this process, with one thread, on one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with on_core(core):
            return len(ours.set_output(transform="default").transform(frame))
    finally:
        torch.set_num_threads(threads)


def both_plainly(processes: ProcessPoolExecutor, ours: PretrainedFeatureExtractor, frame: pd.DataFrame) -> int:
    """Extract a half in each of two plain processes."""
    begun = [processes.submit(plainly, ours, frame[core::2], core) for core in (0, 1)]
    return sum(half.result() for half in begun)


def worker_state() -> tuple[int, int, int]:
    return os.getpid(), cache_info().misses, cache_info().n_networks


class Features:
    """What an actor of Ray's does with a batch."""

    def __init__(self, extractor: PretrainedFeatureExtractor):
        self.extractor = extractor

    def __call__(self, batch: dict) -> dict:
        return {"features": self.extractor.transform(pd.DataFrame({"path": batch["path"]}))}


@contextmanager
def dask_workers(folder: Path) -> Iterator[dict[str, Callable]]:
    import dask.dataframe
    from dask.distributed import Client, LocalCluster

    how = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None, "local_directory": str(folder)}
    with LocalCluster(**how) as cluster, Client(cluster) as client:
        workers = list(client.scheduler_info()["workers"])

        def extract(ours: PretrainedFeatureExtractor, frame: pd.DataFrame, n_workers: int) -> int:
            parts = dask.dataframe.from_pandas(frame, npartitions=N_PARTS)
            ours = ours.set_output(transform="pandas")
            features = parts.map_partitions(ours.transform, meta=ours.transform(frame[:0]))
            return len(client.compute(features, workers=workers[:n_workers], allow_other_workers=False).result())

        def search(setting: Setting, n_workers: int) -> None:
            if n_workers == 1:
                client.submit(one_thread, partial(searched, setting, folder), workers=workers[:1], pure=False).result()
                return
            client.run(clear_cache)
            with joblib.parallel_config(backend="dask"):
                searched(setting, folder)

        yield {"extract": extract, "search": search, "states": lambda: list(client.run(worker_state).values())}


@contextmanager
def ray_workers(folder: Path) -> Iterator[dict[str, Callable]]:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    import ray
    from ray.util.joblib import register_ray

    # One more than workers: reading needs one too, and waits forever for actors that took all.
    ray.init(num_cpus=3, include_dashboard=False, object_store_memory=200 * 2**20, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    register_ray()

    def extract(ours: PretrainedFeatureExtractor, frame: pd.DataFrame, n_workers: int) -> int:
        ours = ours.set_output(transform="default")
        paths = ray.data.from_pandas([frame[start::N_PARTS] for start in range(N_PARTS)])
        actors = {"compute": ray.data.ActorPoolStrategy(size=n_workers), "num_cpus": 1, "batch_size": None}
        return paths.map_batches(Features, fn_constructor_args=[ours], **actors).materialize().count()

    def search(setting: Setting, n_workers: int) -> None:
        if n_workers == 1:
            ray.get(ray.remote(one_thread).options(num_cpus=1).remote(partial(searched, setting, folder)))
            return
        with joblib.parallel_config(backend="ray", n_jobs=2):
            searched(setting, folder)

    def begin() -> None:
        with joblib.parallel_config(backend="ray", n_jobs=2):
            joblib.Parallel()(joblib.delayed(worker_state)() for _ in range(2))

    try:
        # Each search and each extraction starts its own actors, which import everything.
        yield {"extract": extract, "search": search, "begin": begin, "states": list}
    finally:
        ray.shutdown()


def engine(name: str, setting: Setting) -> list[Record]:
    """Compare two workers with one, and each with a plain process."""
    n = setting.size(2000, 60)
    frame = pd.DataFrame({"path": setting.pictures.distinct(n)})
    few = frame[:N_PARTS]
    spawned = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(2, mp_context=spawned) as processes,
        ENGINES[name](Path(folder)) as does,
    ):
        ours = extractor(setting, frame[:8])
        does["extract"](ours, frame[: 2 * N_PARTS], 2)  # warms up: workers import, networks are built
        plainly(ours, frame[:32])
        both_plainly(processes, ours, frame[: 2 * N_PARTS])
        tasks = {
            "plain": partial(plainly, ours, frame),
            "both plain": partial(both_plainly, processes, ours, frame),
            "one": partial(does["extract"], ours, frame, 1),
            "two": partial(does["extract"], ours, frame, 2),
        }
        searches = {"one": partial(does["search"], setting, 1), "two": partial(does["search"], setting, 2)}
        if "begin" in does:
            tasks |= {f"begin {who}": partial(does["extract"], ours, few, k) for k, who in ((1, "one"), (2, "two"))}
            searches["begin two"] = does["begin"]
        extracting = in_turns(tasks, setting.repeats)
        networks = [state[2] for state in does["states"]()]
        searching = in_turns(searches, setting.repeats)
        passed = sum(state[1] for state in does["states"]())
    n_pictures = len(setting.pictures.labelled(24 if setting.quick else None)[0])
    speeds = {who: rates(n - len(few), spent) for who, spent in _without_beginning(extracting, n, len(few)).items()}
    searched_in = _without_beginning(searching)
    bar, less = f"bar: {TWO_WORKERS} on two free cores", ", without the beginning" if "begin" in does else ""
    records = [
        Record(
            f"grid of 4 candidates x 3 folds, {n_pictures} images, two workers{less}",
            "s",
            searched_in["two"],
            searched_in["one"],
            "one worker",
            note=bar,
        ),
        Record(
            f"ResNet-18 features of {n:,} JPEGs, two workers{less}",
            "images/s",
            speeds["two"],
            speeds["one"],
            "one worker",
            note=bar,
        ),
        Record(
            f"the same, each of two workers{less}",
            "images/s",
            [rate / 2 for rate in speeds["two"]],
            [rate / 2 for rate in speeds["both plain"]],
            "each of two plain processes",
            note=f"one thread and core each; bar: {RATE_PER_WORKER}",
        ),
        Record(
            f"the same, one worker alone{less}",
            "images/s",
            speeds["one"],
            speeds["plain"],
            "a plain process alone",
            note=f"one thread and core each; bar: {RATE_PER_WORKER}",
        ),
        Record("a second plain process", "images/s", speeds["both plain"], speeds["plain"], "one", note="this machine"),
    ]
    if "begin" in does:
        whole = [Record("the search with its beginning", "s", searching["two"], searching["one"], "one worker")]
        whole += [Record("the extraction with its beginning", "s", extracting["two"], extracting["one"], "one worker")]
        records += [*whole, Record("until actors have begun", "s", searching["begin two"], note="on each search")]
    if networks:
        records += [
            Record("networks in each worker after extraction", "networks", networks),
            Record("passed in the last search", "images", [passed], note=f"of {n_pictures}, in one folder"),
        ]
    return records


def _without_beginning(seconds: dict[str, list[float]], n: int = 1, n_few: int = 0) -> dict[str, list[float]]:
    """Return the seconds of the work alone: less those of work on a few rows, where workers begin anew each time."""
    work = {}
    for who in ("plain", "both plain", "one", "two"):
        if who in seconds:
            begin = seconds.get(f"begin {who}")
            share = (n - n_few) / n  # of the rows: what is left when those of the beginning are taken away
            spent = seconds[who]
            work[who] = (
                [s * share for s in spent] if begin is None else [s - b for s, b in zip(spent, begin, strict=True)]
            )
    return work


def sent(setting: Setting) -> list[Record]:
    """Say how large what goes to workers is."""
    import cloudpickle  # which both engines bring

    paths = setting.pictures.distinct(setting.size(1000, 60))
    frame = pd.DataFrame({"path": paths})
    ours = extractor(setting, frame[:8])
    task = len(cloudpickle.dumps((ours.transform, frame)))
    small, large = len(pickle.dumps(ours)), len(pickle.dumps(ours.set_params(store_backbone=True)))
    length = statistics.mean(map(len, paths))
    return [
        Record("pickle of a fitted extractor, store_backbone=False", "bytes", [small]),
        Record("the same, store_backbone=True", "bytes", [large], note="ResNet-18"),
        Record(f"a task: that extractor and {len(paths):,} paths", "bytes", [task], note=f"{length:.0f} letters each"),
    ]


def kept(setting: Setting) -> list[Record]:
    """Say how much a folder takes for each image."""
    paths = setting.pictures.distinct(setting.size(400, 60))
    weights = setting.pictures.weights("resnet18")
    with tempfile.TemporaryDirectory() as folder:
        ours = PretrainedFeatureExtractor("resnet18", weights=weights, feature_cache=folder)
        features = ours.fit_transform(paths)
        with closing(sqlite3.connect(next(Path(folder).glob("*.sqlite")))) as database:
            pages, size = (database.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "page_size"))
    return [
        Record("features of an image, float32", "bytes", [features[0].nbytes], note="ResNet-18"),
        Record("the same in a cache folder", "bytes", [pages * size / len(paths)]),
    ]


ENGINES = {"Dask": dask_workers, "Ray": ray_workers}


def distributed(setting: Setting) -> list[Record]:
    """Measure both engines, where they are installed, and what goes to workers and folders."""
    records = []
    for name, package in {"Dask": "distributed", "Ray": "ray"}.items():
        if importlib.util.find_spec(package) is None:
            print(f'  {name} is left out: pip install "sktransfer[distributed]"', flush=True)
            continue
        records += [replace(record, name=f"{name}: {record.name}") for record in engine(name, setting)]
    return records and records + sent(setting) + kept(setting)
