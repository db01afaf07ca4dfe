"""Describe how a network is built, in a text that is known before it is built.

The rule: where this text and the tensors are the same, the same network comes of it. Of a network that a library
builds, the text is its name and settings; of one that a person's function returns, the function's code and all that it
refers to, as in `_writing.py`. A module that a person brings is there already, so there is no text.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sktransfer.backbones._code import NotWritableError, is_library
from sktransfer.backbones.sources._base import Source, file_key


@dataclass(frozen=True)
class Recipe:
    """Recipe for building a network.

    Attributes
    ----------
    digest : str
        Of the text, as 64 hexadecimal digits.
    classes : frozenset of type
        A person's own classes that it names: those that were run again are others with the same code.
    """

    digest: str
    classes: frozenset[type]


def recipe_of(source: Source, preprocessing: Mapping[str, Any], weights: bool) -> Recipe | None:
    """Return what a source builds its network by.

    Parameters
    ----------
    source : Source
        Where the network comes from.
    preprocessing : mapping
        The record of what it wants of a sample.
    weights : bool
        Whether the network is built with the weights of the source, else with tensors that are at hand.

    Returns
    -------
    Recipe or None
        `None` where that cannot be written down whole, or there is nothing to build.
    """
    if source.keeps_network:
        return None
    record = source.record
    text = [source.kind]
    classes: frozenset[type] = frozenset()
    try:
        text.append(json.dumps([record, dict(preprocessing)], sort_keys=True, default=os.fspath))
        function = getattr(source, "backbone", None)
        if function is not None:
            from sktransfer.backbones._writing import Writer

            writer = Writer({})
            text.append(writer.text([writer.write(function, "backbone")]))
            classes = frozenset(kind for kind in writer.classes if not is_library(kind.__module__))
    except (TypeError, NotWritableError):
        return None
    path = record.get("weights")
    if weights and isinstance(path, str | os.PathLike):
        text.append(str(file_key(path)))
    return Recipe(hashlib.sha256("\n".join(text).encode(errors="surrogatepass")).hexdigest(), classes)
