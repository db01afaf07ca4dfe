"""Report where the weights of a network come from, their training data and their licence, if stated.

Nothing is asked over a network, and nothing is guessed: what is not stated is `None`.
"""

import re
from dataclasses import dataclass
from pathlib import Path

# The longest part of a model card that is looked at, in bytes.
_MOST_BYTES = 65536

# What parts of timm's tags, and of torchvision's names of weights, stand for.
_DATA = {
    "in1k": "ImageNet-1K",
    "in12k": "ImageNet-12K",
    "in21k": "ImageNet-21K",
    "in22k": "ImageNet-22K",
    "laion400m": "LAION-400M",
    "laion2b": "LAION-2B",
    "datacomp1b": "DataComp-1B",
    "webli": "WebLI",
    "lvd142m": "LVD-142M",
    "lvd1689m": "LVD-1689M",
    "yfcc15m": "YFCC-15M",
}


@dataclass(frozen=True)
class Origin:
    """Origin of the weights of a network.

    Attributes
    ----------
    source : str or None
        Who provides the weights, and where, such as a package and an address.
    data : str or None
        Data that the weights were trained on.
    licence : str or None
        Licence of the weights, or its address.
    """

    source: str | None = None
    data: str | None = None
    licence: str | None = None

    def __str__(self) -> str:
        said = {"weights": self.source, "data": self.data, "licence": self.licence}
        return "; ".join(f"{name}: {value or 'not stated'}" for name, value in said.items())


def random_origin(seed: int) -> Origin:
    """Return the origin of random weights."""
    return Origin(f"random, seed {seed}", "none")


def data_of_tag(tag: str) -> str | None:
    """Return what the parts of a tag say that weights were trained on, the last training first.

    Parameters
    ----------
    tag : str
        One of timm's, such as `"fb_in22k_ft_in1k"`.

    Returns
    -------
    str or None
        Such as `"ImageNet-22K, then ImageNet-1K"`; `None` where no part is known.
    """
    trainings = tag.replace("_", " ").split(" ft ")
    steps = [[_DATA[part] for part in training.split() if part in _DATA] for training in trainings]
    return ", then ".join(" and ".join(step) for step in steps if step) or None


def read_card(path: Path | None) -> Origin:
    """Return what a model card says in the lines between its first two rules.

    Parameters
    ----------
    path : Path or None
        Its file, from anyone; `None` where there is none.

    Returns
    -------
    Origin
        Without a source.
    """
    if path is None or not path.is_file():
        return Origin()
    try:
        with path.open("rb") as file:
            lines = file.read(_MOST_BYTES).decode("utf-8", errors="replace").splitlines()
    except OSError:
        return Origin()
    if not lines or lines[0].strip() != "---":
        return Origin()
    said: dict[str, list[str]] = {}
    key = ""
    for line in lines[1:]:
        if line.strip() == "---":
            break
        item, named = re.match(r"\s*-\s+(\S.*)", line), re.match(r"(\w+):\s*(.*)", line)
        if named:
            key = named[1]
            said[key] = [_plain(named[2])] if named[2].strip() else []
        elif item and key:
            said[key].append(_plain(item[1]))
    licence = (said.get("license_name") if said.get("license") == ["other"] else None) or said.get("license") or [""]
    return Origin(None, ", ".join(filter(None, said.get("datasets", [])[:5])) or None, licence[0] or None)


def _plain(text: str) -> str:
    return " ".join(text.split()).strip("\"'[] ")[:100]
