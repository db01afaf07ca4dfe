"""Measure the speed of the package against what one would write without it.

    python benchmarks/speed.py [--assets FOLDER] [--only SECTION ...] [--quick] [--repeats 3] [--output FOLDER]

Writes speed.json with every figure, speed.md with a table and speed.png with a chart; sections that `--only` leaves out
keep what was measured before. Without real photos and weights, pictures are drawn and weights are random. `--quick`
tries everything on few pictures in a minute or two, and writes into a temporary folder unless it is given another.
"""

import argparse
import datetime
import os
import tempfile
import time
from pathlib import Path

from busy import busy
from caching import cache
from clusters import distributed
from extraction import extraction
from fitting import fit, latency
from growth import growth
from hub_pictures import hub_pictures
from measuring import Others, Setting, machine
from one_image import new_process, one_image
from pictures import Pictures
from reporting import BUSY, read_results, table, write_results
from searches import candidates, grid
from tuning import tuning

HERE = Path(__file__).resolve().parent
SECTIONS = {
    "grid": grid,
    "candidates": candidates,
    "extraction": extraction,
    "hub_pictures": hub_pictures,
    "fit": fit,
    "tuning": tuning,
    "busy": busy,
    "latency": latency,
    "one_image": one_image,
    "new_process": new_process,
    "cache": cache,
    "growth": growth,
    "distributed": distributed,
}
# Their processes are not waited for by this one, so that what they take cannot be told from what others take.
UNTOLD = ("distributed",)


def main():
    given = arguments()
    results = read_results(given.output / "speed.json")
    with tempfile.TemporaryDirectory() as folder:
        pictures = Pictures(given.assets, Path(folder), n_drawn=60 if given.quick else 240)
        setting = Setting(pictures, 1 if given.quick else given.repeats, given.quick)
        for name in given.only:
            print(f"{name}, on {pictures.kind}", flush=True)
            start, others = time.perf_counter(), Others()
            records = [record.as_json() for record in SECTIONS[name](setting)]
            busy = None if name in UNTOLD else others.cores()
            results[name] = {
                "date": datetime.date.today().isoformat(),
                "machine": machine(),
                "pictures": pictures.kind,
                "quick": given.quick,
                "cores that others took": busy,
                "records": records,
            }
            print(f"  {time.perf_counter() - start:.0f} s", flush=True)
            if busy is not None and busy > BUSY:
                print(f"  WARNING: other processes kept {busy:.2f} cores busy; measure again on a free machine")
            # After each section: whoever stops the run keeps what it has measured.
            results = {section: results[section] for section in SECTIONS if section in results}
            write_results(results, given.output)
    print("\n".join(table({name: results[name] for name in results if name in given.only})))
    print(f"Written: {given.output}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--assets", type=Path, help="folder of real photos and weights")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--quick", action="store_true", help="few pictures, two epochs, once")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="folder (default: results beside this file)")
    given = parser.parse_args()
    if given.assets is None:
        beside = Path(os.environ.get("SKTRANSFER_ASSETS", HERE.parents[1] / "shared" / "assets"))
        given.assets = beside if (beside / "weights").is_dir() else None
    elif not (given.assets / "weights").is_dir():
        parser.error(f"no weights in {given.assets}")
    if given.output is None:
        given.output = Path(tempfile.mkdtemp()) if given.quick else HERE / "results"
    return given


if __name__ == "__main__":
    main()
