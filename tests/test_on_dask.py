"""What a user may rely on where Dask starts the workers: the same results, each image passed once, faults survived."""

import functools
import pickle
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import clusters
import joblib
import numpy as np
import pandas as pd
import pytest
from networks import tiny_cnn
from sklearn.model_selection import GridSearchCV, cross_val_score

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor

pytestmark = pytest.mark.exhaustive
pytest.importorskip("distributed", reason="Dask is not installed")

HOW = {"weights": None, "random_state": 0, "precision": "float32", "store_backbone": False}
GRID = {"freeze_depth": [1, 2, "all"], "head_C": [1.0, 30.0]}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    import dask
    from dask.distributed import Client, LocalCluster

    # Generous: other tests, and other programs, may want the same processors.
    patient = {f"distributed.comm.timeouts.{what}": "300s" for what in ("connect", "tcp")}
    patient["distributed.scheduler.worker-ttl"] = "600s"
    folder = str(tmp_path_factory.mktemp("dask"))
    with (
        dask.config.set(patient),
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=folder) as cluster,
        Client(cluster, timeout="300s") as client,
    ):
        client.wait_for_workers(2, timeout=300)
        yield client


@pytest.fixture
def client(cluster):
    cluster.wait_for_workers(2, timeout=300)
    cluster.run(clusters.begin_anew)
    return cluster


def classifier(feature_cache, **parameters):
    return FineTunedClassifier(tiny_cnn, **HOW, max_epochs=1, feature_cache=feature_cache, **parameters)


def searched(feature_cache, pictures, **parameters):
    search = GridSearchCV(classifier(feature_cache, **parameters), GRID, cv=3, scoring=clusters.log_loss, refit=False)
    return search.fit(*pictures).cv_results_["mean_test_score"]


def passed(client):
    return sum(one["passed"] for one in client.run(clusters.seen).values())


@pytest.mark.parametrize("cache", ["folder", "auto"])
def test_a_search_gives_the_same_scores_and_passes_each_image_once_in_all(client, pictures, tmp_path, cache):
    alone = searched(str(tmp_path / "alone"), pictures)
    assert np.ptp(alone) > 0.01
    with joblib.parallel_config(backend="dask"):
        together = searched(str(tmp_path / "shared") if cache == "folder" else "auto", pictures)
    np.testing.assert_allclose(together, alone, atol=1e-3)
    assert passed(client) == len(pictures[0])
    assert {one["threads"] for one in client.run(clusters.seen).values()} == {1}


def test_a_cross_validation_gives_the_same_scores_and_passes_each_image_once_in_all(client, pictures, tmp_path):
    score = functools.partial(cross_val_score, cv=4, scoring=clusters.log_loss)
    alone = score(classifier(str(tmp_path / "alone")), *pictures)
    with joblib.parallel_config(backend="dask"):
        together = score(classifier(str(tmp_path / "shared")), *pictures)
    np.testing.assert_allclose(together, alone, atol=1e-3)
    assert passed(client) == len(pictures[0])


def test_the_search_of_the_guide_runs(client, paths, pictures, tmp_path):
    names = clusters.run_snippet(
        "from dask.distributed import Client",
        {"paths": list(paths), "y": pictures[1]},
        {
            '"scheduler:8786"': repr(client.scheduler.address),
            '"mobilenet_v2"': '"squeezenet1_1", weights=None, random_state=0, max_epochs=1',
            '"/scratch/cache"': repr(str(tmp_path / "cache")),
            "[12, 0.75]": "[0.9, 'all']",
        },
    )
    names["client"].close()
    client.as_current()
    search = names["search"]
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.predict(list(paths)).shape == (24,)
    assert passed(client) == 24


def test_after_one_fit_workers_only_read(client, pictures, tmp_path):
    """Whoever fills the folder first has the passes where a GPU is, and nothing is left to wait for."""
    folder = str(tmp_path / "cache")
    classifier(folder, freeze_depth=1).fit(*pictures)
    with joblib.parallel_config(backend="dask"):
        searched(folder, pictures)
    assert passed(client) == 0


def test_the_extraction_of_the_guide_gives_the_same_features_with_one_network_per_worker(client, paths, tmp_path):
    dataframe = pytest.importorskip("dask.dataframe")
    table = pd.DataFrame({"path": list(paths)}, index=[f"row {number}" for number in range(len(paths))])
    dataframe.from_pandas(table, npartitions=8).to_parquet(tmp_path / "in")
    names = clusters.run_snippet(
        "map_partitions",
        {},
        {
            '"paths.parquet"': repr(str(tmp_path / "in")),
            '"resnet18"': '"squeezenet1_1", weights=None, random_state=0, precision="float32"',
            '"features"': repr(str(tmp_path / "features")),
        },
    )
    features = dataframe.read_parquet(tmp_path / "features").compute()
    alone = names["extractor"].transform(table)
    assert list(features.columns) == list(alone.columns)
    np.testing.assert_allclose(features.loc[list(alone.index)], alone, atol=1e-4, rtol=1e-3)
    counts = [one for one in client.run(clusters.seen).values() if one["passed"]]
    assert sum(one["passed"] for one in counts) == 24
    assert {one["built"] for one in counts} == {1}, "8 tasks unpickle the extractor; each worker builds one network"


def test_partitions_without_rows_have_features_without_rows(client, paths):
    dataframe = pytest.importorskip("dask.dataframe")
    table = dataframe.from_pandas(pd.DataFrame({"path": list(paths)}), npartitions=4)
    extractor = PretrainedFeatureExtractor(tiny_cnn, **HOW, feature_cache=None).set_output(transform="pandas")
    first = extractor.fit(table.head(8)).transform(table.head(8))
    kept = table[table["path"].str.endswith("00.png")]
    features = kept.map_partitions(extractor.transform, meta=first[:0])
    assert features.map_partitions(len).compute().tolist() == [1, 0, 0, 0]
    pd.testing.assert_frame_equal(features.compute(), first[:1], atol=1e-5)


def test_the_remote_files_and_cells_of_the_guide_are_read_by_workers(client, paths, tmp_path):
    with _served(Path(paths[0]).parent) as address:
        named = [f"{address}/{Path(path).name}" for path in paths]
        names = clusters.run_snippet(
            "s3://",
            {
                "names": named,
                "dataset": {"image": [{"bytes": Path(path).read_bytes(), "path": None} for path in paths]},
                "extractor": PretrainedFeatureExtractor(tiny_cnn, **HOW, feature_cache=None).fit(list(paths)),
                "client": client,
            },
            {'f"s3://bucket/{name}"': "name"},
        )
    alone = names["extractor"].transform(list(paths))
    np.testing.assert_allclose(names["of_files"], alone, atol=1e-5)
    np.testing.assert_allclose(names["of_cells"], alone, atol=1e-5)


def test_a_remote_file_that_is_missing_ends_a_task_with_a_sentence_or_becomes_nan(client, paths):
    extractor = PretrainedFeatureExtractor(tiny_cnn, **HOW, feature_cache=None).fit(list(paths))
    with _served(Path(paths[0]).parent) as address:
        X = [f"{address}/00.png", f"{address}/none.png", f"{address}/01.png"]
        with pytest.raises(FileNotFoundError, match=r"none\.png"):
            client.submit(extractor.transform, X, retries=0).result(timeout=300)
        tolerant = extractor.set_params(on_bad_sample="nan")
        features = client.submit(tolerant.transform, X).result(timeout=300)
    assert np.isnan(features).all(axis=1).tolist() == [False, True, False]


@pytest.mark.skipif(sys.platform == "win32", reason="no signal kills there")
def test_a_worker_that_dies_while_it_keeps_activations_costs_no_result(client, pictures, tmp_path):
    alone = searched(str(tmp_path / "alone"), pictures, batch_size=4)
    victim = next(iter(client.scheduler_info()["workers"]))
    (dying,) = client.run(clusters.die_while_keeping, workers=[victim]).values()
    with joblib.parallel_config(backend="dask", scatter=list(pictures)):  # else X may have died with the worker
        together = searched(str(tmp_path / "shared"), pictures, batch_size=4)
    np.testing.assert_allclose(together, alone, atol=1e-3)
    client.wait_for_workers(2, timeout=300)
    living = client.run(clusters.watch)
    assert dying not in living.values(), "it died"
    assert len(living) == 2, "and Dask started another one"
    # What the dead had kept is found, and what it had in hand is computed by another.
    client.run(clusters.begin_anew)
    with joblib.parallel_config(backend="dask"):
        searched(str(tmp_path / "shared"), pictures, batch_size=4)
    assert passed(client) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of resources there")
def test_a_disk_that_is_full_costs_passes_and_no_result(client, pictures, tmp_path):
    alone = searched(str(tmp_path / "alone"), pictures)
    before = client.run(clusters.limit_files, 20_000)
    try:
        with joblib.parallel_config(backend="dask"):
            together = searched(str(tmp_path / "shared"), pictures)
    finally:
        client.run(clusters.limit_files, min(before.values()))
    np.testing.assert_allclose(together, alone, atol=1e-3)
    assert passed(client) > len(pictures[0])


def test_what_goes_to_workers_is_small(paths):
    extractor = PretrainedFeatureExtractor("squeezenet1_1", **HOW, feature_cache=None).fit(list(paths))
    assert len(pickle.dumps(extractor)) < 40_000
    assert len(pickle.dumps(extractor.set_params(store_backbone=True))) > 2_000_000


def test_an_engine_that_is_missing_is_named(monkeypatch):
    for name in ("distributed", "dask.distributed"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("joblib._dask.distributed", None, raising=False)
    monkeypatch.setattr("joblib._dask.dask", None, raising=False)
    with pytest.raises(ValueError, match="dask is not installed"), joblib.parallel_config(backend="dask"):
        pass
    with pytest.raises(ValueError, match="Invalid backend: nowhere"), joblib.parallel_config(backend="nowhere"):
        pass


def test_each_snippet_of_the_guide_is_run_by_one_test():
    for block in clusters.blocks():
        assert len([told_by for told_by in clusters.SNIPPETS if told_by in block]) == 1, block
    assert len(clusters.blocks()) == len(clusters.SNIPPETS)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


class _served:
    """The files of a folder at an address, as long as the context lasts."""

    def __init__(self, folder):
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self):
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(60)
