"""Losses of the training stages, as pure functions of tensors."""
