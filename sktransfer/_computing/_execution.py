"""Resolve "auto" for this machine: the device, the precision and the number of threads."""

import contextlib
import platform
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import nn

from sktransfer._computing._allocator import keep_freed_blocks
from sktransfer._messages import listed, shown
from sktransfer._process._locks import Lock, cuda_was_lost

_DEVICES = ("auto", "cpu", "cuda", "cuda:0", "mps")
PRECISIONS = ("auto", "float32", "bfloat16")

# Values of a sample times samples that one processor computes at once: eight images of 224 x 224. Twice as many leave
# its caches, and were slower on every network that was tried.
VALUES_AT_ONCE = 8 * 3 * 224 * 224


# How many use a network that is away from the CPU, by the identity of its first parameter.
_LENT: Counter[int] = Counter()
_LENDING = Lock()


class Fits:
    """Number of samples that fit into CUDA's memory, found by halving; `None` while all have fitted."""

    def __init__(self) -> None:
        self.n_samples: int | None = None

    def halve(self, tried: int) -> bool:
        """Go on with half as many, and warn the first time; false where there is no half."""
        tried = min(tried, self.n_samples or tried)
        if tried == 1:
            return False
        if self.n_samples is None:
            warnings.warn(
                f"CUDA ran out of memory with {tried} samples per step. The batch is halved until it fits. Set a "
                "smaller batch_size to avoid this.",
                UserWarning,
                stacklevel=2,
            )
        self.n_samples = tried // 2
        return True


@dataclass(frozen=True)
class Execution:
    """Settings for running a network.

    Parameters
    ----------
    batch_size : int
        Samples a step, at most.
    n_jobs : int or None
        Threads that load samples; `None` is as many as torch computes with.
    device : torch.device
        Where the network runs.
    bfloat16 : bool
        Whether layers that tolerate it compute in bfloat16.
    verbose : int
        Whether to show progress.
    fits : Fits
        What was found out about the device's memory.
    """

    batch_size: int
    n_jobs: int | None
    device: torch.device
    bfloat16: bool
    verbose: int
    fits: Fits = field(default_factory=Fits, compare=False)

    @classmethod
    def plan(
        cls,
        batch_size: int,
        n_jobs: int | None,
        device: str,
        precision: str,
        verbose: int,
    ) -> "Execution":
        """Find out what `"auto"` means on this machine.

        Parameters
        ----------
        batch_size, n_jobs, device, precision, verbose : object
            As the estimators take them.

        Returns
        -------
        Execution
            With a device that exists.

        Raises
        ------
        ValueError
            If torch does not know the device, or does not find it here.
        """
        cuda = cuda_was_lost() or torch.cuda.is_available()
        chosen = _device(("cuda" if cuda else "cpu") if device == "auto" else device)
        if chosen.type == "mps" and not torch.backends.mps.is_available():
            raise ValueError(f'Got device={shown(device)}; torch finds no Apple GPU here. Use device="auto" or "cpu".')
        if chosen.type == "cuda" and cuda_was_lost():
            raise ValueError(
                f"Got device={shown(device)} in a process that was forked after CUDA was used; CUDA does not work in "
                'such a process. Start processes with multiprocessing.get_context("spawn"), or set device="cpu".'
            )
        if chosen.type == "cuda" and not (cuda and (chosen.index or 0) < torch.cuda.device_count()):
            raise ValueError(
                f"Got device={shown(device)}; torch finds {torch.cuda.device_count()} CUDA devices here. "
                'Use device="auto" or "cpu".'
            )
        if chosen.type == "cuda":
            # "cuda" alone is the card that is current in a thread, which differs from thread to thread and may change.
            # Asking for it brings CUDA up, so that its generators are there for whoever seeds them and puts them back.
            current = torch.cuda.current_device()
            chosen = torch.device("cuda", current if chosen.index is None else chosen.index)
        else:
            keep_freed_blocks()
        bfloat16 = precision == "bfloat16" or (precision == "auto" and multiplies_bfloat16(chosen))
        # NumPy's integers overflow where they are small.
        threads = None if n_jobs is None else int(n_jobs)
        return cls(int(batch_size), threads, chosen, bfloat16, int(verbose))

    @property
    def arithmetic(self) -> str:
        """Part of the settings that activations depend on."""
        return f"{self.device.type} {'bfloat16' if self.bfloat16 else 'float32'}"

    def at_once(self, values: int) -> int:
        """Return how many samples of so many values are computed in one step."""
        return self.batch_size if self.device.type != "cpu" else max(1, min(self.batch_size, VALUES_AT_ONCE // values))

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which frozen layers run."""
        if self.bfloat16:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()


def multiplies_bfloat16(device: torch.device) -> bool:
    """Tell whether a device multiplies bfloat16 faster than float32.

    Parameters
    ----------
    device : torch.device
        CUDA or CPU.

    Returns
    -------
    bool
        CUDA: compute capability 8.0 and above. CPU, as far as this torch can tell: AMX; or AVX512-BF16, but not of
        Intel, whose processors do no more in an instruction of it than in two of float32, so that turning values from
        one to the other makes it slower.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu":
        return False
    names = ("amx_tile",) if is_of_intel() else ("amx_tile", "avx512_bf16")
    if hasattr(torch.cpu, "get_capabilities"):
        can = torch.cpu.get_capabilities()
        return any(can.get(name, False) for name in names)
    asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in names)  # of older versions of torch
    return any(ask is not None and ask() for ask in asked)


def _device(name: str) -> torch.device:
    """Return a device of a kind that this package runs on."""
    try:
        found = torch.device(name)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda", "mps"):
        meant = "".join(f" Did you mean {one!r}?" for one in _DEVICES if one == name.strip().casefold())
        raise ValueError(
            f"Got device={shown(name)}; expected {listed(_DEVICES)}. torch calls a GPU 'cuda', and the GPU of a Mac "
            f"'mps'. 'auto' chooses 'cuda' if available.{meant}"
        )
    return found


@cache
def is_of_intel() -> bool:
    """Tell whether the processor is one of Intel's.

    Returns
    -------
    bool
        Not where the system does not tell.
    """
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            described = file.read(4096)
    except OSError:  # no Linux
        described = platform.processor()
    return "GenuineIntel" in described


@contextlib.contextmanager
def lend(network: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """Move a network to a device and back to the CPU, so that nothing stays on the device.

    Parameters
    ----------
    network : nn.Module
        On the CPU.
    device : torch.device
        Where it is needed.

    Yields
    ------
    nn.Module
        The same network, there.
    """
    first = next(network.parameters(), None)
    if first is None or device.type == "cpu":
        yield network
        return
    with _LENDING:
        _LENT[id(first)] += 1  # lent further up already, or to another thread
    try:
        # Whoever calls may be in inference mode: tensors that were moved in it could not be trained any more.
        with _LENDING, torch.inference_mode(False):
            network.to(device)
        yield network
    finally:
        with _LENDING, torch.inference_mode(False):
            _LENT[id(first)] -= 1
            if not _LENT[id(first)]:
                del _LENT[id(first)]
                network.to("cpu")
