"""Pool the output of a block, a map or tokens, to one vector per sample."""

from abc import abstractmethod

import torch

POOLINGS = ("avg", "max", "flatten", "cls", "mean", "last")


class PoolsItself:
    """A part of a network that knows itself how its output becomes vectors."""

    @abstractmethod
    def _pool_output(self, x: torch.Tensor, output: torch.Tensor, pooling: str) -> torch.Tensor:
        """Make vectors of shape (n, features) of what the part made of `x`."""


def pool_on_the_way(x: torch.Tensor, pooling: str, channels_last: bool) -> torch.Tensor:
    """Turn a value on the way through a network into vectors that nothing behind it can change.

    Parameters
    ----------
    x, pooling, channels_last : object
        As in `pool`.

    Returns
    -------
    float32 Tensor of shape (n, features)
        No view of the value.
    """
    vector = pool(x.float(), pooling, channels_last)
    return vector.clone() if x.ndim == 2 or pooling in ("flatten", "cls") else vector


def pool(
    x: torch.Tensor, pooling: str, channels_last: bool = False, padding: torch.Tensor | None = None
) -> torch.Tensor:
    """Turn activations into vectors.

    Parameters
    ----------
    x : Tensor
        Of shape (n, features), (n, tokens, features), (n, channels, height, width) or (n, height, width, channels).
        Vectors are returned as they are.
    pooling : {"avg", "max", "flatten", "cls", "mean", "last"}
        `"avg"` and `"mean"` are the same: over positions of a map, over all tokens. `"cls"` is the first token,
        `"last"` the last.
    channels_last : bool, default=False
        Whether the channels of a map are its last axis.
    padding : bool Tensor of shape (n, tokens) or None, default=None
        Tokens that stand only for the length of others, at the end of each sample.

    Returns
    -------
    Tensor of shape (n, features)
        The vectors.

    Raises
    ------
    ValueError
        If a map is asked for one token.
    """
    if x.ndim == 2:
        return x
    if pooling == "flatten":
        return x.flatten(1)
    if pooling in ("cls", "last"):
        if x.ndim != 3:
            raise ValueError(
                f'Got pooling="{pooling}" for activations of shape {tuple(x.shape[1:])}; expected tokens, of shape '
                '(tokens, features). Use pooling="avg" or "max" for maps.'
            )
        if pooling == "cls":
            return x[:, 0]
        if padding is None:
            return x[:, -1]
        last = (~padding).sum(1).sub(1).clamp(min=0).view(-1, 1, 1).expand(-1, 1, x.shape[-1])
        return x.gather(1, last)[:, 0]
    if padding is not None:
        hidden = padding.unsqueeze(-1)
        if pooling == "max":
            return x.masked_fill(hidden, -torch.inf).amax(1)
        return x.masked_fill(hidden, 0.0).sum(1) / (~hidden).sum(1)
    if x.ndim > 3 and channels_last:
        x = x.permute(0, x.ndim - 1, *range(1, x.ndim - 1))  # ONNX has no movedim with negative axes
    positions = tuple(range(2, x.ndim)) if x.ndim > 3 else (1,)
    return x.amax(positions) if pooling == "max" else x.mean(positions)
