"""Adapt the first layer of any network to another number of channels than in pretraining.

The adapted network is a network of its own: it has its own weights, fingerprint and place among the loaded ones.
"""

import os
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from sktransfer._messages import shown
from sktransfer.backbones._first_layer import UnadaptableError, adapted
from sktransfer.backbones._loaded_network import load
from sktransfer.backbones.graphs._base import Graph
from sktransfer.backbones.sources._base import Source
from sktransfer.backbones.sources._matching import Target, fill_from, shape_of
from sktransfer.backbones.sources._origin import Origin
from sktransfer.backbones.sources._state_dicts import read_states
from sktransfer.backbones.sources._weights_file import is_path
from sktransfer.inputs import ImagePreprocessing
from sktransfer.inputs._base import Preprocessing


@dataclass(frozen=True)
class AdaptedSource:
    """Source of a network that is adapted to other channels.

    Parameters
    ----------
    source : Source
        Of the network as it was pretrained.
    n_channels : int
        Channels that the adapted network takes.
    n_own_channels : int
        Channels that it was pretrained with.
    """

    source: Source
    n_channels: int
    n_own_channels: int

    @property
    def kind(self) -> str:
        return self.source.kind

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def weights_name(self) -> str:
        return self.source.weights_name

    @property
    def keeps_network(self) -> bool:
        return self.source.keeps_network

    @property
    def backbone(self) -> Any:
        """The user's own network or function, if there is one."""
        return getattr(self.source, "backbone", None)

    @property
    def key(self) -> Hashable | None:
        own = self.source.key
        return None if own is None else (own, "channels", self.n_channels)

    @property
    def record(self) -> dict[str, Any]:
        return {**self.source.record, "n_channels": self.n_channels, "n_own_channels": self.n_own_channels}

    @property
    def origin(self) -> Origin:
        return self.source.origin

    def architecture(self) -> nn.Module:
        return self._adapted(self.source.architecture())

    def pretrained(self) -> nn.Module:
        try:
            network = load(self.source).network
        except ValueError:
            if (whole := self.from_file()) is None:
                raise
            return whole
        return self._adapted(network)

    def from_file(self) -> nn.Module | None:
        """Return the network with weights from a file of its own, if its first layer has as many channels there."""
        path = self.source.record.get("weights")
        if not isinstance(path, str | os.PathLike) or path == "DEFAULT" or not is_path(path):
            return None
        try:
            network, before = self.architecture().eval(), self.source.architecture().state_dict()
        except UnadaptableError:  # then the file is none of it
            return None
        after = network.state_dict()
        wider = [name for name, tensor in after.items() if tensor.shape != before[name].shape]
        states = read_states(path)
        held = [(f".{key}", shape_of(tensor)) for state in states for key, tensor in state.tensors.items()]
        if not wider or any(not _holds(held, name, tuple(after[name].shape)) for name in wider):
            return None
        fill_from(Target(network, self.graph(network).feature_names()), states, path)
        return network

    def adopt(self, network: nn.Module) -> "AdaptedSource":
        return replace(self, source=self.source.adopt(network))

    def graph(self, network: nn.Module) -> Graph:
        # Some sources show the network an example to find where it can be cut.
        wider = getattr(self.source, "with_channels", None)
        return (self.source if wider is None else wider(self.n_channels)).graph(network)

    def preprocessing(self, network: nn.Module) -> Preprocessing:
        own = self.source.preprocessing(network)
        assert isinstance(own, ImagePreprocessing)
        return own.with_channels(self.n_channels)

    def _adapted(self, network: nn.Module) -> nn.Module:
        own = self.source.preprocessing(network)
        if not isinstance(own, ImagePreprocessing):
            raise ValueError(f"a network for {own.kind} with n_channels={self.n_channels}")
        example = replace(own, channels=self.n_own_channels, mean=(0.0,), std=(1.0,)).example(None, 1)
        try:
            return adapted(network, example, self.n_channels)
        except UnadaptableError as error:
            raise UnadaptableError(
                f"Got images of {self.n_channels} channels for {shown(self.name)}, whose first layer takes "
                f"{self.n_own_channels} and cannot be adapted: {error}. Give images of {self.n_own_channels} channels, "
                "or another network."
            ) from error


def _holds(held: list[tuple[str, tuple[int, ...]]], name: str, shape: tuple[int, ...]) -> bool:
    """Tell whether a file has a tensor of this name, behind any prefix, and shape."""
    return any(key.endswith(f".{name}") and found == shape for key, found in held)


def channels_of(preprocessing: Preprocessing, name: str, n_channels: int) -> int:
    """Return how many channels a network takes.

    Parameters
    ----------
    preprocessing : Preprocessing
        What it wants of a sample.
    name : str
        What it is called.
    n_channels : int
        How many it is to take, for the message.

    Returns
    -------
    int
        Channels.

    Raises
    ------
    ValueError
        If it does not take images.
    """
    if not isinstance(preprocessing, ImagePreprocessing):
        raise ValueError(
            f"Got n_channels={n_channels} for {shown(name)}, which takes {preprocessing.kind}; expected the default, "
            "because n_channels is for images. Leave it out."
        )
    return preprocessing.channels


def source_of_file(source: Source, n_channels: int) -> AdaptedSource | None:
    """Return the source of a network whose weights file is of an adapted network.

    Parameters
    ----------
    source : Source
        With a path to weights that do not match its own network.
    n_channels : int
        Channels that are wanted.

    Returns
    -------
    AdaptedSource or None
        `None` where the file is of another network, or of other channels.
    """
    own = source.preprocessing(source.architecture())
    if not isinstance(own, ImagePreprocessing) or own.channels == n_channels:
        return None
    found = AdaptedSource(source, n_channels, own.channels)
    return None if found.from_file() is None else found
