"""The shots of the sample video."""
