"""Names of networks as people write them elsewhere: each is answered with the `backbone=` that means it here.

Names in another form are refused, and nothing is asked over a network. A name is recognised by its form, by the
files of this machine, and by the names that torchvision, timm and transformers know, as far as they are installed.
"""

import json
import os
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sktransfer._messages import nearest, shown
from sktransfer.backbones.sources._known_names import known_elsewhere, of_clip, of_family

# How a prefix is written: ours, and those of timm and of others. Of one letter it is a drive.
_PREFIXES = re.compile(
    r"\s*(hf|timm|hf[-_ ]?hub|hub|hugging[-_ ]?face|transformers|sentence[-_ ]?transformers|torchvision|keras)\s*:(.*)",
    re.IGNORECASE | re.DOTALL,
)
# Prefixes and modules of other libraries, behind which a name of a network may stand.
_LIBRARIES = re.compile(
    r"(clip|efficientnet_pytorch|fastai|flax|gluon|gluoncv|jax|mmcls|mmpretrain|mxnet|ollama|onnx|open[-_ ]?clip|"
    r"paddle|pytorch|pretrainedmodels|smp|segmentation_models|tensorflow|tf|tfhub|torch|torch\.?hub)\s*:\s*(.+)",
    re.IGNORECASE,
)
_MODULES = (
    "fastai",
    "keras",
    "models",
    "nn",
    "tensorflow",
    "tf",
    "timm",
    "torch",
    "torchvision",
    "transformers",
    "vision",
)
_WEIGHTS_OF = re.compile(r"(?:[\w.]*\.)?(\w+?)_(?:Quantized)?Weights(?:\.(\w+))?")
_CALL = re.compile(r"([\w.]+)\(\s*(?:['\"]([^'\"]+)['\"])?[^()]*\)")

# The folder in which the hub's own client keeps a model.
_KEPT = re.compile(r"(?:.*[/\\])?models--([^/\\]+?)(?:--([^/\\]+))?(?:[/\\].*)?", re.DOTALL)
# Who is known by networks in torch.hub, where names look alike.
_TORCH_HUB = ("facebookresearch", "huggingface", "intel-isl", "nvidia", "pytorch", "snakers4", "ultralytics")

_HUBS = ("huggingface.co", "hf.co", "www.huggingface.co")

# Endings of files with a network or its weights.
_WEIGHTS = (".pth", ".pt", ".safetensors", ".bin", ".ckpt", ".tar", ".npz", ".pkl", ".msgpack")
_NETWORKS = (".onnx", ".h5", ".keras", ".pb", ".tflite", ".mlmodel", ".gguf", ".torchscript")

# Families whose first models stand on the hub without an owner; words with which sentence-transformers' own names
# begin; and words with which other names on the hub do, where transformers is not there to say it.
_WITHOUT_OWNER = (
    "albert", "bert", "camembert", "ctrl", "distilbert", "distilgpt2", "distilroberta", "gpt2", "openai-gpt", "roberta",
    "t5", "transfo-xl", "xlm-roberta", "xlm-mlm", "xlm-clm", "xlnet",
)  # fmt: skip
_SENTENCES = (
    "all", "distiluse", "gtr-t5", "labse", "msmarco", "multi-qa", "nli", "paraphrase", "quora", "sentence-t5", "stsb",
)  # fmt: skip
_OF_THE_HUB = (
    "bart", "beit", "bge", "bloom", "clip", "data2vec", "deberta", "deit", "dinov2", "dinov3", "e5", "electra", "gemma",
    "gte", "hubert", "llama", "minilm", "mistral", "mpnet", "opt", "phi", "qwen2", "qwen3", "siglip", "siglip2", "vit",
    "wav2vec2", "wavlm", "whisper", "xlm",
)  # fmt: skip

_HUB = 'a name of the Hugging Face Hub; expected "hf:" in front of it. Write backbone={}.'
_TIMM = 'a name of timm; expected "timm:" in front of it. Write backbone={}.'
_TORCHVISION = "expected {1!r}, as torchvision writes it. Write backbone={0}."
_ADDRESS = "an address; expected the name of the model. Write backbone={}."
_FAMILY = "a family of networks; expected the name of one. Write backbone={}, or the name of another."
_KEPT_FOLDER = "a folder in which the hub's client keeps a model; expected its name. Write backbone={}."
_FOLDER = 'a folder of a model; expected "hf:" in front of it. Write backbone={}.'


def refuse_other_names(backbone: str | os.PathLike[str]) -> None:
    """Refuse a name, a path or an address that is written otherwise here.

    Parameters
    ----------
    backbone : str or path-like
        As it was given.

    Raises
    ------
    ValueError
        With what to write. What means nothing that is known passes: whoever looks for it says which names are near.
    """
    if isinstance(backbone, str) and (_is_ours(backbone) or backbone in _of_torchvision()):
        return
    said = _meaning(backbone)
    if said is not None:
        raise ValueError(f"Got backbone={shown(backbone)}{';' if said.startswith('expected') else ','} {said}")


def _is_ours(name: str) -> bool:
    """Tell whether a name begins with a prefix as it is written here, and goes on with no other."""
    prefix, colon, rest = name.partition(":")
    if not colon or prefix not in ("hf", "timm"):
        return False
    if prefix == "hf" and _exists(rest):
        return True
    plain = rest == rest.strip() and "://" not in rest and _PREFIXES.match(rest) is None
    if prefix == "hf" and (rest.startswith("//") or _colon_revision(rest) is not None):
        return False
    return plain and (prefix == "hf" or "/" not in rest)


def _meaning(backbone: str | os.PathLike[str]) -> str | None:
    """Say what a name is, what was expected, and what to write; `None` where that is not known."""
    if not isinstance(backbone, str):
        text = os.fspath(backbone)
        text = text if isinstance(text, str) else os.fsdecode(text)
        if text in _of_torchvision() and not _exists(text):
            return f"a path that does not exist; expected a name as a string. Write backbone={_quoted(text)}."
        return _kept(text) or _path(text, surely=True)
    name = backbone.strip()
    if (prefixed := _PREFIXES.fullmatch(name)) is not None:
        return _prefixed(prefixed[1].casefold(), prefixed[2].strip())
    if "://" in name or name.casefold().startswith(tuple(f"{hub}/" for hub in _HUBS)):
        return _address(name)
    return _kept(name) or _path(name) or _expression(name) or _plain_name(name)


def _kept(place: str) -> str | None:
    """Say what to write for the folder in which the hub's client keeps a model."""
    found = _KEPT.fullmatch(place)
    if found is None or _exists(f"{os.path.expanduser(place)}/config.json"):  # noqa: PTH111
        return None
    model = "/".join(part for part in found.groups() if part)
    return (
        f"a folder in which the hub's client keeps a model; expected its name. Write backbone={_quoted(f'hf:{model}')}."
    )


def _expression(name: str) -> str | None:
    """Say what to write for a piece of code, or for a name behind another library's."""
    if (weights := _WEIGHTS_OF.fullmatch(name)) is not None:
        return _of_weights(weights[1], weights[2])
    if (call := _CALL.fullmatch(name)) is not None:
        return _plain_name(call[2] or call[1])
    if (library := _LIBRARIES.fullmatch(name)) is not None:
        clip = of_clip(library[2]) if "clip" in library[1].casefold() else None
        return _said(clip) if clip is not None else _plain_name(library[2])
    return None


def _of_weights(network: str, member: str | None) -> str | None:
    """Say how a member of torchvision's enumerations of weights is given."""
    known = {_bare(one): one for one in _of_torchvision()}
    if (right := known.get(_bare(network))) is None:
        return None
    return f"weights of torchvision; expected the name of the network beside them. Write backbone={_quoted(right)}" + (
        f", weights={_quoted(member)}." if member and not member.startswith("_") else ', weights="DEFAULT".'
    )


def _said(right: str) -> str:
    return (_TIMM if right.startswith("timm:") else _HUB if right.startswith("hf:") else "{}").format(_quoted(right))


def _prefixed(prefix: str, rest: str) -> str | None:
    """Say how a name is written that has a prefix, but not as it is written here."""
    rest = rest.removeprefix("//")  # hf://OWNER/NAME
    if not rest:
        return None
    if (again := _PREFIXES.fullmatch(rest)) is not None:
        return _prefixed(again[1].casefold(), again[2].strip())
    if "://" in rest:
        return _address(rest)
    if prefix == "torchvision":
        return _spelt(rest.removeprefix("models.")) or 'expected a name without "torchvision:".'
    if prefix == "keras":
        return _spelt(rest)
    if prefix == "timm" and "/" not in rest:
        return _TIMM.format(_quoted(f"timm:{rest}"))
    if prefix.startswith("sentence") and "/" not in rest:
        rest = f"sentence-transformers/{rest}"
    return _owned(rest) if _has_owner(rest) else _HUB.format(_quoted(f"hf:{rest}"))


def _address(name: str) -> str:
    """Say what to write for an address: of a model on the hub its name, of a file the file."""
    parts = urlsplit(name if "://" in name else f"https://{name}")
    path = [unquote(part) for part in parts.path.split("/") if part]
    if (parts.hostname or "").casefold() in _HUBS and path and path[0] not in ("datasets", "spaces", "docs", "papers"):
        path = path[1:] if path[0] == "models" else path
        at = next((i for i, part in enumerate(path) if part in ("tree", "resolve", "blob", "raw", "commit")), len(path))
        revision = f"@{path[at + 1]}" if at + 1 < len(path) and path[at + 1] != "main" else ""
        model = "/".join(path[: min(at, 2)])
        if model.casefold().startswith("timm/"):
            return _ADDRESS.format(_quoted(f"timm:{model[5:]}"))
        if model:
            return _ADDRESS.format(_quoted(f"hf:{model}{revision}"))
    if parts.path.casefold().endswith(_WEIGHTS):
        return (
            "the address of a file of weights; expected the name of a network. Download the file, and give both: "
            "backbone=NAME, weights=PATH."
        )
    return (
        'an address; expected the name of a network, such as "resnet50", "timm:NAME" or "hf:OWNER/NAME". Write the '
        'name of the model, or download it and give its folder: backbone="hf:FOLDER".'
    )


def _path(name: str, surely: bool = False) -> str | None:
    """Say how a folder or a file is given, where a text stands for one."""
    place = os.path.expanduser(name)  # noqa: PTH111 (never raises)
    ending = name.casefold()
    if _exists(place) and Path(place).is_dir():
        if any(_exists(f"{place}/{one}") for one in ("config.json", "modules.json", "adapter_config.json")):
            return _FOLDER.format(_quoted(f"hf:{name}"))
        return (
            "a folder without config.json; expected a network. Give a folder that transformers has saved, as "
            'backbone="hf:FOLDER", or a file of weights with the name of its network: backbone=NAME, weights=PATH.'
        )
    if ending.endswith(_WEIGHTS):
        return (
            "a file of weights; expected the name of the network that they belong to. Give both: backbone=NAME, "
            f"weights={_quoted(name)}."
        )
    if ending.endswith(_NETWORKS) or _exists(place):
        return (
            "a file; expected a network. Give its name and a file of its weights, backbone=NAME, weights=PATH, or "
            "build it and give the torch.nn.Module."
        )
    if surely or name.startswith(("/", "./", "../", "~", "\\", ".\\")) or re.match(r"[A-Za-z]:[\\/]", name):
        return (
            "a path that does not exist; expected the name of a network, or a folder with config.json as "
            'backbone="hf:FOLDER". Correct the path.'
        )
    return None


def _plain_name(name: str) -> str | None:
    """Say how a name without a prefix is written."""
    bare, _, revision = name.partition("@")
    if not bare:
        return None
    if (said := _spelt(bare)) is not None:
        return said
    if (elsewhere := known_elsewhere(name) or known_elsewhere(bare)) is not None:
        return _said(elsewhere)
    if _has_owner(name):
        return _owned(name)
    module, dot, last = bare.rpartition(".")
    if dot and module.partition(".")[0] in _MODULES:
        return _plain_name(last)
    if (one := of_family(bare)) is not None and not revision:
        return _FAMILY.format(_quoted(f"hf:{one}"))
    if "/" in name or any(mark.isspace() for mark in name):
        return None
    return _of_hub_or_timm(bare, revision)


def _of_hub_or_timm(bare: str, revision: str) -> str | None:
    """Say how a name without an owner is written, by what timm and transformers know and how it begins."""
    if (known := _of_timm(bare)) is not None:
        return _TIMM.format(_quoted(f"timm:{known}"))
    revision = f"@{revision}" if revision else ""
    if _begins(bare, _SENTENCES):
        spelt = bare if "-" in bare else bare.replace("_", "-")
        return _HUB.format(_quoted(f"hf:sentence-transformers/{spelt}{revision}"))
    if (plain := _begins(bare, _WITHOUT_OWNER)) is not None:
        return _HUB.format(_quoted(f"hf:{plain}{revision}"))
    if _looks_like_timm(bare):
        return _TIMM.format(_quoted(f"timm:{bare}")).removesuffix(".") + ', after pip install "sktransfer[timm]".'
    near = _is_of_torchvision(bare) and nearest(bare, _of_torchvision())
    if not near and (revision or _begins(bare, _model_types())):
        return _HUB.format(_quoted(f"hf:OWNER/{bare}{revision}")) + " OWNER is the account that has it there."
    return None


def _spelt(name: str) -> str | None:
    """Say how torchvision spells a name that differs only in case, hyphens and the like, or that Keras has."""
    known = {_bare(one): one for one in _of_torchvision()}
    behind = "torchvision" in name or "applications" in name or name.startswith("models.")
    version = re.sub(r"(?<=\d)\.(?=\d)", "", name)  # squeezenet1.1
    first = re.sub(r"[-_ ]?v1([._]5)?$", "", name, flags=re.IGNORECASE)  # resnet50-v1.5, which torchvision's is
    for candidate in (name, version, first, name.rpartition(".")[2] if behind else name):
        if (right := known.get(_bare(candidate))) is not None:
            return _TORCHVISION.format(_quoted(right), right)
    return None


def _is_of_torchvision(name: str) -> bool:
    """Tell whether a name begins as one of torchvision's does, and so may be meant for it."""
    start = re.sub(r"[^a-z]", "", name.casefold())[:4]
    return any(one.startswith(start) for one in _of_torchvision())


@cache
def _of_torchvision() -> tuple[str, ...]:
    from torchvision import models

    return tuple(models.list_models(module=models))


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.casefold())


def _has_owner(name: str) -> bool:
    owner, slash, rest = name.partition("/")
    return bool(slash and re.fullmatch(r"[\w.-]+", owner) and rest and "/" not in rest.partition("@")[0])


def _owned(name: str) -> str:
    """Say how a name with an owner is written."""
    owner, _, rest = name.partition("/")
    if owner.casefold() == "timm":
        return _TIMM.format(_quoted(f"timm:{rest.partition('@')[0]}"))
    name = f"{owner.replace('sentence_transformers', 'sentence-transformers')}/{rest}"  # as the package is imported
    if owner.casefold() in ("torchvision", "keras") and (said := _spelt(rest)) is not None:
        return said
    if owner.casefold() not in _TORCH_HUB and (revised := _colon_revision(name)) is not None:
        return _HUB.format(_quoted(f"hf:{revised}"))
    if ":" in rest:
        if (right := known_elsewhere(rest.rpartition(":")[2])) is not None:
            return _said(right)
        return (
            "a name of torch.hub; expected the network itself. Load it, network = torch.hub.load(...), and give "
            "backbone=network."
        )
    return _HUB.format(_quoted(f"hf:{name}"))


def _colon_revision(name: str) -> str | None:
    """Return a name whose revision stands behind a colon as it is written here, behind an `@`."""
    found = re.fullmatch(r"([\w.-]+/[\w.-]+):([\w.-]+)", name)
    return None if found is None or _exists(name) else f"{found[1]}@{found[2]}"


def _of_timm(name: str) -> str | None:
    """Return the name that timm has for a network, or `None` where it has none, or is not installed."""
    try:
        import timm.models
    except (ImportError, OSError):
        return None
    model, _, tag = name.partition(".")
    if not timm.models.is_model(model):
        found = {_bare(one): one for one in timm.models.list_models()}.get(_bare(model))
        if found is None:
            return None
        model = found
    return f"{model}.{tag}" if tag else model


def _looks_like_timm(name: str) -> bool:
    """Tell whether a name has the form of timm's, where timm is not there to say it."""
    tagged = re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*\.[a-z0-9]+(_[a-z0-9]+)*", name) is not None
    sized = re.fullmatch(r"[a-z0-9]+(_[a-z0-9]+)*_(patch\d+|\d{3}|tiny|small|base|large|huge)(_[a-z0-9]+)*", name)
    return tagged or sized is not None


def _begins(name: str, words: Iterable[str]) -> str | None:
    """Return a name in lower case that is one of some words, or goes on behind one with a hyphen, a dot or a number.

    Hyphens may stand within the word, as in `GPT-2-medium` for `gpt2`.
    """
    plain = name.casefold().replace("_", "-")
    parts = plain.split("-")
    heads = {
        "".join(parts[:count]): "".join(f"-{part}" for part in parts[count:]) for count in range(1, len(parts) + 1)
    }
    for word in words:
        if plain == word or (plain.startswith(word) and not plain[len(word)].isalpha()):
            return plain
        if (rest := heads.get(word)) is not None:
            return word + rest
    return None


def _model_types() -> list[str]:
    """Return with which words names of models begin: the types of model that transformers knows, where it is there."""
    try:
        from transformers import CONFIG_MAPPING
    except (ImportError, OSError):
        return list(_OF_THE_HUB)
    return [*_OF_THE_HUB, *(str(kind).casefold().replace("_", "-") for kind in CONFIG_MAPPING.keys())]  # noqa: SIM118


def _exists(place: str) -> bool:
    try:
        return os.path.lexists(place)
    except ValueError:  # a zero byte in it
        return False


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)
