"""Statistics across cells: which metrics predict recognition, and which source is better."""
