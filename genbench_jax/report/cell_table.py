"""The table of all cells in the form that the page's script reads."""

from typing import Any

from genbench_jax.report.quantities import quantity_of
from genbench_jax.report.tables import Table, Value


def cell_data(table: Table) -> dict[str, Any]:
  """The table of all cells as the page's script reads it; columns that never vary are dropped."""
  hidden = {"protocol", "encoder", "seed"}
  columns, places = [], []
  for place, name in enumerate(table.columns):
    values = {row[place] for row in table.rows}
    ends = name.endswith(("_ci_low", "_ci_high"))
    if ends or values == {None} or (name in hidden and len(values) == 1):
      continue
    kind = quantity_of(name).kind if _is_quantity(table, place) else "key" if place < 7 else "fact"
    columns.append({"name": name, "label": _column_label(name, kind), "kind": kind})
    places.append((place, kind))
  rows = [[_table_value(row, place, kind) for place, kind in places] for row in table.rows]
  return {"columns": columns, "rows": rows}


def _is_quantity(table: Table, place: int) -> bool:
  return table.columns[place + 1 : place + 2] == (f"{table.columns[place]}_ci_low",)


def _column_label(name: str, kind: str) -> str:
  return name.replace("_", " ") if kind in ("key", "fact") else quantity_of(name).label


def _table_value(row: tuple[Value, ...], place: int, kind: str) -> Any:
  """A key or fact as it is; a quantity as [value] or [value, low, high]; null where there is none."""
  if kind in ("key", "fact"):
    return row[place]
  value, low, high = (_short(row[place + step]) for step in range(3))
  return None if value is None else [value] if low is None else [value, low, high]


def _short(value: Value) -> float | None:
  return None if value is None else float(f"{float(value):.7g}")
