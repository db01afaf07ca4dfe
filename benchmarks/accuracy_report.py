"""Accuracies as a file of all figures, a table and a picture; both are made from the file.

Figures are compared in pairs: a row and the earlier head on the same samples. The file is read again before each
figure is added, so runs of different rows can be made one after another, and an interrupted one loses nothing.
"""

import json
from dataclasses import asdict, astuple, dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # draws into a file, with or without a screen
import numpy as np
from matplotlib import pyplot as plt
from reporting import BUSY

BASE = "earlier_head"
# Rows of others, which were measured on fewer sets and draws.
PEERS = ("two_phases", "fastai", "fastai_frozen_bn", "trainer", "setfit")
# Networks of the picture and of the table of sets.
DRAWN = ("mobilenet_v2", "minilm", "random_squeezenet", "random_bert")
MEASURES = ("log loss", "calibration error", "seconds")


@dataclass(frozen=True)
class Figure:
    """What a figure is of.

    Parameters
    ----------
    set, network, row : str
        Names. The network is empty for a row that uses none.
    labels : int
        Training samples per class that were asked for.
    draw : int
        Number of the draw.
    training_samples : int
        Training samples of all classes together.
    """

    set: str
    network: str
    row: str
    labels: int
    draw: int
    training_samples: int

    @property
    def key(self) -> tuple:
        return astuple(self)[:5]


class Results:
    """All figures of a folder.

    Parameters
    ----------
    folder : Path
        Where accuracy.json, accuracy.md and accuracy.png are.
    titles : dict
        Of each row, in the order of the table.
    place : dict
        The day, machine and versions of this run.
    """

    def __init__(self, folder: Path, titles: dict[str, str], place: dict):
        self.folder, self.titles, self.place = folder, titles, place
        folder.mkdir(parents=True, exist_ok=True)
        self._read()

    @property
    def _file(self) -> Path:
        return self.folder / "accuracy.json"

    def _read(self) -> None:
        found = json.loads(self._file.read_text()) if self._file.exists() else {}
        self.runs: list[dict] = found.get("runs", [])
        self.notes: dict[str, str] = found.get("notes", {})
        self.figures: dict[tuple, dict] = {Figure(*map(f.get, FIELDS)).key: f for f in found.get("figures", [])}

    def holds(self, figure: Figure) -> bool:
        return figure.key in self.figures

    def add(self, figure: Figure, measured: dict[str, float]) -> None:
        """Add a figure, in place of one of the same samples and row, and write the file."""
        self._read()
        if self.place not in self.runs:
            self.runs.append(self.place)
        run = self.runs.index(self.place)
        rounded = {name: float(f"{value:.5g}") for name, value in measured.items()}
        self.figures[figure.key] = {**asdict(figure), **rounded, "run": run}
        self._write()
        print(
            f"  {figure.labels:>3} per class  {self.titles[figure.row]:<60} {measured['accuracy']:.3f}"
            f"  {measured['seconds']:6.1f} s",
            flush=True,
        )

    def finish(self, notes: dict[str, str], tried: set[str]) -> None:
        """Keep what this run left out, in place of earlier notes on the same rows, networks and sets."""
        self._read()
        self.notes = {name: note for name, note in self.notes.items() if name not in tried} | notes
        self._write()

    def _write(self) -> None:
        order = {name: number for number, name in enumerate(self.titles)}
        figures = sorted(
            self.figures.values(), key=lambda f: (f["set"], f["network"], order.get(f["row"], 99), *_when(f))
        )
        lines = ",\n".join(f"  {json.dumps(figure)}" for figure in figures)
        head = json.dumps({"runs": self.runs, "notes": self.notes}, indent=1)[:-2]
        beside = self._file.with_suffix(".part")
        beside.write_text(f'{head},\n "figures": [\n{lines}\n ]\n}}\n')
        beside.replace(self._file)

    def write_report(self) -> list[str]:
        """Write accuracy.md and accuracy.png, and return the lines of the table."""
        lines = summary(self)
        parts = [*beside_peers(self), "", *lines, "", *by_set(self), "", *origins(self)]
        (self.folder / "accuracy.md").write_text("\n".join(parts) + "\n")
        if self.figures:
            draw(self, self.folder / "accuracy.png")
        return lines

    def values(self, row: str, network: str, labels: int, measure: str) -> dict[tuple[str, int], float]:
        """Return a measure of a row on each set and draw; a row without a network has the same for all."""
        return {
            (f["set"], f["draw"]): f[measure]
            for f in self.figures.values()
            if f["row"] == row and f["labels"] == labels and f["network"] in (network, "")
        }

    @property
    def sizes(self) -> list[int]:
        return sorted({f["labels"] for f in self.figures.values()})

    @property
    def networks(self) -> list[str]:
        return sorted({f["network"] for f in self.figures.values()} - {""})

    def sets(self, network: str) -> list[str]:
        return sorted({f["set"] for f in self.figures.values() if f["network"] == network})


FIELDS = tuple(Figure.__dataclass_fields__)


def _when(figure: dict) -> tuple[int, int]:
    return figure["labels"], figure["draw"]


def by_sets(values: dict[tuple[str, int], float]) -> dict[str, list[float]]:
    """Return the values of all draws of each set."""
    grouped: dict[str, list[float]] = {}
    for (name, _), value in sorted(values.items()):
        grouped.setdefault(name, []).append(value)
    return grouped


def difference(ours: dict, base: dict) -> tuple[float, float, int]:
    """Return the mean difference over sets, its standard error over sets, and the number of sets.

    The difference of a set is the mean over draws that both have. With one set, the error is that over its draws.
    """
    pairs = by_sets({key: ours[key] - base[key] for key in ours if key in base})
    if not pairs:
        return np.nan, np.nan, 0
    means = [np.mean(each) for each in pairs.values()]
    sample = means if len(means) > 1 else next(iter(pairs.values()))
    error = np.std(sample, ddof=1) / np.sqrt(len(sample)) if len(sample) > 1 else np.nan
    return float(np.mean(means)), float(error), len(means)


def _signed(mean: float, error: float) -> str:
    return f"{mean:+.3f}" + ("" if np.isnan(error) else f" ± {error:.3f}")


def summary(results: Results) -> list[str]:
    """Return the table: for each network and row, means over sets, and differences from the earlier head."""
    sizes = results.sizes
    middle = sizes[len(sizes) // 2] if sizes else 0
    head = [f"accuracy, {size} per class" for size in sizes]
    lines = [
        f"| network | row | sets | {' | '.join(head)} | log loss, {middle} | calibration error, {middle} | seconds, "
        f"{middle} |",
        "|---" * (len(sizes) + 6) + "|",
    ]
    for network in results.networks:
        own = set(results.sets(network))
        for row, title in results.titles.items():
            cells, most = [], 0
            for size in sizes:
                ours, base = (_only(results.values(name, network, size, "accuracy"), own) for name in (row, BASE))
                mean, error, n = difference(ours, base)
                most = max(most, len(by_sets(ours)))
                gap = f" ({_signed(mean, error)})" if n and row != BASE else ""
                cells.append(f"{_mean(ours):.3f}{gap}" if ours else "")
            rest = [_only(results.values(row, network, middle, measure), own) for measure in MEASURES]
            numbers = [
                f"{_mean(values):.{digits}f}" if values else "" for values, digits in zip(rest, (3, 3, 1), strict=True)
            ]
            if most:
                lines.append(f"| {network} | {title} | {most} | {' | '.join([*cells, *numbers])} |")
    return lines


def beside_peers(results: Results) -> list[str]:
    """Return a table of the rows that were measured on the very samples on which all peers were measured."""
    if not results.sizes:
        return []
    size = results.sizes[len(results.sizes) // 2]
    lines = [
        f"| network, {size} labels per class | row | accuracy | log loss | seconds |",
        "|---" * 5 + "|",
    ]
    for network in results.networks:
        peers = [values for row in PEERS if (values := results.values(row, network, size, "accuracy"))]
        samples = set.intersection(*map(set, peers)) if peers else set()
        sets = {name for name, _ in samples}
        for row, title in results.titles.items():
            measures = [results.values(row, network, size, measure) for measure in ("accuracy", "log loss", "seconds")]
            if samples and samples <= set(measures[0]):
                cells = [
                    f"{_mean({key: values[key] for key in samples}):.{digits}f}"
                    for values, digits in zip(measures, (3, 3, 1), strict=True)
                ]
                place = f"{network}, {len(sets)} sets, {len(samples)} draws in all"
                lines.append(f"| {place} | {title} | {' | '.join(cells)} |")
    return ["Beside other libraries, each row on the same samples:", "", *lines] if len(lines) > 2 else []


def _only(values: dict[tuple[str, int], float], sets: set[str]) -> dict[tuple[str, int], float]:
    return {key: value for key, value in values.items() if key[0] in sets}


def _mean(values: dict[tuple[str, int], float]) -> float:
    return float(np.mean([np.mean(each) for each in by_sets(values).values()])) if values else np.nan


def _drawn(results: Results) -> list[str]:
    return [network for network in DRAWN if network in results.networks] or results.networks


def by_set(results: Results) -> list[str]:
    """Return a table of the drawn networks on each set: accuracies, and differences with their error over draws."""
    lines = [
        f"| set | network | row | {' | '.join(f'{size} per class' for size in results.sizes)} |",
        "|---" * (len(results.sizes) + 3) + "|",
    ]
    for network in _drawn(results):
        for name in results.sets(network):
            for row, title in results.titles.items():
                cells = []
                for size in results.sizes:
                    ours, base = (_only(results.values(r, network, size, "accuracy"), {name}) for r in (row, BASE))
                    mean, error, n = difference(ours, base)
                    gap = f" ({_signed(mean, error)})" if n and row != BASE else ""
                    cells.append(f"{_mean(ours):.3f}{gap}" if ours else "")
                if any(cells):
                    lines.append(f"| {name} | {network} | {title} | {' | '.join(cells)} |")
    return lines


def origins(results: Results) -> list[str]:
    """Say how to read the tables, what was left out, and what the figures were measured on."""
    lines = [
        "Accuracies are means over draws, then over sets. Brackets hold the difference from the earlier head on the "
        "same samples, ± its standard error: over sets in the first table, over draws in the second one. A row that "
        "was measured on fewer sets is compared on those alone: read the difference, not the mean. A class trains on "
        "60 % of its samples at most. Seconds are those of training and prediction. The package keeps what the frozen "
        "part of a network makes of a sample, so a row on frozen features finds most of it computed by the row before.",
        "",
    ]
    lines += [f"- {note}." for note in results.notes.values()]
    busy = sum(f["cores that others took"] > BUSY for f in results.figures.values())
    if busy:
        lines.append(
            f"- While {busy} of {len(results.figures)} figures were measured, other processes kept more than {BUSY} "
            "cores busy: their seconds are too many. Accuracies do not depend on that."
        )
    for run in results.runs:
        versions = ", ".join(f"{name} {run[name]}" for name in ("torch", "torchvision", "scikit-learn", "python"))
        quick = "; a quick trial with random weights, not a measurement" if run["quick"] else ""
        lines.append(
            f"- {run['date']}, {run['processor']}, {run['cores']} cores, {run['threads']} threads, "
            f"{run['gpu'] or 'no GPU'}; {versions}{quick}."
        )
    return lines


def draw(results: Results, path: Path) -> None:
    """Draw accuracy against labels, one panel per set, with the spread of draws as bars."""
    panels = [(name, network) for network in _drawn(results) for name in results.sets(network)]
    columns = min(4, len(panels) + 1)
    lines = -(-(len(panels) + 1) // columns)
    figure, axes = plt.subplots(lines, columns, figsize=(4 * columns, 3.2 * lines), layout="constrained", squeeze=False)
    colours = dict(zip(results.titles, plt.get_cmap("tab20").colors, strict=False))
    shown = {}
    for (name, network), panel in zip(panels, axes.flat, strict=False):
        for position, row in enumerate(results.titles):
            points = [(s, _only(results.values(row, network, s, "accuracy"), {name})) for s in results.sizes]
            points = [(s, list(values.values())) for s, values in points if values]
            if points:
                shift = 1 + 0.02 * (position - len(results.titles) / 2)  # so that bars do not hide each other
                shown[row] = panel.errorbar(
                    [size * shift for size, _ in points],
                    [np.mean(values) for _, values in points],
                    [np.std(values) for _, values in points],
                    color=colours[row],
                    marker="o",
                    markersize=3,
                    linewidth=2 if row == "default" else 1,
                    linestyle="--" if row in ("no_network", BASE) else "-",
                )
        panel.set(title=f"{name}, {network}", xscale="log", xlabel="labels per class", ylabel="accuracy")
        panel.set_xlim(0.7 * results.sizes[0], 1.4 * results.sizes[-1])
        panel.set_xticks(results.sizes, [str(size) for size in results.sizes])
        panel.minorticks_off()
        panel.spines[["top", "right"]].set_visible(False)
    for panel in axes.flat[len(panels) :]:
        panel.axis("off")
    ordered = [row for row in results.titles if row in shown]
    axes.flat[len(panels)].legend(
        [shown[r] for r in ordered], [results.titles[r] for r in ordered], fontsize=7, loc="center"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)
