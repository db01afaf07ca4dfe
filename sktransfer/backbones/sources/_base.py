"""What each source of networks provides: enough to build a network, and to build it again from a pickle."""

import contextlib
import os
from collections.abc import Hashable
from typing import Any, Protocol

from torch import nn

from sktransfer._process._files import file_stamp
from sktransfer.backbones.graphs._base import Graph
from sktransfer.backbones.sources._origin import Origin
from sktransfer.inputs._base import Preprocessing


class TowerError(ValueError):
    """A model has a network for pictures and one for texts, and it was not said which is meant."""


class Source(Protocol):
    """Source of a backbone, with enough to build it again. Each kind of backbone has its own."""

    @property
    def kind(self) -> str:
        """Name of the kind of backbone, under which `restore_backbone` finds it."""

    @property
    def name(self) -> str:
        """Name of the backbone."""

    @property
    def weights_name(self) -> str:
        """Name of its weights."""

    @property
    def keeps_network(self) -> bool:
        """Whether a pickle of the source holds the network itself, with its weights."""

    @property
    def key(self) -> Hashable | None:
        """Identity of the network, known before it is loaded; `None` if there is none.

        A file counts with its times of change and its size.
        """

    @property
    def record(self) -> dict[str, Any]:
        """Plain values that rebuild the source, without a network of the user's own."""

    @property
    def origin(self) -> Origin:
        """Origin of the weights, their training data and their licence, if stated."""

    def architecture(self) -> nn.Module:
        """Return the network with weights of no importance, or with its own where the source keeps it."""

    def pretrained(self) -> nn.Module:
        """Return the network with its weights."""

    def graph(self, network: nn.Module) -> Graph:
        """Return where the network can be cut, and its blocks."""

    def preprocessing(self, network: nn.Module) -> Preprocessing:
        """Return what the network wants of a sample."""

    def adopt(self, network: nn.Module) -> "Source":
        """Return this source holding a network, the same as its own, that others share."""


def file_key(path: "str | os.PathLike[str]") -> Hashable:
    """Return what tells a file from others, and from what it was before.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    tuple
        Where it is, and its stamp.
    """
    place = os.path.expanduser(path)  # noqa: PTH111 (which leaves the home of an unknown user as it is)
    with contextlib.suppress(OSError, ValueError):
        place = os.path.realpath(place)
    return place, file_stamp(place)
