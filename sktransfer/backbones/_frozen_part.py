"""What of a network is run frozen: which operations, in one string that tells it from any other, ready to run.

The string is what activations are kept under. A part can be continued from any cut that it passes, so an activation
that was kept there saves what lies before it.
"""

from dataclasses import dataclass, replace

import torch
from torch import nn

from sktransfer.backbones._feature_network import FeatureNetwork
from sktransfer.backbones._loaded_network import LoadedNetwork
from sktransfer.backbones.graphs._base import Cut, Graph


@dataclass(frozen=True)
class FrozenPart:
    """A network from its input, or from a cut, to one cut or several.

    Parameters
    ----------
    loaded : LoadedNetwork
        The network.
    graph : Graph
        Its graph.
    digest : str or None
        Of its weights, operations, layers and their settings; `None` where these cannot be written down whole.
    cuts : tuple of Cut
        Where values are taken, in order from the input.
    order : tuple of int, default=(0,)
        Cuts whose values are joined.
    pooling : str or None, default=None
        How maps and tokens become vectors; `None` leaves one value as it is.
    start : Cut or None, default=None
        Where it begins; `None` is the input.
    """

    loaded: LoadedNetwork
    graph: Graph
    digest: str | None
    cuts: tuple[Cut, ...]
    order: tuple[int, ...] = (0,)
    pooling: str | None = None
    start: Cut | None = None

    @property
    def identity(self) -> str | None:
        """What the values at the end are a function of, but for the sample, in a string.

        `None` where that cannot be written down whole: then nothing may be kept.
        """
        if self.digest is None:
            return None
        if self.pooling is None:
            return f"{self.digest} {self.cuts[0].name}"
        cuts = [(cut.name, self.graph.has_channels_last(cut)) for cut in self.cuts]
        return f"{self.digest} {cuts} {self.order} {self.pooling}"

    def network(self) -> FeatureNetwork:
        """Return it as a module with the network's own layers, which computes bit for bit what the network does."""
        return self._join([self.graph.between(*ends) for ends in self._sections()])

    def ready(self, device: torch.device, bfloat16: bool) -> FeatureNetwork:
        """Return it as a module on a device that computes the same, to rounding, in less time."""
        return self._join([self.loaded.ready(*ends, device, bfloat16) for ends in self._sections()])

    def parts_before(self) -> list["FrozenPart"]:
        """Return the parts that end at a cut on the way to the first value, the deepest first."""
        first = self.cuts[0]
        cut_points = [
            cut_point for cut_point in self.graph.cut_points_before(first) if cut_point is not first or self.pooling
        ]
        return [FrozenPart(self.loaded, self.graph, self.digest, (cut_point,)) for cut_point in reversed(cut_points)]

    def behind(self, before: "FrozenPart") -> "FrozenPart":
        """Return what goes on from the end of one of the parts before."""
        return replace(self, start=before.cuts[0])

    def _sections(self) -> list[tuple[Cut, Cut]]:
        start = self.graph.end_of_block(0) if self.start is None else self.start
        return list(zip((start, *self.cuts), self.cuts, strict=False))

    def _join(self, parts: list[nn.Module]) -> FeatureNetwork:
        layouts = [self.graph.has_channels_last(cut) for cut in self.cuts]
        return FeatureNetwork(parts, self.order, self.pooling, layouts)
