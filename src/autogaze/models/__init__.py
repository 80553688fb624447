"""Learned selectors."""
