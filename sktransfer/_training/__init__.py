"""Train a head, and blocks after the cut, on activations."""
