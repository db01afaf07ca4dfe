"""Give each thread that computes its own random generator.

Dropout draws from the one generator that torch has in a process, so what each of several threads draws would depend on
which comes first. What is drawn inside here does not.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# What takes a generator; a method where one exists.
_DRAWING: set[Any] = {
    *(torch.bernoulli, torch.multinomial, torch.normal, torch.rand, torch.randint, torch.randn, torch.randperm),
    *(getattr(torch.Tensor, name) for name in ("bernoulli", "bernoulli_", "multinomial", "normal_", "uniform_")),
}
_ALIKE: dict[Any, Any] = {torch.rand_like: torch.Tensor.uniform_, torch.randn_like: torch.Tensor.normal_}
_DROPOUTS: set[Any] = {functional.dropout, torch.dropout}


class OwnNumbers(TorchFunctionMode):
    """A context in which torch's operations draw from a generator of this thread's own.

    Parameters
    ----------
    seed : int or None
        Of the generator. With `None` nothing is dropped: each draw of 0 or 1 is 1.

    Attributes
    ----------
    drew : bool
        Whether anything was drawn.
    """

    def __init__(self, seed: int | None):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed or 0)
        self.keeps_all = seed is None
        self.drew = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _DROPOUTS:
            return self._dropout(*args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        if func in _ALIKE and kwargs.get("generator") is None:
            return self._draw(_ALIKE[func], (torch.empty_like(*args, **kwargs),), {})
        if func in _DRAWING and kwargs.get("generator") is None:
            return self._draw(func, args, kwargs)
        return func(*args, **kwargs)

    def _draw(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        self.drew = True
        result = func(*args, **kwargs, generator=self.generator)
        return result.fill_(1) if self.keeps_all and func in (torch.Tensor.bernoulli_, torch.bernoulli) else result

    def _dropout(
        self,
        input: torch.Tensor,  # noqa: A002  (as torch calls it)
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> torch.Tensor:
        if not training or p == 0:
            return input
        self.drew = True
        if self.keeps_all:
            return input
        kept = torch.empty_like(input, requires_grad=False).bernoulli_(1 - p, generator=self.generator)
        if p < 1:
            kept.div_(1 - p)
        return input.mul_(kept) if inplace else input * kept

    def _attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Attend as torch does, except for dropout: torch draws it without a way to give a generator."""
        if not dropout_p or kwargs.get("enable_gqa"):
            return functional.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, **kwargs)
        scale = kwargs.get("scale")
        weights = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            later = torch.ones(weights.shape[-2:], dtype=torch.bool, device=weights.device).triu(1)
            weights = weights.masked_fill(later, -torch.inf)
        if attn_mask is not None:
            masked = attn_mask.dtype == torch.bool
            weights = weights.masked_fill(~attn_mask, -torch.inf) if masked else weights + attn_mask
        nowhere = weights.isneginf().all(dim=-1, keepdim=True)  # padding, which attends to nothing
        shares = weights.masked_fill(nowhere, 0.0).softmax(dim=-1).masked_fill(nowhere, 0.0)
        return self._dropout(shares, dropout_p) @ value
