"""How time and memory grow with the number of images: time in proportion, memory by the result and what is kept only.

    python benchmarks/growth.py FOLDER NUMBER auto|none

is what the section itself runs, each time in a new process: features of so many JPEGs of a folder.
"""

import argparse
import json
import time
from pathlib import Path

from measuring import Record, Setting, in_new_process, peak_memory, rates

from sktransfer import PretrainedFeatureExtractor

NETWORK = "mobilenet_v3_small"  # small enough that tens of thousands of images take minutes


def extract(folder: Path, n: int, feature_cache: str | None) -> dict[str, float]:
    paths = [str(folder / f"{number:06d}.jpg") for number in range(n)]
    extractor = PretrainedFeatureExtractor(NETWORK, weights=None, random_state=0, feature_cache=feature_cache)
    extractor.fit(paths[:1])
    start = time.perf_counter()
    features = extractor.transform(paths)
    return {"seconds": time.perf_counter() - start, "bytes": peak_memory() - features.nbytes}


def growth(setting: Setting) -> list[Record]:
    sizes = [20, 40] if setting.quick else [250, 1000, 5000, 25000]
    folder = setting.pictures.small(sizes[-1])
    runs = {(n, "none"): in_new_process(__file__, folder, n, "none") for n in sizes}
    # As estimators are by default: up to 1 GiB of activations is kept, and counted here.
    for n in (sizes[0], sizes[-1]):
        runs[n, "auto"] = in_new_process(__file__, folder, n, "auto")
    records = []
    for (n, kept), run in runs.items():
        name = f"{NETWORK} features of {n:,} JPEGs" + (", kept in memory" if kept == "auto" else "")
        least = runs[sizes[0], kept]["bytes"]
        records += [
            Record(name, "s", [run["seconds"]], note=f"{rates(n, [run['seconds']])[0]:.0f} images/s"),
            Record(
                f"{name}: peak memory, result aside",
                "MB",
                [run["bytes"] / 1e6],
                note=f"{run['bytes'] / least:.2f} times that of {sizes[0]} images",
            ),
        ]
    return records


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("number", type=int)
    parser.add_argument("feature_cache", choices=["auto", "none"])
    given = parser.parse_args()
    print(json.dumps(extract(given.folder, given.number, None if given.feature_cache == "none" else "auto")))


if __name__ == "__main__":
    main()
