"""Versions of libraries: those that results depend on, and those that a bug report needs.

Results depend on major and minor version alone, since patches are to change none.
"""

import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of


@cache
def version(library: str) -> str:
    """Return major and minor version of a library, without importing it.

    Parameters
    ----------
    library : str
        Its name on the package index.

    Returns
    -------
    str
        Such as `"2.6"`; empty where it is not installed.
    """
    try:
        found = version_of(library)
    except PackageNotFoundError:  # built by hand
        found = str(getattr(sys.modules.get(library), "__version__", ""))
    return ".".join(found.split(".")[:2])


def versions(*libraries: str) -> str:
    """Return names and versions of libraries in one string.

    Parameters
    ----------
    *libraries : str
        Names on the package index.

    Returns
    -------
    str
        Such as `"torch 2.6, pillow 10.2"`.
    """
    return ", ".join(f"{library} {version(library)}" for library in libraries)


# Libraries whose versions tell most where something differs between two machines; the last ones are optional.
_REQUIRED = ("sktransfer", "torch", "torchvision", "scikit-learn", "skorch", "numpy", "Pillow", "safetensors", "joblib")
_OPTIONAL = ("timm", "transformers", "tokenizers", "soundfile", "soxr", "skops", "onnx", "onnxscript", "pandas")


def installed(*libraries: str) -> dict[str, str]:
    """Return the whole versions of libraries, without importing them.

    Parameters
    ----------
    *libraries : str
        Names on the package index.

    Returns
    -------
    dict of str to str
        `"unknown"` where a library runs from a folder, or is not there.
    """
    found = {}
    for library in libraries:
        try:
            found[library] = version_of(library)
        except PackageNotFoundError:
            found[library] = "unknown"
    return found


def show_versions() -> None:
    """Print information for bug reports: versions of Python and libraries, processors, threads and GPUs.

    Examples
    --------
    >>> import sktransfer
    >>> sktransfer.show_versions()  # doctest: +ELLIPSIS
    System
      python: ...
    """
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    tables: dict[str, dict[str, object]] = {
        "System": {"python": sys.version.replace("\n", " "), "machine": platform.platform()},
        "Libraries": {**installed(*_REQUIRED)},
        "Optional libraries": {**installed(*_OPTIONAL)},
        "torch": {
            "threads": torch.get_num_threads(),
            "processor": torch.backends.cpu.get_cpu_capability(),
            "CUDA": f"{torch.version.cuda or 'none'}, {', '.join(gpus) or 'no device'}",
        },
    }
    for title, rows in tables.items():
        print(title)  # noqa: T201
        for name, value in rows.items():
            print(f"  {name}: {value}")  # noqa: T201
