"""Comparison of runs: differences of each run from the first, with intervals and tests."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.errors import UsageError
from genbench_jax.report import render
from genbench_jax.report.cell_table import cell_data
from genbench_jax.report.chart import Figure
from genbench_jax.report.duels import Hits, holm_corrected, p_of, paired_estimate
from genbench_jax.report.forest import (
  AVERAGE_CAPTION,
  Block,
  Line,
  average_line,
  by_first,
  forest_figure,
)
from genbench_jax.report.gains import Average, average, budgets, difference
from genbench_jax.report.headline import Finding, interval_words
from genbench_jax.report.legend import css_of
from genbench_jax.report.quantities import (
  budget_words,
  by_quantity,
  p_value,
  points,
  quantity_of,
)
from genbench_jax.report.results import (
  Cell,
  Estimate,
  Results,
  Row,
  Series,
  View,
  beside_their_encoder,
  results_of,
  views,
)
from genbench_jax.report.tables import Table, Value, words_of

ENDS = ("", "_ci_low", "_ci_high")
LEVEL = 0.05


@dataclasses.dataclass(frozen=True)
class RunToCompare:
  """One of the runs.

  Attributes:
    name: short and unique: the name of the work folder.
    rows: rows with the keys of the results file.
    about: description of the run, see `page.RunInfo`.
    hits: recognized test images under each view, see `duels.Hits`; empty if they were not kept.
  """

  name: str
  rows: Sequence[Row]
  about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  hits: Mapping[View, Hits] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Runs on the cells that each shares with the first.

  Attributes:
    less: for each run but the first, run minus first, as estimates with the same names.
  """

  names: tuple[str, ...]
  runs: tuple[Results, ...]
  less: tuple[Results, ...]

  @property
  def quantities(self) -> tuple[str, ...]:
    """Recognizers that the first run and another measured, in the order of the page."""
    measured = {name for less in self.less for *_, name in less.folded}
    return tuple(name for name in self.runs[0].recognizers() if name in measured)


def write_comparison(runs: Sequence[RunToCompare], folder: Path) -> Path:
  """Write `folder/index.html`, which compares every run with the first, its tables and figures.

  Args:
    runs: two or more runs.
    folder: folder of the page; created if missing.

  Raises:
    UsageError: there are fewer than two runs, or one has no cell in common with the first.
  """
  comparison = compare(runs)
  settings = settings_table(runs)
  cells, verdicts = differences_table(comparison), verdicts_table(comparison)
  figures = list(_figures(comparison))
  written = [table for table in (verdicts, settings, cells) if table.rows]
  render.write_files(folder, written, figures)
  headline = next(iter(comparison.quantities), None)
  shots = _largest(comparison, headline) if headline else None
  context = {
    "title": " against ".join(comparison.names) if len(runs) == 2 else f"{len(runs)} runs compared",
    "names": comparison.names,
    "titles": [(run.name, run.about.get("title") or "") for run in runs],
    "shared": len({key for less in comparison.less for key in _cells(less)}),
    "alone": _alone(comparison),
    "headline": quantity_of(headline) if headline else None,
    "budget": None if shots is None else budget_words(shots),
    "groups": list(_groups(comparison, headline, shots)) if headline and shots is not None else [],
    "verdicts": verdicts,
    "figures": figures,
    "settings": settings,
    "silent": [run.name for run in runs if not run.about],
    "cells": cell_data(cells),
  }
  page = render.render("compare.html.jinja", **render.assets(), **context)
  return render.write(folder / "index.html", page)


def compare(runs: Sequence[RunToCompare]) -> Comparison:
  """Return the runs under a view that all have; if there is none, each under its own first view.

  Raises:
    UsageError: there are fewer than two runs, or one has no cell in common with the first.
  """
  if len(runs) < 2:
    raise UsageError(f"{len(runs)} run to compare: give two or more work folders.")
  all_rows = [beside_their_encoder(run.rows) for run in runs]
  known = [views(rows) for rows in all_rows]
  shared = [view for view in known[0] if all(view in other for other in known)] if known else []
  sides = [
    results_of(rows, (shared or own)[0]) if own else None
    for rows, own in zip(all_rows, known, strict=True)
  ]
  less = []
  for run, side in zip(runs[1:], sides[1:], strict=True):
    found = (
      _less(sides[0], side, _hits(runs[0], sides[0]), _hits(run, side))
      if sides[0] and side
      else None
    )
    if found is None:
      raise UsageError(
        f"{run.name} and {runs[0].name} have no cell in common (dataset, source, generator, strategy, shots). "
        "Compare runs of the same benchmark."
      )
    less.append(found)
  names = tuple(run.name for run in runs)
  return Comparison(names, tuple(side for side in sides if side), tuple(less))


def _hits(run: RunToCompare, side: Results) -> Hits:
  return run.hits.get(side.view, {})


def settings_table(runs: Sequence[RunToCompare]) -> Table:
  """Return the settings, versions, devices and times that differ between the runs."""
  runs = [run for run in runs if run.about]
  known = [dict(_settings(run.about)) for run in runs]
  names = dict.fromkeys(name for about in known for name in about)
  rows = tuple(
    (name, *(about.get(name) for about in known))
    for name in names
    if len({about.get(name) for about in known}) > 1
  )
  return Table("settings", "Settings that differ.", ("setting", *(run.name for run in runs)), rows)


def differences_table(comparison: Comparison) -> Table:
  """Return one line per cell: the value of every run and its difference from the first."""
  order = {name: place for place, name in enumerate(comparison.quantities)}
  measured = dict.fromkeys(name for less in comparison.less for *_, name in less.folded)
  names = sorted(measured, key=lambda name: (order.get(name, len(order)), by_quantity(name)))
  first, *others = comparison.names
  columns = ["dataset", "source", "generator", "strategy", "shots"]
  for name in names:
    for side in (*comparison.names, *(f"{other} − {first}" for other in others)):
      columns += [f"{name} @ {side}{end}" for end in ENDS]
  rows = []
  for dataset, series, shots in dict.fromkeys(c for less in comparison.less for c in _cells(less)):
    row: list[Value] = [dataset, series.source, series.generator, series.strategy, shots]
    for name in names:
      for results in (*comparison.runs, *comparison.less):
        found = results.estimate(dataset, series, shots, name)
        row += [found.value, found.low, found.high] if found else [None] * 3
    rows.append(tuple(row))
  return Table("differences", f"Runs against {first}.", tuple(columns), tuple(rows))


def verdicts_table(comparison: Comparison) -> Table:
  """Return which run is better for each source, with intervals and p-values."""
  headline = next(iter(comparison.quantities), None)
  shots = _largest(comparison, headline) if headline else None
  found = (
    list(_verdict_lines(comparison, headline, shots)) if headline and shots is not None else []
  )
  corrected = holm_corrected([p_of(estimate) for *_, estimate in found])
  first = comparison.names[0]
  rows = tuple(
    (
      label, where, f"{other} − {first}", words_of(estimate), p_value(p),
      _verdict(estimate, p, first, other),
    )
    for (label, where, other, estimate), p in zip(found, corrected, strict=True)
  )  # fmt: skip
  caption = "Points, 95 % intervals; p-values are corrected for all lines shown (Holm)."
  return Table("verdicts", caption, ("images", "on", "difference", "points", "p", "verdict"), rows)


def _verdict_lines(
  comparison: Comparison, quantity: str, shots: int
) -> Iterator[tuple[str, str, str, Estimate]]:
  """Return (images, datasets, run, difference) of all headline series."""
  for other, less in zip(comparison.names[1:], comparison.less, strict=True):
    for series in less.headline_series():
      label = series.label
      by_dataset = _each(less, series, shots, quantity)
      mean = average(by_dataset, less.datasets)
      if mean and len(by_dataset) > 1:
        yield label, f"all {len(by_dataset)} datasets", other, mean.estimate
      yield from ((label, dataset, other, estimate) for dataset, estimate in by_dataset.items())


def _verdict(estimate: Estimate, p: float, first: str, other: str) -> str:
  if p >= LEVEL:
    return "can’t be told apart"
  return f"{other if estimate.value > 0 else first} is better"


def _less(a: Results, b: Results, hits_a: Hits, hits_b: Hits) -> Results | None:
  """Return b minus a on the cells that both have, paired by test image if both kept their hits."""
  keys = [key for key in a.folded if key in b.folded]
  if not keys:
    return None
  seeds = {cell.seed for cell in (*a.cells, *b.cells)}
  folded = {}
  for key in keys:
    dataset, series, shots, quantity = key
    pairs = [
      (
        hits_b.get((dataset, series, shots, seed, quantity)),
        hits_a.get((dataset, series, shots, seed, quantity)),
      )
      for seed in sorted(seeds)
    ]
    item, other = b.folded[key], a.folded[key]
    folded[key] = paired_estimate(pairs, (item, other)) or difference(item, other)
  cells = tuple(
    cell for cell in a.cells if any((*_key(cell), name) in folded for name in cell.estimates)
  )
  return Results(a.view, cells, {}, folded)


def _figures(comparison: Comparison) -> Iterator[Figure]:
  """Return the figure of run minus first by source: the average first, then every dataset."""
  first, blocks = comparison.names[0], []
  for other, less in zip(comparison.names[1:], comparison.less, strict=True):
    where = f"{other} minus {first}"
    for quantity in comparison.quantities:
      series = tuple(item for item in less.headline_series() if less.has(item, quantity))
      for shots in budgets(less, quantity):
        by_dataset = [
          Line(name, tuple(less.estimate(name, item, shots, quantity) for item in series))
          for name in less.datasets
        ]
        mean = average_line([_mean(less, item, shots, quantity) for item in series])
        lines = tuple([mean, *by_first(by_dataset)] if len(by_dataset) > 1 else by_dataset)
        blocks.append(Block(quantity, shots, series, lines, where))
  if blocks:
    yield forest_figure(
      name="differences",
      title=f"Difference to {first}, source by source",
      caption=(
        f"Accuracy of a run above (right) or below (left) {first} in points, with 95 % intervals."
        + AVERAGE_CAPTION * any(len(less.datasets) > 1 for less in comparison.less)
      ),
      blocks=blocks,
      headline=(blocks[0].quantity, _largest(comparison, blocks[0].quantity)),
      x_label=f"points above {first}",
      where_label="Difference",
    )


def _groups(
  comparison: Comparison, quantity: str, shots: int
) -> Iterator[tuple[str, list[Finding]]]:
  """For each run but the first, return its headline and one finding per source."""
  first = comparison.names[0]
  for other, less in zip(comparison.names[1:], comparison.less, strict=True):
    found = []
    for series in less.headline_series():
      if mean := _mean(less, series, shots, quantity):
        above = sum(e.value > 0 for e in _each(less, series, shots, quantity).values())
        count = f"{other} above {first} on {above} of {len(mean.included)} datasets"
        label = series.label
        figure, interval = points(mean.estimate.value), interval_words(mean.estimate)
        found.append(
          Finding(css_of(series), label, figure, "points", interval, count, mean.missing)
        )
    yield f"{other} minus {first}", found


def _alone(comparison: Comparison) -> list[str]:
  """Describe how many cells of each run the others lack."""
  sets = [set(_cells(results)) for results in comparison.runs]
  texts = []
  for index, (name, mine) in enumerate(zip(comparison.names, sets, strict=True)):
    others = set().union(*(cells for place, cells in enumerate(sets) if place != index))
    if count := len(mine - others):
      texts.append(f"{count} only in {name}")
  return texts


def _each(less: Results, series: Series, shots: int, quantity: str) -> dict[str, Estimate]:
  found = {name: less.estimate(name, series, shots, quantity) for name in less.datasets}
  return {name: estimate for name, estimate in found.items() if estimate is not None}


def _mean(less: Results, series: Series, shots: int, quantity: str) -> Average | None:
  return average(_each(less, series, shots, quantity), less.datasets)


def _largest(comparison: Comparison, quantity: str) -> int | None:
  """Return the largest number of images at which any run can be compared with the first."""
  measured = [shots for less in comparison.less for shots in budgets(less, quantity)]
  return max(measured, key=lambda shots: (shots <= 0, shots), default=None)


def _key(cell: Cell) -> tuple[str, Series, int]:
  return cell.dataset, cell.series, cell.shots


def _cells(results: Results) -> dict[tuple[str, Series, int], None]:
  return dict.fromkeys((dataset, series, shots) for dataset, series, shots, _ in results.folded)


def _settings(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  """Return the leaves of the config and what the run recorded about itself, as text."""
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
