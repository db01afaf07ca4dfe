"""What a model of the transformers library says of itself, in a folder or on its hub, and how the library is asked.

Everything is read as data; code that comes with a model is never run.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sktransfer.backbones import _weights
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


# Reading what a model says of itself


def read_description(place: str) -> dict[str, Any]:
    """Return the architecture, the preprocessing and the end of a model, by the names of a source's fields."""
    from transformers import AutoConfig

    _check_place(place)
    with explained(place, "config.json"):
        config = AutoConfig.from_pretrained(place, **how(place))
    for name, value in _SETTINGS.items():
        if hasattr(config, name):
            setattr(config, name, value)
    values = config.to_diff_dict() | {"model_type": config.model_type}
    values = json.loads(json.dumps(values, default=str))
    network = _on_paper(config)
    argument = main_input(network)
    modules = _sentence_modules(place)
    if argument == "input_ids":
        prepared: Preprocessing = _read_tokenizer(place, network, config, modules)
    else:
        prepared = _read_extractor(place, argument)
    return {"config": values, "finish": _sentence_finish(place, modules), "prepared": prepared}


def _check_place(place: str) -> None:
    if not place:
        raise ValueError('Got backbone="hf:"; expected "hf:" and a name on the hub, or a folder.')
    looks_local = place.startswith((os.sep, ".")) or place.count("/") > 1
    if looks_local and not is_folder(place):
        raise FileNotFoundError(f"Got backbone={PREFIX + place!r}; expected a folder, and there is none at {place!r}.")
    if not is_folder(place):
        _check_hub(place)
    file = Path(place, "config.json")
    if is_folder(place) and not file.is_file():
        raise ValueError(
            f"Got backbone={PREFIX + place!r}, a folder without config.json; expected one that transformers has saved, "
            "with config.json, weights, and a tokenizer or preprocessor_config.json."
        )


def _check_hub(place: str) -> None:
    """Refuse a hub that is not asked by https: nobody on the way can read or change what comes by that."""
    from huggingface_hub import constants

    scheme = constants.ENDPOINT.partition(":")[0]
    if scheme not in _weights.SCHEMES and not constants.HF_HUB_OFFLINE:
        raise ValueError(
            f"Refused to fetch backbone={PREFIX + place!r} from {constants.ENDPOINT} (HF_ENDPOINT), which is asked by "
            f'{scheme}; expected https. Download the model by other means, and give its folder: backbone="hf:FOLDER".'
        )


def is_folder(place: str) -> bool:
    return Path(place).is_dir()


def how(place: str) -> dict[str, Any]:
    """Return how everything is loaded: without code from the model, and from a folder without asking the hub."""
    return {"trust_remote_code": False, "local_files_only": is_folder(place)}


def _on_paper(config: Any) -> nn.Module:
    """Return the network of a configuration without memory for its weights."""
    from transformers import AutoModel

    with torch.device("meta"), quiet():
        network: nn.Module = encoder(AutoModel.from_config(config))
    argument = main_input(network)
    if argument not in ("input_ids", "input_values", "input_features"):
        raise ValueError(
            f"Got a {type(network).__name__}, which takes {argument}; expected a network for texts or sounds. Networks "
            'for images come by name from torchvision, and as "timm:NAME" from timm.'
        )
    return network


def main_input(network: Any) -> str:
    return str(network.main_input_name)


def encoder(network: Any) -> Any:
    """Return what makes hidden states of samples: of an encoder and a decoder, the encoder."""
    return network.get_encoder() if network.config.is_encoder_decoder else network


def _read_tokenizer(place: str, network: nn.Module, config: Any, modules: dict[str, Any]) -> TextPreprocessing:
    from transformers import AutoTokenizer

    try:
        with explained(place, "a tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(place, use_fast=True, **how(place))
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
        _positions(network, config),
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


def _positions(network: nn.Module, config: Any) -> int | None:
    """Return how many positions a network has; RoBERTa and its kin count from behind the padding's number."""
    for module in network.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, nn.Embedding):
            return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return positions if isinstance(positions, int) and positions > 0 else None


def _read_extractor(place: str, argument: str) -> SoundPreprocessing:
    from transformers import AutoFeatureExtractor

    try:
        with explained(place, "preprocessor_config.json"):
            extractor = AutoFeatureExtractor.from_pretrained(place, **how(place))
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
    if is_folder(place):
        file: Any = Path(place, name)
    else:
        from transformers.utils import cached_file

        with explained(place, name):
            file = cached_file(place, name, _raise_exceptions_for_missing_entries=False)
    if file is None or not Path(file).is_file():
        return None
    return json.loads(Path(file).read_text(encoding="utf-8"))


# The library's manners


@contextmanager
def explained(place: str, what: str) -> Iterator[None]:
    """Say in our words why a model cannot be read."""
    try:
        with quiet():
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
        if not is_folder(place) and _is_about_connection(error):
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
def quiet() -> Iterator[None]:
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
