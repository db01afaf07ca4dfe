"""Networks that a person brings: a module, or a function that returns one."""

import copy
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from sktransfer._seeding import seeded
from sktransfer.backbones._blocks import NetworkGraph
from sktransfer.backbones._weights import fill, read_state_dict
from sktransfer.inputs import ImagePreprocessing


@dataclass(frozen=True)
class OwnSource:
    """A network of one's own.

    Parameters
    ----------
    backbone : nn.Module or callable
        The network, which is copied, or a function that returns it.
    weights : str, path-like or None
        A path to its weights. `"DEFAULT"` and `None` leave the weights that it comes with.
    seed : int
        Of the weights that a function draws.
    n_features : int or None
        Width of a 2-D X, given to a function that takes it.
    """

    backbone: nn.Module | Callable[..., nn.Module]
    weights: str | os.PathLike[str] | None
    seed: int = 0
    n_features: int | None = None
    kind: ClassVar[str] = "own"

    def __post_init__(self) -> None:
        # Whoever brought the module may go on to train it, change its layers, or keep it on a GPU.
        if isinstance(self.backbone, nn.Module):
            object.__setattr__(self, "backbone", copy.deepcopy(self.backbone).cpu())

    @property
    def keeps_network(self) -> bool:
        return isinstance(self.backbone, nn.Module)

    @property
    def name(self) -> str:
        if isinstance(self.backbone, nn.Module):
            return type(self.backbone).__name__
        return str(getattr(self.backbone, "__name__", type(self.backbone).__name__))

    @property
    def weights_name(self) -> str:
        return "its own" if self._path is None else os.fspath(self._path)

    @property
    def key(self) -> None:
        return None

    @property
    def _path(self) -> str | os.PathLike[str] | None:
        return None if self.weights == "DEFAULT" else self.weights

    @property
    def record(self) -> dict[str, Any]:
        return {"weights": self.weights, "seed": self.seed, "n_features": self.n_features}

    def architecture(self) -> nn.Module:
        if isinstance(self.backbone, nn.Module):
            return self.backbone
        arguments = self._arguments()
        try:
            if self._signature is not None:
                self._signature.bind(**arguments)
        except TypeError as error:
            raise ValueError(
                f"Got backbone={self.backbone!r}, which cannot be called without arguments ({error}); expected a "
                "function that returns a network. Wrap it in one that needs none."
            ) from error
        with seeded(self.seed):
            network = self.backbone(**arguments)
        if not isinstance(network, nn.Module):
            raise ValueError(
                f"Got a backbone function that returns a {type(network).__name__}; expected a torch.nn.Module."
            )
        # A function may return the same module each time, and what is fitted must not change with it.
        return copy.deepcopy(network)

    def pretrained(self) -> nn.Module:
        network = self.architecture().eval()
        if self._path is not None:
            fill(network, read_state_dict(self._path), self.graph(network).used_names(), repr(self.weights_name))
        return network

    def adopt(self, network: nn.Module) -> "OwnSource":
        if not self.keeps_network:
            return self
        same = copy.copy(self)
        object.__setattr__(same, "backbone", network)
        return same

    def graph(self, network: nn.Module) -> NetworkGraph:
        return NetworkGraph(network)

    def preprocessing(self, network: nn.Module) -> ImagePreprocessing:
        own = getattr(network, "preprocessing", None)
        if type(own) is ImagePreprocessing:
            return own
        if isinstance(own, ImagePreprocessing):
            raise ValueError(
                f"Got a network whose attribute `preprocessing` is a {type(own).__name__}; expected ImagePreprocessing "
                "itself, whose values a saved model holds. Put what else is to be done to a picture into the network."
            )
        if type(network).__module__.startswith("torchvision.models"):
            return ImagePreprocessing(256, (224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        convolution = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
        return ImagePreprocessing(channels=1 if convolution is not None and convolution.in_channels == 1 else 3)

    def _arguments(self) -> dict[str, Any]:
        takes = self._signature is not None and "n_features" in self._signature.parameters
        return {"n_features": self.n_features} if takes and self.n_features is not None else {}

    @property
    def _signature(self) -> inspect.Signature | None:
        try:
            return inspect.signature(self.backbone)
        except (TypeError, ValueError):  # of some that are written in C nothing is known
            return None
