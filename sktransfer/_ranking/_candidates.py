"""Values of `backbones=`: names, networks, functions and extractors. Each gets a name and an extractor.

This file checks the list as a whole. A fault of a single backbone is reported in the row of that backbone.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from sktransfer._feature_extractor import PretrainedFeatureExtractor
from sktransfer._messages import shown

_WANTED = "a list of backbones (names, networks, functions or PretrainedFeatureExtractors), or a dict of these by name"


def named_extractors(backbones: Any, like: PretrainedFeatureExtractor | None) -> dict[str, PretrainedFeatureExtractor]:
    """Return an extractor for each backbone, by name.

    Parameters
    ----------
    backbones : iterable or mapping
        As `rank_backbones` takes it.
    like : PretrainedFeatureExtractor or None
        Its parameters are used for backbones that are not extractors themselves.

    Returns
    -------
    dict of str to PretrainedFeatureExtractor
        In order. Those that were given are the same objects; the others are new and unfitted.

    Raises
    ------
    ValueError
        If there are none, two have one name, or it is a single backbone.
    TypeError
        If a name is not a string, or `like` is not an extractor.
    """
    if like is not None and not isinstance(like, PretrainedFeatureExtractor):
        raise TypeError(
            f"Got extractor of type {type(like).__name__}; expected a PretrainedFeatureExtractor, whose parameters "
            "are used for all backbones."
        )
    single = isinstance(backbones, str | nn.Module | PretrainedFeatureExtractor)
    if single or not isinstance(backbones, Iterable):
        got = shown(backbones) if isinstance(backbones, str) else f"an object of type {type(backbones).__name__}"
        raise ValueError(f"Got backbones as {got}; expected {_WANTED}.{' Put it into a list.' if single else ''}")
    if isinstance(backbones, Mapping):
        named = list(backbones.items())
        wrong = next((name for name, _ in named if not isinstance(name, str)), None)
        if wrong is not None:
            raise TypeError(f"Got {shown(wrong)} as a name in backbones; expected strings as names.")
    else:
        given = list(backbones)
        named = [(_name_of(backbone), backbone) for backbone in given]
    if not named:
        raise ValueError(f"Got no backbones; expected {_WANTED}, with at least one.")
    name, count = Counter(name for name, _ in named).most_common(1)[0]
    if count > 1:
        raise ValueError(
            f"Got {count} backbones named {name!r}; expected different names. Give a dict with names of your own: "
            '{"first": ..., "second": ...}.'
        )
    return {name: _extractor_of(backbone, like) for name, backbone in named}


def _name_of(backbone: Any) -> str:
    if isinstance(backbone, PretrainedFeatureExtractor):
        backbone = backbone.backbone
    if isinstance(backbone, str):
        return backbone
    return str(getattr(backbone, "__name__", type(backbone).__name__))


def _extractor_of(backbone: Any, like: PretrainedFeatureExtractor | None) -> PretrainedFeatureExtractor:
    if not isinstance(backbone, PretrainedFeatureExtractor):
        given = {} if like is None else like.get_params(deep=False)
        return PretrainedFeatureExtractor(**{**given, "backbone": backbone})
    return backbone
