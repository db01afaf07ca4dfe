"""How a head, and blocks behind the cut, are trained on activations."""
