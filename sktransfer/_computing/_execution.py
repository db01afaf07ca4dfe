"""What "auto" means on this machine: which device, which precision, how many threads, where activations are kept."""

import contextlib
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import nn

from sktransfer._computing._allocator import keep_freed_blocks
from sktransfer._process._locks import Lock, cuda_was_lost

PRECISIONS = ("auto", "float32", "bfloat16")

# Values of a sample times samples that one processor computes at once: eight images of 224 x 224. Twice as many leave
# its caches, and were slower on every network that was tried.
VALUES_AT_ONCE = 8 * 3 * 224 * 224


# How many use a network that is away from the CPU, by the identity of its first parameter.
_LENT: Counter[int] = Counter()
_LENDING = Lock()


class Fits:
    """How many samples at once fit into CUDA's memory, found out by halving; `None` while nothing said otherwise."""

    def __init__(self) -> None:
        self.n_samples: int | None = None

    def halve(self, tried: int) -> bool:
        """Go on with half as many, and warn the first time; false where there is no half."""
        tried = min(tried, self.n_samples or tried)
        if tried == 1:
            return False
        if self.n_samples is None:
            warnings.warn(
                f"CUDA ran out of memory with {tried} samples at once: the batch is halved until it fits. Set a "
                "smaller batch_size to save the attempt.",
                UserWarning,
                stacklevel=2,
            )
        self.n_samples = tried // 2
        return True


@dataclass(frozen=True)
class Execution:
    """How a network is run.

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
    trains_in_bfloat16 : bool, default=False
        Whether layers that tolerate it are trained in bfloat16.
    """

    batch_size: int
    n_jobs: int | None
    device: torch.device
    bfloat16: bool
    verbose: int
    fits: Fits = field(default_factory=Fits, compare=False)
    trains_in_bfloat16: bool = False

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
        try:
            chosen = torch.device(("cuda" if cuda else "cpu") if device == "auto" else device)
        except RuntimeError as error:
            raise ValueError(f'Got device={device!r}; expected "auto", "cpu", "cuda" or "cuda:0".') from error
        if chosen.type not in ("cpu", "cuda"):
            raise ValueError(f'Got device={device!r}; expected "auto", "cpu", "cuda" or "cuda:0", where this runs.')
        if chosen.type == "cuda" and cuda_was_lost():
            raise ValueError(
                f"Got device={device!r} in a process that was forked from one that had used CUDA, which cannot be used "
                'here. Start processes with multiprocessing.get_context("spawn"), or set device="cpu".'
            )
        if chosen.type == "cuda" and not (cuda and (chosen.index or 0) < torch.cuda.device_count()):
            raise ValueError(
                f"Got device={device!r}; torch finds {torch.cuda.device_count()} CUDA devices here. "
                'Use device="auto" or "cpu".'
            )
        if chosen.type == "cuda":
            # "cuda" alone is the card that is current in a thread, which differs from thread to thread and may change.
            # Asking for it brings CUDA up, so that its generators are there for whoever seeds them and puts them back.
            current = torch.cuda.current_device()
            chosen = torch.device("cuda", current if chosen.index is None else chosen.index)
        else:
            keep_freed_blocks()
        given, auto = precision == "bfloat16", precision == "auto"
        bfloat16 = given or (auto and multiplies_bfloat16(chosen))
        training = given or (auto and multiplies_bfloat16(chosen, training=True))
        # NumPy's integers overflow where they are small.
        threads = None if n_jobs is None else int(n_jobs)
        return cls(int(batch_size), threads, chosen, bfloat16, int(verbose), trains_in_bfloat16=training)

    @property
    def arithmetic(self) -> str:
        """What of the run an activation depends on."""
        return f"{self.device.type} {'bfloat16' if self.bfloat16 else 'float32'}"

    def at_once(self, values: int) -> int:
        """Return how many samples of so many values are computed in one step."""
        return self.batch_size if self.device.type != "cpu" else max(1, min(self.batch_size, VALUES_AT_ONCE // values))

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which frozen layers run."""
        if self.bfloat16:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()


def multiplies_bfloat16(device: torch.device, training: bool = False) -> bool:
    """Tell whether a device has instructions that multiply bfloat16, so that it is faster than float32.

    Parameters
    ----------
    device : torch.device
        CUDA or CPU.
    training : bool, default=False
        Whether gradients are wanted too. Weights that change are turned to bfloat16 again in each step, and on a CPU
        with AVX512-BF16 that costs more than it saves.

    Returns
    -------
    bool
        CUDA: compute capability 8.0 and above. CPU: AMX, or AVX512-BF16 without gradients, as far as this torch can
        tell.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    if device.type != "cpu":
        return False
    names = ("amx_tile",) if training else ("avx512_bf16", "amx_tile")
    if hasattr(torch.cpu, "get_capabilities"):
        can = torch.cpu.get_capabilities()
        return any(can.get(name, False) for name in names)
    asked = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in names)  # of older versions of torch
    return any(ask is not None and ask() for ask in asked)


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
