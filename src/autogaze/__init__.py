"""Look at a video before the vision transformer does, and keep only the patches that matter."""

__version__ = "0.1.0"
