"""Find modules by the names that pickles of earlier versions contain.

Pickles of today name public functions and the estimators' classes alone, so the table does not grow.
"""

import pkgutil
import sys
from types import ModuleType
from typing import Any

_NOW = {
    "sktransfer._suffix_network": "sktransfer._training._suffix_network",
    "sktransfer._suffix_training": "sktransfer._training._epochs",
    "sktransfer.backbones._blocks": "sktransfer.backbones.graphs._base",
    "sktransfer.backbones._own": "sktransfer.backbones.sources._custom",
    "sktransfer.inputs._image_preprocessing": "sktransfer.inputs.images._preprocessing",
    "sktransfer.inputs._images": "sktransfer.inputs.images._reader",
}
# Names that changed with their modules.
_RENAMED = {"OwnSource": "CustomSource"}


class _Moved(ModuleType):
    """Stands where a module was, and finds what was in it where it is now."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(pkgutil.resolve_name(_NOW[self.__name__]), _RENAMED.get(name, name))


def install() -> None:
    """Let pickles of earlier versions find what they name; nothing is imported before one is read."""
    for name in _NOW:
        sys.modules.setdefault(name, _Moved(name))
