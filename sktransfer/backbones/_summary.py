"""Show a backbone as a table of its blocks, in text and in HTML."""

import html
from dataclasses import dataclass

from sktransfer.backbones.sources._origin import Origin


@dataclass(frozen=True)
class BlockRow:
    """One row of a summary."""

    number: int
    name: str
    output_shape: tuple[int, ...]
    n_parameters: int
    n_frozen: int
    # Those of low-rank updates, which stand beside the network's own.
    n_added: int = 0

    @property
    def n_trained(self) -> int:
        """Parameters that learn."""
        return self.n_parameters - self.n_frozen + self.n_added

    @property
    def state(self) -> str:
        """`"frozen"`, `"trained"`, or `"partly frozen"` where a block is cut through or some parameters learn alone."""
        if self.n_trained == 0:
            return "frozen"
        return "trained" if self.n_frozen == 0 else "partly frozen"


@dataclass(frozen=True)
class BackboneSummary:
    """Table of the blocks of a network. It prints as text, and as HTML in a notebook.

    Attributes
    ----------
    title : str
        Title of the table.
    rows : tuple of BlockRow
        One row per block, in order.
    origin : Origin
        Origin of the weights, with `source`, `data` and `licence`. Each is a str, or `None` if it is not stated.
    trainable : str
        Which parameters are trained in blocks that are not frozen: `"all"`, `"norm"`, `"bias"` or `"lora"`.
    features : str or None
        Which result of the network is used as the features, if there is a choice.
    megabytes : float or None
        Size of the parameters and buffers that the features depend on, in millions of bytes.
    """

    title: str
    rows: tuple[BlockRow, ...]
    origin: Origin
    trainable: str = "all"
    features: str | None = None
    megabytes: float | None = None

    @property
    def n_frozen(self) -> int:
        """Number of parameters that keep their loaded values."""
        return sum(row.n_frozen for row in self.rows)

    @property
    def n_trainable(self) -> int:
        """Number of trained parameters, including low-rank updates, without those of the head."""
        return sum(row.n_trained for row in self.rows)

    def _cells(self) -> list[tuple[str, ...]]:
        shapes = [" x ".join(map(str, row.output_shape)) or "?" for row in self.rows]
        return [
            (str(row.number), row.name, shape, f"{row.n_parameters:,}", self._state(row))
            for row, shape in zip(self.rows, shapes, strict=True)
        ]

    def _state(self, row: BlockRow) -> str:
        """Return the state of a block, with what learns of it where not all does."""
        if self.trainable == "all" or row.n_trained == 0:
            return row.state
        return f"{self.trainable}: {row.n_trained:,} trained"

    def __str__(self) -> str:
        header = ("", "block", "output shape", "parameters", "state")
        table = [header, *self._cells()]
        widths = [max(len(row[column]) for row in table) for column in range(len(header))]
        aligned = [
            "  ".join(
                cell.rjust(width) if column in (0, 3) else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in table
        ]
        rule = "-" * max(map(len, aligned))
        return "\n".join([self.title, rule, aligned[0], rule, *aligned[1:], rule, *self._below()])

    __repr__ = __str__

    def _below(self) -> list[str]:
        features = [] if self.features is None else [f"features: {self.features}"]
        size = [] if self.megabytes is None else [f"size: {self.megabytes:,.2f} MB of parameters and buffers"]
        return [*size, self._totals(), *features, str(self.origin)]

    def _totals(self) -> str:
        return f"trainable {self.n_trainable:,}, frozen {self.n_frozen:,} parameters, before the head"

    def _repr_html_(self) -> str:
        header = "".join(f"<th>{name}</th>" for name in ("", "block", "output shape", "parameters", "state"))
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>" for cells in self._cells()
        )
        below = "<br>".join(map(html.escape, self._below()))
        return (
            f"<table><caption>{html.escape(self.title)}</caption><thead><tr>{header}</tr></thead>"
            f'<tbody>{body}</tbody><tfoot><tr><td colspan="5">{below}</td></tr></tfoot></table>'
        )
