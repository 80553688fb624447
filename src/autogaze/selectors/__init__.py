"""Selectors that need no weights."""
