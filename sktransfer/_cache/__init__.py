"""Where activations are kept: in memory, in a folder."""
