"""How near samples are to what a network was trained on, measured without its training data. Knows no display."""
