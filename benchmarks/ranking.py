"""Ask whether the first of `rank_backbones` is the right one, on samples that it has not seen.

    python benchmarks/ranking.py [--assets FOLDER] [--only SET ...] [--networks NETWORK ...] [--samples 160]
                                 [--tests 200] [--pictures FOLDER] [--quick] [--output FOLDER]

Five pretrained networks are ranked on five sets by cross-validation on a few training samples. Then each network gets
a head that is solved on all of these, and classifies samples that were kept aside. The choice is right where its test
accuracy is within one standard error of the best one's. Beside it stands what the number of parameters alone would have
chosen. ranking.json holds all figures, ranking.md the table. `--quick` tries it with random weights on a few digits.
"""

import argparse
import datetime
import json
import os
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from accuracy_networks import NETWORKS, Network
from accuracy_sets import QUICK_SETS, SETS, LabelledSet
from measuring import Others, machine

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, cache_info, rank_backbones

HERE = Path(__file__).resolve().parent
# Photos, small photos, drawings, spectrograms, and grey pictures like radiographs.
CHOSEN_SETS = ["hymenoptera", "cifar10", "drawn_digits", "spoken_digits", "grey_findings"]
CHOSEN_NETWORKS = ["mobilenet_v2", "squeezenet1_1", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]
PROBES = ("logistic", "knn")


def measure(data: LabelledSet, networks: dict[str, Network], given: argparse.Namespace) -> dict:
    """Rank the networks on one set, and return that beside their accuracy on samples that were kept aside."""
    training, test = data.draw(0, max(2, given.samples // len(np.unique(data.y))))
    test = test[: given.tests]
    backbones = {name: PretrainedFeatureExtractor(**network.parameters) for name, network in networks.items()}
    start, misses = time.perf_counter(), cache_info().misses
    X, y = data.X[training], data.y[training]
    rankings = {probe: rank_backbones(X, y, backbones, probe=probe, verbose=1) for probe in PROBES}
    seconds, passed = time.perf_counter() - start, cache_info().misses - misses
    print(rankings["logistic"], flush=True)
    if given.pictures is not None:
        given.pictures.mkdir(parents=True, exist_ok=True)
        rankings["logistic"].plot().figure_.savefig(given.pictures / f"rank_{data.name.replace(' ', '_')}.png", dpi=110)
    accuracies = {}
    for name, network in networks.items():
        model = FineTunedClassifier(**network.parameters, layer=None).fit(X, y)
        accuracies[name] = float((model.predict(data.X[test]) == data.y[test]).mean())
    best = max(accuracies.values())
    error = float(np.sqrt(best * (1 - best) / len(test)))
    choices = {probe: rankings[probe].best_ for probe in PROBES} | {"size": rankings["logistic"].by_size_}
    return {
        "set": data.name,
        "training samples": len(training),
        "test samples": len(test),
        "seconds of both rankings": seconds,
        "passed images": passed,
        "passed images per backbone": passed / len(networks),
        "cross-validated": {probe: _scores(rankings[probe]) for probe in PROBES},
        "test accuracy": accuracies,
        "standard error": error,
        "choices": choices,
        "within one standard error": {how: accuracies[name] >= best - error for how, name in choices.items()},
    }


def _scores(ranking: object) -> dict[str, list[float]]:
    """Return mean and standard error by backbone."""
    table = ranking.results_
    return {name: [float(row["score"]), float(row["standard_error"])] for name, row in table.iterrows()}


def report(results: dict) -> list[str]:
    """Return the lines of the tables."""
    figures, place = results["figures"], results["machine"]
    networks = list(figures[0]["test accuracy"])
    lines = [
        "Test accuracy of a head on frozen features, in brackets the cross-validated one that ranked it.",
        "",
        f"| set | training, test samples | {' | '.join(networks)} | best, ± one standard error |",
        "|---|---|" + "---|" * (len(networks) + 1),
    ]
    for figure in figures:
        tested, ranked = figure["test accuracy"], figure["cross-validated"]["logistic"]
        cells = [f"{tested[name]:.3f} ({ranked[name][0]:.3f} ± {ranked[name][1]:.3f})" for name in networks]
        counts = f"{figure['training samples']}, {figure['test samples']}"
        best = f"{max(tested.values()):.3f} ± {figure['standard error']:.3f}"
        lines.append(f"| {figure['set']} | {counts} | {' | '.join(cells)} | {best} |")
    lines += ["", "| chosen by | " + " | ".join(f["set"] for f in figures) + " | within one standard error | mean |"]
    lines.append("|---|" + "---|" * (len(figures) + 2))
    titles = {
        "logistic": "`rank_backbones`, logistic",
        "knn": "`rank_backbones`, knn",
        "size": "number of parameters",
    }
    for how, title in titles.items():
        chosen = [(f["choices"][how], f["test accuracy"][f["choices"][how]]) for f in figures]
        cells = [f"{name}, {accuracy:.3f}" for name, accuracy in chosen]
        right = sum(f["within one standard error"][how] for f in figures)
        mean = np.mean([accuracy for _, accuracy in chosen])
        lines.append(f"| {title} | {' | '.join(cells)} | {right} of {len(figures)} | {mean:.3f} |")
    best = np.mean([max(f["test accuracy"].values()) for f in figures])
    each = ", ".join(f"{f['passed images per backbone']:.0f}" for f in figures)
    wanted = ", ".join(str(f["training samples"]) for f in figures)
    ranking = ", ".join(f"{f['seconds of both rankings']:.0f}" for f in figures)
    quick = "; a quick trial, not a measurement" if results["quick"] else ""
    return [
        *lines,
        "",
        f"- The mean of the best on each set, which nobody can choose without the test samples: {best:.3f}.",
        f"- Images that passed per backbone, counted: {each}; training samples: {wanted}. The second ranking, by knn, "
        "passed none.",
        f"- Seconds of both rankings, loading included: {ranking}; of everything, tests included: "
        f"{results['seconds']:.0f}. Other processes took {results['cores that others took'] or 0:.1f} cores meanwhile.",
        f"- {results['date']}, {place['processor']}, {place['cores']} cores, {place['gpu'] or 'no GPU'}; torch "
        f"{place['torch']}, scikit-learn {place['scikit-learn']}, python {place['python']}{quick}.",
    ]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    beside = HERE.parents[1] / "shared" / "assets"
    parser.add_argument("--assets", type=Path, default=Path(os.environ.get("SKTRANSFER_ASSETS", beside)))
    parser.add_argument("--only", nargs="+", metavar="SET", choices=SETS, default=CHOSEN_SETS)
    parser.add_argument("--networks", nargs="+", metavar="NETWORK", choices=NETWORKS, default=CHOSEN_NETWORKS)
    parser.add_argument("--samples", type=int, default=160, help="training samples of a set, about")
    parser.add_argument("--tests", type=int, default=200, help="samples of a set that are kept aside, at most")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each ranking")
    parser.add_argument("--quick", action="store_true", help="few samples, random weights")
    parser.add_argument("--output", type=Path, help="folder (default: results beside this file)")
    given = parser.parse_args()
    if given.output is None:
        given.output = Path(tempfile.mkdtemp()) if given.quick else HERE / "results"
    if given.quick:
        given.samples, given.tests, given.only = 30, 12, ["few_digits"]
    elif not (given.assets / "weights").is_dir():
        parser.error("no real weights and data: give --assets, or set SKTRANSFER_ASSETS, or try --quick")
    return given


def main() -> int:
    given = arguments()
    warnings.filterwarnings("ignore", message="Got image values")
    if given.quick:
        random = {"squeezenet1_1": "squeezenet1_1", "mobilenet_v3_small": "mobilenet_v3_small"}
        networks = {name: Network(name, "images", name, None) for name in random}
    else:
        networks = {name: NETWORKS[name](given.assets) for name in given.networks}
    sets = QUICK_SETS if given.quick else SETS
    start, others = time.perf_counter(), Others()
    figures = [measure(sets[name](given.assets), networks, given) for name in given.only]
    results = {
        "date": datetime.date.today().isoformat(),
        "quick": given.quick,
        "seconds": time.perf_counter() - start,
        "cores that others took": others.cores(),
        "machine": machine(),
        "figures": figures,
    }
    given.output.mkdir(parents=True, exist_ok=True)
    (given.output / "ranking.json").write_text(json.dumps(results, indent=1) + "\n")
    lines = report(results)
    (given.output / "ranking.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
