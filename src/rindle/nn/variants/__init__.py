"""Many models of one calibration: candidates of searches, fractions, paths, retraining."""
