"""Measure how near samples are to the training data of a network, without that data. Draws nothing."""
