"""A frozen network run over samples, in order, as fast as the machine allows.

On the CPU each thread computes a small part of a batch by itself: what it works on stays in its caches, no thread
waits for another in every layer, and decoding goes on beside. On a GPU the next batch is loaded and copied while one
computes, and results come back without waiting for each.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import tee
from typing import Any, TypeVar

import torch
from torch import nn

from sktransfer._computing._execution import Execution, Fits
from sktransfer._messages import first_line
from sktransfer._process._locks import Lock
from sktransfer._process._workers import LOOKS_EVERY, in_order
from sktransfer.inputs._base import Samples, batches_of, load_batch, load_batches, several

T = TypeVar("T")

# What a network makes of a batch: one value, or several.
Outputs = tuple[torch.Tensor, ...]

# While threads that compute alone are started, torch gives each new thread one processor.
_STARTING = Lock()

# Changes loaded samples at random: it is given a batch and the rows that it holds.
Change = Callable[[torch.Tensor, Sequence[int]], torch.Tensor]


def _forward(network: nn.Module, batch: torch.Tensor, full: int) -> Outputs:
    """Run one batch.

    Vectors are padded to a full batch: it costs next to nothing, and matrix products of one shape give each row the
    same bits whoever stands beside it. For images that would multiply the price of a lone one.
    """
    n = len(batch)
    if batch.ndim == 2 and n < full and batch.is_floating_point():
        batch = torch.cat([batch, batch.new_zeros(full - n, batch.shape[1])])
    elif batch.ndim == 4:
        batch = batch.contiguous(memory_format=torch.channels_last)
    outputs = network(batch)
    return tuple(output[:n].float() for output in (outputs if isinstance(outputs, tuple) else (outputs,)))


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
    with torch.inference_mode():
        here = batch if parameter is None else batch.to(parameter.device)
        return _forward_in_parts(network, here, execution.batch_size, execution.fits)[0]


def _forward_in_parts(network: nn.Module, batch: torch.Tensor, full: int, fits: Fits) -> Outputs:
    while True:
        try:
            parts = [_forward(network, part, full) for part in torch.split(batch, fits.n_samples or len(batch))]
            return parts[0] if len(parts) == 1 else tuple(map(torch.cat, zip(*parts, strict=True)))
        except torch.cuda.OutOfMemoryError:
            if not fits.halve(len(batch)):
                raise
        torch.cuda.empty_cache()  # outside the handler, whose traceback would hold on to what filled the memory


def compute(
    network: nn.Module, samples: Samples, rows: Iterable[int], execution: Execution, change: Change | None = None
) -> Generator[torch.Tensor, None, None]:
    """Load some rows and run them through a network.

    Parameters
    ----------
    network, samples, rows, execution, change : object
        As in `compute_all`, of a network that returns one value.

    Yields
    ------
    Tensor of shape (n, ...)
        Float32 activations of the next few rows, on the CPU.
    """
    with closing(compute_all(network, samples, rows, execution, change)) as coming:
        for (output,) in coming:
            yield output


def compute_all(
    network: nn.Module,
    samples: Samples,
    rows: Iterable[int],
    execution: Execution,
    change: Change | None = None,
) -> Generator[Outputs, None, None]:
    """Load some rows and run them through a network that may return several values.

    Parameters
    ----------
    network : nn.Module
        In eval mode, on the run's device.
    samples : Samples
        What to load.
    rows : iterable of int
        Which, in the order wanted; what is computed at once has one shape, so those of one size should stand together.
        They are taken in this thread, as the pass goes on, a few batches ahead.
    execution : Execution
        How.
    change : callable or None, default=None
        Changes what was loaded; called in this thread and in order, since it may draw from torch's generator.

    Yields
    ------
    tuple of Tensor of shape (n, ...)
        Float32 activations of the next few rows, on the CPU: one of each value.

    Raises
    ------
    ValueError
        If the network does not take such samples.
    """
    full = execution.at_once(samples.n_values)
    more, batches = several(batches_of(samples, rows, execution.at_once))
    cuda = execution.device.type == "cuda"
    with _STARTING:
        threads = torch.get_num_threads()

    def step(batch: torch.Tensor) -> Outputs:
        # Modes are entered for each step, not around the yield, where they would leak to whoever takes the batch.
        with torch.no_grad(), execution.autocast():
            prepared = samples.prepare(batch.to(execution.device, non_blocking=True))
            return _forward_or_explain(network, prepared, full, execution.fits)

    if not cuda and threads > 1 and more and change is None and execution.n_jobs is None:
        # Each thread loads what it computes: so there are never more threads than processors.
        yield from _in_threads(lambda some: step(load_batch(samples, some)), batches, threads)
        return
    batches, given = tee(batches)
    with closing(
        load_batches(samples, batches, threads if execution.n_jobs is None else execution.n_jobs, pin=cuda)
    ) as coming:
        loaded: Iterator[torch.Tensor] = coming
        if change is not None:
            loaded = (change(batch, some) for batch, some in zip(coming, given, strict=True))
        if cuda:
            yield from _copied_back(map(step, loaded))
        elif threads == 1 or not more:
            yield from map(step, loaded)
        else:
            yield from _in_threads(step, loaded, threads)


def _forward_or_explain(network: nn.Module, prepared: torch.Tensor, full: int, fits: Fits) -> Outputs:
    try:
        return _forward_in_parts(network, prepared, full, fits)
    except (RuntimeError, AssertionError, TypeError, IndexError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        hint = " Where rows are flat images, say so: image_shape=(height, width)." if prepared.ndim == 2 else ""
        raise ValueError(
            f"The backbone could not run samples of shape {tuple(prepared.shape[1:])}: {first_line(error)}. Give X of "
            f"the shape that it takes, or a backbone that takes this one.{hint}"
        ) from error


def _in_threads(step: Callable[[T], Outputs], batches: Iterator[T], threads: int) -> Iterator[Outputs]:
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


def _copied_back(results: Iterator[Outputs]) -> Iterator[Outputs]:
    """Copy results to the CPU while the next are computed."""
    waiting: deque[tuple[Outputs, Any]] = deque()
    for outputs in results:
        hosts = tuple(torch.empty(output.shape, dtype=output.dtype, pin_memory=True) for output in outputs)
        for host, output in zip(hosts, outputs, strict=True):
            host.copy_(output, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(torch.cuda.current_stream(outputs[0].device))
        waiting.append((hosts, copied))
        if len(waiting) > 2:
            yield _arrived(*waiting.popleft())
    while waiting:
        yield _arrived(*waiting.popleft())


def _arrived(hosts: Outputs, copied: Any) -> Outputs:
    copied.synchronize()
    return hosts
