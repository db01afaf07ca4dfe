"""Sources of networks: each is one file."""
