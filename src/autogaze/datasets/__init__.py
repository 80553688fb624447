"""Training data, and the published helpers that read clips."""
