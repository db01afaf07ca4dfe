"""Where a network can be cut, and its parts made ready to run."""
