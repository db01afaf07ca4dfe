"""A frozen network run over samples, in order, as fast as the machine allows.

On the CPU each thread computes a small part of a batch by itself: what it works on stays in its caches, no thread
waits for another in every layer, and decoding goes on beside. On a GPU the next batch is loaded and copied while one
computes, and results come back without waiting for each.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

from sktransfer._computing._execution import Execution, Fits
from sktransfer._messages import first_line
from sktransfer._process._locks import Lock
from sktransfer._process._workers import LOOKS_EVERY, in_order
from sktransfer.inputs._base import Samples, batches_of, load_batch, load_batches

T = TypeVar("T")

# While threads that compute alone are started, torch gives each new thread one processor.
_STARTING = Lock()

# Changes loaded samples at random: it is given a batch and the rows that it holds.
Change = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]


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
    if batch.ndim == 2 and n < full and batch.is_floating_point():
        batch = torch.cat([batch, batch.new_zeros(full - n, batch.shape[1])])
    elif batch.ndim == 4:
        batch = batch.contiguous(memory_format=torch.channels_last)
    return network(batch)[:n].float()


def run_batch(network: nn.Module, batch: torch.Tensor, execution: Execution) -> torch.Tensor:
    """Run one batch without gradients, in as many parts as CUDA's memory demands.

    Parameters
    ----------
    network : nn.Module
        In eval mode, on the device to run on.
    batch : Tensor of shape (n, ...)
        At most a batch, on any device.
    execution : Execution
        How.

    Returns
    -------
    Tensor of shape (n, ...)
        Float32.
    """
    parameter = next(network.parameters(), None)

    def run(part: torch.Tensor) -> torch.Tensor:
        return forward(network, part if parameter is None else part.to(parameter.device), execution.batch_size)

    with torch.inference_mode():
        return _in_parts(run, batch, execution.fits)


def _in_parts(run: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor, fits: Fits) -> torch.Tensor:
    """Copy a batch to where it runs, prepare it and run it, in as many parts as CUDA's memory demands."""
    while True:
        try:
            parts = [run(part) for part in torch.split(batch, fits.n_samples or len(batch))]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        except torch.cuda.OutOfMemoryError:
            if not fits.halve(len(batch)):
                raise
        torch.cuda.empty_cache()  # outside the handler, whose traceback would hold on to what filled the memory


def compute(
    network: nn.Module, samples: Samples, rows: Sequence[int], execution: Execution, change: Change | None = None
) -> Generator[torch.Tensor, None, None]:
    """Load some rows and run them through a network.

    Parameters
    ----------
    network : nn.Module
        In eval mode, on the run's device.
    samples : Samples
        What to load.
    rows : sequence of int
        Which, in the order wanted; what is computed at once has one shape, so those of one size should stand together.
    execution : Execution
        How.
    change : callable or None, default=None
        Changes what was loaded; called in this thread and in order, since it may draw from torch's generator.

    Yields
    ------
    Tensor of shape (n, ...)
        Float32 activations of the next few rows, on the CPU.

    Raises
    ------
    ValueError
        If the network does not take such samples.
    """
    full = execution.at_once(samples.n_values)
    batches = list(batches_of(samples, rows, execution.at_once))
    cuda = execution.device.type == "cuda"
    with _STARTING:
        threads = torch.get_num_threads()

    def run(part: torch.Tensor) -> torch.Tensor:
        prepared = samples.prepare(part.to(execution.device, non_blocking=True))
        return _forward_or_explain(network, prepared, full)

    def step(batch: torch.Tensor) -> torch.Tensor:
        # Modes are entered for each step, not around the yield, where they would leak to whoever takes the batch.
        with torch.no_grad(), execution.autocast():
            return _in_parts(run, batch, execution.fits)

    if not cuda and threads > 1 and len(batches) > 1 and change is None and execution.n_jobs is None:
        # Each thread loads what it computes: so there are never more threads than processors.
        yield from _in_threads(lambda some: step(load_batch(samples, some)), iter(batches), threads)
        return
    with closing(
        load_batches(samples, batches, threads if execution.n_jobs is None else execution.n_jobs, pin=cuda)
    ) as coming:
        loaded: Iterator[torch.Tensor] = coming
        if change is not None:
            loaded = (change(batch, some) for batch, some in zip(coming, batches, strict=True))
        if cuda:
            yield from _copied_back(map(step, loaded))
        elif threads == 1 or len(batches) == 1:
            yield from map(step, loaded)
        else:
            yield from _in_threads(step, loaded, threads)


def _forward_or_explain(network: nn.Module, prepared: torch.Tensor, full: int) -> torch.Tensor:
    try:
        return forward(network, prepared, full)
    except (RuntimeError, AssertionError, TypeError, IndexError) as error:
        # Of the device, not of the samples: no memory, here or for the libraries of CUDA, or a card that failed.
        if isinstance(error, torch.cuda.OutOfMemoryError) or str(error).startswith(("CUDA", "cuDNN")):
            raise
        hint = " Where rows are flat images, say so: image_shape=(height, width)." if prepared.ndim == 2 else ""
        raise ValueError(
            f"The backbone could not run samples of shape {tuple(prepared.shape[1:])}: {first_line(error)}. Give X of "
            f"the shape that it takes, or a backbone that takes this one.{hint}"
        ) from error


def _in_threads(step: Callable[[T], torch.Tensor], batches: Iterator[T], threads: int) -> Iterator[torch.Tensor]:
    """Compute several batches at once, each in one thread, and yield the results in order."""
    return in_order(step, batches, threads, ahead=threads, name="sktransfer-compute", beginning=_each_alone)


@contextmanager
def _each_alone(started: Sequence[threading.Thread]) -> Iterator[Callable[[], None]]:
    """Give threads that are started inside one processor each, and new threads of the caller's as many as before.

    torch knows one number for all threads to come, which a thread takes for good when it first asks. So nobody else
    starts threads here meanwhile; and a thread that wakes when this is over leaves the number alone.
    """
    begun, setting, over = queue.SimpleQueue[threading.Thread](), threading.Lock(), False

    def begin() -> None:
        try:
            with setting:
                if not over:
                    torch.set_num_threads(1)
                    torch.get_num_threads()
        finally:  # whatever happens: the wait for it ends here
            begun.put(threading.current_thread())

    with _STARTING:
        threads = torch.get_num_threads()
        try:
            yield begin
            coming = set(started)
            while coming:
                try:
                    coming.discard(begun.get(timeout=LOOKS_EVERY))
                except queue.Empty:  # one that has ended does not begin
                    coming = {thread for thread in coming if thread.is_alive()}
        finally:
            with setting:
                over = True
                torch.set_num_threads(threads)


def _copied_back(results: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Copy results to the CPU while the next are computed."""
    waiting: deque[tuple[torch.Tensor, Any]] = deque()
    for result in results:
        host = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
        host.copy_(result, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(torch.cuda.current_stream(result.device))
        waiting.append((host, copied))
        if len(waiting) > 2:
            yield _arrived(*waiting.popleft())
    while waiting:
        yield _arrived(*waiting.popleft())


def _arrived(host: torch.Tensor, copied: Any) -> torch.Tensor:
    copied.synchronize()
    return host
