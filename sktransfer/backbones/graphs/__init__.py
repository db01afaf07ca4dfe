"""Find where a network can be cut, and make its parts ready to run."""
