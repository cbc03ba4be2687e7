"""The names of the scores of recognition: no more than names, so that reading a dataset's spec starts no JAX."""

from typing import Literal

Metric = Literal["accuracy", "mean_per_class", "map_11_point", "roc_auc"]
