"""What a user may rely on where Ray starts the workers: the same results, each image passed once, one network each."""

import os
import tempfile
from pathlib import Path

import clusters
import joblib
import numpy as np
import pandas as pd
import pytest
from networks import tiny_cnn
from sklearn.model_selection import GridSearchCV, cross_val_score

from sktransfer import FineTunedClassifier

ray = pytest.importorskip("ray", reason="Ray is not installed")

HOW = {"weights": None, "random_state": 0, "precision": "float32", "store_backbone": False, "max_epochs": 1}
GRID = {"freeze_depth": [1, 2, "all"], "head_C": [1.0, 30.0]}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    from ray.util.joblib import register_ray

    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_AUTH_MODE", "disabled")
    patch.setenv("NOTES", str(tmp_path_factory.mktemp("notes")))
    here = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    patch.setenv("PYTHONPATH", os.pathsep.join([*here, *filter(None, [os.environ.get("PYTHONPATH")])]))
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as folder:  # names of sockets are short
        ray.init(
            num_cpus=3,
            include_dashboard=False,
            object_store_memory=80 * 2**20,
            _temp_dir=folder,
            log_to_driver=False,
        )
        register_ray()
        yield
        ray.shutdown()
    patch.undo()


@pytest.fixture
def notes(engine):
    folder = Path(os.environ["NOTES"])
    for note in folder.iterdir():
        note.unlink()
    return folder


def classifier(feature_cache):
    return FineTunedClassifier(tiny_cnn, **HOW, feature_cache=str(feature_cache))


def passed(notes):
    counts = {int(note.name): int(note.read_text()) for note in notes.iterdir()}
    assert os.getpid() not in counts, "workers did it all"
    assert len(counts) == 2
    return sum(counts.values())


@pytest.mark.nightly
def test_a_search_gives_the_same_scores_and_passes_each_image_once_in_all(notes, pictures, tmp_path):
    def searched(feature_cache, scoring):
        search = GridSearchCV(classifier(feature_cache), GRID, cv=3, scoring=scoring, refit=False)
        return search.fit(*pictures).cv_results_["mean_test_score"]

    alone = searched(tmp_path / "alone", clusters.log_loss)
    with joblib.parallel_config(backend="ray", n_jobs=2):
        together = searched(tmp_path / "shared", clusters.noted_log_loss)
    assert np.ptp(alone) > 0.01
    np.testing.assert_allclose(together, alone, atol=1e-3)
    assert passed(notes) == len(pictures[0])


@pytest.mark.nightly
def test_a_cross_validation_gives_the_same_scores_and_passes_each_image_once_in_all(notes, pictures, tmp_path):
    alone = cross_val_score(classifier(tmp_path / "alone"), *pictures, cv=4, scoring=clusters.log_loss)
    with joblib.parallel_config(backend="ray", n_jobs=2):
        model = classifier(tmp_path / "shared")
        together = cross_val_score(model, *pictures, cv=4, scoring=clusters.noted_log_loss)
    np.testing.assert_allclose(together, alone, atol=1e-3)
    assert passed(notes) == len(pictures[0])


@pytest.mark.exhaustive
def test_the_search_of_the_guide_runs(engine, paths, pictures, tmp_path):
    names = clusters.run_snippet(
        "from ray.util.joblib import register_ray",
        {"paths": list(paths), "y": pictures[1], "search": _search_of_the_guide(tmp_path)},
        {'ray.init("auto")': "", "n_jobs=-1": "n_jobs=2"},
    )
    assert np.isfinite(names["search"].cv_results_["mean_test_score"]).all()


def _search_of_the_guide(folder):
    return GridSearchCV(classifier(folder / "cache"), {"freeze_depth": [1, "all"]}, cv=3)


@pytest.mark.exhaustive
def test_the_extraction_of_the_guide_gives_the_same_features_with_one_network_per_actor(engine, paths, tmp_path):
    from sktransfer import PretrainedFeatureExtractor

    how = {"weights": None, "random_state": 0, "precision": "float32", "feature_cache": None, "store_backbone": False}
    extractor = PretrainedFeatureExtractor("squeezenet1_1", **how).fit(list(paths))
    table = pd.DataFrame({"path": list(paths)})
    table.to_parquet(tmp_path / "paths.parquet")
    seen = "self.extractor.transform(batch['path']), 'pid': [watch()] * len(batch['path']), 'built': ["
    clusters.run_snippet(
        "map_batches",
        {"extractor": extractor, "watch": clusters.watch, "seen": clusters.seen},
        {
            '"paths.parquet"': repr(str(tmp_path / "paths.parquet")),
            '"features.parquet"': repr(str(tmp_path / "features")),
            "size=8": "size=2",
            '"batch_size": 256': '"batch_size": 4',
            'self.extractor.transform(batch["path"])': f"{seen}seen()['built']] * len(batch['path'])",
            "self.extractor = extractor": "watch(); self.extractor = extractor",
        },
    )
    found = pd.read_parquet(tmp_path / "features").set_index("path").loc[list(paths)]
    np.testing.assert_allclose(np.stack(found["features"]), extractor.transform(list(paths)), atol=1e-4, rtol=1e-3)
    assert set(found["built"]) == {1}, "one network per actor, however many batches"


@pytest.mark.exhaustive
def test_a_data_set_without_rows_has_no_features(engine, paths):
    from sktransfer import PretrainedFeatureExtractor

    how = {"weights": None, "random_state": 0, "feature_cache": None, "store_backbone": False}
    extractor = PretrainedFeatureExtractor(tiny_cnn, **how).fit(list(paths))
    table = ray.data.from_pandas(pd.DataFrame({"path": list(paths)}))
    batches = table.filter(lambda row: row["path"] == "none").map_batches(
        lambda batch: {"features": extractor.transform(batch["path"])}
    )
    assert batches.count() == 0
