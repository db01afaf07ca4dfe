"""Networks from timm, by name, with timm's own weights and preprocessing.

A network is built with `num_classes=0`, so its features are what timm itself calls so: usually one pooled vector a
picture, in a distilled DeiT the mean of its two tokens. Weights files are read here, as tensors alone; timm, which
knows the names in the files of other projects, gets the tensors and never a file.
"""

import math
import os
from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from sktransfer._messages import closest, first_line, named_extra, shown
from sktransfer._process._seeding import seeded
from sktransfer.backbones._code import is_library
from sktransfer.backbones.graphs._traced_graph import NetworkGraph
from sktransfer.backbones.sources import _hub_downloads, _weights
from sktransfer.backbones.sources._base import file_key
from sktransfer.backbones.sources._matching import Target, fill_from
from sktransfer.backbones.sources._origin import Origin, data_of_tag, random_origin
from sktransfer.backbones.sources._state_dicts import read_states
from sktransfer.backbones.sources._weights import fetch, place_of
from sktransfer.backbones.sources._weights_file import is_path, read_recipe
from sktransfer.inputs import ImagePreprocessing

PREFIX = "timm:"


@dataclass(frozen=True)
class TimmSource:
    """A network that timm builds.

    Parameters
    ----------
    name : str
        `"timm:"`, a name from `timm.list_models()`, and perhaps a dot and one of its tags.
    weights : str, path-like or None
        `"DEFAULT"` for those of the tag, or of timm's first where there is none, a tag, a path, or `None` for random
        weights.
    seed : int
        Of random weights.
    recipe : str or None, default=None
        Tag whose preprocessing goes with the weights in a file, if the name has none; `None` asks the file.
    """

    name: str
    weights: str | os.PathLike[str] | None
    seed: int = 0
    recipe: str | None = None
    kind: ClassVar[str] = "timm"
    keeps_network = False

    def __post_init__(self) -> None:
        models = self._models
        model, _, own = self._model.partition(".")
        if self.recipe is None:
            asks = not own and self.weights is not None and is_path(self.weights)
            object.__setattr__(self, "recipe", read_recipe(self.weights) if asks and self.weights else "")
        try:
            if models.is_model(model):
                models.get_pretrained_cfg(self._model)
                return
        except RuntimeError:  # no such tag
            pass
        known = models.list_pretrained(f"{model}.*") or models.list_models()
        raise ValueError(
            f'Got backbone={shown(self.name)}; expected "timm:" and a name from timm.list_models(), or with a tag from '
            f"timm.list_pretrained(): {closest(self.name, [PREFIX + name for name in known])}"
        )

    @property
    def weights_name(self) -> str:
        if self.weights is None:
            return f"random, seed {self.seed}"
        return os.fspath(self.weights) if self._tag() is None else self._config().tag or "DEFAULT"

    @property
    def key(self) -> Hashable | None:
        if not is_library(self._models.model_entrypoint(self._model.partition(".")[0]).__module__):
            return None  # a function that somebody registered, and may change
        if self.weights is None:
            return self.name, None, self.seed
        tag = self._tag()
        file = self.weights if tag is None else self._download().find()
        return self.name, tag, None if file is None else file_key(file)

    @property
    def record(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def origin(self) -> Origin:
        if self.weights is None:
            return random_origin(self.seed)
        if self._tag() is None:
            return Origin(f"the file {shown(self.weights)}")
        config = self._config()
        place = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
        licence = config.license if config.license not in ("", "unknown") else None
        return Origin(f"timm {config.tag or self._model}, {place}", data_of_tag(config.tag or ""), licence)

    @property
    def recipe_name(self) -> str | None:
        """Tag whose preprocessing goes with these weights, where the name does not say it."""
        _, _, tag = self._tagged().partition(".")
        return tag or None

    def graph(self, network: nn.Module) -> NetworkGraph:
        models = self._models
        untraced = (*models.get_notrace_modules(), *filter(callable, models.get_notrace_functions()))
        return NetworkGraph(network, ends_in_classifier=False, untraced=untraced)

    def architecture(self) -> nn.Module:
        return self._build(num_classes=0)

    def pretrained(self) -> nn.Module:
        network = self.architecture()
        if self.weights is None:
            return network
        file = Path(self.weights) if self._tag() is None else self._download().get()
        own = network.state_dict().keys()
        target = Target(network, own, self._classifiers(), self._config().num_classes)

        def convert(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]] | None:
            if (whole := self._convert(tensors)) is None:
                return None
            heads = [name for name, tensor in tensors.items() if name.startswith(target.heads)]
            told = [name for name in heads if target.is_told(name, tensors[name])]
            return {name: whole[name] for name in own if name in whole}, told

        fill_from(target, read_states(file), file, convert)
        return network

    def adopt(self, network: nn.Module) -> "TimmSource":
        return self

    def preprocessing(self, network: nn.Module) -> ImagePreprocessing:
        config = self._timm().data.resolve_model_data_config(network)
        channels, height, width = config["input_size"]
        scaled = tuple(math.floor(side / config["crop_pct"]) for side in (height, width))
        if config["crop_mode"] == "border" or (config["crop_mode"] == "center" and height != width):
            raise ValueError(
                f"Got backbone={shown(self.name)}, whose pictures of {height} x {width} timm prepares with "
                f'crop_mode={config["crop_mode"]!r}; expected "squash", or "center" and a square. Give the network '
                "itself, as timm.create_model returns it, with an ImagePreprocessing as its attribute `preprocessing`."
            )
        return ImagePreprocessing(
            resize=scaled[0] if config["crop_mode"] == "center" else None if scaled == (height, width) else scaled,
            crop=(height, width),
            # "random" is one of several in training; timm's own default stands for what is none of the three.
            interpolation=known if (known := config["interpolation"]) in ("nearest", "bilinear") else "bicubic",
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
            channels=channels,
        )

    def _build(self, **settings: Any) -> nn.Module:
        create_model = self._models.create_model
        with seeded(self.seed):
            network = create_model(self._tagged(), **settings)
        if not getattr(network, "dynamic_img_size", False):
            return network
        # Positions that are worked out anew for each picture would run beside it, and leave no place for a cut.
        size = {"img_size": network.pretrained_cfg["input_size"][1:], "dynamic_img_size": False}
        with seeded(self.seed):
            return create_model(self._tagged(), **size, **settings)

    def _convert(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
        """Return the tensors of a file under timm's names and in timm's shapes, or `None` where timm cannot tell.

        timm's converters run when it fills a network, and it says what is missing only of a network whose classifier is
        that of the file; so the network is built once more, with that.
        """
        rows = [len(weight) for name in self._classifiers() if (weight := state.get(f"{name}.weight")) is not None]
        for classes in dict.fromkeys([*rows[:1], 0, self._config().num_classes]):
            overlay = {"state_dict": dict(state), "num_classes": classes, "label_offset": 0}
            try:
                whole = self._build(pretrained=True, num_classes=classes, pretrained_cfg_overlay=overlay)
            except (RuntimeError, KeyError, ValueError, TypeError, IndexError, AttributeError, AssertionError):
                continue  # a file of another network may stop a converter anywhere
            return whole.state_dict()
        return None

    # Names, tags and files

    @property
    def _model(self) -> str:
        return self.name.removeprefix(PREFIX)

    def _timm(self) -> Any:
        with named_extra(f"Got backbone={shown(self.name)}, a network of the package timm", "timm"):
            import timm.data
            import timm.models
        return timm

    @property
    def _models(self) -> Any:
        return self._timm().models

    def _tag(self) -> str | None:
        """Return the tag whose weights are asked for, "" for timm's first; `None` for a path and for random weights."""
        if self.weights is None or isinstance(self.weights, os.PathLike):
            return None
        model, _, own = self._model.partition(".")
        if self.weights in ("DEFAULT", own):
            return own
        tags = [name.partition(".")[2] for name in self._models.list_pretrained(f"{model}.*")]
        if self.weights in tags and not own:
            return self.weights
        if self.weights not in tags and is_path(self.weights):
            return None
        raise ValueError(
            f"Got weights={shown(self.weights)} for {shown(self.name)}; expected "
            + (
                f'"DEFAULT" or {own!r}, the tag in its name, a path or None.'
                if own
                else "a path, None, or a tag of its "
            )
            + ("" if own else f"weights: {closest(self.weights, tags)}")
        )

    def _tagged(self) -> str:
        """Return the name of model and weights as timm has it."""
        tag = self._tag()
        if tag is None and self.recipe and "." not in self._model:
            tag = self.recipe if f"{self._model}.{self.recipe}" in self._models.list_pretrained() else None
        return f"{self._model.partition('.')[0]}.{tag}" if tag else self._model

    def _config(self) -> Any:
        models = self._models
        return models.get_pretrained_cfg(self._tagged()) or models.PretrainedCfg()

    def _classifiers(self) -> tuple[str, ...]:
        names = self._config().classifier or ()
        return (names,) if isinstance(names, str) else tuple(names)

    def _download(self) -> "_HubFile | _UrlFile":
        config = self._config()
        if config.hf_hub_id:
            repository, _, revision = config.hf_hub_id.partition("@")
            plain = config.hf_hub_filename or "pytorch_model.bin"
            safe = str(Path(plain.replace("pytorch_model", "model")).with_suffix(".safetensors"))
            return _HubFile(repository, revision or None, tuple(dict.fromkeys((safe, plain))))
        if config.url:
            return _UrlFile(config.url)
        raise ValueError(
            f"Got weights={shown(self.weights)} for {shown(self.name)}, for which timm has no weights; expected a "
            "path, or None "
            "for random weights. timm.list_pretrained() lists the names that have some."
        )


@dataclass(frozen=True)
class _UrlFile:
    """Weights at an address, kept in torch's folder; `fetch` takes it as it takes a member of torchvision's weights."""

    url: str

    def __str__(self) -> str:
        return self.url

    def get_state_dict(self, progress: bool, check_hash: bool, weights_only: bool) -> Any:
        return torch.hub.load_state_dict_from_url(
            self.url, map_location="cpu", progress=progress, check_hash=check_hash, weights_only=weights_only
        )

    def find(self) -> Path:
        return place_of(self)

    def get(self) -> Path:
        fetch(self)
        return place_of(self)


@dataclass(frozen=True)
class _HubFile:
    """Weights on the Hugging Face Hub: the first of several names that is in its folder, or else can be downloaded."""

    repository: str
    revision: str | None
    names: tuple[str, ...]

    def find(self) -> Path | None:
        found = (_hub_downloads.find(self.repository, name, self.revision) for name in self.names)
        return next((file for file in found if file is not None), None)

    def get(self) -> Path:
        from huggingface_hub import constants, hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError

        if (place := self.find()) is not None:
            return place
        url = hf_hub_url(self.repository, self.names[0], revision=self.revision)
        folder = Path(constants.HF_HUB_CACHE) / f"models--{self.repository.replace('/', '--')}"
        by_hand = (
            f"Download {url} on a machine that can, and give its path: weights=PATH. Or load it there, "
            f"and copy the hub's folder of these weights to {str(folder)!r}."
        )
        if (scheme := url.partition(":")[0]) not in _weights.SCHEMES:
            raise ValueError(f"Refused to download {url}, which uses {scheme}; expected https. {by_hand}")
        try:
            for name in self.names[:-1]:
                if (place := _hub_downloads.fetch(self.repository, name, self.revision)) is not None:
                    return place
            return _hub_downloads.fetch_required(self.repository, self.names[-1], self.revision)
        except (HfHubHTTPError, ConnectionError, TimeoutError) as error:
            named = f"weights of timm, {url}"
            refused = _hub_downloads.in_our_words(error, named, self.repository, self.revision)
            raise refused or ConnectionError(
                f"Could not download the weights {url} ({first_line(error)}), and they are not in {str(folder)!r}. "
                f"{by_hand}"
            ) from error
