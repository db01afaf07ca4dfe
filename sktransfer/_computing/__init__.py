"""How samples pass through a frozen network, once."""
