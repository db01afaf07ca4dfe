"""What checkpoints hold beside their weights, such as `argparse.Namespace`, is skipped: read as data, and not kept.

No class that such a file names is imported. In its place stands one of this file, which ignores what it is given.
"""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sktransfer._process._locks import Lock

# Classes by module: settings, paths, dates, and what libraries write beside weights.
_VALUES = {
    "argparse": "Namespace",
    "builtins": "bool bytes dict float frozenset getattr int list range slice str tuple",  # as types, and of metrics
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "mmengine.logging.history_buffer": "HistoryBuffer",
    "numpy": "bool bool_ dtype float16 float32 float64 int32 int64 ndarray str_ uint8",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.core.multiarray": "_reconstruct scalar",
    "omegaconf.base": "ContainerMetadata Metadata",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.nodes": "AnyNode BooleanNode BytesNode EnumNode FloatNode IntegerNode InterpolationResultNode PathNode "
    "StringNode",
    "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "pathlib._local": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
    "pytorch_lightning.callbacks.early_stopping": "EarlyStopping",  # keys of early versions
    "pytorch_lightning.callbacks.model_checkpoint": "ModelCheckpoint",
    "torch.torch_version": "TorchVersion",
    "torchvision.transforms.functional": "InterpolationMode",
    "types": "SimpleNamespace",
    "typing": "Any",
    "uuid": "UUID",
}
_DICTS = {
    "addict.addict": "Dict",
    "collections": "defaultdict",
    "easydict": "EasyDict",
    "lightning.fabric.utilities.data": "AttributeDict",
    "lightning_fabric.utilities.data": "AttributeDict",
    "mmcv.utils.config": "ConfigDict",
    "mmengine.config.config": "ConfigDict",
    "pytorch_lightning.utilities.parsing": "AttributeDict",
    "yacs.config": "CfgNode",
}
_LISTS = {"collections": "deque"}


class Skipped:
    """What stands for a value that was skipped: it keeps nothing, and nothing can be set on it."""

    __slots__ = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> "Skipped":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _PlainDict:
    """Makes an empty dict, to which torch then adds the items; a dict of that kind may hold weights."""

    def __new__(cls, *args: Any) -> Any:
        return OrderedDict()


class _PlainList:
    """Makes an empty list, to which torch then adds the items."""

    def __new__(cls, *args: Any) -> Any:
        return []


def _stand_ins() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return a class for each name, which torch knows by this name."""
    return [
        type(name, (base,), {"__module__": module, "__qualname__": name, "__slots__": ()})
        for base, kinds in ((Skipped, _VALUES), (_PlainDict, _DICTS), (_PlainList, _LISTS))
        for module, names in kinds.items()
        for name in names.split()
    ]


# torch's list is one for all threads, and whoever leaves `safe_globals` takes his own classes off it.
_LOCK = Lock()


def is_array(value: Any) -> bool:
    """Tell whether a numpy array was skipped.

    Parameters
    ----------
    value : object
        As `read_skipping` returned it.

    Returns
    -------
    bool
        False for numpy's single numbers.
    """
    return isinstance(value, Skipped) and type(value).__name__.endswith("reconstruct")


def read_skipping(path: Path) -> Any:
    """Read what `torch.save` wrote, with `Skipped` in the place of settings and the like.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    object
        As `torch.load(weights_only=True)` returns it. Dicts and lists of other kinds are plain ones.

    Raises
    ------
    pickle.UnpicklingError
        If the file names anything else, or is not what `torch.save` writes.
    """
    with _LOCK, torch.serialization.safe_globals(_stand_ins()):
        return torch.load(path, map_location="cpu", weights_only=True)
