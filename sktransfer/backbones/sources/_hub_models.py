"""What a model of the transformers library says of itself, in a folder or on its hub, and how the library is asked.

Everything is read as data, and the library sees what is left when names of code and of other places are dropped.
"""

import copy
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from sktransfer._messages import shown
from sktransfer.backbones.sources._hub_architectures import (
    DROPPED,
    encoder,
    main_input,
    on_paper,
    read_config,
    without_code,
)
from sktransfer.backbones.sources._hub_files import (
    MOST_BYTES_OF_A_TOKENIZER,
    ModelFiles,
    check_place,
    explained,
)
from sktransfer.backbones.sources._hub_pictures import read_processor
from sktransfer.backbones.sources._hub_towers import choose_tower, other_tower_named, reads_padding
from sktransfer.backbones.sources._sentence_models import SentenceModel
from sktransfer.inputs import SoundPreprocessing, TextPreprocessing
from sktransfer.inputs._base import Preprocessing

# Settings that would make a network remember, skip layers or hide parts of a sample at random.
_SETTINGS = {
    "use_cache": False, "layerdrop": 0.0, "encoder_layerdrop": 0.0, "apply_spec_augment": False, "mask_ratio": 0.0,
}  # fmt: skip

# Files of a tokenizer beside tokenizer.json, and those that stand in for it.
_VOCABULARIES = (
    "vocab.txt", "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model", "spm.model",
    "sentencepiece.model", "tiktoken.model", "bpe.codes",
)  # fmt: skip
# Settings of a tokenizer that are words.
_TOKENIZER_WORDS = ("tokenizer_class", "padding_side", "truncation_side", "errors", "language", "src_lang", "tgt_lang")
# Texts by which a tokenizer is compared with its record: short, long, with marks and none at all.
_TRIED = ["a photo of a cat", "Is this a Dog?  It's (very) NEW!", "", "one good film and another, " * 200]
_TOKENIZER_ADVICE = "Save the tokenizer into the folder: tokenizer.save_pretrained(FOLDER)."


def read_description(place: str, tower: str = "auto") -> dict[str, Any]:
    """Return the architecture, the preprocessing and the end of a model, by the names of a source's fields."""
    files = ModelFiles.named(place)
    check_place(files)
    files = files.pinned()
    model = SentenceModel.read(files)
    files = model.files
    config = read_config(files)
    for name, value in _SETTINGS.items():
        if hasattr(config, name):
            setattr(config, name, value)
    with explained(files, "config.json"):
        values = config.to_diff_dict() | {"model_type": config.model_type}
        values = json.loads(json.dumps(without_code(values), default=str))
    whole = on_paper(config, files, tower)
    tower = choose_tower(whole, tower, files)
    network = encoder(whole, tower)
    with other_tower_named(tower, whole):
        filled = tower == "text" and reads_padding(network)
        prepared, finish = _read_samples(files, model, config, network, filled)
    return {
        "config": values, "finish": finish, "prepared": prepared, "below": files.below, "commit": files.commit,
        "tower": tower,
    }  # fmt: skip


def _read_samples(
    files: ModelFiles, model: SentenceModel, config: Any, network: Any, filled: bool
) -> tuple[Preprocessing, dict[str, Any] | None]:
    """Return how samples are prepared, and the settings of what follows the network."""
    argument = main_input(network)
    if argument == "input_ids":
        texts = _read_tokenizer(files, network, config, model, filled)
        width = getattr(network.config, "hidden_size", None)
        return texts, model.finish(texts.prompt_tokens, width if isinstance(width, int) else None)
    if model.poolings:
        raise ValueError(
            f"Got backbone={files}, a model of sentence-transformers around a {type(network).__name__}, which takes "
            f"{argument}; expected one for texts. Give the folder of its Transformer alone, without modules.json."
        )
    if argument == "pixel_values":
        prepared, reverse = read_processor(files, config)
        return prepared, {"reverse": reverse}
    return _read_extractor(files, config, argument), None


# Tokenizers


def _read_tokenizer(
    files: ModelFiles, network: Any, config: Any, model: SentenceModel, filled: bool
) -> TextPreprocessing:
    tokenizer = _load_tokenizer(files, config)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or not backend.get_vocab_size():
        raise _no_tokenizer(files, str(config.model_type))
    vocabulary = getattr(network.config, "vocab_size", None)
    if not isinstance(vocabulary, int) or not 1 < vocabulary < 2**31:
        raise ValueError(
            f"Got backbone={files}, whose config.json says vocab_size: {shown(vocabulary)}; expected how many "
            "tokens the network knows. Correct it, or download the model again."
        )
    if backend.get_vocab_size() > vocabulary:
        raise ValueError(
            f"Got backbone={files}, whose tokenizer knows {backend.get_vocab_size()} tokens and whose "
            f"network {vocabulary}; expected a tokenizer of this network. {_TOKENIZER_ADVICE}"
        )
    longest = getattr(tokenizer, "model_max_length", None)
    limits = [
        model.max_length,
        longest if isinstance(longest, int) and longest < 10**9 else None,
        _positions(network, network.config),
    ]
    known = [limit for limit in limits if isinstance(limit, int) and limit > 0]
    limit = min(known, default=512)
    prepared = TextPreprocessing(backend.to_str(), limit, vocabulary, model.lower_case, model.prompt)
    if limit < prepared.least_length:
        raise ValueError(
            f"Got backbone={files}, which takes texts of {limit} tokens, {prepared.least_length - 1} of them special "
            f"ones or of the prompt; expected at least {prepared.least_length}. Correct max_seq_length, "
            "model_max_length or max_position_embeddings in its files."
        )
    return _filled(prepared, tokenizer, files) if filled else prepared


def _filled(prepared: TextPreprocessing, tokenizer: Any, files: ModelFiles) -> TextPreprocessing:
    """Return a record that fills texts up as the library does with `padding="max_length"`."""
    number = getattr(tokenizer, "pad_token_id", None)
    if not isinstance(number, int) or not 0 <= number < prepared.vocabulary:
        raise ValueError(
            f"Got backbone={files}, whose network for texts reads {prepared.max_length} tokens of each text, padding "
            f"included, and whose tokenizer has pad_token_id={shown(number)}; expected a padding token that the "
            f"network knows. {_TOKENIZER_ADVICE}"
        )
    record = replace(prepared, pad_token=number, pads_left=tokenizer.padding_side == "left")
    with explained(files, "tokenizer", _TOKENIZER_ADVICE):
        wanted = tokenizer(_TRIED, padding="max_length", truncation=True, max_length=record.max_length)["input_ids"]
    if record.encode(_TRIED, record.max_length) != wanted:
        raise ValueError(
            f"Got backbone={files}, whose tokenizer ({type(tokenizer).__name__}) fills texts up in a way that "
            f'sktransfer does not; expected {record.max_length} tokens, as with padding="max_length". '
            f"{_TOKENIZER_ADVICE}"
        )
    return record


def _load_tokenizer(files: ModelFiles, config: Any) -> Any:
    """Return the library's tokenizer, of tokenizer.json where there is one."""
    settings = _tokenizer_settings(files, config)
    if files.find("tokenizer.json") is None:
        return _tokenizer_of(_VOCABULARIES, settings, files, config)
    named = settings.get("tokenizer_config.json", {})
    if not _ignores_json(named.get("tokenizer_class"), config):
        return _tokenizer_of(["tokenizer.json"], settings, files, config)
    # It does not look at tokenizer.json. Where it can be loaded, it has to find the same tokens.
    plain = {"tokenizer_config.json": {**named, "tokenizer_class": "PreTrainedTokenizerFast"}}
    tokenizer = _tokenizer_of(["tokenizer.json"], {**settings, **plain}, files, config)
    try:
        other = _tokenizer_of(_VOCABULARIES, settings, files, config)
    except (ValueError, OSError):
        return tokenizer
    if any(tokenizer(text)["input_ids"] != other(text)["input_ids"] for text in _TRIED):
        raise ValueError(
            f"Got backbone={files}, whose tokenizer.json finds other tokens in a text than its own tokenizer "
            f"({type(other).__name__}); expected the same. Convert the tokenizer again, or give another model."
        )
    return tokenizer


def _tokenizer_of(names: Iterable[str], settings: Mapping[str, Any], files: ModelFiles, config: Any) -> Any:
    """Return the library's tokenizer of copies of these files, with settings that name only tokens.

    The library opens, and imports, what tokenizer_config.json names; so it is shown a folder that was made here.
    """
    from transformers import AutoTokenizer

    found = {name: files.read(name, MOST_BYTES_OF_A_TOKENIZER) for name in names}
    if "tokenizer.json" in found:
        files.json("tokenizer.json", most=MOST_BYTES_OF_A_TOKENIZER)  # says what is wrong with it
    contents = {name: content for name, content in found.items() if content is not None}
    if not contents:
        raise _no_tokenizer(files, str(config.model_type))
    with tempfile.TemporaryDirectory() as folder:
        for name, content in contents.items():
            Path(folder, name).write_bytes(content)
        for name, value in settings.items():
            Path(folder, name).write_text(json.dumps(value), encoding="utf-8")
        config = copy.deepcopy(config)
        config.name_or_path = files.place  # some tokenizers of known models are mended by their name
        with explained(files, "tokenizer", _TOKENIZER_ADVICE):
            return AutoTokenizer.from_pretrained(folder, config=config, trust_remote_code=False, local_files_only=True)


def _no_tokenizer(files: ModelFiles, kind: str) -> ValueError:
    files.expect_all("the tokenizer")
    if "clusters" in (files.json("preprocessor_config.json") or {}):
        return ValueError(
            f"Got backbone={files}, a model of type {kind!r}, which takes pictures as rows of numbered colours, one "
            "number for each pixel; expected a network for pictures that takes their values (pixel_values), such as "
            "ViT or DINOv2. Give such a model."
        )
    return ValueError(
        f"Got backbone={files} without a tokenizer that the package tokenizers can run; expected "
        f"tokenizer.json beside config.json. {_TOKENIZER_ADVICE} Models of bytes, such as ByT5, have none."
    )


def _tokenizer_settings(files: ModelFiles, config: Any) -> dict[str, Any]:
    """Return what the small files of a tokenizer say of tokens, by name of the file."""
    settings: dict[str, Any] = {}
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        values = files.json(name)
        if values is not None and name == "added_tokens.json":
            settings[name] = {token: number for token, number in values.items() if isinstance(number, int)}
        elif values is not None:
            settings[name] = {key: value for key, value in values.items() if _is_about_tokens(key, value)}
    named = settings.get("tokenizer_config.json", {})
    if "tokenizer_class" in named and not _is_tokenizer(named["tokenizer_class"]):
        del named["tokenizer_class"]
    if not _is_tokenizer(getattr(config, "tokenizer_class", None)):
        config.tokenizer_class = None
    return settings


def _is_about_tokens(key: str, value: Any) -> bool:
    if key in DROPPED or key.startswith("_") or key in ("local_files_only", "is_local", "use_fast"):
        return False
    if key.endswith(("_token", "_tokens")) or key == "added_tokens_decoder":
        return True
    return (
        value is None or isinstance(value, bool | int | float) or (key in _TOKENIZER_WORDS and isinstance(value, str))
    )


def _is_tokenizer(name: Any) -> bool:
    """Tell whether a name is that of one of the library's tokenizers, or of nothing: whatever it names is loaded."""
    import transformers
    from transformers import PreTrainedTokenizerBase

    if not isinstance(name, str) or not name.isidentifier():
        return False
    found = [getattr(transformers, one, None) for one in (name, name.removesuffix("Fast"), name + "Fast")]
    return all(one is None or (isinstance(one, type) and issubclass(one, PreTrainedTokenizerBase)) for one in found)


def _ignores_json(name: Any, config: Any) -> bool:
    """Tell whether the tokenizer of this name, or else of this kind of network, does not look at tokenizer.json.

    So it is too where the package that the kind's tokenizer needs is not installed.
    """
    import transformers
    from transformers import TOKENIZER_MAPPING, PreTrainedTokenizerBase, PreTrainedTokenizerFast

    kind = type(config)
    known = getattr(transformers, name, None) if isinstance(name, str) else TOKENIZER_MAPPING.get(kind, None)
    if not isinstance(known, type) or not issubclass(known, PreTrainedTokenizerBase):
        return known is None and kind in TOKENIZER_MAPPING
    return not issubclass(known, PreTrainedTokenizerFast)


def _positions(network: nn.Module, config: Any) -> int | None:
    """Return how many positions a network has; RoBERTa and its kin count from behind the padding's number."""
    for module in network.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, nn.Embedding):
            return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return positions if isinstance(positions, int) and positions > 0 else None


# Feature extractors


def _read_extractor(files: ModelFiles, config: Any, argument: str) -> SoundPreprocessing:
    from transformers import FEATURE_EXTRACTOR_MAPPING

    around = files.json("processor_config.json") or {}
    values = around.get("feature_extractor") or files.json("preprocessor_config.json")
    advice = "Save it into the folder: feature_extractor.save_pretrained(FOLDER)."
    if not isinstance(values, dict):
        files.expect_all("preprocessor_config.json")
        raise ValueError(
            f"Got backbone={files} without a feature extractor; expected preprocessor_config.json beside config.json. "
            f"{advice}"
        )
    name = values.get("feature_extractor_type") or getattr(config, "feature_extractor_type", None)
    with explained(files, "preprocessor_config.json", advice):
        if name is None and type(config) in FEATURE_EXTRACTOR_MAPPING:
            name = FEATURE_EXTRACTOR_MAPPING[type(config)].__name__
        settings = {key: value for key, value in values.items() if key not in DROPPED and not key.startswith("_")}
        return SoundPreprocessing.from_settings(name, settings, argument)
