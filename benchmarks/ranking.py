"""Ask whether the first of `rank_backbones` is the right one, on samples that it has not seen.

    python benchmarks/ranking.py [--assets FOLDER] [--only SET ...] [--networks NETWORK ...] [--samples 600]
                                 [--draws 3] [--pictures FOLDER] [--quick] [--output FOLDER]

Up to 600 samples of each of five sets are divided into 60 % for training and 40 % that are kept aside, three times.
Five pretrained networks are ranked by cross-validation on all training samples, and on a third of them. Then each
network gets a head that is solved on the same training samples, and classifies those that were kept aside. A choice is
right where its test accuracy is within one standard error of the best network's. Beside it stands what the number of
parameters alone would have chosen. ranking.json holds all figures, ranking.md the tables. `--quick` tries it with
random weights on a few digits.
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


def part_of(data: LabelledSet, count: int) -> LabelledSet:
    """Return a set with so many of its samples at most, as many of each class as there are in it."""
    rng, classes = np.random.default_rng(0), np.unique(data.y)
    rows = np.concatenate([rng.permutation(np.flatnonzero(data.y == c))[: count // len(classes)] for c in classes])
    return LabelledSet(data.name, data.kind, data.X[rows], data.y[rows])


def measure(data: LabelledSet, networks: dict[str, Network], draw: int, third: bool, pictures: Path | None) -> dict:
    """Rank the networks on training samples, and return that beside their accuracy on samples that were kept aside."""
    whole, test = data.draw(draw, len(data.y))
    few = data.draw(draw, len(whole) // len(np.unique(data.y)) // 3)[0]
    training = few if third else whole
    backbones = {name: PretrainedFeatureExtractor(**network.parameters) for name, network in networks.items()}
    start, misses = time.perf_counter(), cache_info().misses
    X, y = data.X[training], data.y[training]
    rankings = {probe: rank_backbones(X, y, backbones, probe=probe) for probe in PROBES}
    seconds, passed = time.perf_counter() - start, cache_info().misses - misses
    print(f"{data.name}, draw {draw + 1}\n{rankings['logistic']}", flush=True)
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        rankings["logistic"].plot().figure_.savefig(pictures / f"rank_{data.name.replace(' ', '_')}.png", dpi=110)
    accuracies = {}
    for name, network in networks.items():
        model = FineTunedClassifier(**network.parameters, layer=None).fit(X, y)
        accuracies[name] = float((model.predict(data.X[test]) == data.y[test]).mean())
    best = max(accuracies.values())
    error = float(np.sqrt(best * (1 - best) / len(test)))
    choices = {probe: rankings[probe].best_ for probe in PROBES} | {"size": rankings["logistic"].by_size_}
    return {
        "set": data.name,
        "draw": draw,
        "training": "a third" if third else "all",
        "training samples": len(training),
        "test samples": len(test),
        "seconds of both rankings": seconds,
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


TITLES = {
    "logistic": "`rank_backbones`, logistic",
    "knn": "`rank_backbones`, knn",
    "size": "number of parameters",
}


def report(results: dict) -> list[str]:
    """Return the lines of the tables."""
    figures, place = results["figures"], results["machine"]
    networks, sets = list(figures[0]["test accuracy"]), list(dict.fromkeys(f["set"] for f in figures))
    lines = [
        "Test accuracy of a head on frozen features, mean over draws, all training samples; in brackets the "
        "cross-validated one.",
        "",
        f"| set | training, test samples | {' | '.join(networks)} | one standard error of the best |",
        "|---|---|" + "---|" * (len(networks) + 1),
    ]
    for name in sets:
        own = [f for f in figures if f["set"] == name and f["training"] == "all"]
        cells = [
            f"{np.mean([f['test accuracy'][n] for f in own]):.3f} "
            f"({np.mean([f['cross-validated']['logistic'][n][0] for f in own]):.3f})"
            for n in networks
        ]
        counts = f"{own[0]['training samples']}, {own[0]['test samples']}"
        error = np.mean([f["standard error"] for f in own])
        lines.append(f"| {name} | {counts} | {' | '.join(cells)} | {error:.3f} |")
    lines += [
        "",
        "How often a choice was within one standard error of the best, and the mean test accuracy of what was chosen.",
        "",
        f"| training samples | chosen by | {' | '.join(sets)} | all draws | first draw alone | mean accuracy |",
        "|---|---|" + "---|" * (len(sets) + 3),
    ]
    for training in ("all", "a third"):
        chosen = [f for f in figures if f["training"] == training]
        for how, title in TITLES.items():
            cells = [_right([f for f in chosen if f["set"] == name], how) for name in sets]
            cells += [_right(chosen, how), _right([f for f in chosen if f["draw"] == 0], how)]
            mean = np.mean([f["test accuracy"][f["choices"][how]] for f in chosen])
            lines.append(f"| {training} | {title} | {' | '.join(cells)} | {mean:.3f} |")
        best = np.mean([max(f["test accuracy"].values()) for f in chosen])
        lines.append(f"| {training} | the test samples themselves |{' |' * len(sets)} | | {best:.3f} |")
    first = [f for f in figures if f["draw"] == 0 and f["training"] == "all"]
    passed = ", ".join(f"{f['passed images per backbone']:.0f}" for f in first)
    wanted = ", ".join(str(f["training samples"]) for f in first)
    seconds = ", ".join(f"{f['seconds of both rankings']:.0f}" for f in first)
    others = results["cores that others took"]
    quick = "; a quick trial, not a measurement" if results["quick"] else ""
    return [
        *lines,
        "",
        f"- Images that passed per backbone in the first draw, counted: {passed}; training samples: {wanted}. The "
        "second ranking of them, by knn, passed none.",
        f"- Seconds of the first draw's two rankings, loading included: {seconds}; of everything, "
        f"{results['seconds']:,.0f}. Other processes took {others or 0:.1f} cores meanwhile.",
        f"- {results['date']}, {place['processor']}, {place['cores']} cores, {place['gpu'] or 'no GPU'}; torch "
        f"{place['torch']}, scikit-learn {place['scikit-learn']}, python {place['python']}{quick}.",
    ]


def _right(figures: list[dict], how: str) -> str:
    return f"{sum(f['within one standard error'][how] for f in figures)} of {len(figures)}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    beside = HERE.parents[1] / "shared" / "assets"
    parser.add_argument("--assets", type=Path, default=Path(os.environ.get("SKTRANSFER_ASSETS", beside)))
    parser.add_argument("--only", nargs="+", metavar="SET", choices=SETS, default=CHOSEN_SETS)
    parser.add_argument("--networks", nargs="+", metavar="NETWORK", choices=NETWORKS, default=CHOSEN_NETWORKS)
    parser.add_argument("--samples", type=int, default=600, help="samples of a set, at most")
    parser.add_argument("--draws", type=int, default=3, help="how often they are divided")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each ranking")
    parser.add_argument("--quick", action="store_true", help="few samples, random weights")
    parser.add_argument("--output", type=Path, help="folder (default: results beside this file)")
    given = parser.parse_args()
    if given.output is None:
        given.output = Path(tempfile.mkdtemp()) if given.quick else HERE / "results"
    if given.quick:
        given.samples, given.draws, given.only = 90, 1, ["few_digits"]
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
    start, others, figures = time.perf_counter(), Others(), []
    given.output.mkdir(parents=True, exist_ok=True)
    for name in given.only:
        data = part_of(sets[name](given.assets), given.samples)
        for draw in range(given.draws):
            pictures = given.pictures if draw == 0 else None
            figures += [measure(data, networks, draw, False, pictures), measure(data, networks, draw, True, None)]
        results = {
            "date": datetime.date.today().isoformat(),
            "quick": given.quick,
            "seconds": time.perf_counter() - start,
            "cores that others took": others.cores(),
            "machine": machine(),
            "figures": figures,
        }
        (given.output / "ranking.json").write_text(json.dumps(results, indent=1) + "\n")
        (given.output / "ranking.md").write_text("\n".join(report(results)) + "\n")
    print("\n".join(report(results)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
