"""What a report of a fault should tell, printed: versions, machine, and what this process holds in memory."""

import os
import platform
import sys
from pathlib import Path

from sktransfer._cache_control import cache_info
from sktransfer._process._versions import installed
from sktransfer.backbones._loaded_network import bytes_of_networks

# Libraries whose versions tell most where something differs between two machines; the last ones are optional.
_REQUIRED = ("sktransfer", "torch", "torchvision", "scikit-learn", "skorch", "numpy", "Pillow", "safetensors", "joblib")
_OPTIONAL = (
    "timm",
    "transformers",
    "tokenizers",
    "soundfile",
    "soxr",
    "skops",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "pandas",
)


def show_versions() -> None:
    """Print what a report of a fault should tell: versions of Python and libraries, processors, threads, GPUs, memory.

    Examples
    --------
    >>> import sktransfer
    >>> sktransfer.show_versions()  # doctest: +ELLIPSIS
    System
      python: ...
    """
    import torch

    kept = cache_info()
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
        "Megabytes": {
            f"networks kept ({kept.n_networks})": f"{bytes_of_networks() / 1e6:.1f}",
            f"activations kept in memory ({kept.n_activations})": f"{kept.n_bytes / 1e6:.1f}",
            "memory of this process": _megabytes_of_process(),
        },
    }
    for title, rows in tables.items():
        print(title)  # noqa: T201
        for name, value in rows.items():
            print(f"  {name}: {value}")  # noqa: T201


def _megabytes_of_process() -> str:
    """Return what it takes now, where the system tells in a file."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # macOS, Windows
        return "not known"
    return f"{pages * os.sysconf('SC_PAGE_SIZE') / 1e6:.0f}"
