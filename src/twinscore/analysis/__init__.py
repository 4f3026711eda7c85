"""Measurements on denoisers and their samples."""
