"""The part of a network that runs frozen, with a string that identifies its operations.

The string is what activations are kept under. A part can be continued from any cut that it passes, so an activation
that was kept there saves what lies before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from sktransfer.backbones._feature_network import FeatureNetwork
from sktransfer.backbones._loaded_network import LoadedNetwork
from sktransfer.backbones.graphs._base import Cut, Graph, Pooled


@dataclass(frozen=True)
class FrozenPart:
    """A network from its input, or from a cut, to another, with the vectors of layers on the way.

    Parameters
    ----------
    loaded : LoadedNetwork
        The network.
    graph : Graph
        Its graph.
    digest : str or None
        Of its weights, operations, layers and their settings; `None` where these cannot be written down whole.
    end : Cut
        Where it ends.
    pooling : str, default="avg"
        How maps and tokens become vectors.
    as_vector : bool, default=False
        Whether the value at the end becomes a vector too, joined with the others; else it is returned as it is, behind
        the others.
    layers : tuple of Cut, default=()
        Cuts before the end whose vectors are taken, in order from the input.
    order : tuple of int, default=()
        Order in which vectors are joined, counted from the input; `()` is that in which they come.
    start : Cut or None, default=None
        Where it begins; `None` is the input.
    widths : tuple of int, default=()
        Of the vectors that enter with the value at `start`.
    """

    loaded: LoadedNetwork
    graph: Graph
    digest: str | None
    end: Cut
    pooling: str = "avg"
    as_vector: bool = False
    layers: tuple[Cut, ...] = ()
    order: tuple[int, ...] = ()
    start: Cut | None = None
    widths: tuple[int, ...] = ()

    @property
    def identity(self) -> str | None:
        """All that the values at the end depend on, except for the sample, as a string.

        `None` if that cannot be written down completely. Then nothing is cached.
        """
        if self.digest is None:
            return None
        if not (self.layers or self.as_vector):
            return f"{self.digest} {self.end.name}"
        cuts = [(cut.name, self.graph.has_channels_last(cut)) for cut in (*self.layers, self.end)]
        return f"{self.digest} {cuts} {self.order} {self.pooling} {self.as_vector}"

    def network(self) -> FeatureNetwork:
        """Return it as a module with the network's own layers, which computes bit for bit what the network does."""
        return self._around(self.graph.between(self._beginning, self.end, self._pooled))

    def ready(self, device: torch.device, bfloat16: bool) -> FeatureNetwork:
        """Return it as a module on a device that computes the same, to rounding, in less time."""
        return self._around(self.loaded.ready(self._beginning, self.end, device, bfloat16, self._pooled))

    def parts_before(self) -> list["FrozenPart"]:
        """Return the parts that end at a cut on the way, the deepest first, with the layers before that cut."""
        parts = []
        for cut in reversed(self.graph.cut_points_before(self.end)):
            if cut is not self.end or self.as_vector:
                passed = set(self.graph.cut_points_before(cut)) - {cut}
                layers = tuple(layer for layer in self.layers if layer in passed)
                parts.append(replace(self, end=cut, as_vector=False, layers=layers, order=()))
        return parts

    def behind(self, before: "FrozenPart", widths: Sequence[int]) -> "FrozenPart":
        """Return what goes on from the end of one of the parts before, whose layers have vectors of these widths."""
        return replace(self, start=before.end, layers=self.layers[len(before.layers) :], widths=tuple(widths))

    @property
    def _beginning(self) -> Cut:
        return self.graph.end_of_block(0) if self.start is None else self.start

    @property
    def _pooled(self) -> Pooled:
        return Pooled(self.layers, self.pooling)

    def _around(self, part: nn.Module) -> FeatureNetwork:
        layout = self.graph.has_channels_last(self.end)
        return FeatureNetwork(part, self.pooling if self.as_vector else None, layout, self.order, self.widths)
