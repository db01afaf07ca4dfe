"""Read the name of a cut in a network: a number or a share of blocks, a block, or a module."""

import re
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from sktransfer._messages import listed, nearest, shown
from sktransfer.backbones.graphs._base import Cut, Graph

# The most blocks that a message names.
_NAMED = 12


def as_list(layer: Any) -> list[Any]:
    """Return the layers that a person gave, one or several.

    Parameters
    ----------
    layer : str, int, list or None
        As `Backbone.feature_part` takes it.

    Returns
    -------
    list
        At least one.

    Raises
    ------
    ValueError
        If it is an empty list.
    """
    if isinstance(layer, list | tuple) and not layer:
        raise ValueError("Got layer=[]; expected at least one block name or number, or None.")
    return list(layer) if isinstance(layer, list | tuple) else [layer]


class CutNames:
    """The cut points of a network, by what a person calls them.

    Parameters
    ----------
    graph : Graph
        Of the network.
    network : str
        Its name, used in error messages.
    """

    def __init__(self, graph: Graph, network: str):
        self._graph, self._network = graph, network

    def at_depth(self, depth: Any, parameter: str = "freeze_depth") -> Cut:
        """Return the cut behind a number of blocks, a share of them, or what a name stands for.

        Parameters
        ----------
        depth : int, float or str
            As `Backbone.split` takes it.
        parameter : str, default="freeze_depth"
            What the person calls it.

        Returns
        -------
        Cut
            Of the graph.

        Raises
        ------
        ValueError
            If there is none.
        """
        count = len(self._graph.blocks)
        if isinstance(depth, str):
            names = [block.name for block in self._graph.blocks]
            if depth == "all":
                return self._graph.end_of_block(count)
            if depth in names:
                return self._graph.end_of_block(names.index(depth) + 1)
            if (end := self._graph.end_of_module(depth)) is not None:
                return end
            raise ValueError(self._unknown(depth, parameter, names))
        if isinstance(depth, Integral) and not isinstance(depth, bool) and -count <= int(depth) <= count:
            return self._graph.end_of_block(int(depth) + (count if depth < 0 else 0))
        if isinstance(depth, Real) and not isinstance(depth, Integral) and 0 <= float(depth) <= 1:
            return self._graph.end_of_block(int(float(depth) * count + 0.5))
        raise ValueError(
            f"Got {parameter}={shown(depth)}; expected a number of blocks from 0 to {count} (int; negative ones count "
            f'from the end), a share of them from 0.0 to 1.0 (float), a name, or "all". {shown(self._network)} has '
            f"{count} blocks."
        )

    def _unknown(self, name: str, parameter: str, blocks: Sequence[str]) -> str:
        """Return what to say of a name that stands for no cut."""
        some = blocks if len(blocks) <= _NAMED else [*blocks[: _NAMED - 3], "...", *blocks[-2:]]
        there = ", ".join(one if one == "..." else shown(one) for one in some)
        said = f"Got {parameter}={shown(name)}; {shown(self._network)} has no block {shown(name)}, and "
        said += f"cannot be cut after a module of that name. Its {len(blocks)} blocks are {there}."
        words = ["all"] if parameter == "freeze_depth" else ["stages"]
        near = nearest(name, [*blocks, *self._graph.cut_names(), *words])
        said += f" Did you mean {listed(near)}?" if near else ""
        is_number = re.fullmatch(r"-?\d+(\.\d+)?", name) is not None
        return f"{said} Write a number without quotes: {parameter}={name}." if is_number else said

    def behind(self, layer: Any) -> Cut:
        """Return the cut behind a layer.

        Parameters
        ----------
        layer : str, int or None
            Block, by name or number (1 is the first, -1 the last), or module; `None` is the features.

        Returns
        -------
        Cut
            Of the graph.

        Raises
        ------
        ValueError
            If there is none.
        """
        if layer is None:
            return self.at_depth("all")
        count = len(self._graph.blocks)
        if isinstance(layer, bool) or not isinstance(layer, str | Integral):
            raise ValueError(f"Got layer={shown(layer)}; expected None, a block's name or number, or a list of them.")
        if isinstance(layer, str):
            return self.at_depth(layer, "layer")
        number = int(layer) + (count + 1 if layer < 0 else 0)
        if not 1 <= number <= count:
            raise ValueError(
                f"Got layer={layer}; expected a block from 1 to {count}, or from -1, the last, to -{count}. "
                f"{shown(self._network)} has {count} blocks."
            )
        return self.at_depth(number, "layer")

    def around(self, cut: Cut, layers: Sequence[Any]) -> tuple[tuple[Cut, ...], tuple[Cut, ...]]:
        """Return the cuts behind some layers, the features aside, each in order from the input.

        Parameters
        ----------
        cut : Cut
            A cut of the network.
        layers : sequence of str, int or None
            Layers, as `behind` takes them.

        Returns
        -------
        before, others : tuple of Cut
            Those that lie before the cut, and the others.
        """
        end = self.at_depth("all")
        cuts = [one for one in self._graph.in_order(map(self.behind, layers)) if one != end]
        passed = set(self._graph.cut_points_before(cut)) - {cut}
        return tuple(one for one in cuts if one in passed), tuple(one for one in cuts if one not in passed)

    def deepest(self, layers: Sequence[Any]) -> Any:
        """Return the one of some layers that is computed last.

        Parameters
        ----------
        layers : sequence of str, int or None
            As `layers` returns them.

        Returns
        -------
        str, int or None
            One of them.
        """
        last = self._graph.in_order(map(self.behind, layers))[-1]
        return next(one for one in layers if self.behind(one) == last)
