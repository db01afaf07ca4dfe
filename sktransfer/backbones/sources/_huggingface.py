"""Networks of the transformers library, for texts, sounds and pictures: from its hub, or from a folder.

Architecture, weights, tokenizer and feature extractor are the library's own. Code that comes with a model is never run:
a model that needs it is refused, and weights are read as tensors alone.
"""

import json
import os
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from math import prod
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
from sktransfer.backbones.sources._hub_architectures import build_config, check_memory, encoder, main_input, on_paper
from sktransfer.backbones.sources._hub_downloads import find
from sktransfer.backbones.sources._hub_files import ModelFiles, check_revision, explained
from sktransfer.backbones.sources._hub_models import read_description
from sktransfer.backbones.sources._hub_pictures import Pictures
from sktransfer.backbones.sources._hub_towers import compares_pooled_vectors, other_tower_named, vector_of_texts
from sktransfer.backbones.sources._hub_weights import (
    by_library,
    check_claims,
    load_weights,
    weight_files,
    weight_files_here,
)
from sktransfer.backbones.sources._matching import Target, fill_from, forget_others, refuse_layers, shape_of
from sktransfer.backbones.sources._origin import Origin, random_origin, read_card
from sktransfer.backbones.sources._sentence_layers import weight_file
from sktransfer.backbones.sources._sentence_models import SentencePooling
from sktransfer.backbones.sources._state_dicts import read_states
from sktransfer.backbones.sources._weights_file import is_path
from sktransfer.inputs import ImagePreprocessing, SoundPreprocessing, TextPreprocessing
from sktransfer.inputs._base import Preprocessing

# The name of what follows a network's pooling, in the network, where that has weights.
END = "finish"


@dataclass(frozen=True)
class HuggingFaceSource:
    """A network that the transformers library builds.

    Parameters
    ----------
    name : str
        `"hf:"` and a folder, or the name of a model on the hub, perhaps with `"@"` and a branch, a tag or a commit.
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
    commit : str or None, default=None
        The commit of the hub's model that all is read from; `None` is for a folder, or one that is not known.
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
    commit: str | None = None
    tower: str = "auto"
    kind: ClassVar[str] = "hf"
    keeps_network = False

    def __post_init__(self) -> None:
        _import_transformers()
        if self.weights not in (None, "DEFAULT") and not is_path(self.weights):
            raise ValueError(
                f'Got weights={shown(self.weights)} for {shown(self.name)}; expected "DEFAULT", a path, or None.'
            )
        check_revision(self._files)
        if self.config is None:
            for name, value in read_description(self.name, self.tower).items():
                object.__setattr__(self, name, value)

    @property
    def weights_name(self) -> str:
        if self.weights is None:
            return f"random, seed {self.seed}"
        return os.fspath(self.weights)

    @property
    def key(self) -> Hashable | None:
        # What files of settings say is here as they said it, so the files themselves need not be looked at again.
        said: tuple[Any, ...] = self.config_text, json.dumps(self.finish, sort_keys=True), self.prepared, self.tower
        if self._layers and self.weights is not None:
            ends = [weight_file(replace(self._whole, asks=False).within(one["path"])) for one in self._layers]
            said += (tuple(None if file is None else file_key(file) for file in ends),)
        if self.weights is None:
            return self.name, None, self.seed, said
        if self.weights != "DEFAULT":
            return self.name, said, (file_key(self.weights),)
        if not self._files.is_folder:  # a commit holds what it holds; what is not here yet is fetched first
            here = None if self.commit is None else weight_files_here(self._files)
            return None if here is None else (self.name, said, self.commit, tuple(map(file_key, here)))
        return self.name, said, tuple(map(file_key, weight_files(self._files)))

    @property
    def origin(self) -> Origin:
        if self.weights is None:
            return random_origin(self.seed)
        if self.weights != "DEFAULT":
            return Origin(f"the file {shown(self.weights)}")
        if self._files.is_folder:
            card = read_card(Path(self._files.place, "README.md"))
            return replace(card, source=f"the folder {shown(self._files.place)}")
        files = self._files
        card = read_card(find(files.place, "README.md", files.commit or files.revision))
        revision = "" if files.revision is None else f"/tree/{files.revision}"
        return replace(card, source=f"https://huggingface.co/{files.place}{revision}")

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
            network = encoder(AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False), self.tower)
            return self._with_end(network, read=False)

    def pretrained(self) -> nn.Module:
        if self.weights is None:
            return self.architecture()
        if self.weights != "DEFAULT":
            return self._from_file(self.weights)
        network, padding = load_weights(self._files, build_config(self.config or {}, self._files), self.tower)
        network = self._with_end(network, read=True).eval()
        missing = self._lacking(network, padding)
        if missing:
            raise ValueError(
                f"Got weights of {self._files} that lack {len(missing)} tensors of the network "
                f"({', '.join(missing[:5])}); expected all of them. Give the weights of this very architecture."
            )
        return network

    def _from_file(self, path: str | os.PathLike[str]) -> nn.Module:
        states, config = read_states(path), build_config(self.config or {}, self._files)
        held = max(sum(prod(shape_of(tensor)) for tensor in state.tensors.values()) for state in states)
        check_claims(on_paper(config, self._files, self.tower), held, f"weights={shown(Path(path))}")
        network = self.architecture().eval()
        of_network_alone = bool(self._layers) and not any(f"{END}." in name for one in states for name in one.tensors)
        if of_network_alone:  # layers behind the pooling have a file of their own
            delattr(network, END)
        if isinstance(self.prepared, ImagePreprocessing):
            forget_others(network, states)
        target = Target(network, self._graph(network).feature_names())

        def convert(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]] | None:
            try:
                found, padding, unused = by_library(self._files, config, self.tower, tensors)
            except ValueError:
                return None  # tensors of another network may stop the library anywhere
            if self._lacking(found.eval(), padding):
                return None
            refuse_layers(target, tensors, unused, path)
            return found.state_dict(), unused

        fill_from(target, states, path, convert)
        return self._with_end(network, read=True).eval() if of_network_alone else network

    def _lacking(self, network: nn.Module, names: Iterable[str]) -> list[str]:
        """Return those of the names without a tensor that features depend on."""
        names = list(names)
        used = self._graph(network).feature_names() if names else set[str]()
        return [name for name in names if name in used]

    def adopt(self, network: nn.Module) -> "HuggingFaceSource":
        return self

    def with_channels(self, n_channels: int) -> "HuggingFaceSource":
        """Return the source of this network with a first layer that was adapted to other channels."""
        if not isinstance(self.prepared, ImagePreprocessing):
            return self
        return replace(self, prepared=self.prepared.with_channels(n_channels))

    def graph(self, network: nn.Module) -> Graph:
        with other_tower_named(self.tower, self._on_paper):
            graph = self._graph(network)
            return check(graph) if isinstance(graph, LayerGraph) else graph

    def _on_paper(self) -> nn.Module:
        return on_paper(build_config(self.config or {}, self._files), self._files, self.tower)

    def _graph(self, network: nn.Module) -> LayerGraph | ModuleGraph:
        if isinstance(self.prepared, ImagePreprocessing):
            pooled = self.tower != "image" or compares_pooled_vectors(self._on_paper(), "image")
            return ModuleGraph(network, Pictures(self.prepared, network, pooled=pooled, **(self.finish or {})))
        if isinstance(self.prepared, TextPreprocessing):
            entry: Entry = Tokens(self.prepared, getattr(network.config, "pad_token_id", None))
        else:
            assert isinstance(self.prepared, SoundPreprocessing)
            entry = Windows(self.prepared, main_input(network))
        finish: nn.Module | None = getattr(network, END, None) if self._layers else self._end()
        try:
            if self.tower == "text" and finish is None:
                assert isinstance(self.prepared, TextPreprocessing)
                finish = vector_of_texts(network, self.prepared, self._files, self._on_paper())
            return LayerGraph(network, entry, finish)
        except UntraceableError:
            raise
        except Exception as error:  # networks of the library may want more than a sample
            raise UntraceableError(
                f"Got backbone={self._files}, a {type(network).__name__}, which cannot be run on a sample alone "
                f"({first_line(error)}); expected a network for texts, sounds or pictures. Give another model."
            ) from error

    def _end(self) -> SentencePooling | None:
        return None if self.finish is None else SentencePooling(**self.finish)

    def _with_end(self, network: Any, read: bool) -> Any:
        """Return a network with the layers behind its pooling, if it has some; with their own weights if asked for."""
        if self._layers and (end := self._end()) is not None:
            if read:
                end.load_from(self._whole, self._layers)
            network.add_module(END, end)
        return network

    @property
    def _layers(self) -> list[dict[str, Any]]:
        return (self.finish or {}).get("layers", [])

    def preprocessing(self, network: nn.Module) -> Preprocessing:
        assert self.prepared is not None
        return self.prepared

    @property
    def _files(self) -> ModelFiles:
        """Of the network: in a folder, wherever this process is by now, or on the hub."""
        return ModelFiles.named(self.name, self.below, self.commit)

    @property
    def _whole(self) -> ModelFiles:
        """Of the model that the network may be a part of."""
        return ModelFiles.named(self.name, "", self.commit)


def _import_transformers() -> Any:
    what = 'A backbone "hf:..." is a network of the package transformers'
    with named_extra(what, "text", ' for texts and pictures, or "sktransfer[audio]" for sounds'):
        import transformers
    return transformers
