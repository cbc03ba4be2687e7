"""Selection of the rows that the analysis uses: rows with a finite value."""

import math
from collections.abc import Mapping
from typing import Any


def has_value(row: Mapping[str, Any]) -> bool:
  """Return whether the value of a row is a finite number; a failed cell has none."""
  value = row.get("value")
  return value not in (None, "") and math.isfinite(float(value))
