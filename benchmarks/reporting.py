"""Results as a file of all figures, a table and a chart, all made from the file, so that sections can be run alone."""

import json
import math
from pathlib import Path

import numpy as np

# The fastest forward pass that we know how to write: what is left between it and an estimator is shown by itself.
BARE = "bare network"
# Cores in use by other processes beyond which figures are marked.
BUSY = 0.1


def read_results(path: Path) -> dict[str, dict]:
    return json.loads(path.read_text()) if path.exists() else {}


def write_results(results: dict[str, dict], folder: Path, name: str = "speed") -> None:
    """Write speed.json, speed.md and, where anything is to stand in the chart, speed.png; or by another name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (folder / f"{name}.md").write_text("\n".join([*table(results), "", *origins(results)]) + "\n")
    bars = [
        record for section in results.values() for record in section["records"] if record["label"] and record["peer"]
    ]
    if bars:
        draw(bars, folder / f"{name}.png")


def table(results: dict[str, dict]) -> list[str]:
    """Return the lines of a table: medians, and the least and the greatest where there were several."""
    lines = ["| section | what | sktransfer | peer | times as fast | note |", "|---|---|---|---|---|---|"]
    for name, section in results.items():
        for record in section["records"]:
            unit = record["unit"]
            peer = record["peer"] and f"{record['peer_name']}: {figure(record['peer'], unit)}"
            times = record["times as fast"] and figure(record["times as fast"], "")
            cells = [name, record["name"], figure(record["ours"], unit), peer, times, record["note"]]
            lines.append("| " + " | ".join(cell or "" for cell in cells) + " |")
    return lines


def figure(summary: dict, unit: str) -> str:
    exact = unit in ("accuracy", "cosine")
    median, least, greatest = (
        f"{summary[name]:.4f}" if exact else short(summary[name]) for name in ("median", "min", "max")
    )
    unit = "" if exact else unit
    spread = "" if least == greatest else f" ({least} to {greatest})"
    return f"{median} {unit}".strip() + spread


def short(value: float) -> str:
    """Write a number with three digits that count."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def origins(results: dict[str, dict]) -> list[str]:
    """Say for each section when and on what it was measured; sections of one machine and day share a line."""
    groups: dict[str, list[str]] = {}
    for name, section in results.items():
        machine = section["machine"]
        versions = ", ".join(f"{n} {machine[n]}" for n in ("torch", "torchvision", "scikit-learn", "python"))
        place = f"{machine['processor']}, {machine['cores']} cores, {machine['gpu'] or 'no GPU'}"
        quick = "; a quick trial on few pictures, not a measurement" if section["quick"] else ""
        others = section["cores that others took"]
        busy = "; on a BUSY machine, so not to be relied on" if others is not None and others > BUSY else ""
        origin = f"{section['date']}, {place}; {versions}; {section['pictures']}{quick}{busy}."
        groups.setdefault(origin, []).append(name)
    return [f"- {', '.join(names)}: {origin}" for origin, names in groups.items()]


def draw(bars: list[dict], path: Path) -> None:
    """Draw how many times as fast each comparison came out, those with the bare network in a panel of their own."""
    import matplotlib as mpl  # which those who read tables alone do without

    mpl.use("Agg")  # draws into a file, with or without a screen
    from matplotlib import pyplot as plt

    panels = {
        "Against what you would write instead": [record for record in bars if record["peer_name"] != BARE],
        "Against the bare network, as fast as plain torch makes it": [
            record for record in bars if record["peer_name"] == BARE
        ],
    }
    panels = {title: records for title, records in panels.items() if records}
    heights = [len(records) + 1.6 for records in panels.values()]
    figure, all_axes = plt.subplots(
        len(panels),
        figsize=(9, 0.9 + 0.4 * sum(heights)),
        height_ratios=heights,
        layout="constrained",
        sharex=True,
        squeeze=False,
    )
    figure.suptitle("How many times as fast is sktransfer? (right of the line: faster)", fontsize=12, weight="bold")
    for axes, (title, records) in zip(all_axes[:, 0], panels.items(), strict=True):
        _draw_panel(axes, records)
        axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("times as fast, logarithmic; bar: median, line: 80 % of the measurements")
    ends = [float(end) for record in bars for end in np.percentile(record["times as fast"]["values"], (10, 90))]
    axes.set_xlim(min(0.5, *ends) / 1.1, max(2, *ends) * 2)  # of both panels; room for the figures on the right
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _draw_panel(axes, records: list[dict]) -> None:
    ratios = [record["times as fast"]["values"] for record in records]
    medians = [float(np.median(values)) for values in ratios]
    lows, highs = (np.array([np.percentile(values, share) for values in ratios]) for share in (10, 90))
    places = range(len(records))
    colours = ["#0072b2" if median >= 1 else "#999999" for median in medians]
    # From 1, as fast as the peer: what is slower points to the left.
    axes.barh(places, [median - 1 for median in medians], left=1, color=colours, height=0.65)
    axes.errorbar(
        medians, places, xerr=[medians - lows, highs - medians], fmt="none", ecolor="#333333", elinewidth=1, capsize=2
    )
    for place, median, high in zip(places, medians, highs, strict=True):
        axes.text(max(high, 1) * 1.08, place, f"{short(median)}", va="center", fontsize=9)
    axes.set_yticks(places, [_named(record) for record in records], fontsize=9)
    axes.set_xscale("log")
    axes.set_xticks([0.2, 0.5, 1, 2, 5, 10, 20, 50, 100], minor=False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_locator(_no_ticks())
    axes.axvline(1, color="#333333", linewidth=1)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def _named(record: dict) -> str:
    return record["label"] + ("" if record["peer_name"] == BARE else f"\nagainst {record['peer_name']}")


def _no_ticks():
    from matplotlib.ticker import NullLocator

    return NullLocator()
