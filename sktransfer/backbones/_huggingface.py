"""Networks of the transformers library, for texts and for sounds: from its hub, or from a folder that it can load.

Architecture, weights, tokenizer and feature extractor are the library's own. Code that comes with a model is never run:
a model that needs it is refused, and weights are read as tensors alone.
"""

import json
import os
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from sktransfer._seeding import seeded
from sktransfer.backbones._feeds import Feed, Tokens, Windows
from sktransfer.backbones._hub_models import (
    PREFIX,
    encoder,
    explained,
    how,
    is_folder,
    main_input,
    quiet,
    read_description,
)
from sktransfer.backbones._layers import LayerGraph
from sktransfer.backbones._pooling import pool
from sktransfer.backbones._weights import fill, read_state_dict
from sktransfer.inputs import Preprocessing, SoundPreprocessing, TextPreprocessing


class SentencePooling(nn.Module):
    """How a folder of sentence-transformers makes one vector of the hidden states of a text.

    Parameters
    ----------
    poolings : list of str
        Joined where there are several.
    normalize : bool
        Whether vectors are brought to length 1.
    """

    def __init__(self, poolings: list[str], normalize: bool):
        super().__init__()
        self.poolings, self.normalize = poolings, normalize

    def extra_repr(self) -> str:
        return f"poolings={self.poolings}, normalize={self.normalize}"

    def forward(self, hidden: torch.Tensor, absent: torch.Tensor | None) -> torch.Tensor:
        vectors = torch.cat([pool(hidden, one, absent=absent) for one in self.poolings], dim=1)
        return nn.functional.normalize(vectors, dim=1) if self.normalize else vectors


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
        Pooling and normalisation, where it is a model of sentence-transformers.
    prepared : Preprocessing or None, default=None
        What the network wants of a sample; `None` reads it from the model.
    """

    name: str
    weights: str | os.PathLike[str] | None
    seed: int = 0
    config: dict[str, Any] | None = None
    finish: dict[str, Any] | None = None
    prepared: Preprocessing | None = None
    kind: ClassVar[str] = "hf"
    keeps_network = False

    def __post_init__(self) -> None:
        _import_transformers()
        named = isinstance(self.weights, str) and self.weights != "DEFAULT"
        if named and not (os.sep in str(self.weights) or Path(str(self.weights)).suffix):
            raise ValueError(f'Got weights={self.weights!r} for {self.name!r}; expected "DEFAULT", a path, or None.')
        if self.config is None:
            for name, value in read_description(self._place).items():
                object.__setattr__(self, name, value)

    @property
    def weights_name(self) -> str:
        if self.weights is None:
            return f"random, seed {self.seed}"
        return os.fspath(self.weights)

    @property
    def key(self) -> Hashable | None:
        if self.weights is None:
            return self.name, None, self.seed, self.config_text
        files = [Path(self.weights).expanduser()] if self.weights != "DEFAULT" else _weight_files(self._place)
        if not files:
            return None
        stats = [file.stat() for file in files if file.exists()]
        return (
            self.name,
            self.config_text,
            tuple(map(str, files)),
            tuple((found.st_mtime_ns, found.st_size, found.st_ino) for found in stats),
        )

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
        from transformers import AutoConfig, AutoModel

        values = dict(self.config or {})
        config = AutoConfig.for_model(values.pop("model_type"), **values)
        with seeded(self.seed), quiet():
            return encoder(AutoModel.from_config(config, dtype=torch.float32))

    def pretrained(self) -> nn.Module:
        if self.weights is None:
            return self.architecture()
        if self.weights != "DEFAULT":
            network = self.architecture().eval()
            used = self._graph(network).used_names()
            fill(network, read_state_dict(self.weights), used, repr(os.fspath(self.weights)))
            return network
        return _load_weights(self._place, self._graph, self.config or {})

    def adopt(self, network: nn.Module) -> "HuggingFaceSource":
        return self

    def graph(self, network: nn.Module) -> LayerGraph:
        return self._graph(network).check()

    def _graph(self, network: nn.Module) -> LayerGraph:
        if isinstance(self.prepared, TextPreprocessing):
            feed: Feed = Tokens(self.prepared, getattr(network.config, "pad_token_id", None))
        else:
            assert isinstance(self.prepared, SoundPreprocessing)
            feed = Windows(self.prepared, main_input(network))
        return LayerGraph(network, feed, None if self.finish is None else SentencePooling(**self.finish))

    def preprocessing(self, network: nn.Module) -> Preprocessing:
        assert self.prepared is not None
        return self.prepared

    @property
    def _place(self) -> str:
        """A folder, or a name on the hub."""
        place = self.name.removeprefix(PREFIX)
        return str(Path(place).expanduser()) if place.startswith("~") else place


def _import_transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            'A backbone "hf:..." is a network of the package transformers, which is not installed: '
            'pip install "sktransfer[text]" for texts, or "sktransfer[audio]" for sounds.'
        ) from error
    return transformers


# Weights


def _weight_files(place: str) -> list[Path]:
    """Return the files of a folder that hold weights."""
    if not is_folder(place):
        return []
    return sorted(file for file in Path(place).iterdir() if file.suffix in (".safetensors", ".bin"))


def _load_weights(place: str, graph: Callable[[nn.Module], LayerGraph], config: dict[str, Any]) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    values = dict(config)
    built = AutoConfig.for_model(values.pop("model_type"), **values)
    with explained(place, "weights"), quiet():
        network, info = AutoModel.from_pretrained(
            place, config=built, dtype=torch.float32, output_loading_info=True, **how(place)
        )
    network = encoder(network).eval()
    used = graph(network).used_names()
    missing = sorted(name for name in info["missing_keys"] if name in used or name.removeprefix("encoder.") in used)
    if missing:
        raise ValueError(
            f"Got weights of {PREFIX + place!r} that lack {len(missing)} tensors of the network "
            f"({', '.join(missing[:5])}); expected all of them. Give the weights of this very architecture."
        )
    return network
