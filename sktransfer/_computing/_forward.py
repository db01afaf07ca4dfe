"""Run a frozen network over samples, in order, as fast as the machine allows.

On the CPU each thread computes a small part of a batch by itself: what it works on stays in its caches, no thread
waits for another in every layer, and decoding goes on beside. On a GPU the next batch is loaded and copied while one
computes, and results come back without waiting for each.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import chain, islice, repeat, tee
from typing import Any, TypeVar

import torch
from torch import nn

from sktransfer._computing._allocator import kept_between_layers
from sktransfer._computing._execution import Execution, Fits
from sktransfer._computing._threads import each_alone, n_threads
from sktransfer._messages import first_line
from sktransfer._process._workers import in_order
from sktransfer.inputs._base import Samples, batches_of, load_batch, load_batches, several

T = TypeVar("T")
R = TypeVar("R")

# What a network makes of a batch: one value, or several.
Outputs = tuple[torch.Tensor, ...]

# Samples that are not divided among threads: it would take longer than it saves.
FEW = 4

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

    def run(part: torch.Tensor) -> Outputs:
        return _forward(network, part if parameter is None else part.to(parameter.device), execution.batch_size)

    with torch.inference_mode():
        return _in_parts(run, batch, execution.fits)[0]


def run_batches(
    network: nn.Module, batches: Iterator[torch.Tensor], execution: Execution
) -> Generator[torch.Tensor, None, None]:
    """Run batches without gradients, on the CPU several at once, each in a thread that computes alone.

    Parameters
    ----------
    network : nn.Module
        As in `run_batch`.
    batches : iterator of Tensor of shape (n, ...)
        Taken in this thread. A single one is divided among the threads.
    execution : Execution
        How.

    Yields
    ------
    Tensor of shape (n, ...)
        Float32, in the order of the batches.
    """
    threads, first = n_threads(), list(islice(batches, 2))
    small = not first or first[0].ndim == 2 or (len(first) == 1 and len(first[0]) < 2 * FEW)
    if execution.device.type != "cpu" or threads == 1 or small:
        yield from (run_batch(network, batch, execution) for batch in chain(first, batches))
        return
    if len(first) == 1:
        parts = iter(torch.split(first[0], max(FEW, -(-len(first[0]) // threads))))
        with closing(_in_threads(lambda part: run_batch(network, part, execution), parts, threads)) as results:
            yield torch.cat(list(results))
        return
    with closing(
        _in_threads(lambda batch: run_batch(network, batch, execution), chain(first, batches), threads)
    ) as results:
        yield from results


def _in_parts(run: Callable[[torch.Tensor], Outputs], batch: torch.Tensor, fits: Fits) -> Outputs:
    """Copy a batch to where it runs, prepare it and run it, in as many parts as CUDA's memory demands."""
    while True:
        try:
            parts = [run(part) for part in torch.split(batch, fits.n_samples or len(batch))]
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
    more, batches = several(batches_of(samples, rows, execution.at_once))
    cuda, threads = execution.device.type == "cuda", n_threads()
    on_cpu = execution.device.type == "cpu"
    step = _step(network, samples, execution)
    if on_cpu and threads > 1 and more and change is None and execution.n_jobs is None:
        # Each thread loads what it computes: so there are never more threads than processors.
        with kept_between_layers():
            yield from _in_threads(lambda some: step(load_batch(samples, some)), batches, threads)
        return
    batches, given = tee(batches)
    with kept_between_layers(), closing(_loaded(samples, batches, execution)) as coming:
        loaded: Iterator[torch.Tensor] = coming
        if change is not None:
            loaded = (change(batch, some) for batch, some in zip(coming, given, strict=True))
        if cuda:
            yield from _copied_back(map(step, loaded))
        elif not on_cpu:  # whose calls come from one thread
            yield from (tuple(output.cpu() for output in outputs) for outputs in map(step, loaded))
        elif threads == 1 or not more:
            yield from map(step, loaded)
        else:
            yield from _in_threads(step, loaded, threads)


def compute_ahead(
    network: nn.Module,
    samples: Samples,
    groups: Sequence[Any],
    execution: Execution,
    change: Change | None = None,
    draws_from_torch: bool = False,
) -> Generator[list[torch.Tensor], None, None]:
    """Load groups of rows and run them through a network, the next group while whoever takes them works on one.

    Parameters
    ----------
    network, samples : object
        As in `compute`.
    groups : sequence of array-like of int
        Rows of each group; those of one size should stand together.
    execution : Execution
        How.
    change : callable or None, default=None
        Changes what was loaded.
    draws_from_torch : bool, default=False
        Whether it draws by torch's functions alone, so that any thread may call it, with numbers of its own. Else it is
        called in this thread and in order.

    Yields
    ------
    list of Tensor of shape (n, ...)
        Float32 activations of the next group, in order, those of one size together, on the device.

    Raises
    ------
    ValueError
        If the network does not take such samples.
    """
    from sktransfer._computing._own_numbers import OwnNumbers

    divided = [list(batches_of(samples, group, execution.at_once)) for group in groups]
    batches = [batch for group in divided for batch in group]
    on_cpu, threads = execution.device.type == "cpu", n_threads()
    in_step = change if change is not None and draws_from_torch and on_cpu else None
    before = None if in_step is change else change
    seeds = [0] * len(batches) if in_step is None else torch.randint(2**62, (len(batches),)).tolist()
    step = _step(network, samples, execution)

    def load_and_step(item: tuple[torch.Tensor | None, Sequence[int], int]) -> torch.Tensor:
        batch, rows, seed = item
        with OwnNumbers(seed):  # nothing is drawn that whoever trains meanwhile would draw
            loaded = load_batch(samples, rows) if batch is None else batch
            return step(loaded if in_step is None else in_step(loaded, rows))[0]

    with ExitStack() as opened:
        # On the CPU each thread loads what it computes, but where a number of threads that load is given.
        alone = on_cpu and threads > 1 and execution.n_jobs is None and before is None
        coming = None if alone else opened.enter_context(closing(_loaded(samples, iter(batches), execution)))
        loaded: Iterator[torch.Tensor | None] = repeat(None, len(batches)) if coming is None else coming
        if not on_cpu and draws_from_torch:  # a person's own may not expect a tensor that is not on the CPU
            loaded = (batch.to(execution.device, non_blocking=True) for batch in loaded if batch is not None)
        if before is not None:
            loaded = (before(batch, rows) for batch, rows in zip(loaded, batches, strict=True) if batch is not None)
        items = zip(loaded, batches, seeds, strict=True)
        if not on_cpu:
            results: Iterator[torch.Tensor] = (step(batch)[0] for batch, *_ in items if batch is not None)
        elif threads == 1:
            results = map(load_and_step, items)
        else:
            ahead = threads + max(map(len, divided))
            results = opened.enter_context(closing(_in_threads(load_and_step, items, threads, ahead)))
        for group in divided:
            yield list(islice(results, len(group)))


def _step(network: nn.Module, samples: Samples, execution: Execution) -> Callable[[torch.Tensor], Outputs]:
    """Return what is done with a loaded batch."""
    full = execution.at_once(samples.n_values)

    def run(part: torch.Tensor) -> Outputs:
        prepared = samples.prepare(part.to(execution.device, non_blocking=True))
        return _forward_or_explain(network, prepared, full)

    def step(batch: torch.Tensor) -> Outputs:
        # Modes are entered for each step, not around a yield, where they would leak to whoever takes the batch.
        with torch.no_grad(), execution.autocast():
            return _in_parts(run, batch, execution.fits)

    return step


def _loaded(
    samples: Samples, batches: Iterator[Sequence[int]], execution: Execution
) -> Generator[torch.Tensor, None, None]:
    n_jobs = n_threads() if execution.n_jobs is None else execution.n_jobs
    return load_batches(samples, batches, n_jobs, pin=execution.device.type == "cuda")


def _forward_or_explain(network: nn.Module, prepared: torch.Tensor, full: int) -> Outputs:
    try:
        return _forward(network, prepared, full)
    except (RuntimeError, AssertionError, TypeError, IndexError) as error:
        # Of the device, not of the samples: no memory, here or for the libraries of CUDA, or a card that failed.
        if isinstance(error, torch.cuda.OutOfMemoryError) or str(error).startswith(("CUDA", "cuDNN")):
            raise
        hint = " If rows are flat images, give image_shape=(height, width)." if prepared.ndim == 2 else ""
        raise ValueError(
            f"The backbone could not run samples of shape {tuple(prepared.shape[1:])}: {first_line(error)}. Give X "
            f"in a shape that it takes, or another backbone.{hint}"
        ) from error


def _in_threads(step: Callable[[T], R], batches: Iterator[T], threads: int, ahead: int = 0) -> Generator[R, None, None]:
    """Compute several batches at once, each in one thread, and yield the results in order."""
    ahead = max(threads, ahead)
    return in_order(step, batches, threads, ahead=ahead, name="sktransfer-compute", beginning=each_alone)


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
