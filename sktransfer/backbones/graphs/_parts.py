"""Make parts of a traced network into modules that leave nothing in memory when they are deleted.

torch.fx keeps the source text of every module that it generates for as long as the process lives, so that tracebacks
can show it. A search generates thousands.
"""

import linecache
import weakref
from typing import Any

from torch import fx
from torch.fx import graph_module


class Part(fx.GraphModule):
    """A module that runs a graph; torch forgets its source when it is gone."""

    def recompile(self) -> Any:
        code = super().recompile()
        name = type(self).forward.__code__.co_filename
        weakref.finalize(self, _forget_source, name).atexit = False
        return code


def source_texts() -> dict[str, str]:
    """Return where torch keeps the source texts of generated modules, by the name of their file.

    Returns
    -------
    dict of str to str
        The dict of torch itself, to be changed; empty where this torch keeps them elsewhere, and then they stay.
    """
    return getattr(getattr(graph_module, "_loader", None), "eval_cache", {})


def _forget_source(name: str) -> None:
    source_texts().pop(name, None)
    linecache.cache.pop(name, None)
