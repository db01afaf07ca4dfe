"""What kept features save: the same images again in this process, in a new one, and in the folds of a cross-validation.

    python benchmarks/caching.py FOLDER WEIGHTS PATHS.json

is what the section itself runs as the new process: features of those paths with that folder as cache.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from measuring import Record, Setting, in_new_process
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from sktransfer import PretrainedFeatureExtractor, cache_info, clear_cache


def extract(feature_cache: str, weights: str, paths: list[str]) -> dict[str, float]:
    """Load the network and extract; return the seconds of both, and how many images were passed."""
    clear_cache()
    start = time.perf_counter()
    # The one row is not among the images: fit would leave its features behind.
    extractor = PretrainedFeatureExtractor("resnet18", weights=weights, feature_cache=feature_cache).fit(paths[:1])
    fitted, before = time.perf_counter(), cache_info().misses
    extractor.transform(paths[1:])
    done = time.perf_counter()
    return {"transform": done - fitted, "fit + transform": done - start, "passed": cache_info().misses - before}


def cache(setting: Setting) -> list[Record]:
    return [*in_folder(setting), *in_memory(setting), *in_folds(setting)]


def in_folder(setting: Setting) -> list[Record]:
    paths = setting.pictures.distinct(1 + setting.size(1000, 40)).tolist()
    weights = str(setting.pictures.weights("resnet18"))
    listed = setting.pictures.folder / "paths.json"
    listed.write_text(json.dumps(paths))
    extract("auto", weights, paths[:40])  # warms up
    cold, warm = [], []
    for _ in range(setting.repeats):
        with tempfile.TemporaryDirectory(dir=setting.pictures.folder) as folder:
            cold.append(extract(folder, weights, paths))
            warm.append(in_new_process(__file__, folder, weights, listed))
    records = [
        Record(
            f"{what} of {len(paths) - 1:,} JPEGs, kept in a folder, in a new process",
            "s",
            [run[what] for run in warm],
            [run[what] for run in cold],
            "first time",
        )
        for what in ("transform", "fit + transform")
    ]
    return [*records, Record("passed in the new process", "images", [run["passed"] for run in warm])]


def in_memory(setting: Setting) -> list[Record]:
    paths = setting.pictures.distinct(setting.size(1000, 40))
    weights = setting.pictures.weights("resnet18")
    cold, warm = [], []
    for _ in range(setting.repeats):
        clear_cache()
        extractor = PretrainedFeatureExtractor("resnet18", weights=weights).fit(paths[:1])
        for seconds in (cold, warm):
            start = time.perf_counter()
            extractor.transform(paths)
            seconds.append(time.perf_counter() - start)
    name = f"transform of {len(paths):,} JPEGs, kept in memory"
    return [Record(name, "s", warm, cold, "first time")]


def in_folds(setting: Setting) -> list[Record]:
    X, y = setting.pictures.labelled(40 if setting.quick else None)
    extractor = PretrainedFeatureExtractor("resnet18", weights=setting.pictures.weights("resnet18"))
    clear_cache()
    cross_val_score(make_pipeline(extractor, LogisticRegression(max_iter=1000)), X, y, cv=5, error_score="raise")
    note = f"there are {len(X)}; without a cache {5 * len(X)} are passed"
    return [Record("passed in a cross-validation of 5 folds", "images", [cache_info().misses], note=note)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("folder", "weights", "paths"):
        parser.add_argument(name)
    given = parser.parse_args()
    print(json.dumps(extract(given.folder, given.weights, json.loads(Path(given.paths).read_text()))))


if __name__ == "__main__":
    main()
