"""Where networks come from: each place is one file."""
