"""Images: reading, decoding, preparing, augmenting."""
