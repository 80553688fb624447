"""Labels for gaze models: greedy search for the patches from which a reconstructor rebuilds clips best."""
