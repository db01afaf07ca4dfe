"""From samples to the activations of a frozen network: batched, without gradients, a few batches at a time.

An activation is a pure function of (weights, cut, preprocessing, precision, sample), so it is looked up before it is
computed.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from sktransfer._activation_cache import PROCESS_CACHE, ActivationCache, activation_key
from sktransfer.inputs import Samples, load_batches

PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Run:
    """How a network is run.

    Parameters
    ----------
    batch_size : int
        Samples a step.
    n_jobs : int or None
        Threads that load samples.
    device : torch.device
        Where the network runs.
    bfloat16 : bool
        Whether layers that tolerate it compute in bfloat16.
    verbose : int
        Whether to show progress.
    cache : ActivationCache or None, default=None
        Where activations are kept.
    """

    batch_size: int
    n_jobs: int | None
    device: torch.device
    bfloat16: bool
    verbose: int
    cache: ActivationCache | None = None

    @classmethod
    def plan(
        cls,
        batch_size: int,
        n_jobs: int | None,
        device: str,
        precision: str,
        verbose: int,
        feature_cache: str | None,
    ) -> "Run":
        """Find out what `"auto"` means on this machine.

        Parameters
        ----------
        batch_size, n_jobs, device, precision, verbose, feature_cache : object
            As the estimators take them.

        Returns
        -------
        Run
            With a device that exists.

        Raises
        ------
        ValueError
            If torch does not know the device, or does not find it here.
        """
        cuda = torch.cuda.is_available()
        try:
            chosen = torch.device(("cuda" if cuda else "cpu") if device == "auto" else device)
        except RuntimeError as error:
            raise ValueError(f'Got device={device!r}; expected "auto", "cpu", "cuda" or "cuda:0".') from error
        if chosen.type == "cuda" and not (cuda and (chosen.index or 0) < torch.cuda.device_count()):
            raise ValueError(
                f"Got device={device!r}; torch finds {torch.cuda.device_count()} CUDA devices here. "
                'Use device="auto" or "cpu".'
            )
        fast = chosen.type == "cuda" and torch.cuda.get_device_capability(chosen)[0] >= 8
        bfloat16 = precision == "bfloat16" or (precision == "auto" and fast)
        cache = PROCESS_CACHE if feature_cache == "auto" else None
        return cls(batch_size, n_jobs, chosen, bfloat16, verbose, cache)

    @property
    def arithmetic(self) -> str:
        """What of the run an activation depends on."""
        return f"{self.device.type} {'bfloat16' if self.bfloat16 else 'float32'}"

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which frozen layers run."""
        if self.bfloat16:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()


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
    if first is None or first.device.type == device.type:
        yield network  # on the CPU, or lent already further up
        return
    try:
        yield network.to(device)
    finally:
        network.to("cpu")


def forward(network: nn.Module, batch: torch.Tensor, full: int) -> torch.Tensor:
    """Run one batch.

    Vectors are padded to a full batch: it costs next to nothing, and matrix products of one shape give each row the
    same bits whoever stands beside it. For images that would multiply the price of a lone one.

    Parameters
    ----------
    network : nn.Module
        In eval mode.
    batch : Tensor of shape (n, ...)
        At most `full` samples.
    full : int
        Samples of a full batch.

    Returns
    -------
    Tensor of shape (n, ...)
        The output, in float32.
    """
    n = len(batch)
    if batch.ndim == 2 and n < full:
        batch = torch.cat([batch, batch.new_zeros(full - n, batch.shape[1])])
    elif batch.ndim == 4:
        batch = batch.contiguous(memory_format=torch.channels_last)
    return network(batch)[:n].float()


def run_batch(network: nn.Module, batch: torch.Tensor, full: int) -> torch.Tensor:
    """Run one batch without gradients, as `forward` does.

    Parameters
    ----------
    network : nn.Module
        In eval mode, on the device to run on.
    batch : Tensor of shape (n, ...)
        At most `full` samples, on any device.
    full : int
        Samples of a full batch.

    Returns
    -------
    Tensor of shape (n, ...)
        Float32.
    """
    parameter = next(network.parameters(), None)
    with torch.inference_mode():
        return forward(network, batch if parameter is None else batch.to(parameter.device), full)


def stream(network: nn.Module, samples: Samples, run: Run) -> Iterator[torch.Tensor]:
    """Run all samples through a frozen network, in order.

    Parameters
    ----------
    network : nn.Module
        In eval mode.
    samples : Samples
        What to run.
    run : Run
        How.

    Yields
    ------
    Tensor of shape (n, ...)
        Float32 activations of the next batch, on the device.

    Raises
    ------
    ValueError
        If the network does not take such samples.
    """
    keys = _keys(network, samples, run)
    found: dict[int, np.ndarray] = {}
    if keys is not None and run.cache is not None:
        kept = run.cache.find(keys)
        found = {row: value for row, value in enumerate(kept) if value is not None}
    missing = [row for row in range(len(samples)) if row not in found]
    bar = tqdm(total=len(samples), unit="sample", disable=not run.verbose, leave=False)
    with lend(network, run.device), bar:
        computed = _compute(network, samples, missing, run)
        if not found:
            for start, batch in zip(range(0, len(samples), run.batch_size), computed, strict=True):
                _keep(batch, keys, range(start, start + len(batch)), len(samples), run)
                bar.update(len(batch))
                yield batch
            return
        waiting: dict[int, np.ndarray] = {}
        rows_to_come = iter(missing)
        for start in range(0, len(samples), run.batch_size):
            rows = range(start, min(start + run.batch_size, len(samples)))
            while any(row not in found and row not in waiting for row in rows):
                batch = next(computed)
                arrived = [next(rows_to_come) for _ in range(len(batch))]
                _keep(batch, keys, arrived, len(samples), run)
                waiting.update(zip(arrived, batch.cpu().numpy(), strict=True))
            joined = np.stack([found[row] if row in found else waiting.pop(row) for row in rows])
            bar.update(len(rows))
            yield torch.from_numpy(joined).to(run.device)


def _compute(network: nn.Module, samples: Samples, rows: Sequence[int], run: Run) -> Iterator[torch.Tensor]:
    """Load some rows and run them through the network, batch by batch."""
    for batch in load_batches(samples, rows, run.batch_size, run.n_jobs):
        # Modes are entered for each step, not around the yield, where they would leak to whoever takes the batch.
        with torch.inference_mode(), run.autocast():
            prepared = samples.prepare(batch.to(run.device))
            try:
                result = forward(network, prepared, run.batch_size)
            except (RuntimeError, AssertionError, TypeError, IndexError) as error:
                if isinstance(error, torch.cuda.OutOfMemoryError):
                    raise
                hint = " Where rows are flat images, say so: image_shape=(height, width)." if prepared.ndim == 2 else ""
                raise ValueError(
                    f"The backbone could not run samples of shape {tuple(prepared.shape[1:])}: {error}. Give X of the "
                    f"shape that it takes, or a backbone that takes this one.{hint}"
                ) from error
        yield result


def _keys(network: nn.Module, samples: Samples, run: Run) -> list[bytes] | None:
    """Keys of all samples, or `None` where nothing is kept: of vectors, of parts without an identity."""
    part = getattr(network, "identity", None)
    recipe = samples.recipe
    if run.cache is None or part is None or recipe is None:
        return None
    return [activation_key(samples.digest(row), recipe, part, run.arithmetic) for row in range(len(samples))]


def _keep(batch: torch.Tensor, keys: list[bytes] | None, rows: Sequence[int], total: int, run: Run) -> None:
    """Keep what was computed, unless so much is to come that it would only push itself out."""
    if keys is not None and run.cache is not None and batch.nbytes // len(batch) * total <= run.cache.limit:
        for row, value in zip(rows, batch.cpu().numpy(), strict=True):
            run.cache.keep(keys[row], value)


def collect(network: nn.Module, samples: Samples, run: Run) -> np.ndarray:
    """Run all samples through a frozen network and return the result.

    Parameters
    ----------
    network : nn.Module
        In eval mode.
    samples : Samples
        What to run.
    run : Run
        How.

    Returns
    -------
    float32 ndarray of shape (n_samples, ...)
        The activations. Memory beyond them does not grow with the number of samples.
    """
    result: np.ndarray | None = None
    start = 0
    for batch in stream(network, samples, run):
        if result is None:
            result = np.empty((len(samples), *batch.shape[1:]), dtype=np.float32)
        result[start : start + len(batch)] = batch.cpu().numpy()
        start += len(batch)
    assert result is not None
    return result


class _First(Samples):
    def __init__(self, samples: Samples):
        self._samples = samples

    def __len__(self) -> int:
        return 1

    def load(self, index: int) -> torch.Tensor:
        return self._samples.load(index)

    def prepare(self, batch: torch.Tensor) -> torch.Tensor:
        return self._samples.prepare(batch)

    @property
    def recipe(self) -> str | None:
        return self._samples.recipe

    def digest(self, index: int) -> bytes:
        return self._samples.digest(index)


def probe(network: nn.Module, samples: Samples, run: Run) -> torch.Tensor:
    """Run the first sample, to see what becomes of one.

    Parameters
    ----------
    network : nn.Module
        In eval mode.
    samples : Samples
        At least one.
    run : Run
        How it is run. Nothing is kept: alone, a sample is rounded otherwise than in a batch.

    Returns
    -------
    Tensor of shape (1, ...)
        Its activation.
    """
    return next(stream(network, _First(samples), replace(run, cache=None)))
