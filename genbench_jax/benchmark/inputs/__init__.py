"""Labeled images in common formats: folders, archives, lists, Parquet, arrays. One format per file."""
