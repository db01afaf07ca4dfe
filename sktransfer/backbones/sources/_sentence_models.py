"""Models of sentence-transformers: a network, and what its folder says of prompts, poolings and lengths of vectors.

What is not understood is refused by its name: a vector without it would be another one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sktransfer._messages import shown
from sktransfer.backbones.graphs._pooling import pool
from sktransfer.backbones.sources._hub_files import ModelFiles
from sktransfer.backbones.sources._sentence_layers import KINDS, make_layer, read_layer, read_weights

# Names of poolings in folders of sentence-transformers, and ours; of both versions of its files. In the older one,
# several are joined in this order, whatever that of the file.
_POOLINGS = {
    "pooling_mode_cls_token": "cls", "cls": "cls",
    "pooling_mode_max_tokens": "max", "max": "max",
    "pooling_mode_mean_tokens": "mean", "mean": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len", "mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean", "weightedmean": "weightedmean",
    "pooling_mode_lasttoken": "last", "lasttoken": "last",
}  # fmt: skip

# What the module of the network is called; those after the first are of old models.
_NETWORKS = ("Transformer", "BERT", "RoBERTa", "DistilBERT", "ALBERT", "CamemBERT", "XLMRoBERTa", "XLNet", "T5")
_UNDERSTOOD = ("Transformer", "Pooling", *KINDS)

# Names of the file with the settings of texts; the later ones are of old models.
_SETTINGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Settings that say nothing of what comes out, by key of the file; everything else in there has to be empty.
_HARMLESS = ("attn_implementation", "device_map", "dtype", "torch_dtype", "trust_remote_code", "use_safetensors")
_ADVICE = "Give the folder of its Transformer alone, without modules.json."


class SentencePooling(nn.Module):
    """How a folder of sentence-transformers makes one vector of the hidden states of a text.

    Parameters
    ----------
    poolings : list of str
        Joined where there are several.
    normalize : bool
        Whether vectors are brought to length 1.
    prompt : int, default=0
        Tokens at the start of each text that are left out: those of the prompt.
    length : int or None, default=None
        Values of the vector that are kept; `None` is all.
    layers : list of dict, default=[]
        What follows the poolings: `kind` and `settings` of each layer, and the folder, `path`, with its weights.
    """

    def __init__(
        self,
        poolings: list[str],
        normalize: bool,
        prompt: int = 0,
        length: int | None = None,
        layers: Sequence[Mapping[str, Any]] = (),
    ):
        super().__init__()
        self.poolings, self.normalize, self.prompt, self.length = poolings, normalize, prompt, length
        self.layers = nn.Sequential(*(make_layer(one["kind"], one["settings"]) for one in layers))

    def extra_repr(self) -> str:
        known = f"poolings={self.poolings}, normalize={self.normalize}"
        return known + f", prompt={self.prompt}, length={self.length}"

    @property
    def has_weights(self) -> bool:
        """Whether it has parameters of its own."""
        return next(self.parameters(), None) is not None

    def forward(self, hidden: torch.Tensor, padding: torch.Tensor | None) -> torch.Tensor:
        if self.prompt:
            hidden, padding = hidden[:, self.prompt :], None if padding is None else padding[:, self.prompt :]
        vectors = torch.cat([self._pool(hidden, one, padding) for one in self.poolings], dim=1)
        with torch.autocast(vectors.device.type, enabled=False):  # one vector a text: exact costs nothing
            vectors = self.layers(vectors)
        vectors = nn.functional.normalize(vectors, dim=1) if self.normalize else vectors
        return vectors if self.length is None else vectors[:, : self.length]

    def _pool(self, hidden: torch.Tensor, pooling: str, padding: torch.Tensor | None) -> torch.Tensor:
        if pooling not in ("mean_sqrt_len", "weightedmean"):
            return pool(hidden, pooling, padding=padding)
        there = torch.ones_like(hidden[..., :1]) if padding is None else (~padding).unsqueeze(-1).to(hidden.dtype)
        hidden = hidden if padding is None else hidden.masked_fill(padding.unsqueeze(-1), 0.0)
        if pooling == "mean_sqrt_len":
            return hidden.sum(1) / there.sum(1).clamp(min=1e-9).sqrt()
        # Later tokens count more; those of a prompt are counted, though they are left out.
        places = torch.arange(1 + self.prompt, 1 + self.prompt + hidden.shape[1], device=hidden.device)
        weights = there * places.to(hidden.dtype).view(1, -1, 1)
        return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)

    def load_from(self, files: ModelFiles, layers: Sequence[Mapping[str, Any]]) -> None:
        """Take the weights of layers from their folders.

        Parameters
        ----------
        files : ModelFiles
            Of the whole model.
        layers : sequence of mapping
            As this was made with.
        """
        for layer, one in zip(self.layers, layers, strict=True):
            layer.load_state_dict(read_weights(files.within(one["path"]), layer))


@dataclass(frozen=True)
class SentenceModel:
    """What a folder says beside its network; nothing, where it is not one of sentence-transformers.

    Parameters
    ----------
    files : ModelFiles
        Of its network.
    max_length : int or None, default=None
        The most tokens of a text.
    lower_case : bool, default=False
        Whether texts are made lower case first.
    prompt : str, default=""
        What is put in front of each text.
    poolings : tuple of str, default=()
        How tokens become a vector; none where that is not said.
    normalize : bool, default=False
        Whether vectors are brought to length 1.
    skips_prompt : bool, default=False
        Whether the tokens of the prompt are left out when tokens become a vector.
    length : int or None, default=None
        Values of the vector that are kept.
    layers : tuple, default=()
        Kind and files of what follows the poolings.
    """

    files: ModelFiles
    max_length: int | None = None
    lower_case: bool = False
    prompt: str = ""
    poolings: tuple[str, ...] = ()
    normalize: bool = False
    skips_prompt: bool = False
    length: int | None = None
    layers: tuple[tuple[str, ModelFiles], ...] = ()

    @classmethod
    def read(cls, files: ModelFiles) -> "SentenceModel":
        """Read what a folder says.

        Parameters
        ----------
        files : ModelFiles
            Of the model.

        Returns
        -------
        SentenceModel
            Of the folder.

        Raises
        ------
        ValueError
            If a text passes something that is not understood here.
        """
        modules = files.json("modules.json", list)
        if modules is None:
            return cls(files)
        kinds = [_kind(files, module) for module in modules]
        line, behind = kinds[:2], kinds[2:]
        if line not in (["Transformer"], ["Transformer", "Pooling"]) or not set(behind) <= set(KINDS):
            unknown = [module["type"] for module, kind in zip(modules, kinds, strict=True) if kind not in _UNDERSTOOD]
            router = any(name.rpartition(".")[2] in ("Router", "Asym") for name in unknown)
            reason = ", which sends queries and documents through networks of their own" if router else ""
            raise ValueError(
                f"Got backbone={files}, whose sentence vectors pass "
                f"{'a module ' + shown(unknown[0]) if unknown else 'the modules ' + shown(kinds)}{reason}; expected "
                f"Transformer and Pooling, and behind them {', '.join(KINDS[:-1])} or {KINDS[-1]}. {_ADVICE}"
            )
        network = files.within(modules[0].get("path", ""))
        prompt, length = _read_end(files)
        poolings: list[str] = []
        skips_prompt = False
        if len(kinds) > 1:
            poolings, skips_prompt = _read_pooling(files.within(modules[1].get("path", "")))
        max_length, lower_case = _read_texts(network)
        if length is not None and not poolings:
            raise ValueError(f"Got backbone={files} with truncate_dim={length} and no Pooling; expected one. {_ADVICE}")
        normalize = kinds[-1] == "Normalize"
        layers = [(kind, files.within(module.get("path", ""))) for kind, module in zip(kinds, modules, strict=True)]
        rest = tuple(layers[2 : len(layers) - normalize])
        return cls(network, max_length, lower_case, prompt, tuple(poolings), normalize, skips_prompt, length, rest)

    def finish(self, prompt_tokens: int, width: int | None) -> dict[str, Any] | None:
        """Return the settings of `SentencePooling`, or `None` where hidden states are all that comes out.

        Parameters
        ----------
        prompt_tokens : int
            Tokens in front of each text that are the prompt's.
        width : int or None
            Of hidden states, where that is known.

        Returns
        -------
        dict or None
            By name.
        """
        if not self.poolings:
            return None
        skipped = prompt_tokens if self.skips_prompt else 0
        said = {"poolings": list(self.poolings), "normalize": self.normalize, "prompt": skipped, "length": self.length}
        layers, width = [], None if width is None else width * len(self.poolings)
        for kind, files in self.layers:
            settings, width = read_layer(files, kind, width)
            if kind != "Dropout":  # which works only in training
                layers.append({"kind": kind, "path": files.below, "settings": settings})
        return {**said, "layers": layers} if layers else said


def _kind(files: ModelFiles, module: Any) -> str:
    if not isinstance(module, dict) or not isinstance(module.get("type"), str):
        raise ValueError(
            f"Got backbone={files}, whose modules.json lists {shown(module)}; expected modules with a type and a "
            f"path, as sentence-transformers writes them. {_ADVICE}"
        )
    package, _, kind = module["type"].rpartition(".")
    if package.partition(".")[0] != "sentence_transformers":
        return str(module["type"])
    return "Transformer" if kind in _NETWORKS else kind


def _read_end(files: ModelFiles) -> tuple[str, int | None]:
    """Return the prompt of each text, and how many values of a vector are kept."""
    name = "config_sentence_transformers.json"
    values = files.json(name) or {}
    kind, chosen, length = (values.get(key) for key in ("model_type", "default_prompt_name", "truncate_dim"))
    if kind not in (None, "SentenceTransformer"):
        raise ValueError(
            f"Got backbone={files}, a {shown(kind)} of sentence-transformers; expected a SentenceTransformer. "
            + _ADVICE
        )
    prompts = values.get("prompts") or {}
    if chosen is None:
        prompt: Any = ""
    else:
        prompt = prompts.get(chosen) if isinstance(prompts, Mapping) and isinstance(chosen, str) else None
    if not isinstance(prompt, str):
        raise ValueError(
            f"Got backbone={files}, whose {name} says default_prompt_name: {shown(chosen)}; expected the name of one "
            f"of its prompts {shown(list(prompts))}. Correct it, or remove it."
        )
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        raise ValueError(
            f"Got backbone={files}, whose {name} says truncate_dim: {shown(length)}; expected a number of values. "
            "Correct it, or remove it."
        )
    return prompt, length


def _read_texts(network: ModelFiles) -> tuple[int | None, bool]:
    """Return the most tokens of a text, and whether it is made lower case."""
    found = ((name, network.json(name)) for name in _SETTINGS)
    none: tuple[str, dict[str, Any]] = (_SETTINGS[0], {})
    name, values = next(((name, values) for name, values in found if values), none)
    for key in ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs"):
        given = values.get(key) or {}
        if not isinstance(given, Mapping) or set(given) - set(_HARMLESS):
            raise _not_understood(network, name, key, given)
    task, text = values.get("transformer_task"), (values.get("modality_config") or {})
    if task not in (None, "feature-extraction"):
        raise _not_understood(network, name, "transformer_task", task)
    usual = {"method": "forward", "method_output_name": "last_hidden_state"}
    if text and (not isinstance(text, Mapping) or text.get("text") != usual):
        raise _not_understood(network, name, "modality_config", text)
    given = values.get("processing_kwargs") or {}
    if not isinstance(given, Mapping) or any(given.values()):
        raise _not_understood(network, name, "processing_kwargs", given)
    length, lower_case = values.get("max_seq_length"), values.get("do_lower_case", False)
    if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
        raise _not_understood(network, name, "max_seq_length", length)
    if not isinstance(lower_case, bool | None):
        raise _not_understood(network, name, "do_lower_case", lower_case)
    return length, bool(lower_case)


def _read_pooling(files: ModelFiles) -> tuple[list[str], bool]:
    """Return how tokens become a vector, and whether those of the prompt are left out."""
    values = files.json("config.json") or {}
    named = values.get("pooling_mode")
    on = [name for name, on in values.items() if name.startswith("pooling_mode_") and on is True]
    wanted = sorted(on, key=lambda name: list(_POOLINGS).index(name) if name in _POOLINGS else 0)
    if named is not None:
        wanted = [named] if isinstance(named, str) else list(named) if isinstance(named, list) else [str(named)]
    unknown = [name for name in wanted if not isinstance(name, str) or name not in _POOLINGS]
    if unknown or not wanted:
        raise ValueError(
            f"Got backbone={files}, a model of sentence-transformers that pools by {shown(unknown or values)}; "
            f"expected {', '.join(sorted(set(_POOLINGS.values())))}. {_ADVICE}"
        )
    included = values.get("include_prompt", True)
    if not isinstance(included, bool):
        raise _not_understood(files, "config.json", "include_prompt", included)
    return [_POOLINGS[name] for name in wanted], not included


def _not_understood(files: ModelFiles, name: str, key: str, value: Any) -> ValueError:
    return ValueError(
        f"Got backbone={files}, whose {name} says {key}: {shown(value)}; expected what sktransfer can do as "
        f"well. Remove it from the file if it does not matter. {_ADVICE}"
    )
