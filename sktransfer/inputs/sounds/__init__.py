"""Sounds: reading, decoding, preparing, augmenting."""
