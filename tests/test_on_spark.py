"""What a user may rely on where Spark starts the workers; skipped where PySpark or Java is missing."""

import os
import shutil
import sys
from pathlib import Path

import clusters
import numpy as np
import pandas as pd
import pytest

from sktransfer import PretrainedFeatureExtractor

pytestmark = pytest.mark.exhaustive
sql = pytest.importorskip("pyspark.sql", reason="PySpark is not installed")
if shutil.which("java") is None:
    pytest.skip("Spark needs Java", allow_module_level=True)

HOW = {"weights": None, "random_state": 0, "precision": "float32", "feature_cache": None, "store_backbone": False}


@pytest.fixture(scope="module")
def spark():
    patch = pytest.MonkeyPatch()
    here = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    patch.setenv("PYTHONPATH", os.pathsep.join([*here, *filter(None, [os.environ.get("PYTHONPATH")])]))
    patch.setenv("PYSPARK_PYTHON", sys.executable)
    builder = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    session = builder.config("spark.driver.host", "127.0.0.1").config("spark.executorEnv.OMP_NUM_THREADS", "1")
    session = session.getOrCreate()
    yield session
    session.stop()
    patch.undo()


@pytest.fixture(scope="module")
def extractor(paths):
    return PretrainedFeatureExtractor("squeezenet1_1", **HOW).fit(list(paths))


def test_the_extraction_of_the_guide_gives_the_same_features_with_one_network_per_worker(
    spark, extractor, paths, tmp_path
):
    spark.createDataFrame([(path,) for path in paths], "path string").repartition(6).write.parquet(str(tmp_path / "in"))
    noted = "pid=watch(), features=list(extractor.transform(batch['path'])), built=seen()['built']"
    clusters.run_snippet(
        "mapInPandas",
        {"spark": spark, "extractor": extractor, "watch": clusters.watch, "seen": clusters.seen},
        {
            '"paths.parquet"': repr(str(tmp_path / "in")),
            '"features.parquet"': repr(str(tmp_path / "out")),
            'features=list(extractor.transform(batch["path"]))': noted,
            "features array<float>": "features array<float>, pid long, built long",
        },
    )
    found = pd.read_parquet(tmp_path / "out").set_index("path").loc[list(paths)]
    np.testing.assert_allclose(np.stack(found["features"]), extractor.transform(list(paths)), atol=1e-4, rtol=1e-3)
    assert found["built"].max() == 1, "tasks unpickle the extractor; a worker builds one network for all of them"


def test_parts_without_rows_have_no_features(spark, extractor, paths):
    table = spark.createDataFrame([(path,) for path in paths], "path string").filter("path = 'none'")

    def features(batches):
        for batch in batches:
            yield batch.assign(features=list(extractor.transform(batch["path"])))

    assert table.mapInPandas(features, "path string, features array<float>").count() == 0
