"""Export image sets and features to the formats of other tools, one format per file."""
