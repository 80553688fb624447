"""Measuring what a selection is worth: videos × selectors × operating points under a reconstructor."""
