"""Show a ranking as a table in text and in HTML, with the same cells and sentences."""

import html
from math import isnan
from typing import TYPE_CHECKING

from sktransfer._messages import shortened

if TYPE_CHECKING:
    from sktransfer._ranking._comparison import Comparison, Row

_PROBES = {"logistic": "a linear probe", "knn": "5 nearest neighbours"}

# Characters of a name in the table.
_NAME = 32


def as_text(ranking: "Comparison") -> str:
    """Return the table as lines of text.

    Parameters
    ----------
    ranking : Comparison
        What to show.

    Returns
    -------
    str
        With a title above and sentences below.
    """
    header, cells = _header(ranking), [_cells(ranking, row) for row in ranking.rows if row.cost]
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    names = [shortened(row.name, _NAME) for row in ranking.rows]
    widths[0] = max(widths[0], *map(len, names))
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (header, *cells)
    ]
    rule = "-" * max(map(len, lines))
    failed = [f"{name.ljust(widths[0])}  failed" for name, row in zip(names, ranking.rows, strict=True) if not row.cost]
    return "\n".join([_title(ranking), rule, lines[0], rule, *lines[1:], *failed, rule, *_sentences(ranking)])


def as_html(ranking: "Comparison") -> str:
    """Return the table as HTML.

    Parameters
    ----------
    ranking : Comparison
        What to show.

    Returns
    -------
    str
        One element.
    """
    header = "".join(f"<th>{html.escape(cell)}</th>" for cell in _header(ranking))
    body = []
    for row in ranking.rows:
        name = f'<td style="text-align: left">{html.escape(shortened(row.name, _NAME))}</td>'
        if row.cost:
            rest = "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(ranking, row)[1:])
        else:
            columns = len(_header(ranking)) - 1
            rest = f'<td colspan="{columns}" style="text-align: left">failed: {html.escape(row.error)}</td>'
        body.append(f"<tr>{name}{rest}</tr>")
    said = [line for line in _sentences(ranking) if not line.startswith(_FAILED)]
    below = "".join(f"<p>{html.escape(line)}</p>" for line in said)
    return (
        f"<div><table><caption>{html.escape(_title(ranking))}</caption><thead><tr>{header}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>{below}</div>"
    )


_FAILED = "Failed: "


def _title(ranking: "Comparison") -> str:
    folds = f"{ranking.n_folds} fold" + ("s" if ranking.n_folds > 1 else "")
    return (
        f"{len(ranking.rows)} backbones on {ranking.n_samples:,} {ranking.kind}: {ranking.metric} of "
        f"{_PROBES[ranking.probe]}, {folds}, ± one standard error"
    )


def _header(ranking: "Comparison") -> list[str]:
    return [
        "backbone", "score", "std", "seconds", f"{ranking.kind}/s", "parameters", "by size", "MB", "input", "features",
    ]  # fmt: skip


def _cells(ranking: "Comparison", row: "Row") -> list[str]:
    cost = row.cost
    assert cost is not None
    unknown = isnan(cost.seconds)
    return [
        shortened(row.name, _NAME),
        f"{row.score:.3f} ± {row.standard_error:.3f}",
        f"{row.std:.3f}",
        "?" if unknown else f"{cost.seconds:,.1f}",
        "?" if unknown else f"{cost.samples_per_second:,.1f}",
        f"{cost.n_parameters:,}",
        str(ranking.size_ranks[row.name]),
        f"{cost.n_bytes / 1e6:,.1f}",
        cost.input_size,
        f"{cost.n_features:,}",
    ]


def _sentences(ranking: "Comparison") -> list[str]:
    by_name = {row.name: row for row in ranking.rows}
    best, largest = by_name[ranking.best_], by_name[ranking.by_size_]
    score = f"{largest.score:.3f} ± {largest.standard_error:.3f}"
    if largest is best:
        lines = [f"Most parameters: {largest.name}, {score}. It is also the best here."]
    else:
        lines = [
            f"Most parameters: {largest.name}, {score}. This is {best.score - largest.score:.3f} below the best, "
            f"{best.name}."
        ]
    near = [
        row for row in ranking.rows if row.cost and row is not best and row.score >= best.score - best.standard_error
    ]
    if near:
        lines.append(f"Within one standard error of the best: {', '.join(row.name for row in near)}.")
    cached = [row for row in ranking.rows if row.cost and row.cost.n_passed < ranking.n_samples]
    earlier = [row.name for row in cached if row.cost and not isnan(row.cost.seconds) and not row.cost.n_passed]
    unknown = [row.name for row in cached if row.cost and isnan(row.cost.seconds)]
    if earlier:
        lines.append(f"Found in the cache, with the speed of an earlier pass: {', '.join(earlier)}.")
    if unknown:
        lines.append(f"Found in the cache, with an unknown speed (?): {', '.join(unknown)}.")
    return lines + [f"{_FAILED}{row.name}: {row.error}" for row in ranking.rows if not row.cost]
