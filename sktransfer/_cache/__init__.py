"""Cache activations, in memory or in a folder."""
