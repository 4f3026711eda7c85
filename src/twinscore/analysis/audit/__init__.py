"""Audit of samples against the images that a model was trained on, and others it was not."""
