"""Measure how far sets are from what networks were trained on, and what `suggest_settings` makes of that.

    python benchmarks/domain_gap.py [--assets FOLDER] [--networks NAME ...] [--only PART ...] [--quick]

Three parts. `gaps`: the gap of sets that are more and more unlike photos, for each network with BatchNorm. `probes`:
the scores by depth on the labelled sets of accuracy.py, beside random weights and pixels + PCA. `suggestions`: what is
suggested for draws of these sets, what accuracy.py has measured for that and for the other choices, and how long a fit
took beside what was expected. domain_gap.json holds all figures, domain_gap.md the tables; `--output` names another
folder for them.
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from accuracy_networks import NETWORKS, Network
from accuracy_sets import QUICK_SETS
from accuracy_sets import SETS as LABELLED
from domain_gap_sets import ORDER, SETS
from measuring import machine

from sktransfer import FineTunedClassifier, PretrainedFeatureExtractor, suggest_settings
from sktransfer.inspection import DomainGap, domain_gap

HERE = Path(__file__).resolve().parent
PARTS = ("gaps", "probes", "suggestions")
CHOSEN = ("mobilenet_v2", "efficientnet_lite0", "efficientnet_lite1", "squeezenet1_1")
PROBED = ("mobilenet_v2", "squeezenet1_1")
IMAGES = [name for name in LABELLED if name not in ("film_reviews", "reuters", "newsgroups")]
PER_CLASS = (5, 20, 60)
# Rows of accuracy.py by what is suggested.
ROW_OF = {"all": "default", 0.75: "tuned", 0: "all_tuned"}
# A fit that is expected to take longer is not run.
LONGEST = 60.0


def opened(network: Network) -> PretrainedFeatureExtractor:
    return PretrainedFeatureExtractor(**network.parameters)


def gaps(networks: list[Network], assets: Path, quick: bool) -> Iterator[dict[str, Any]]:
    for title, (kind, origin, load) in SETS.items():
        try:
            X = load(assets)[: 8 if quick else None]
        except FileNotFoundError as error:
            print(error)
            continue
        for network in networks:
            found = domain_gap(opened(network), X)
            if math.isnan(found.gap):  # no BatchNorm
                continue
            by_block = [round(block.gap, 4) for block in found.blocks]
            yield {
                "network": network.name, "set": title, "kind": kind, "origin": origin, "n": found.n_samples,
                "gap": round(found.gap, 4), "level": found.level, "by_block": by_block,
            }  # fmt: skip


def probes(networks: list[Network], assets: Path, quick: bool) -> Iterator[dict[str, Any]]:
    for load in (QUICK_SETS if quick else {name: LABELLED[name] for name in IMAGES}).values():
        try:
            data = load(assets)
        except FileNotFoundError as error:
            print(error)
            continue
        for network in networks:
            if network.kind == data.kind:
                found = domain_gap(opened(network), data.X, data.y, max_samples=60 if quick else 300)
                yield {"network": network.name, "set": data.name, **summary(found)}


def summary(found: DomainGap) -> dict[str, Any]:
    frame = found.as_frame().dropna(subset="score")
    best = found.best_block
    assert best is not None
    return {
        "n": found.n_samples,
        "gap": None if found.level is None else round(found.gap, 4),
        "best_block": best.name,
        "best": round(frame["score"].max(), 4),
        "best_error": round(float(frame.loc[frame["score"].idxmax(), "score_error"]), 4),
        "last": round(float(frame["score"].iloc[-1]), 4),
        "random": round(frame["random_score"].max(), 4),
        "baseline": round(float(frame["baseline"].iloc[0]), 4),
        "negative_transfer": bool(found.negative_transfer),
        "earlier_is_better": bool(found.earlier_is_better),
    }


def suggestions(networks: list[Network], assets: Path, quick: bool) -> Iterator[dict[str, Any]]:
    measured = json.loads((HERE / "results" / "accuracy.json").read_text())["figures"]
    for load in (QUICK_SETS if quick else {name: LABELLED[name] for name in IMAGES}).values():
        try:
            data = load(assets)
        except FileNotFoundError as error:
            print(error)
            continue
        for network in networks[:1]:
            for per_class in (5,) if quick else PER_CLASS:
                if network.kind == data.kind:
                    yield suggestion(data, network, per_class, measured, 0.0 if quick else LONGEST)


def suggestion(data: Any, network: Network, per_class: int, measured: list[dict], longest: float) -> dict[str, Any]:
    rows, test = data.draw(0, per_class)
    found = suggest_settings(data.X[rows], data.y[rows], FineTunedClassifier(**network.parameters), max_samples=200)
    seconds = accuracy = None
    if found.seconds <= longest:
        started = time.perf_counter()
        model = FineTunedClassifier(**{**found, "feature_cache": None}).fit(data.X[rows], data.y[rows])
        seconds = time.perf_counter() - started
        accuracy = model.score(data.X[test], data.y[test])
    known = {
        depth: [f["accuracy"] for f in measured if _is(f, data.name, network.name, row, per_class)]
        for depth, row in ROW_OF.items()
    }
    draws = min((len(values) for values in known.values() if values), default=0)
    return {
        "network": network.name, "set": data.name, "per_class": per_class, "freeze_depth": found["freeze_depth"],
        "level": found.gap.level, "gap": None if found.gap.level is None else round(found.gap.gap, 4),
        "why": found.reasons["freeze_depth"], "expected_seconds": round(found.seconds, 2),
        "seconds": None if seconds is None else round(seconds, 2), "accuracy": accuracy,
        # The same draws of each choice, so that choices compare.
        "measured": {str(depth): round(statistics.mean(v[:draws]), 4) for depth, v in known.items() if v},
    }  # fmt: skip


def _is(figure: dict, data: str, network: str, row: str, per_class: int) -> bool:
    return (figure["set"], figure["network"], figure["row"], figure["labels"]) == (data, network, row, per_class)


def report(results: dict[str, Any]) -> list[str]:
    lines = []
    records = results.get("gaps", [])
    networks = list(dict.fromkeys(record["network"] for record in records))
    if records:
        lines += ["## The gap of sets", "", f"| set | kind | what it is | {' | '.join(networks)} |"]
        lines += ["|---|---|---|" + "---|" * len(networks)]
        for title in dict.fromkeys(record["set"] for record in records):
            own = {record["network"]: record for record in records if record["set"] == title}
            first = next(iter(own.values()))
            cells = [f"{own[name]['gap']:.2f} {own[name]['level'] or ''}" if name in own else "" for name in networks]
            lines.append(f"| {title} | {first['kind'] or ''} | {first['origin']} | {' | '.join(cells)} |")
        lines += ["", *(ordered(records, name) for name in networks)]
    if records := results.get("probes"):
        lines += ["", "## Probes by depth", ""]
        lines += ["| set | network | gap | best block | best | last | random weights | pixels + PCA | said |"]
        lines += ["|---|---|---|---|---|---|---|---|---|"]
        for record in records:
            said = "negative transfer" if record["negative_transfer"] else ""
            said += ", " * bool(said) * record["earlier_is_better"] + "earlier is better" * record["earlier_is_better"]
            gap = "" if record["gap"] is None else f"{record['gap']:.2f}"
            best = f"{record['best']:.3f} ± {record['best_error']:.3f}"
            numbers = " | ".join(f"{record[name]:.3f}" for name in ("last", "random", "baseline"))
            names = f"{record['set']} | {record['network']} | {gap} | {record['best_block']}"
            lines.append(f"| {names} | {best} | {numbers} | {said} |")
    if records := results.get("suggestions"):
        lines += ["", "## What is suggested, and what accuracy.py measured", ""]
        lines += ["| set | per class | gap | suggested freeze_depth | all | 0.75 | 0 | expected s | taken s |"]
        lines += ["|---|---|---|---|---|---|---|---|---|"]
        for record in records:
            depths = [record["measured"].get(str(depth)) for depth in ROW_OF]
            cells = " | ".join("" if value is None else f"{value:.3f}" for value in depths)
            taken = "" if record["seconds"] is None else f"{record['seconds']:.1f}"
            gap = "" if record["gap"] is None else f"{record['gap']:.2f}"
            lines.append(
                f"| {record['set']} | {record['per_class']} | {gap} | {record['freeze_depth']} | {cells} | "
                f"{record['expected_seconds']:.1f} | {taken} |"
            )
        lines += ["", *regrets(records)]
    place = results["machine"]
    versions = ", ".join(f"{name} {place[name]}" for name in ("torch", "torchvision", "scikit-learn", "python"))
    quick = " A quick trial, not a measurement." if results["quick"] else ""
    return [*lines, "", f"{place['processor']}, {place['cores']} cores; {versions}.{quick}"]


def ordered(records: list[dict], network: str) -> str:
    """Say whether the means of kinds come in order."""
    own = [record for record in records if record["network"] == network]
    means = {kind: statistics.mean(gaps) for kind in ORDER if (gaps := [r["gap"] for r in own if r["kind"] == kind])}
    found = sorted(means, key=means.__getitem__)
    holds = "in the order asked for" if found == list(means) else "not in the order asked for"
    return f"- {network}, means of kinds, {holds}: " + " < ".join(f"{kind} {means[kind]:.2f}" for kind in found) + "."


def regrets(records: list[dict]) -> list[str]:
    """Say what the suggested choice lost against the best one that was measured, and what freezing all would."""
    lines = []
    for per_class in dict.fromkeys(record["per_class"] for record in records):
        pairs = []
        for record in records:
            known, chosen = record["measured"], str(record["freeze_depth"])
            if record["per_class"] == per_class and chosen in known and len(known) > 1:
                best = max(known.values())
                pairs.append((best - known[chosen], best - known["all"]))
        if pairs:
            lost, frozen = np.mean(pairs, axis=0)
            lines.append(
                f"- {per_class} per class, {len(pairs)} sets with several choices measured: the suggested one is "
                f"{lost:.3f} below the best of them on average, freezing all {frozen:.3f}."
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=os.environ.get("SKTRANSFER_ASSETS"))
    parser.add_argument("--networks", nargs="+")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    assets = given.assets or Path("nowhere")
    file = given.output / "domain_gap.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    results |= {"machine": machine(), "quick": given.quick}
    known = {"random_mobilenet": lambda _: Network("random_mobilenet", "images", "mobilenet_v2", None)}
    known = known if given.quick else NETWORKS
    networks = []
    for name in given.networks or (known if given.quick else CHOSEN):
        try:
            networks.append(known[name](assets))
        except FileNotFoundError as error:
            print(error)
    for part in given.only:
        chosen = [one for one in networks if part == "gaps" or given.quick or given.networks or one.name in PROBED]
        results[part] = []
        for record in {"gaps": gaps, "probes": probes, "suggestions": suggestions}[part](chosen, assets, given.quick):
            print(record, flush=True)
            results[part].append(record)
            file.write_text(json.dumps(results, indent=1) + "\n")
            (given.output / "domain_gap.md").write_text("\n".join(report(results)) + "\n")


if __name__ == "__main__":
    main()
