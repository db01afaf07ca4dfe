"""Networks of the user's own: a module, or a function that returns one."""

import copy
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from sktransfer._messages import first_line, shown
from sktransfer._process._seeding import seeded
from sktransfer.backbones.graphs._traced_graph import NetworkGraph
from sktransfer.backbones.sources._origin import Origin
from sktransfer.backbones.sources._wrapped_networks import unwrap_network
from sktransfer.inputs import ImagePreprocessing

# Of ImageNet's red, green and blue: what torchvision's networks were trained with.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class CustomSource:
    """A network that a person brings.

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
    kind: ClassVar[str] = "custom"

    def __post_init__(self) -> None:
        # Whoever brought the module may go on to train it, change its layers, or keep it on a GPU.
        if isinstance(self.backbone, nn.Module):
            object.__setattr__(self, "backbone", _copy(unwrap_network(self.backbone)).cpu())

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

    @property
    def origin(self) -> Origin:
        return Origin("the network that was given" if self._path is None else f"the file {shown(Path(self._path))}")

    def architecture(self) -> nn.Module:
        if isinstance(self.backbone, nn.Module):
            return self.backbone
        arguments = self._arguments()
        try:
            if self._signature is not None:
                self._signature.bind(**arguments)
        except TypeError as error:
            raise ValueError(
                f"Got backbone={shown(self.backbone)}, which cannot be called without arguments ({error}); expected a "
                "function that returns a network. Wrap it in one that needs none."
            ) from error
        with seeded(self.seed):
            network = self.backbone(**arguments)
        if not isinstance(network, nn.Module):
            raise ValueError(
                f"Got a backbone function that returns a {type(network).__name__}; expected a torch.nn.Module."
            )
        # A function may return the same module each time, and what is fitted must not change with it.
        return _copy(unwrap_network(network)).cpu()

    def pretrained(self) -> nn.Module:
        network = self.architecture().eval()
        if self._path is not None:
            from sktransfer.backbones.sources._matching import Target, fill_from  # which few need
            from sktransfer.backbones.sources._state_dicts import read_states

            fill_from(Target(network, self.graph(network).feature_names()), read_states(self._path), self._path)
        return network

    def adopt(self, network: nn.Module) -> "CustomSource":
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
                "itself, whose values a saved model holds. Put any other processing of images into the network."
            )
        channels = _channels(network)
        if type(network).__module__.startswith("torchvision.models"):
            mean, std = _for_channels(_MEAN, channels), _for_channels(_STD, channels)
            return ImagePreprocessing(256, (224, 224), mean=mean, std=std, channels=channels)
        return ImagePreprocessing(channels=channels)

    def _arguments(self) -> dict[str, Any]:
        takes = self._signature is not None and "n_features" in self._signature.parameters
        return {"n_features": self.n_features} if takes and self.n_features is not None else {}

    @property
    def _signature(self) -> inspect.Signature | None:
        try:
            return inspect.signature(self.backbone)
        except (TypeError, ValueError):  # of some that are written in C nothing is known
            return None


def _copy(network: nn.Module) -> nn.Module:
    """Copy a network, also one that holds computed weights, as weight_norm leaves them, which torch refuses to copy."""
    values = [value for module in network.modules() for value in vars(module).values()]
    computed = [value for value in values if isinstance(value, torch.Tensor) and not value.is_leaf]
    try:
        return copy.deepcopy(network, {id(value): value.detach().clone() for value in computed})
    except (TypeError, RuntimeError, AttributeError) as error:  # locks, generators, open files
        raise ValueError(
            f"Got a {type(network).__name__} as backbone that cannot be copied ({first_line(error)}); expected layers, "
            "tensors and plain values. Remove what cannot be copied from the network, or create it in forward."
        ) from error


def _channels(network: nn.Module) -> int:
    """Say how many channels a network takes: its first convolution tells.

    Modules may be listed in another order than they run in. So a layer that takes another number than pictures usually
    have is the first one only where no layer takes 3.
    """
    taken = [module.in_channels for module in network.modules() if isinstance(module, nn.Conv2d)]
    taken = [count for count in taken if count]  # lazy layers do not know yet
    if not taken or (taken[0] not in (1, 3, 4) and 3 in taken):
        return 3
    return taken[0]


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Give each channel beyond red, green and blue their mean; grey too."""
    middle = sum(values) / len(values)
    return values if channels == 3 else (middle,) if channels < 3 else (*values, *[middle] * (channels - 3))
