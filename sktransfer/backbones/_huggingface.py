"""Networks of the transformers library, for texts and for sounds: from its hub, or from a folder that it can load.

Architecture, weights, tokenizer and feature extractor are the library's own. Code that comes with a model is never run:
a model that needs it is refused, and weights are read as tensors alone.
"""

import json
import os
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from sktransfer._seeding import seeded
from sktransfer.backbones._layers import LayerGraph
from sktransfer.backbones._pooling import pool
from sktransfer.backbones._weights import fill, read_state_dict
from sktransfer.inputs import Preprocessing, SoundPreprocessing, TextPreprocessing

PREFIX = "hf:"

# Settings that would make a network remember, skip layers or hide parts of a sample at random.
_SETTINGS = {"use_cache": False, "layerdrop": 0.0, "encoder_layerdrop": 0.0, "apply_spec_augment": False}

# Names of poolings in folders of sentence-transformers, and ours; of both versions of its files.
_SENTENCE_POOLINGS = {
    "pooling_mode_cls_token": "cls", "cls": "cls",
    "pooling_mode_mean_tokens": "mean", "mean": "mean",
    "pooling_mode_max_tokens": "max", "max": "max",
    "pooling_mode_lasttoken": "last", "lasttoken": "last",
}  # fmt: skip


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


class _Tokens:
    """Numbers of tokens enter, right behind each other; where samples differ in length, -1 or NaN fills up."""

    def __init__(self, pad: int, vocabulary: int):
        self.pad, self.other = pad, (pad + 1) % vocabulary

    def absent(self, x: torch.Tensor) -> torch.Tensor | None:
        absent = x[..., 0].isnan() if x.ndim == 3 else x < 0
        return absent if torch._C._get_tracing_state() is not None or bool(absent.any()) else None

    def arguments(self, x: torch.Tensor, absent: torch.Tensor | None) -> dict[str, torch.Tensor]:
        numbers = (x[..., 0].nan_to_num() if x.ndim == 3 else x).long()
        return self._with_mask(numbers, absent)

    def stand_in(self, hidden: torch.Tensor, absent: torch.Tensor | None) -> dict[str, torch.Tensor]:
        # Which tokens these are matters as little to layers as it does to masks, if only they are no padding.
        numbers = torch.full_like(hidden[..., 0], self.other, dtype=torch.int64)
        return self._with_mask(numbers, absent)

    def _with_mask(self, numbers: torch.Tensor, absent: torch.Tensor | None) -> dict[str, torch.Tensor]:
        if absent is None:
            return {"input_ids": numbers, "attention_mask": torch.ones_like(numbers)}
        return {"input_ids": numbers.masked_fill(absent, self.pad), "attention_mask": (~absent).long()}

    def as_value(self, x: torch.Tensor, absent: torch.Tensor | None) -> torch.Tensor:
        if x.ndim == 3:
            return x
        value = x.float() if absent is None else x.float().masked_fill(absent, torch.nan)
        return value.unsqueeze(-1)

    def flat(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden

    def unflat(self, hidden: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return hidden


class _Windows:
    """Windows of a sound enter, all of one shape, each by itself; windows of NaN fill up."""

    def __init__(self, argument: str):
        self.argument = argument

    def absent(self, x: torch.Tensor) -> torch.Tensor | None:
        absent = x.flatten(2)[..., 0].isnan()
        return absent if bool(absent.any()) else None

    def arguments(self, x: torch.Tensor, absent: torch.Tensor | None) -> dict[str, torch.Tensor]:
        return {self.argument: (x if absent is None else x.nan_to_num()).flatten(0, 1)}

    def stand_in(self, hidden: torch.Tensor, absent: torch.Tensor | None) -> None:
        return None

    def as_value(self, x: torch.Tensor, absent: torch.Tensor | None) -> torch.Tensor:
        return x

    def flat(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden.flatten(0, 1) if hidden.ndim == 4 else hidden

    def unflat(self, hidden: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return hidden.view(*x.shape[:2], *hidden.shape[1:])


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
            for name, value in _read_description(self._place).items():
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
        with seeded(self.seed), _quiet():
            return _encoder(AutoModel.from_config(config, dtype=torch.float32))

    def pretrained(self) -> nn.Module:
        if self.weights is None:
            return self.architecture()
        if self.weights != "DEFAULT":
            network = self.architecture().eval()
            used = self.graph(network).used_names()
            fill(network, read_state_dict(self.weights), used, repr(os.fspath(self.weights)))
            return network
        return _load_weights(self._place, self.graph, self.config or {})

    def adopt(self, network: nn.Module) -> "HuggingFaceSource":
        return self

    def graph(self, network: nn.Module) -> LayerGraph:
        if isinstance(self.prepared, TextPreprocessing):
            pad = getattr(network.config, "pad_token_id", None)
            vocabulary = self.prepared.vocabulary
            feed: Any = _Tokens(pad if isinstance(pad, int) and 0 <= pad < vocabulary else 0, vocabulary)
        else:
            feed = _Windows(_main_input(network))
        finish = None if self.finish is None else SentencePooling(**self.finish)
        return LayerGraph(network, feed, self.preprocessing(network).example(None, 1), finish)

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


# Reading what a model says of itself


def _read_description(place: str) -> dict[str, Any]:
    """Return the architecture, the preprocessing and the end of a model, by the names of a source's fields."""
    from transformers import AutoConfig

    _check_place(place)
    with _explained(place, "config.json"):
        config = AutoConfig.from_pretrained(place, **_how(place))
    for name, value in _SETTINGS.items():
        if hasattr(config, name):
            setattr(config, name, value)
    values = config.to_diff_dict() | {"model_type": config.model_type}
    values = json.loads(json.dumps(values, default=str))
    argument = _argument_of(config)
    modules = _sentence_modules(place)
    if argument == "input_ids":
        prepared: Preprocessing = _read_tokenizer(place, config, modules)
    else:
        prepared = _read_extractor(place, argument)
    return {"config": values, "finish": _sentence_finish(place, modules), "prepared": prepared}


def _check_place(place: str) -> None:
    if not place:
        raise ValueError('Got backbone="hf:"; expected "hf:" and a name on the hub, or a folder.')
    looks_local = place.startswith((os.sep, ".")) or place.count("/") > 1
    if looks_local and not _is_folder(place):
        raise FileNotFoundError(f"Got backbone={PREFIX + place!r}; expected a folder, and there is none at {place!r}.")
    file = Path(place, "config.json")
    if _is_folder(place) and not file.is_file():
        raise ValueError(
            f"Got backbone={PREFIX + place!r}, a folder without config.json; expected one that transformers has saved, "
            "with config.json, weights, and a tokenizer or preprocessor_config.json."
        )


def _is_folder(place: str) -> bool:
    return Path(place).is_dir()


def _how(place: str) -> dict[str, Any]:
    """Return how everything is loaded: without code from the model, and from a folder without asking the hub."""
    return {"trust_remote_code": False, "local_files_only": _is_folder(place)}


def _argument_of(config: Any) -> str:
    """Return the name under which a network of this configuration takes its samples."""
    from transformers import AutoModel

    with torch.device("meta"), _quiet():
        network = _encoder(AutoModel.from_config(config))
    argument = _main_input(network)
    if argument not in ("input_ids", "input_values", "input_features"):
        raise ValueError(
            f"Got a {type(network).__name__}, which takes {argument}; expected a network for texts or sounds. Networks "
            'for images come by name from torchvision, and as "timm:NAME" from timm.'
        )
    return argument


def _main_input(network: Any) -> str:
    return str(network.main_input_name)


def _encoder(network: Any) -> Any:
    """Return what makes hidden states of samples: of an encoder and a decoder, the encoder."""
    return network.get_encoder() if network.config.is_encoder_decoder else network


def _read_tokenizer(place: str, config: Any, modules: dict[str, Any]) -> TextPreprocessing:
    from transformers import AutoTokenizer

    try:
        with _explained(place, "a tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(place, use_fast=True, **_how(place))
    except (ConnectionError, ImportError):
        raise
    except Exception as error:  # it may stop anywhere
        raise ValueError(
            f"Got backbone={PREFIX + place!r}, of which no tokenizer can be loaded ({_first_line(error)}); expected "
            "tokenizer.json beside config.json. Save the tokenizer into the folder: tokenizer.save_pretrained(FOLDER)."
        ) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not backend.get_vocab_size():
        raise ValueError(
            f"Got backbone={PREFIX + place!r} without a tokenizer that the package tokenizers can run; expected "
            "tokenizer.json beside config.json. Save the tokenizer into the folder: tokenizer.save_pretrained(FOLDER)."
        )
    settings = modules.get("settings", {})
    limits = [
        settings.get("max_seq_length"),
        tokenizer.model_max_length if tokenizer.model_max_length < 10**9 else None,
        _positions(config),
    ]
    known = [int(limit) for limit in limits if isinstance(limit, int) and limit > 0]
    vocabulary = int(config.vocab_size)
    if backend.get_vocab_size() > vocabulary:
        raise ValueError(
            f"Got backbone={PREFIX + place!r}, whose tokenizer knows {backend.get_vocab_size()} tokens and whose "
            f"network {vocabulary}; expected a tokenizer of this network."
        )
    return TextPreprocessing(
        backend.to_str(), min(known, default=512), vocabulary, bool(settings.get("do_lower_case", False))
    )


def _positions(config: Any) -> int | None:
    """Return how many positions a network was made for; RoBERTa and its kin count from behind the padding's number."""
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if not isinstance(positions, int) or positions <= 0:
        return None
    offset = (config.pad_token_id or 0) + 1 if config.model_type in _COUNTS_FROM_PADDING else 0
    return positions - offset


_COUNTS_FROM_PADDING = (
    "roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text", "xmod",
    "roberta-prelayernorm", "ibert", "mega", "flaubert",
)  # fmt: skip


def _read_extractor(place: str, argument: str) -> SoundPreprocessing:
    from transformers import AutoFeatureExtractor

    try:
        with _explained(place, "preprocessor_config.json"):
            extractor = AutoFeatureExtractor.from_pretrained(place, **_how(place))
    except (ConnectionError, ImportError):
        raise
    except Exception as error:  # it may stop anywhere
        raise ValueError(
            f"Got backbone={PREFIX + place!r}, of which no feature extractor can be loaded ({_first_line(error)}); "
            "expected preprocessor_config.json beside config.json. Save it into the folder: "
            "feature_extractor.save_pretrained(FOLDER)."
        ) from error
    return SoundPreprocessing.from_extractor(extractor, argument)


# Models of sentence-transformers


def _sentence_modules(place: str) -> dict[str, Any]:
    """Return what a model of sentence-transformers says besides: its modules, and the settings of its texts."""
    modules = _read_json(place, "modules.json")
    if modules is None:
        return {}
    return {"modules": modules, "settings": _read_json(place, "sentence_bert_config.json") or {}}


def _sentence_finish(place: str, described: dict[str, Any]) -> dict[str, Any] | None:
    if not described:
        return None
    poolings: list[str] = []
    normalize = False
    for module in described["modules"]:
        kind = str(module["type"]).rpartition(".")[2]
        if kind == "Pooling":
            poolings = _poolings(_read_json(place, f"{module['path']}/config.json") or {})
        elif kind == "Normalize":
            normalize = True
        elif kind != "Transformer":
            raise ValueError(
                f"Got backbone={PREFIX + place!r}, whose sentence vectors pass a module {module['type']!r}; expected "
                "Transformer, Pooling and Normalize. Give the folder of its Transformer alone, without modules.json."
            )
    if not poolings:
        return None
    return {"poolings": poolings, "normalize": normalize}


def _poolings(config: dict[str, Any]) -> list[str]:
    named = config.get("pooling_mode")
    wanted = [name for name, on in config.items() if name.startswith("pooling_mode_") and on is True]
    if named is not None:
        wanted = [named] if isinstance(named, str) else list(named)
    unknown = [name for name in wanted if name not in _SENTENCE_POOLINGS]
    if unknown or not wanted:
        raise ValueError(
            f"Got a model of sentence-transformers that pools by {unknown or config}; expected "
            f"{sorted(set(_SENTENCE_POOLINGS.values()))}. Give the folder of its Transformer, without modules.json."
        )
    return [_SENTENCE_POOLINGS[name] for name in wanted]


def _read_json(place: str, name: str) -> Any:
    """Return what a file of a model says, or `None` where it has no such file."""
    if _is_folder(place):
        file: Any = Path(place, name)
    else:
        from transformers.utils import cached_file

        with _explained(place, name):
            file = cached_file(place, name, _raise_exceptions_for_missing_entries=False)
    if file is None or not Path(file).is_file():
        return None
    return json.loads(Path(file).read_text(encoding="utf-8"))


# Weights


def _weight_files(place: str) -> list[Path]:
    """Return the files of a folder that hold weights."""
    if not _is_folder(place):
        return []
    return sorted(file for file in Path(place).iterdir() if file.suffix in (".safetensors", ".bin"))


def _load_weights(place: str, graph: Callable[[nn.Module], LayerGraph], config: dict[str, Any]) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    values = dict(config)
    built = AutoConfig.for_model(values.pop("model_type"), **values)
    with _explained(place, "weights"), _quiet():
        network, info = AutoModel.from_pretrained(
            place, config=built, dtype=torch.float32, output_loading_info=True, **_how(place)
        )
    network = _encoder(network).eval()
    used = graph(network).used_names()
    missing = sorted(name for name in info["missing_keys"] if name in used or name.removeprefix("encoder.") in used)
    if missing:
        raise ValueError(
            f"Got weights of {PREFIX + place!r} that lack {len(missing)} tensors of the network "
            f"({', '.join(missing[:5])}); expected all of them. Give the weights of this very architecture."
        )
    return network


# The library's manners


@contextmanager
def _explained(place: str, what: str) -> Iterator[None]:
    """Say in our words why a model cannot be read."""
    try:
        with _quiet():
            yield
    except Exception as error:  # the library raises what it pleases
        said = str(error)
        where = PREFIX + place
        if "trust_remote_code" in said or "custom code" in said:
            raise ValueError(
                f"Refused backbone={where!r}: it comes with code of its own, and loading it would run that code. "
                "Expected an architecture that transformers itself has. Use another model, or build this one yourself "
                "and give the module: backbone=MODULE."
            ) from error
        if not _is_folder(place) and _is_about_connection(error):
            raise ConnectionError(
                f"Could not fetch {what} of {where!r} ({_first_line(error)}). Where there is no network, download the "
                f'model on a machine that has one, and give its folder: backbone="hf:FOLDER". If the name is wrong, '
                "correct it."
            ) from error
        if what in ("a tokenizer", "preprocessor_config.json"):
            raise
        raise ValueError(
            f"Got backbone={where!r}, of which {what} cannot be loaded ({_first_line(error)}); expected a model that "
            "transformers can load."
        ) from error


def _is_about_connection(error: BaseException | None) -> bool:
    """Tell whether an error, or one behind it, is the network's or the hub's."""
    while error is not None:
        module = type(error).__module__
        if isinstance(error, ConnectionError | TimeoutError) or module.startswith(
            ("huggingface_hub", "httpx", "requests")
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's advice and progress bars to itself."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
