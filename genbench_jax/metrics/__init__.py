"""Metrics of external images: pure functions from feature and label arrays to numbers."""
