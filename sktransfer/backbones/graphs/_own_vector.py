"""The vector that a network makes itself of one token of its last hidden states, by a module of its own.

Where the network stands the module stays, so weights keep their names: they are a part of the last block.
"""

import torch
from torch import nn

from sktransfer.backbones.graphs._pooling import pool


class OwnVector(nn.Module):
    """The token from which a module of the network makes its vector.

    Parameters
    ----------
    token : {"cls", "last"}
        Which token.
    module : str
        Name of the module, a child of the network.
    takes_tokens : bool
        Whether the module is given a text of this one token, as poolers are, which take the first; or the token alone,
        as linear layers are.
    """

    def __init__(self, token: str, module: str, takes_tokens: bool):
        super().__init__()
        self.token, self.module, self.takes_tokens = token, module, takes_tokens

    def extra_repr(self) -> str:
        return f"token={self.token!r}, module={self.module!r}, takes_tokens={self.takes_tokens}"

    def forward(self, hidden: torch.Tensor, padding: torch.Tensor | None) -> torch.Tensor:
        """Return what the module is given.

        Parameters
        ----------
        hidden : float32 Tensor of shape (n, tokens, features)
            The last hidden states.
        padding : bool Tensor of shape (n, tokens) or None
            Tokens that stand only for the length of others.

        Returns
        -------
        float32 Tensor of shape (n, features) or (n, 1, features)
            One token of each text.
        """
        token = pool(hidden, self.token, padding=padding)
        return token.unsqueeze(1) if self.takes_tokens else token
