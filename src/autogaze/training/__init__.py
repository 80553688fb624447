"""Training of gaze models."""
