"""Write and read files that hold data, never code."""
