"""Versions of the code of each stage, which are part of every name."""

# Increase the number of a stage if its code gives other results for the same data and settings.
VERSIONS = {"images": 3, "embed": 2, "score": 8, "recognize": 8, "report": 2}
