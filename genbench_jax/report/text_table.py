"""Rows as a table in plain text."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """The rows as a table in text: a line a quantity, a column a number of shots, means over seeds."""
  from genbench_jax.report.quantities import QUANTITIES, quantity_of, shown

  lines = []
  views = dict.fromkeys((row["source"], row["protocol"]) for row in rows)
  for source, protocol in views:
    some = [row for row in rows if (row["source"], row["protocol"]) == (source, protocol)]
    columns = sorted({row["shots"] for row in some})
    lines.append([f"{source}, {protocol}", *(f"{shots} a class" for shots in columns)])
    for name in sorted({row["quantity"] for row in some}, key=list(QUANTITIES).index):
      quantity = quantity_of(name)
      cells = {
        s: [r["value"] for r in some if (r["quantity"], r["shots"]) == (name, s)] for s in columns
      }
      values = [shown(quantity, float(np.mean(cells[s]))) if cells[s] else "" for s in columns]
      lines.append([quantity.label, *values])
    lines.append([])
  widths = [max(len(line[0]) for line in lines if line), 12]
  return "\n".join(
    line[0].ljust(widths[0]) + "".join(cell.rjust(widths[1]) for cell in line[1:]) if line else ""
    for line in lines
  ).rstrip()
