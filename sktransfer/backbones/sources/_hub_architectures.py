"""The architecture of a model of transformers, of a description that anybody may have written.

The library builds what is left when names of code and of other places are dropped, and first without memory.
"""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from sktransfer._messages import first_line, shown
from sktransfer.backbones.sources._hub_files import ModelFiles, explained

# Settings that name code, files or kernels to be fetched, or that say how to load and to answer.
DROPPED = frozenset((
    "adapter_kwargs", "allow_all_kernels", "auto_map", "base_model_name_or_path", "configuration_files",
    "custom_generate", "custom_pipelines", "device_map", "distributed_config", "dtype", "extra_config_files",
    "extra_files", "fusion_config", "kernel_config", "name_or_path", "output_attentions", "output_hidden_states",
    "quantization_config", "return_dict", "sub_configs", "sub_configs_defaults", "attribute_map", "torch_dtype",
    "torchscript", "transformers_weights", "trust_remote_code", "use_kernels",
))  # fmt: skip
# Settings of networks that begin as private ones do.
_NOT_PRIVATE = ("_remove_final_layer_norm",)

# Names of settings that count layers and their like; the most that are believed, here and in lists, and elsewhere.
_COUNTS = ("layer", "block", "depth", "stage", "expert", "head", "group", "repeat", "codebook", "quantizer", "adapter")
_MOST_COUNTED = 100_000
_MOST = 10**12
# The most modules of a network, and the most places of a text. Real ones have less than a tenth.
_MOST_MODULES = 50_000
_MOST_POSITIONS = 2**24

# What a network may take of a sample.
_TAKEN = ("input_ids", "input_values", "input_features", "pixel_values")
_PICTURES = "pixel_values"
# Names of the networks for pictures and for texts in models that have one of each, by what X holds.
_TOWERS = {"image": ("vision_model", "image_model"), "text": ("text_model",)}
# Settings of networks that find objects: their hidden states stand for objects, not for pictures.
_QUERIES = ("num_queries", "num_detection_tokens")


def without_code(value: Any) -> Any:
    """Return a description without what names code, kernels or other places, at any depth.

    Parameters
    ----------
    value : object
        A description, or a part of it.

    Returns
    -------
    object
        The same, without what is left out.
    """
    if isinstance(value, Mapping):
        return {name: without_code(held) for name, held in value.items() if not _is_dropped(str(name))}
    return [without_code(held) for held in value] if isinstance(value, list | tuple) else value


def _is_dropped(name: str) -> bool:
    from transformers import PreTrainedConfig

    private = name.startswith("_") and name not in _NOT_PRIVATE
    chooses = "attn_implementation" in name or "experts_implementation" in name
    return private or chooses or name in DROPPED or callable(getattr(PreTrainedConfig, name, None))


def read_config(files: ModelFiles) -> Any:
    values = files.json("config.json")
    if values is None and files.find("adapter_config.json") is not None:
        raise ValueError(
            f"Got backbone={files}, which holds an adapter (LoRA or the like) without the network that it belongs to; "
            "expected a whole model. Merge them first: model.merge_and_unload().save_pretrained(FOLDER), and save the "
            "tokenizer there too."
        )
    if values is None:
        files.find("config.json", required=True)
        raise ValueError(
            f"Got backbone={files}, a folder without config.json; expected one that transformers has saved, "
            "with config.json, weights, and a tokenizer or preprocessor_config.json."
        )
    quantized = values.get("quantization_config") or values.get("compression_config")
    if quantized:
        method = quantized.get("quant_method") if isinstance(quantized, Mapping) else quantized
        raise ValueError(
            f"Got backbone={files}, whose weights are quantized ({shown(method)}); expected float weights. "
            "Give the model that they were made of."
        )
    return build_config(values, files)


def build_config(values: Mapping[str, Any], files: ModelFiles) -> Any:
    """Return the library's description of a network of values that anybody may have written.

    Parameters
    ----------
    values : mapping
        As in config.json.
    files : ModelFiles
        Files of the model, used in error messages.

    Returns
    -------
    transformers.PreTrainedConfig
        Of a network for texts, sounds or pictures that transformers itself has.

    Raises
    ------
    ValueError
        If there is no such network here, or a number in it is not a size.
    """
    kind = values.get("model_type")
    _check_kind(kind, values, files)
    from transformers import CONFIG_MAPPING

    plain = without_code({name: value for name, value in values.items() if name != "model_type"})
    _check_numbers(plain, files)
    with explained(files, "config.json"):
        return CONFIG_MAPPING[kind].from_dict(plain)


def _check_kind(kind: Any, values: Mapping[str, Any], files: ModelFiles) -> None:
    import transformers
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    wanted = "expected a network for texts, sounds or pictures"
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        if values.get("auto_map"):
            raise ValueError(
                f"Refused backbone={files}: it comes with code of its own, and loading it would run that code. "
                "Expected an architecture that transformers itself has. Use another model, or build this one yourself "
                "and give the module: backbone=MODULE."
            )
        raise ValueError(
            f"Got backbone={files}, whose config.json has model_type={shown(kind)}; expected one that transformers "
            f"{transformers.__version__} knows. Correct it, or upgrade: pip install --upgrade transformers."
        )
    try:
        config_class = CONFIG_MAPPING[kind]
        found = MODEL_MAPPING.get(config_class, None)
        classes = found if isinstance(found, list | tuple) else [found]
        main = classes[0] and str(classes[0].main_input_name)
    except Exception as error:  # what a kind needs may not be installed
        raise ValueError(
            f"Got backbone={files}, a model of type {kind!r}, which transformers {transformers.__version__} cannot "
            f"build here ({first_line(error)}); {wanted} that it can. Give another model."
        ) from error
    if main is None:
        raise ValueError(
            f"Got backbone={files}, a model of type {kind!r}: transformers makes no plain network of it "
            f"(AutoModel); {wanted} that it does, such as BERT or wav2vec2. Give another model."
        )
    parameters = {name for one in classes for name in signature(one.forward).parameters}
    taken = [name for name in _TAKEN if name in parameters]
    if _PICTURES in taken and len(taken) > 1:
        if not hasattr(classes[0], "get_text_features"):
            raise ValueError(
                f"Got backbone={files}, a model of type {kind!r} for pictures together with other samples; {wanted} "
                "alone, or with one network for each, such as CLIP. Give the network for pictures that it was made of."
            )
    elif main in _TAKEN and len(taken) > 1:
        raise ValueError(
            f"Got backbone={files}, a model of type {kind!r}, which takes {' and '.join(taken)} together; "
            f"{wanted} alone. Give a model for one of them."
        )
    elif main not in _TAKEN:
        raise ValueError(f"Got backbone={files}, a model of type {kind!r}, which takes {shown(main)}; {wanted}.")
    if _PICTURES in taken:
        _check_pictures(kind, values, files)


def _check_pictures(kind: str, values: Mapping[str, Any], files: ModelFiles) -> None:
    """Refuse networks that find objects, and those that take a part from elsewhere."""
    from transformers import CONFIG_MAPPING

    wanted = "expected a network that describes whole pictures, such as ViT, DINOv2 or ConvNeXt"
    usual = CONFIG_MAPPING[kind]
    if getattr(usual, "is_encoder_decoder", False) or any(name in values or hasattr(usual, name) for name in _QUERIES):
        raise ValueError(
            f"Got backbone={files}, a model of type {kind!r} that finds objects or regions; {wanted}. Give the network "
            "that it was made of."
        )
    if _takes_from_elsewhere(values):
        raise ValueError(
            f"Got backbone={files}, a model of type {kind!r} that takes a part of its network from timm or another "
            f'model; {wanted}. Give that part by its own name, such as backbone="timm:NAME".'
        )


def _takes_from_elsewhere(value: Any) -> bool:
    if isinstance(value, Mapping):
        if str(value.get("model_type")) in ("timm_backbone", "timm_wrapper"):
            return True
        if any(value.get(name) for name in ("use_timm_backbone", "use_pretrained_backbone", "backbone")):
            return True
        return any(map(_takes_from_elsewhere, value.values()))
    return isinstance(value, list | tuple) and any(map(_takes_from_elsewhere, value))


def towers_of(network: Any) -> dict[str, str]:
    """Return the networks for pictures and for texts that a model has side by side.

    Parameters
    ----------
    network : nn.Module
        As `on_paper` returns it.

    Returns
    -------
    dict of str to str
        Their names in the model, by `"image"` and `"text"`; empty where it is one network.
    """
    if not hasattr(network, "get_text_features"):
        return {}
    return {
        tower: next(name for name in names if hasattr(network, name))
        for tower, names in _TOWERS.items()
        if any(hasattr(network, name) for name in names)
    }


def _check_numbers(value: Any, files: ModelFiles, name: str = "", most: int = _MOST) -> None:
    """Refuse numbers that no network has: lists as long are made of some before there is anything to look at."""
    if isinstance(value, Mapping):
        for key, held in value.items():
            _check_numbers(held, files, str(key), _most_of(str(key)))
    elif isinstance(value, list | tuple):
        for held in value:
            _check_numbers(held, files, name, min(most, 1_000_000))
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > most:
        number = value if abs(value) < 10**20 else "a number of more than 20 digits"
        raise ValueError(
            f"Got backbone={files}, whose config.json says {shown(name)}: {number}; expected at most {most}. "
            "Correct it, or download the model again."
        )


def _most_of(name: str) -> int:
    if "position" in name:
        return _MOST_POSITIONS
    return _MOST_COUNTED if any(counted in name for counted in _COUNTS) else _MOST


def on_paper(config: Any, files: ModelFiles, tower: str = "auto") -> nn.Module:
    """Return the network of a configuration without memory for its weights.

    Parameters
    ----------
    config : transformers.PreTrainedConfig
        As `build_config` returns it.
    files : ModelFiles
        Files of the model, used in error messages.
    tower : {"image", "text", "auto"}, default="auto"
        Which of two networks is wanted of it.

    Returns
    -------
    nn.Module
        On the device "meta", whole.

    Raises
    ------
    ValueError
        If it cannot be built, or would have more modules than any network has.
    """
    from transformers import AutoModel

    with explained(files, "config.json"), torch.device("meta"), _few_modules():
        network: nn.Module = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
    argument = main_input(encoder(network, tower))
    if argument not in _TAKEN:
        raise ValueError(
            f"Got backbone={files}, a {type(network).__name__}, which takes {shown(argument)}; expected a network "
            "for texts, sounds or pictures."
        )
    return network


@contextmanager
def _few_modules() -> Iterator[None]:
    """Stop whoever puts together a network of more modules than any has, in this thread."""
    thread, count = threading.get_ident(), 0

    def look(*_: Any) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > _MOST_MODULES:
            raise ValueError(f"a network of more than {_MOST_MODULES} modules")

    hook = register_module_module_registration_hook(look)
    try:
        yield
    finally:
        hook.remove()


def count_values(network: nn.Module) -> int:
    """Return how many numbers the parameters of a network are.

    Parameters
    ----------
    network : nn.Module
        On any device.

    Returns
    -------
    int
        Shared ones count once.
    """
    return sum(parameter.numel() for parameter in network.parameters())


def check_memory(network: nn.Module, files: ModelFiles) -> None:
    """Refuse to build a network that this machine cannot hold.

    Parameters
    ----------
    network : nn.Module
        As `on_paper` returns it.
    files : ModelFiles
        Files of the model, used in error messages.

    Raises
    ------
    ValueError
        If its float32 parameters alone are more than the machine's memory.
    """
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return
    needed, there = 4 * count_values(network), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there > 0:
        raise ValueError(
            f"Got backbone={files}, whose config.json describes {count_values(network)} parameters, "
            f"{needed / 2**30:.0f} GiB; expected at most the {there / 2**30:.0f} GiB of memory of this machine. "
            "Give a smaller network."
        )


def main_input(network: Any) -> str:
    """Return the name under which a network takes samples; some for pictures have that of texts."""
    name = str(getattr(network, "main_input_name", None))
    parameters = signature(network.forward).parameters
    return name if name in parameters or _PICTURES not in parameters else _PICTURES


def encoder(network: Any, tower: str = "auto") -> Any:
    """Return what makes hidden states of samples: of an encoder and a decoder, the encoder; of two towers, one."""
    towers = towers_of(network)
    if tower in towers:
        return getattr(network, towers[tower])
    # Descriptions of encoders that were saved alone say that there is no decoder, and the library builds one.
    both = all(isinstance(getattr(network, part, None), nn.Module) for part in ("encoder", "decoder"))
    return network.get_encoder() if network.config.is_encoder_decoder or both else network
