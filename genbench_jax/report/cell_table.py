"""The table of all cells in the form that the page's script reads."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from genbench_jax.report.quantities import quantity_of
from genbench_jax.report.results import Results, fold_seeds
from genbench_jax.report.tables import Table, Value, cells_table
from genbench_jax.store.rows import KEYS

DROPPED_WHEN_CONSTANT = ("generator", "seed", "protocol", "encoder")
# Real images used come right after the keys, before any score.
BESIDE_KEYS = "n_real"
FACT_LABELS = {
  "shots_given": "images per class given",
  "n_external": "images used",
  "n_real": "real images seen",
  "n_test": "test images",
  "missing_classes": "classes without images",
}
# A comparison has one column per quantity and run, and one per quantity and difference.
OF_RUN, LESS = " @ ", " − "


# Bytes of the table on the page. A file beside the page has all cells.
TABLE_BUDGET = 2_500_000
Thinner = Callable[[Sequence[Results]], list[Results]]


def thinned_cells(all_results: Sequence[Results]) -> tuple[dict[str, Any], str]:
  """Return the table of all cells for the page's script, and a sentence on what was left out.

  A table that is too large is thinned step by step until it fits. It drops other protocols and
  encoders, single seeds, prompt strategies other than the headline's, numbers of images between the
  smallest and the largest, and finally datasets from the end.
  """
  data, omissions = cell_data(cells_table(all_results)), list[str]()
  total = len(data["rows"])
  kept = list(all_results)
  for thin, words in THINNERS:
    if _size(data) <= TABLE_BUDGET:
      break
    kept = thin(kept)
    data, omissions = cell_data(cells_table(kept)), [*omissions, words]
  share = TABLE_BUDGET / max(_size(data), 1)
  if share < 1:
    data["rows"] = data["rows"][: int(share * len(data["rows"]))]
    omissions.append("the first datasets")
  if not omissions:
    return data, ""
  return (
    data,
    f"{len(data['rows']):,} of {total:,} rows: {', '.join(omissions)}. The file tables/cells.csv has all rows.",
  )


def _size(data: dict[str, Any]) -> int:
  """Estimate the bytes of the table in the page from a sample of its rows."""
  rows = data["rows"]
  sample = rows[:: max(1, len(rows) // 200)] or [[]]
  return len(json.dumps(sample, separators=(",", ":"))) * len(rows) // len(sample)


def _kept(all_results: Sequence[Results], keep: Callable[[Results, Any], bool]) -> list[Results]:
  return [
    dataclasses.replace(results, cells=tuple(cell for cell in results.cells if keep(results, cell)))
    for results in all_results
  ]


def _mean_of_seeds(all_results: Sequence[Results]) -> list[Results]:
  """Merge cells that differ only in their seed."""
  found = []
  for results in all_results:
    groups: dict[Any, list[Any]] = {}
    for cell in results.cells:
      groups.setdefault((cell.dataset, cell.series, cell.shots), []).append(cell)
    cells = tuple(
      dataclasses.replace(
        cells[0],
        estimates={
          name: fold_seeds([c.estimates[name] for c in cells if name in c.estimates])
          for name in cells[0].estimates
        },
      )
      for cells in groups.values()
    )
    found.append(dataclasses.replace(results, cells=cells))
  return found


def _headline_strategies(all_results: Sequence[Results]) -> list[Results]:
  chosen = [set(results.headline_series()) for results in all_results]
  return [
    _kept([results], lambda _, cell, series=series: cell.series in series)[0]  # type: ignore[misc]
    for results, series in zip(all_results, chosen, strict=True)
  ]


def _ends_of_budgets(all_results: Sequence[Results]) -> list[Results]:
  return _kept(
    all_results, lambda results, cell: cell.shots in (results.shots[0], results.shots[-1])
  )


THINNERS: tuple[tuple[Thinner, str], ...] = (
  (lambda all_results: list(all_results[:1]), "the page’s protocol and encoder"),
  (_mean_of_seeds, "means over seeds"),
  (_headline_strategies, "the headline’s prompt strategies"),
  (_ends_of_budgets, "the smallest and largest number of images"),
)


def cell_data(table: Table) -> dict[str, Any]:
  """Return columns as name, label and kind, and rows as lists; columns without values are dropped.

  The kind is `key`, `fact` or the kind of the quantity. Keys and facts are plain values. Quantities
  are [value], [value, low, high] or null.
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
  return {"columns": columns, "rows": rows, "noun": "rows"}


def _beside_keys(column: tuple[int, str]) -> int:
  """Sort keys first, then the number of real images, then the rest."""
  name = column[1]
  return 0 if name in KEYS else 1 if name == BESIDE_KEYS else 2


def _label_and_kind(table: Table, place: int) -> tuple[str, str]:
  name = table.columns[place]
  if table.columns[place + 1 : place + 2] != (f"{name}_ci_low",):
    return FACT_LABELS.get(name, name.replace("_", " ")), "key" if name in KEYS else "fact"
  base, _, side = name.partition(OF_RUN)
  quantity = quantity_of(base)
  if LESS in side and quantity.kind == "accuracy":
    return f"{quantity.label} {side}", "difference"
  return f"{quantity.label} {side}".strip(), quantity.kind


def _cell_value(row: tuple[Value, ...], place: int, kind: str) -> Any:
  if kind in ("key", "fact"):
    return row[place]
  value, low, high = (_short(row[place + step], digits) for step, digits in enumerate((9, 6, 6)))
  return None if value is None else [value] if low is None else [value, low, high]


def _short(value: Value, digits: int) -> float | None:
  """Round to enough digits that values are displayed with correct rounding."""
  return None if value is None else float(f"{float(value):.{digits}g}")
