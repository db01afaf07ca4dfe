"""Networks of the transformers library, for texts, sounds and pictures: from its hub, or from a folder.

Architecture, weights, tokenizer and feature extractor are the library's own. Code that comes with a model is never run:
a model that needs it is refused, and weights are read as tensors alone.
"""

import json
import os
from collections.abc import Hashable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from sktransfer._messages import first_line, named_extra, shown
from sktransfer._process._seeding import seeded
from sktransfer.backbones.graphs._base import Graph, UntraceableError
from sktransfer.backbones.graphs._entries import Entry, Tokens, Windows
from sktransfer.backbones.graphs._layer_check import check
from sktransfer.backbones.graphs._layer_graph import LayerGraph
from sktransfer.backbones.graphs._module_graph import ModuleGraph
from sktransfer.backbones.sources._base import file_key
from sktransfer.backbones.sources._hub_architectures import (
    build_config,
    check_memory,
    encoder,
    main_input,
    on_paper,
)
from sktransfer.backbones.sources._hub_files import PREFIX, ModelFiles, explained
from sktransfer.backbones.sources._hub_models import read_description
from sktransfer.backbones.sources._hub_pictures import Pictures
from sktransfer.backbones.sources._hub_towers import pooling_of_texts
from sktransfer.backbones.sources._hub_weights import check_claims, load_weights, take_weights, weight_files
from sktransfer.backbones.sources._origin import Origin, random_origin, read_card
from sktransfer.backbones.sources._sentence_models import SentencePooling
from sktransfer.backbones.sources._weights import fill, read_state_dict
from sktransfer.backbones.sources._weights_file import is_path
from sktransfer.inputs import ImagePreprocessing, SoundPreprocessing, TextPreprocessing
from sktransfer.inputs._base import Preprocessing


@dataclass(frozen=True)
class HuggingFaceSource:
    """A network that the transformers library builds.

    Parameters
    ----------
    name : str
        `"hf:"` and the name of a model on the hub, or a folder.
    weights : str, path-like or None
        `"DEFAULT"`, a path, or `None` for random weights.
    seed : int, default=0
        Of random weights.
    config : dict or None, default=None
        The library's description of the architecture; `None` reads it from the model.
    finish : dict or None, default=None
        Pooling and normalisation, where it is a model of sentence-transformers; the order of channels, where it takes
        pictures.
    prepared : Preprocessing or None, default=None
        What the network wants of a sample; `None` reads it from the model.
    below : str, default=""
        The sub-folder that holds the network, where it is a model of sentence-transformers.
    tower : {"auto", "image", "text"}, default="auto"
        Which network of a model that has one for pictures and one for texts.
    """

    name: str
    weights: str | os.PathLike[str] | None
    seed: int = 0
    config: dict[str, Any] | None = None
    finish: dict[str, Any] | None = None
    prepared: Preprocessing | None = None
    below: str = ""
    tower: str = "auto"
    kind: ClassVar[str] = "hf"
    keeps_network = False

    def __post_init__(self) -> None:
        _import_transformers()
        if self.weights not in (None, "DEFAULT") and not is_path(self.weights):
            raise ValueError(
                f'Got weights={shown(self.weights)} for {shown(self.name)}; expected "DEFAULT", a path, or None.'
            )
        if self.config is None:
            for name, value in read_description(self._files.place, self.tower).items():
                object.__setattr__(self, name, value)

    @property
    def weights_name(self) -> str:
        if self.weights is None:
            return f"random, seed {self.seed}"
        return os.fspath(self.weights)

    @property
    def key(self) -> Hashable | None:
        # What files of settings say is here as they said it, so the files themselves need not be looked at again.
        said = self.config_text, json.dumps(self.finish, sort_keys=True), self.prepared, self.tower
        if self.weights is None:
            return self.name, None, self.seed, said
        if self.weights != "DEFAULT":
            return self.name, said, (file_key(self.weights),)
        return (self.name, said, tuple(map(file_key, weight_files(self._files)))) if self._files.is_folder else None

    @property
    def origin(self) -> Origin:
        if self.weights is None:
            return random_origin(self.seed)
        if self.weights != "DEFAULT":
            return Origin(f"the file {shown(self.weights)}")
        if self._files.is_folder:
            card = read_card(Path(self._files.place, "README.md"))
            return replace(card, source=f"the folder {shown(self._files.place)}")
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self._files.place, "README.md")  # which asks nobody
        card = read_card(Path(found) if isinstance(found, str) else None)
        return replace(card, source=f"https://huggingface.co/{self._files.place}")

    @property
    def config_text(self) -> str:
        """The description of the architecture, as text."""
        return json.dumps(self.config, sort_keys=True)

    @property
    def record(self) -> dict[str, Any]:
        values = asdict(replace(self, prepared=None))
        del values["prepared"]
        return values

    def architecture(self) -> nn.Module:
        from transformers import AutoModel

        config = build_config(self.config or {}, self._files)
        check_memory(on_paper(config, self._files, self.tower), self._files)
        with seeded(self.seed), explained(self._files, "config.json"):
            return encoder(AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False), self.tower)

    def pretrained(self) -> nn.Module:
        if self.weights is None:
            return self.architecture()
        config = build_config(self.config or {}, self._files)
        if self.weights == "DEFAULT":
            whose = str(self._files)
            network, missing = load_weights(self._files, config, self.tower)
        else:
            whose, state = repr(os.fspath(self.weights)), read_state_dict(self.weights)
            paper = on_paper(config, self._files, self.tower)
            check_claims(paper, sum(tensor.numel() for tensor in state.values()), f"weights={whose}")
            if not isinstance(self.prepared, ImagePreprocessing) and self.tower == "auto":
                network = self.architecture().eval()
                fill(network, state, self._graph(network).used_names(), whose)
                return network
            network, missing = take_weights(self._files, config, self.tower, state)
        used = self._graph(network.eval()).used_names() if missing else set[str]()
        missing = [name for name in missing if name in used]
        if missing:
            raise ValueError(
                f"Got weights of {whose} that lack {len(missing)} tensors of the network "
                f"({', '.join(missing[:5])}); expected all of them. Give the weights of this very architecture."
            )
        return network

    def adopt(self, network: nn.Module) -> "HuggingFaceSource":
        return self

    def graph(self, network: nn.Module) -> Graph:
        graph = self._graph(network)
        return check(graph) if isinstance(graph, LayerGraph) else graph

    def _graph(self, network: nn.Module) -> LayerGraph | ModuleGraph:
        if isinstance(self.prepared, ImagePreprocessing):
            return ModuleGraph(network, Pictures(self.prepared, network, **(self.finish or {})))
        if isinstance(self.prepared, TextPreprocessing):
            entry: Entry = Tokens(self.prepared, getattr(network.config, "pad_token_id", None))
        else:
            assert isinstance(self.prepared, SoundPreprocessing)
            entry = Windows(self.prepared, main_input(network))
        finish = None if self.finish is None else SentencePooling(**self.finish)
        try:
            if self.tower == "text" and finish is None:
                assert isinstance(self.prepared, TextPreprocessing)
                finish = pooling_of_texts(network, self.prepared, self._files)
            return LayerGraph(network, entry, finish)
        except UntraceableError:
            raise
        except Exception as error:  # networks of the library may want more than a sample
            raise UntraceableError(
                f"Got backbone={self._files}, a {type(network).__name__}, which cannot be run on a sample alone "
                f"({first_line(error)}); expected a network for texts, sounds or pictures. Give another model."
            ) from error

    def preprocessing(self, network: nn.Module) -> Preprocessing:
        assert self.prepared is not None
        return self.prepared

    @property
    def _files(self) -> ModelFiles:
        """Of the network: in a folder, wherever this process is by now, or on the hub."""
        return ModelFiles(os.path.expanduser(self.name.removeprefix(PREFIX)), self.below)  # noqa: PTH111 (never raises)


def _import_transformers() -> Any:
    what = 'A backbone "hf:..." is a network of the package transformers'
    with named_extra(what, "text", ' for texts and pictures, or "sktransfer[audio]" for sounds'):
        import transformers
    return transformers
