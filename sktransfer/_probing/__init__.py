"""Read targets and make folds in one way for all probes."""
