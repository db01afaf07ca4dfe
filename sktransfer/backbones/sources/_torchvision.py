"""Classification networks from torchvision, by name, with its weights, downloads and preprocessing."""

import os
import warnings
from collections.abc import Hashable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from sktransfer._messages import check_choice, closest, shown
from sktransfer._process._seeding import seeded
from sktransfer.backbones.graphs._traced_graph import NetworkGraph
from sktransfer.backbones.sources._base import file_key
from sktransfer.backbones.sources._origin import Origin, random_origin
from sktransfer.backbones.sources._weights import fetch, place_of
from sktransfer.backbones.sources._weights_file import check_tensors, is_path, read_recipe
from sktransfer.inputs import ImagePreprocessing

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum


@cache
def names() -> tuple[str, ...]:
    """Return the names of all classification networks of the installed torchvision.

    Returns
    -------
    tuple of str
        Sorted.
    """
    from torchvision import models

    return tuple(models.list_models(module=models))


@dataclass(frozen=True)
class TorchvisionSource:
    """A network that torchvision builds.

    Parameters
    ----------
    name : str
        One of `names()`.
    weights : str, path-like or None
        `"DEFAULT"`, a weight name, a path, or `None` for random weights.
    seed : int
        Of random weights.
    recipe : str or None, default=None
        Name of the weights whose preprocessing goes with those in a file; `None` asks the file.
    """

    name: str
    weights: str | os.PathLike[str] | None
    seed: int = 0
    recipe: str | None = None
    kind: ClassVar[str] = "torchvision"
    keeps_network = False

    def __post_init__(self) -> None:
        check_choice(
            "backbone",
            self.name,
            names(),
            'list_backbones() lists them; names of timm begin with "timm:", those of the Hugging Face Hub with "hf:".',
        )
        if self.recipe is None:
            asks = self.weights is not None and self._enum() is None
            object.__setattr__(self, "recipe", read_recipe(self.weights) if asks and self.weights else "")

    @property
    def weights_name(self) -> str:
        if self.weights is None:
            return f"random, seed {self.seed}"
        known = self._enum()
        return str(self.weights) if known is None else known.name

    @property
    def key(self) -> Hashable | None:
        if self.weights is None:
            return self.name, None, self.seed
        enum = self._enum()
        return self.name, file_key(self.weights if enum is None else place_of(enum))

    @property
    def record(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def origin(self) -> Origin:
        if self.weights is None:
            return random_origin(self.seed)
        known = self._enum()
        if known is None:
            return Origin(f"the file {shown(self.weights)}")
        whose, said = f"torchvision {known.name}, {known.url}", known.meta
        # torchvision names its weights after their data; SWAG's come from photos of Instagram, as their text says.
        data = "ImageNet-1K" if known.name.startswith("IMAGENET1K") and len(said["categories"]) == 1000 else None
        earlier = "photos of Instagram (SWAG), then " if data and "SWAG" in known.name else ""
        return Origin(whose, data and earlier + data, said.get("license"))

    @property
    def recipe_name(self) -> str | None:
        """Name of the weights whose preprocessing goes with these; of random ones `None`."""
        return None if self.weights is None else self._recipe().name

    def architecture(self) -> nn.Module:
        return self._as_pretrained(self._build())

    def pretrained(self) -> nn.Module:
        if self.weights is None:
            return self.architecture()
        enum = self._enum()
        if enum is not None:
            from torchvision.models import get_model

            fetch(enum)
            whole = get_model(self.name, weights=enum, progress=False)
            check_tensors(whole.state_dict(), place_of(enum))
            return self._as_pretrained(whole)
        network = self._build().eval()
        from sktransfer.backbones.sources._matching import Target, fill_from  # which few need
        from sktransfer.backbones.sources._state_dicts import read_states

        fill_from(Target(network, self.graph(network).feature_names()), read_states(self.weights), self.weights)
        return self._as_pretrained(network)

    def adopt(self, network: nn.Module) -> "TorchvisionSource":
        return self

    def graph(self, network: nn.Module) -> NetworkGraph:
        return NetworkGraph(network, ends_in_classifier=True)

    def preprocessing(self, network: nn.Module) -> ImagePreprocessing:
        return ImagePreprocessing.from_torchvision(self._recipe().transforms())

    def _build(self) -> nn.Module:
        from torchvision.models import get_model

        # A vision transformer is built for one size of image, which its weights decide.
        size = {"image_size": self._recipe().meta["min_size"][0]} if self.name.startswith("vit_") else {}
        with seeded(self.seed), warnings.catch_warnings():
            # GoogLeNet and Inception announce a faster start.
            warnings.filterwarnings("ignore", "The default weight initialization", FutureWarning)
            return get_model(self.name, weights=None, **size)

    def _as_pretrained(self, network: Any) -> nn.Module:
        """Do what torchvision does, or may do, to GoogLeNet and Inception that come with weights; no file says it."""
        if hasattr(network, "transform_input"):
            network.transform_input = self.weights is not None
        for name in ("aux1", "aux2", "AuxLogits"):  # classifiers that only training from scratch uses
            if hasattr(network, name):
                network.aux_logits = False
                setattr(network, name, None)
        return network

    def _recipe(self) -> "WeightsEnum":
        """Return the weights of torchvision whose preprocessing and image size apply.

        A file under torchvision's own name is known, and so is one that says it; any other is taken for the first that
        are there, for images of the size that torchvision builds the network for.
        """
        from torchvision.models import get_model_weights

        if (enum := self._enum()) is not None:
            return enum
        known = list(get_model_weights(self.name))
        if (said := next((member for member in known if member.name == self.recipe), None)) is not None:
            return said
        file = Path(self.weights).name if self.weights is not None else ""
        usual = min(known, key=lambda member: member.meta["min_size"])
        return next((member for member in known if member.url.rpartition("/")[2] == file), usual)

    def _enum(self) -> "WeightsEnum | None":
        """Return the member that the weights name, or `None` for a path and for random weights."""
        from torchvision.models import get_model_weights

        known = get_model_weights(self.name)
        if isinstance(self.weights, str) and self.weights in known.__members__:
            return known[self.weights]
        if self.weights is None or is_path(self.weights):
            return None
        raise ValueError(
            f"Got weights={shown(self.weights)} for {shown(self.name)}; expected a path, None, or a name of its "
            f"weights: {closest(self.weights, known.__members__)}"
        )
