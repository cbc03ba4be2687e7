"""Two runs side by side: what they differ in, and by how much."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.errors import UsageError
from genbench_jax.report import render
from genbench_jax.report.cell_table import cell_data
from genbench_jax.report.chart import Figure
from genbench_jax.report.forest import (
  AVERAGE_CAPTION,
  Block,
  Line,
  average_line,
  by_first,
  forest_figure,
)
from genbench_jax.report.gains import Average, average, budgets, difference
from genbench_jax.report.legend import css_of
from genbench_jax.report.quantities import budget_words, points, quantity_of, series_label
from genbench_jax.report.results import (
  Cell,
  Estimate,
  Results,
  Row,
  Series,
  beside_their_encoder,
  results_of,
  views,
)
from genbench_jax.report.tables import Table, Value
from genbench_jax.report.words import Finding, interval_words

ENDS = ("", "_ci_low", "_ci_high")


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Two runs on the cells that both have. `less` holds B - A as estimates of the same names."""

  a: Results
  b: Results
  less: Results

  @property
  def quantities(self) -> tuple[str, ...]:
    """The recognizers that both runs measured."""
    return tuple(name for name in self.a.recognizers() if name in self.b.quantities)


def write_comparison(
  rows_a: Sequence[Row],
  rows_b: Sequence[Row],
  run_a: Mapping[str, Any],
  run_b: Mapping[str, Any],
  folder: Path,
) -> Path:
  """Writes `folder/index.html`, which sets run B against run A, its tables and figures.

  Args:
    rows_a: the rows of run A, with the keys of the results file; `rows_b` likewise.
    run_a: what was run, see `page.RunInfo`; `run_b` likewise.
    folder: made where it is missing.

  Raises:
    UsageError: the runs have no cell in common.
  """
  comparison = compare(rows_a, rows_b)
  settings = settings_table(run_a, run_b)
  cells = differences_table(comparison)
  figures = list(_figures(comparison))
  render.write_files(folder, [table for table in (settings, cells) if table.rows], figures)
  headline = comparison.quantities[0] if comparison.quantities else None
  shots = _largest(comparison, headline) if headline else None
  context = {
    "title": f"{run_a.get('title') or 'Run A'} (A) and {run_b.get('title') or 'run B'} (B)",
    "shared": len(_cells(comparison.less)),
    "only_a": len(_cells(comparison.a).keys() - _cells(comparison.b).keys()),
    "only_b": len(_cells(comparison.b).keys() - _cells(comparison.a).keys()),
    "headline": quantity_of(headline) if headline else None,
    "budget": None if shots is None else budget_words(shots),
    "findings": _findings(comparison, headline, shots) if headline and shots is not None else [],
    "figures": figures,
    "settings": settings,
    "cells": cell_data(cells),
  }
  page = render.render("compare.html.jinja", **render.assets(), **context)
  return render.write(folder / "index.html", page)


def compare(rows_a: Sequence[Row], rows_b: Sequence[Row]) -> Comparison:
  """The runs under a view that both have; where there is none, each under its own first."""
  rows_a, rows_b = beside_their_encoder(rows_a), beside_their_encoder(rows_b)
  views_a, views_b = views(rows_a), views(rows_b)
  shared = [view for view in views_a if view in views_b]
  sides = [
    results_of(rows, (shared or own)[0]) if own else None
    for rows, own in ((rows_a, views_a), (rows_b, views_b))
  ]
  a, b = sides
  if a is None or b is None or not (keys := [key for key in a.folded if key in b.folded]):
    raise UsageError(
      "the two runs have no cell in common: same dataset, source, strategy and shots. "
      "Compare runs of the same benchmark."
    )
  folded = {key: difference(b.folded[key], a.folded[key]) for key in keys}
  cells = tuple(
    cell for cell in a.cells if any((*_key(cell), name) in folded for name in cell.estimates)
  )
  return Comparison(a, b, Results(a.view, cells, {}, folded))


def settings_table(run_a: Mapping[str, Any], run_b: Mapping[str, Any]) -> Table:
  """Every setting, version, device and time that is not the same in both runs."""
  a, b = dict(_settings(run_a)), dict(_settings(run_b))
  names = dict.fromkeys((*a, *b))
  rows = tuple((name, a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name))
  return Table("settings", "Settings that differ.", ("setting", "A", "B"), rows)


def differences_table(comparison: Comparison) -> Table:
  """A line a cell (its seeds averaged): A, B and B - A of every quantity."""
  names = list(dict.fromkeys(name for *_, name in comparison.less.folded))
  columns = ["dataset", "source", "strategy", "shots"]
  for name in names:
    columns += [f"{name}_{side}{end}" for side in ("a", "b", "less") for end in ENDS]
  rows = []
  for dataset, series, shots in _cells(comparison.less):
    row: list[Value] = [dataset, series.source, series.strategy, shots]
    for name in names:
      for side in (comparison.a, comparison.b, comparison.less):
        found = side.estimate(dataset, series, shots, name)
        shared = (dataset, series, shots, name) in comparison.less.folded
        row += [found.value, found.low, found.high] if found and shared else [None] * 3
    rows.append(tuple(row))
  return Table("differences", "Run B against run A.", tuple(columns), tuple(rows))


def _figures(comparison: Comparison) -> Iterator[Figure]:
  """B - A, source by source: the average first, then every dataset."""
  less = comparison.less
  blocks = []
  for quantity in comparison.quantities:
    series = tuple(one for one in less.headline_series() if less.has(one, quantity))
    for shots in budgets(less, quantity):
      each = [
        Line(name, tuple(less.estimate(name, one, shots, quantity) for one in series))
        for name in less.datasets
      ]
      mean = average_line([_mean(less, one, shots, quantity) for one in series])
      lines = tuple([mean, *by_first(each)] if len(each) > 1 else each)
      blocks.append(Block(quantity, shots, series, lines))
  if blocks:
    first = comparison.quantities[0]
    yield forest_figure(
      name="differences",
      title="B less A, source by source",
      caption=(
        "Points of accuracy by which B is above (right) or below (left) A, with 95 % intervals."
        + AVERAGE_CAPTION * (len(less.datasets) > 1)
      ),
      blocks=blocks,
      headline=(first, _largest(comparison, first)),
      x_label="points, B less A",
    )


def _findings(comparison: Comparison, quantity: str, shots: int) -> list[Finding]:
  less = comparison.less
  found = []
  for one in less.headline_series():
    if mean := _mean(less, one, shots, quantity):
      above = sum(e.value > 0 for e in _each(less, one, shots, quantity).values())
      finding = Finding(
        css=css_of(one),
        label=series_label(one.source, one.strategy),
        figure=points(mean.estimate.value),
        interval=interval_words(mean.estimate),
        count=f"B above A on {above} of {len(mean.included)} datasets",
        missing=mean.missing,
      )
      found.append(finding)
  return found


def _each(less: Results, one: Series, shots: int, quantity: str) -> dict[str, Estimate]:
  found = {name: less.estimate(name, one, shots, quantity) for name in less.datasets}
  return {name: estimate for name, estimate in found.items() if estimate is not None}


def _mean(less: Results, one: Series, shots: int, quantity: str) -> Average | None:
  return average(_each(less, one, shots, quantity), less.datasets)


def _largest(comparison: Comparison, quantity: str) -> int | None:
  return next(iter(reversed(budgets(comparison.less, quantity))), None)


def _key(cell: Cell) -> tuple[str, Series, int]:
  return cell.dataset, cell.series, cell.shots


def _cells(results: Results) -> dict[tuple[str, Series, int], None]:
  return dict.fromkeys((dataset, series, shots) for dataset, series, shots, _ in results.folded)


def _settings(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  """The leaves of the config, then what the run records of itself, as text."""
  try:
    config = json.loads(run.get("config") or "{}")
  except ValueError:
    config = {"config": run["config"]}
  yield from _leaves(config, "")
  about = {name: run[name] for name in ("command", "device", "started") if run.get(name)}
  yield from _leaves(about, "")
  yield from _leaves(dict(run.get("versions") or {}), "version of ")
  yield from _leaves(dict(run.get("seconds") or {}), "seconds of ")


def _leaves(tree: Any, prefix: str) -> Iterator[tuple[str, str]]:
  if not isinstance(tree, Mapping):
    yield prefix, tree if isinstance(tree, str) else json.dumps(tree, ensure_ascii=False)
    return
  for name, branch in tree.items():
    joint = "." if prefix and not prefix.endswith(" ") else ""
    yield from _leaves(branch, f"{prefix}{joint}{name}")
