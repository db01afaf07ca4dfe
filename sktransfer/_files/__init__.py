"""What is written to files, and read from them: data, never code."""
