"""Train on the CPU with several threads: each computes one part of the batch, forwards and backwards.

Losses, optimiser and callbacks see one batch and one gradient as ever. The parts are fixed by their number, and their
gradients are summed in their order, so no bit depends on which thread was first.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from sktransfer._computing._execution import Execution
from sktransfer._computing._forward import FEW
from sktransfer._computing._own_numbers import OwnNumbers
from sktransfer._computing._threads import alone, each_alone, n_threads
from sktransfer._process._private_names import NormBase
from sktransfer._process._seeding import generator_kept
from sktransfer._process._workers import team
from sktransfer._training._suffix_network import SuffixNetwork

# Bytes that the gradients of all parts may take: with few threads, those of any usual network.
GRADIENT_BYTES = 2 * 2**30
# Weights times values of a batch below which threads cost more than they save.
LEAST_WORK = 2**24
# Share of the largest output by which outputs of a part may differ from those of the whole, rounding as they do.
ROUNDING = {False: 1e-4, True: 5e-2}

Work = Callable[[Any], Any]
Together = Callable[[Work, Sequence[Any]], list[Any]]


@contextmanager
def in_parts(module: SuffixNetwork, execution: Execution) -> Iterator[None]:
    """Let a suffix run and be trained in threads that compute alone, if it can be, and this thread compute alone.

    Parameters
    ----------
    module : SuffixNetwork
        On the execution's device.
    execution : Execution
        How.

    Yields
    ------
    None
        While it does.
    """
    if execution.device.type != "cpu" or n_threads() == 1:
        yield
        return
    with ExitStack() as threads:
        threads.enter_context(alone())
        if module.tail is not None:
            count = n_threads()
            together = threads.enter_context(team(count - 1, name="sktransfer-train", beginning=each_alone))
            module.runner = BatchParts(module, together, count, threads.close)
        try:
            yield
        finally:
            module.runner = None


class BatchParts:
    """Runs a suffix on parts of a batch.

    Parameters
    ----------
    module : SuffixNetwork
        The suffix.
    together : callable
        Does work on several items at once.
    n_threads : int
        How many at once.
    leave : callable
        Called if the suffix turns out to need whole batches: torch's own threads then serve it.
    """

    def __init__(self, module: SuffixNetwork, together: Together, n_threads: int, leave: Callable[[], None]):
        self.module, self.together, self.n_threads, self._leave = module, together, n_threads, leave
        self._modes: list[bool] | None = None
        self._draws = False

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the outputs of a batch, with gradients where they are wanted."""
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        n_parts = self._count(batch, parameters)
        if n_parts < 2:
            return self.module.run(batch)
        if not self._can_divide(batch):
            self.module.runner = None
            self._leave()
            return self.module.run(batch)
        parts = batch.chunk(n_parts)
        seeds = torch.randint(2**62, (len(parts),)).tolist() if self._draws else [None] * len(parts)
        items = list(zip(parts, seeds, strict=True))
        if parameters and torch.is_grad_enabled():
            return _InParts.apply(self, items, *parameters)
        return torch.cat(self.together(self._run, items))

    def _run(self, item: tuple[torch.Tensor, int | None]) -> torch.Tensor:
        part, seed = item
        with torch.no_grad(), nullcontext() if seed is None else OwnNumbers(seed):
            return self.module.run(part)

    def run_with_gradients(self, item: tuple[torch.Tensor, int | None]) -> torch.Tensor:
        """Return the outputs of a part."""
        part, seed = item
        with torch.enable_grad(), nullcontext() if seed is None else OwnNumbers(seed):
            return self.module.run(part)

    def _count(self, batch: torch.Tensor, parameters: Sequence[torch.Tensor]) -> int:
        """Return into how many parts a batch is divided. It depends only on sizes and the number of threads."""
        weights = sum(parameter.numel() for parameter in parameters)
        width = {3: -1, 4: 1}.get(batch.ndim)  # the axis of channels: the weights are used at each place of the others
        places = len(batch) if width is None else batch.numel() // batch.shape[width]
        if max(weights, self.module.n_weights_in_use()) * places < LEAST_WORK and parameters:
            return 1
        fitting = GRADIENT_BYTES // (4 * weights) if weights else self.n_threads
        return min(self.n_threads, len(batch) // FEW, fitting)

    def _can_divide(self, batch: torch.Tensor) -> bool:
        """Tell whether each sample's outputs depend on it alone, as the network is set now; look whether it draws."""
        modes = [layer.training for layer in self.module.modules()]
        if modes == self._modes:
            return True
        if any(isinstance(layer, NormBase) and layer.training for layer in self.module.modules()):
            return False
        few = batch[: 2 * FEW]
        buffers = [buffer for layer in self.module.modules() if layer.training for buffer in layer.buffers(False)]
        before = [buffer.clone() for buffer in buffers]
        with torch.no_grad(), generator_kept(), OwnNumbers(None) as numbers:
            state = torch.get_rng_state()
            whole = self.module.features(few)
            parts = torch.cat([self.module.features(part) for part in few.chunk(2)])
            same = torch.equal(state, torch.get_rng_state())
            for buffer, old in zip(buffers, before, strict=True):
                same = same and torch.equal(buffer, old)
                buffer.copy_(old)
        self._modes, self._draws = modes, numbers.drew or self._drops_in_head()
        bound = ROUNDING[self.module.in_bfloat16] * whole.abs().amax()
        return same and bool((whole - parts).abs().amax() <= bound)

    def _drops_in_head(self) -> bool:
        return any(isinstance(layer, nn.Dropout) and layer.training for layer in self.module.head.modules())


class _InParts(torch.autograd.Function):
    """Outputs of a batch, whose gradient is computed in the parts that it was divided into."""

    @staticmethod
    def forward(ctx: Any, runner: BatchParts, items: Sequence[Any], *parameters: torch.Tensor) -> torch.Tensor:
        ctx.runner, ctx.parameters = runner, parameters
        ctx.outputs = runner.together(runner.run_with_gradients, items)
        return torch.cat([output.detach() for output in ctx.outputs])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        outputs, ctx.outputs = ctx.outputs, None
        wanted = [parameter for parameter in ctx.parameters if parameter.requires_grad]

        def differentiate(pair: tuple[torch.Tensor, torch.Tensor]) -> Sequence[torch.Tensor | None]:
            return torch.autograd.grad(pair[0], wanted, pair[1], allow_unused=True)

        pairs = list(zip(outputs, torch.split(gradient, [len(output) for output in outputs]), strict=True))
        del outputs
        total, *others = ctx.runner.together(differentiate, pairs)
        total = [None if one is None else one.contiguous() for one in total]
        for more in others:
            for one, another in zip(total, more, strict=True):
                if one is not None and another is not None:
                    one.add_(another)
        return None, None, *total
