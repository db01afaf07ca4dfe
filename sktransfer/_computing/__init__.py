"""Pass samples through a frozen network, once."""
