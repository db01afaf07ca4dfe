"""What probes are judged by, whoever fits them: targets read in one way, and folds made in one way."""
