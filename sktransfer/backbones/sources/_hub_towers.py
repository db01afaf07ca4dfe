"""Models that have one network for pictures and one for texts: which of them is meant, and what its vectors are."""

from typing import Any

import torch
from torch import nn

from sktransfer.backbones.graphs._base import UntraceableError
from sktransfer.backbones.sources._base import TowerError
from sktransfer.backbones.sources._hub_architectures import encoder, main_input, towers_of
from sktransfer.backbones.sources._hub_files import ModelFiles
from sktransfer.backbones.sources._sentence_models import SentencePooling
from sktransfer.inputs import TextPreprocessing
from sktransfer.inputs._texts import TextReader

_TEXT = "a photo of a cat"


def choose_tower(network: Any, tower: str, files: ModelFiles) -> str:
    """Return which of two networks is meant.

    Parameters
    ----------
    network : nn.Module
        As `on_paper` returns it.
    tower : {"image", "text", "auto"}
        What is asked for.
    files : ModelFiles
        Files of the model, used in error messages.

    Returns
    -------
    {"image", "text", "auto"}
        `"auto"` where it is one network.

    Raises
    ------
    TowerError
        If there are several and no word for which.
    ValueError
        If there is no such network.
    """
    towers = towers_of(network)
    takes = "image" if main_input(encoder(network)) == "pixel_values" else "text"
    if towers and tower not in towers:
        raise TowerError(
            f"Got backbone={files}, a {type(network).__name__}, which has a network for pictures and one for texts, "
            f'and tower={tower!r}; expected tower="image" or tower="text". Set the one that you want.'
        )
    if not towers and tower not in ("auto", takes):
        raise ValueError(
            f"Got tower={tower!r} for backbone={files}, a {type(network).__name__}, which is a single network; "
            'expected tower="auto". Leave it out.'
        )
    return tower if towers else "auto"


def pooling_of_texts(network: nn.Module, prepared: TextPreprocessing, files: ModelFiles) -> SentencePooling:
    """Return how the network for texts makes one vector of a text, seen on one text.

    Parameters
    ----------
    network : nn.Module
        The network for texts.
    prepared : TextPreprocessing
        Its tokenizer.
    files : ModelFiles
        Files of the model, used in error messages.

    Returns
    -------
    SentencePooling
        Takes the token that the network's own pooled vector is; the first where it has none.

    Raises
    ------
    UntraceableError
        If its pooled vector is none of its hidden states.
    """
    tokens = TextReader(prepared).read([_TEXT]).load(0)[None].long()
    with torch.no_grad():
        output: Any = network(input_ids=tokens, attention_mask=torch.ones_like(tokens))
    pooled, hidden = getattr(output, "pooler_output", None), output.last_hidden_state
    for name, token in (("last", hidden[:, -1]), ("cls", hidden[:, 0])):
        if pooled is None or torch.equal(pooled, token):
            return SentencePooling([name if pooled is not None else "cls"], normalize=False)
    raise UntraceableError(
        f"Got backbone={files}, whose network for texts ({type(network).__name__}) makes its vector from more than "
        'one token; expected one that takes one token, as in CLIP. Use its network for pictures (tower="image"), or a '
        "network for texts."
    )
