"""Show an estimator in a notebook: important parameters first, the others folded, with links to their pages.

scikit-learn draws the table and its tool tips, in pipelines and searches too; this file decides the order alone.
"""

import copy
from collections.abc import Callable
from typing import Any, ClassVar

from sklearn.base import BaseEstimator

# Where the documentation is. Pages are named after what they are about.
DOCUMENTATION = "https://sktransfer.github.io/sktransfer"


class NotebookTable(BaseEstimator):
    """Base of estimators that say which of their parameters matter first."""

    _shown_first: ClassVar[tuple[str, ...]] = ()

    _doc_link_module = "sktransfer"
    _doc_link_template = DOCUMENTATION + "/generated/{estimator_module}.{estimator_name}.html"

    def _get_params_html(self, *args: Any, **kwargs: Any) -> Any:
        """Return scikit-learn's table in two: what matters or was set by hand, open, and the rest, folded."""
        whole = super()._get_params_html(*args, **kwargs)
        names = [name for name in self._shown_first if name in whole]
        names += [name for name in whole.non_default if name not in names]
        first, rest = _some(whole, names), _some(whole, [name for name in whole if name not in names])
        opened, folded = first._repr_html_inner(), rest._repr_html_inner()
        opened = opened.replace("<details>", "<details open>", 1)
        folded = folded.replace("<summary>Parameters<", f"<summary>{len(rest)} more parameters<", 1)
        return _drawn_as(whole, lambda: opened + folded)

    def _get_fitted_attr_html(self, *args: Any, **kwargs: Any) -> Any:
        """Return scikit-learn's table of what was learned, with networks and the history in a few words."""
        table = copy.copy(super()._get_fitted_attr_html(*args, **kwargs))
        table.data = {
            name: {**row, "value": _WORDS[name](row["value"])} if name in _WORDS else row
            for name, row in table.data.items()
        }
        return table


class _Words:
    """Stands for a value in a table, without quotes."""

    def __init__(self, words: str):
        self._words = words

    def __repr__(self) -> str:
        return self._words


# What stands for values whose repr is long.
_WORDS: dict[str, Callable[[Any], _Words]] = {
    "backbone_": lambda backbone: _Words(f"{backbone.name}, {len(backbone.blocks)} blocks"),
    "history_": lambda history: _Words(f"{len(history)} epochs"),
    "net_": lambda net: _Words("tuned blocks and head"),
}


def _some(table: Any, names: list[str]) -> Any:
    """Return a table of some of the rows of another."""
    part = copy.copy(table)
    part.data = {name: table.data[name] for name in names}
    return part


def _drawn_as(table: Any, draw: Callable[[], str]) -> Any:
    """Return a table with all of its rows that is drawn in another way."""
    table._html_repr = draw
    return table
