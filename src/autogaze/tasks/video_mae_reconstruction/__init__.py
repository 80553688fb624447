"""Rebuilding a video from its gazes with a masked autoencoder: the published reconstructor and its task."""
