"""Names of the recognition scores. Imports nothing: reading a dataset spec must not start JAX."""

from typing import Literal

Metric = Literal["accuracy", "mean_per_class", "map_11_point", "roc_auc"]
