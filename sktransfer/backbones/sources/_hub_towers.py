"""Models that have one network for pictures and one for texts: which of them is meant, and what its vectors are."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from sktransfer.backbones.graphs._base import UntraceableError
from sktransfer.backbones.graphs._own_vector import OwnVector
from sktransfer.backbones.sources._base import TowerError
from sktransfer.backbones.sources._hub_architectures import encoder, main_input, towers_of
from sktransfer.backbones.sources._hub_files import ModelFiles
from sktransfer.backbones.sources._sentence_models import SentencePooling
from sktransfer.inputs import TextPreprocessing
from sktransfer.inputs._texts import TextReader

_TEXT = "a photo of a cat"
_HELD = {"image": "pictures", "text": "texts"}


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
        if len(towers) == 1:
            (only,) = towers
            raise TowerError(
                f"Got backbone={files}, a {type(network).__name__}, which has a network for "
                f'{_HELD[only]} beside others, and tower={tower!r}; expected tower="{only}". Set it.'
            )
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


@contextmanager
def other_tower_named(tower: str, network: Any) -> Iterator[None]:
    """Let whoever refuses one of two networks say by which word the other is loaded.

    Parameters
    ----------
    tower : {"image", "text", "auto"}
        Which is being loaded.
    network : nn.Module or callable
        The model, as `on_paper` returns it, or a function that returns it.
    """
    try:
        yield
    except ValueError as error:
        other = {"image": "text", "text": "image"}.get(tower)
        named = f'tower="{other}"'
        if other is None or type(error) not in (ValueError, UntraceableError) or named in str(error):
            raise
        if other not in towers_of(network if isinstance(network, nn.Module) else network()):
            raise
        raise type(error)(f"{error} For {_HELD[other]}, this model has another network: {named}.") from error


def reads_padding(network: nn.Module) -> bool:
    """Tell whether a network for texts makes its vector of the last position, be it of a text or of padding.

    Such a network was trained on texts of one length, as SigLIP was.

    Parameters
    ----------
    network : nn.Module
        The network for texts, on the device "meta", where the place of a tensor in another shows what it is a part of.

    Returns
    -------
    bool
        `False` too where it cannot be run.
    """
    try:
        with _children_watched(network) as made:
            output: Any = network(input_ids=torch.zeros(2, 5, dtype=torch.int64, device="meta"))
        pooled, hidden = output.pooler_output, output.last_hidden_state
        used = next((given for given, result in made.values() if result is pooled), pooled)
        last = hidden[:, -1]
        places = [(one.shape, one.stride(), one.storage_offset()) for one in (used, last)]
    except Exception:  # networks raise what they please
        return False
    return bool(places[0] == places[1])


@contextmanager
def _children_watched(network: nn.Module) -> Iterator[dict[str, tuple[Any, Any]]]:
    """Note what children of a network are given first, and what they return."""
    made: dict[str, tuple[Any, Any]] = {}

    def note(name: str, module: nn.Module, given: Any, result: Any) -> None:
        made[name] = (given[0] if given else None, result)

    hooks = [child.register_forward_hook(partial(note, name)) for name, child in network.named_children()]
    try:
        yield made
    finally:
        for hook in hooks:
            hook.remove()


def compares_pooled_vectors(whole: Any, tower: str) -> bool:
    """Tell whether a model compares pictures and texts by the pooled vector of one of its networks.

    ALIGN and FLAVA have poolers that their `get_text_features` passes by, so they were not trained for this.

    Parameters
    ----------
    whole : nn.Module
        The model, as `on_paper` returns it: on the device "meta", gradients tell what a result depends on.
    tower : {"image", "text"}
        Which of its networks.

    Returns
    -------
    bool
        `True` too where the model does not say, or cannot be run.
    """
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    network = encoder(whole, tower)
    try:
        with torch.enable_grad(), torch.device("meta"):
            width = network.config.hidden_size
            hidden, pooled = (torch.zeros(shape, requires_grad=True) for shape in ((2, 5, width), (2, width)))
            output = BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=pooled)
            network.forward = lambda *_, **__: output
            compared: Any = getattr(whole, f"get_{tower}_features")(**{main_input(network): hidden})
            vector = compared if isinstance(compared, torch.Tensor) else compared.pooler_output
            return torch.autograd.grad(vector.sum(), pooled, allow_unused=True)[0] is not None
    except Exception:  # networks raise what they please
        return True
    finally:
        network.__dict__.pop("forward", None)


def vector_of_texts(
    network: nn.Module, prepared: TextPreprocessing, files: ModelFiles, whole: nn.Module
) -> SentencePooling | OwnVector:
    """Return how the network for texts makes one vector of a text, seen on some.

    Parameters
    ----------
    network : nn.Module
        The network for texts.
    prepared : TextPreprocessing
        Its tokenizer.
    files : ModelFiles
        Files of the model, used in error messages.
    whole : nn.Module
        The model that the network is a part of, as `on_paper` returns it.

    Returns
    -------
    SentencePooling or OwnVector
        Takes the token that the network's own pooled vector is, or that a module of the network makes it of; the first
        where it has none, or where the model does not use it.

    Raises
    ------
    UntraceableError
        If its pooled vector is something else.
    """
    if not compares_pooled_vectors(whole, "text"):
        return SentencePooling(["cls"], normalize=False)
    ways: list[_Way] | None = None
    for tokens, n_padded in _tried(prepared):
        found = _ways(network, tokens, n_padded)
        ways = found if ways is None else [way for way in ways if way in found]
    if not ways:
        raise UntraceableError(
            f"Got backbone={files}, whose network for texts ({type(network).__name__}) makes its vector in a way that "
            "sktransfer cannot repeat; expected the first or the last token of a text, or what one module of the "
            'network makes of it. Use its network for pictures (tower="image"), or a network for texts.'
        )
    token, module, takes_tokens = ways[0]
    return SentencePooling([token], normalize=False) if module is None else OwnVector(token, module, takes_tokens)


# Which token, which module makes the vector of it, and whether it is given tokens.
_Way = tuple[str, str | None, bool]


def _tried(prepared: TextPreprocessing) -> Iterator[tuple[torch.Tensor, int]]:
    """Yield a text each, and how many tokens at its end the attention mask marks as padding."""
    samples = TextReader(prepared).read([_TEXT, _TEXT.split()[0]])
    text, short = (samples.load(row)[None] for row in range(2))
    yield text, 0
    # Words of all numbers: some networks take the token of the largest, which need not be the last.
    plain, varied = prepared.plain_tokens, text.clone()
    places = [place for place, number in enumerate(text[0].tolist()) if number in set(plain)] or [0]
    for count, place in enumerate(places):
        varied[0, place] = plain[-1 - count * (len(plain) - 1) // max(len(places) - 1, 1)]
    yield varied, 0
    if prepared.pad_token is None and short.shape[1] < prepared.max_length:
        yield torch.cat([short, torch.zeros_like(short[:, :1])], dim=1), 1


def _ways(network: nn.Module, tokens: torch.Tensor, n_padded: int) -> list[_Way]:
    """Return all ways that give, bit for bit, the pooled vector of a text."""
    mask = torch.ones_like(tokens)
    length = tokens.shape[1] - n_padded
    mask[:, length:] = 0
    with torch.no_grad(), _children_watched(network) as made:
        output: Any = network(input_ids=tokens, attention_mask=mask)
        pooled, hidden = getattr(output, "pooler_output", None), output.last_hidden_state
        if pooled is None:
            return [("cls", None, False)]
        states = {"last": hidden[:, length - 1], "cls": hidden[:, 0]}
        ways: list[_Way] = [(name, None, False) for name, token in states.items() if torch.equal(pooled, token)]
        for name, (_, result) in made.copy().items():
            if not _is_equal(result, pooled):
                continue
            for token, state in states.items():
                for takes_tokens, given in ((False, state), (True, state.unsqueeze(1))):
                    if _is_equal(_result_of(network.get_submodule(name), given), pooled):
                        ways.append((token, name, takes_tokens))
    return ways


def _result_of(module: nn.Module, given: torch.Tensor) -> Any:
    try:
        return module(given)
    except Exception:  # networks raise what they please
        return None


def _is_equal(result: Any, pooled: torch.Tensor) -> bool:
    return isinstance(result, torch.Tensor) and torch.equal(result, pooled)
