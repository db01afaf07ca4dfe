"""From a block's output, a map or tokens, to one vector a sample."""

import torch

POOLINGS = ("avg", "max", "flatten", "cls", "mean")


def pool(x: torch.Tensor, pooling: str, channels_last: bool = False) -> torch.Tensor:
    """Turn activations into vectors.

    Parameters
    ----------
    x : Tensor
        Of shape (n, features), (n, tokens, features), (n, channels, height, width) or (n, height, width, channels).
        Vectors are returned as they are.
    pooling : {"avg", "max", "flatten", "cls", "mean"}
        `"avg"` and `"mean"` are the same: over positions of a map, over all tokens.

    channels_last : bool, default=False
        Whether the channels of a map are its last axis.

    Returns
    -------
    Tensor of shape (n, features)
        The vectors.

    Raises
    ------
    ValueError
        If a map is asked for its class token.
    """
    if x.ndim == 2:
        return x
    if pooling == "flatten":
        return x.flatten(1)
    if pooling == "cls":
        if x.ndim != 3:
            raise ValueError(
                f'Got pooling="cls" for activations of shape {tuple(x.shape[1:])}; expected tokens, of shape '
                '(tokens, features). Use pooling="avg" or "max" for maps.'
            )
        return x[:, 0]
    if x.ndim > 3 and channels_last:
        x = x.permute(0, x.ndim - 1, *range(1, x.ndim - 1))  # ONNX has no movedim with negative axes
    positions = tuple(range(2, x.ndim)) if x.ndim > 3 else (1,)
    return x.amax(positions) if pooling == "max" else x.mean(positions)
