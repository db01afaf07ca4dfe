"""Unwrap networks that come in wrappers of other libraries where that is safe, and refuse the others.

What a wrapping is called is looked up in the classes that the object has, so that no optional library is imported.
"""

import os
from enum import Enum
from typing import Any

import torch
from torch import nn

from sktransfer._messages import shown

# How each kind of network is given instead, by a class that it has and the package that class comes from.
_ADVICE = {
    ("peft", "PeftModel"): (
        "Merge the adapter into the network, network = backbone.merge_and_unload(), and give that; a network of "
        'transformers as a folder: network.save_pretrained(FOLDER), tokenizer.save_pretrained(FOLDER), "hf:FOLDER".'
    ),
    ("sentence_transformers", "SentenceTransformer"): 'Save it, backbone.save(FOLDER), and give backbone="hf:FOLDER".',
    ("transformers", "PreTrainedModel"): (
        "Save it with its tokenizer or feature extractor, backbone.save_pretrained(FOLDER) and "
        'tokenizer.save_pretrained(FOLDER), and give backbone="hf:FOLDER". For images take a network of torchvision '
        'or timm: "resnet50", "timm:NAME".'
    ),
    ("torch", "ScriptModule"): "Give the Python network that it was made from, before torch.jit.script or trace.",
}


def unwrap_network(network: nn.Module) -> nn.Module:
    """Take off what only spreads or compiles a network, and refuse what cannot be cut, copied or computed with.

    Parameters
    ----------
    network : nn.Module
        As it was given.

    Returns
    -------
    nn.Module
        Itself, or the network in `DataParallel`, `DistributedDataParallel` or what `torch.compile` returns.

    Raises
    ------
    ValueError
        If it is a network of another library, scripted, without values (on the meta device, not yet initialised), or
        its parameters are not float32.
    """
    while True:
        if isinstance(network, nn.DataParallel | nn.parallel.DistributedDataParallel):
            network = network.module
        elif isinstance(inner := getattr(network, "_orig_mod", None), nn.Module):
            network = inner
        else:
            break
    for module in network.modules():
        names = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(module).__mro__}
        for library, name in names.intersection(_ADVICE):
            if module is network or library == "torch":
                raise ValueError(
                    f"Got a {type(module).__name__} of {library} as backbone, or in it; expected a plain "
                    f"torch.nn.Module. {_ADVICE[library, name]}"
                )
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        _check_tensor(name, tensor, type(network).__name__)
    return network


def _check_tensor(name: str, tensor: torch.Tensor, network: str) -> None:
    if isinstance(tensor, (nn.UninitializedParameter, nn.UninitializedBuffer)):
        raise ValueError(
            f"Got a {network} as backbone whose {name!r} has no shape yet; expected a network whose layers are all "
            "initialised. Run one batch through it first, or give its lazy layers their sizes."
        )
    if tensor.device.type == "meta":
        raise ValueError(
            f"Got a {network} as backbone whose {name!r} is on the meta device, without values; expected weights. Load "
            'them first: network.to_empty(device="cpu"), then network.load_state_dict(...).'
        )
    computed = tensor.is_floating_point() or tensor.is_complex() or tensor.is_quantized
    if computed and tensor.dtype != torch.float32 and isinstance(tensor, nn.Parameter):
        raise ValueError(
            f"Got a {network} as backbone whose {name!r} is of {tensor.dtype}; expected float32. Give "
            'network.float(). To compute in bfloat16, set precision="bfloat16".'
        )


def refuse_other(backbone: Any) -> None:
    """Refuse what is not a name, network or function, and names that are written differently here.

    Parameters
    ----------
    backbone : object
        As it was given.

    Raises
    ------
    ValueError
        If it is something else, such as a `state_dict`, or a name as others write it.
    """
    if isinstance(backbone, Enum) or (isinstance(backbone, type) and issubclass(backbone, Enum)):
        # torchvision's weights, or a choice of somebody's own whose value is the name
        backbone = backbone.__name__ if isinstance(backbone, type) else str(backbone)
    if isinstance(backbone, str | os.PathLike):
        from sktransfer.backbones.sources._other_names import refuse_other_names  # which a known name has no need of

        refuse_other_names(backbone)
        return
    if callable(backbone):
        return
    if isinstance(backbone, dict) and backbone and all(isinstance(v, torch.Tensor) for v in backbone.values()):
        raise ValueError(
            f"Got a dict of {len(backbone)} tensors, such as {next(iter(backbone))!r}, as backbone: a state_dict; "
            "expected the network that its weights belong to. Save them, torch.save(state_dict, PATH), and give the "
            "network's name and the path: backbone=NAME, weights=PATH. Or fill your own network: "
            "network.load_state_dict(...)."
        )
    raise ValueError(
        f"Got backbone={shown(backbone)} of type {type(backbone).__name__}; expected a name, a torch.nn.Module, "
        "or a function that returns one."
    )
