"""The version of the code behind each stage: a part of every name, so that no upgrade shows old results as new."""

# Raise a stage's number when its code gives other results from the same data and settings.
VERSIONS = {"images": 2, "embed": 2, "score": 5, "recognize": 5, "report": 2}
