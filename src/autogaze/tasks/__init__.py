"""Tasks: what a selection is good for, measured and learned. One module each."""
