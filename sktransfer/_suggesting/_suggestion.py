"""A suggestion: a dict of parameters for an estimator, with a reason for each, that prints as a table."""

import html
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from sktransfer._messages import shown
from sktransfer._similarity._domain_gap import DomainGap

_WIDTH = 84


class Suggestion(dict[str, Any]):
    """Suggested parameters for an estimator, with a reason for each.

    Parameters
    ----------
    settings : mapping of str to object
        Parameters and their values.
    reasons : mapping of str to str
        Reasons by parameter.
    estimator : str
        Name of the estimator that takes the parameters.
    gap : DomainGap
        How near the data is to the training data of the network.
    seconds : float
        Expected duration of one fit on all samples on this machine, in seconds, with nothing cached.

    Attributes
    ----------
    reasons, estimator, gap, seconds : object
        The parameters of the same names.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        reasons: Mapping[str, str],
        estimator: str,
        gap: DomainGap,
        seconds: float,
    ):
        super().__init__(settings)
        self.reasons = dict(reasons)
        self.estimator = estimator
        self.gap = gap
        self.seconds = seconds

    def __repr__(self) -> str:
        rows = self._rows()
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        lines = []
        for name, value, why in rows:
            first, *rest = textwrap.wrap(why, _WIDTH) or [""]
            lines.append(f"{name.ljust(widths[0])}  {value.ljust(widths[1])}  {first}".rstrip())
            lines.extend(" " * (sum(widths) + 4) + line for line in rest)
        return "\n".join([*lines, "", self._expected()])

    def _repr_html_(self) -> str:
        head, *rows = self._rows()
        body = "".join(_row(row, "td") for row in rows)
        return f"<table>{_row(head, 'th')}{body}</table><p>{html.escape(self._expected())}</p>"

    def _rows(self) -> list[tuple[str, str, str]]:
        return [
            ("parameter", "value", "why"),
            *((name, shown(value, 30), self.reasons.get(name, "")) for name, value in self.items()),
        ]

    def _expected(self) -> str:
        return (
            f"{self.estimator}(**suggestion).fit(X, y) is expected to take {in_words(self.seconds)} on this machine "
            "with nothing cached."
        )


def _row(cells: Iterable[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def in_words(seconds: float) -> str:
    """Say how long something takes, as exactly as an estimate is."""
    if seconds < 1:
        return "less than a second"
    if seconds < 100:
        return f"about {seconds:.0f} seconds"
    return f"about {seconds / 60:.0f} minutes" if seconds < 6000 else f"about {seconds / 3600:.1f} hours"
