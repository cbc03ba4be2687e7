"""The table of all cells in the form that the page's script reads."""

from typing import Any

from genbench_jax.report.quantities import Quantity, known_name, quantity_of
from genbench_jax.report.tables import Table, Value

KEYS = ("dataset", "source", "strategy", "shots", "seed", "protocol", "encoder")
DROPPED_WHEN_CONSTANT = ("seed", "protocol", "encoder")
# What a cell has cost in real images stands with its keys: beside the shots, before any score.
BESIDE_KEYS = "n_real"
FACT_LABELS = {
  "n_external": "images used",
  "n_real": "real images seen",
  "n_test": "test images",
  "missing_classes": "classes without images",
}
# In a comparison of two runs each quantity has three columns.
SIDES = {"_a": "A", "_b": "B", "_less": "B − A"}


def cell_data(table: Table) -> dict[str, Any]:
  """Columns as name, label and kind, rows as lists; columns that say nothing are dropped.

  The kind is `key`, `fact`, or a quantity's own. Keys and facts are plain values, quantities
  [value] or [value, low, high] or null.
  """
  columns, places = [], []
  for place, name in sorted(enumerate(table.columns), key=_beside_keys):
    values = {row[place] for row in table.rows}
    constant = name in DROPPED_WHEN_CONSTANT and len(values) == 1
    if name.endswith(("_ci_low", "_ci_high")) or values == {None} or constant:
      continue
    label, kind = _label_and_kind(table, place)
    columns.append({"name": name, "label": label, "kind": kind})
    places.append((place, kind))
  rows = [[_cell_value(row, place, kind) for place, kind in places] for row in table.rows]
  return {"columns": columns, "rows": rows}


def _beside_keys(column: tuple[int, str]) -> int:
  """Sorts keys first, then the real images seen, then the rest."""
  name = column[1]
  return 0 if name in KEYS else 1 if name == BESIDE_KEYS else 2


def _label_and_kind(table: Table, place: int) -> tuple[str, str]:
  name = table.columns[place]
  if table.columns[place + 1 : place + 2] != (f"{name}_ci_low",):
    return FACT_LABELS.get(name, name.replace("_", " ")), "key" if name in KEYS else "fact"
  quantity, side = _quantity_and_side(name)
  if side == "_less" and quantity.kind == "accuracy":
    return f"{quantity.label} {SIDES[side]}", "difference"
  return f"{quantity.label} {SIDES.get(side, '')}".strip(), quantity.kind


def _quantity_and_side(name: str) -> tuple[Quantity, str]:
  for side in SIDES:
    base = name.removesuffix(side)
    if known_name(base) and base != name:
      return quantity_of(base), side
  return quantity_of(name), ""


def _cell_value(row: tuple[Value, ...], place: int, kind: str) -> Any:
  if kind in ("key", "fact"):
    return row[place]
  value, low, high = (_short(row[place + step], digits) for step, digits in enumerate((7, 5, 5)))
  return None if value is None else [value] if low is None else [value, low, high]


def _short(value: Value, digits: int) -> float | None:
  """So many significant digits: more than are shown, so that what is shown is rightly rounded."""
  return None if value is None else float(f"{float(value):.{digits}g}")
