"""Comparison of runs: each run minus the first on the cells that both have."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from genbench_jax.errors import UsageError
from genbench_jax.report.duels import Hits, paired_estimate
from genbench_jax.report.gains import Average, average, budgets, difference
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
    cell for cell in a.cells if any((*key_of(cell), name) in folded for name in cell.estimates)
  )
  return Results(a.view, cells, {}, folded)


def differences_of(less: Results, series: Series, shots: int, quantity: str) -> dict[str, Estimate]:
  """Return the differences of a series by dataset.

  Args:
    less: run minus first.
    series: source, generator and strategy.
    shots: images per class.
    quantity: name of the quantity.
  """
  found = {name: less.estimate(name, series, shots, quantity) for name in less.datasets}
  return {name: estimate for name, estimate in found.items() if estimate is not None}


def mean_difference(less: Results, series: Series, shots: int, quantity: str) -> Average | None:
  """Return the average of `differences_of` over the datasets; None without differences.

  Args:
    less: run minus first.
    series: source, generator and strategy.
    shots: images per class.
    quantity: name of the quantity.
  """
  return average(differences_of(less, series, shots, quantity), less.datasets)


def largest_budget(comparison: Comparison, quantity: str) -> int | None:
  """Return the largest number of images at which any run can be compared with the first."""
  measured = [shots for less in comparison.less for shots in budgets(less, quantity)]
  return max(measured, key=lambda shots: (shots <= 0, shots), default=None)


def key_of(cell: Cell) -> tuple[str, Series, int]:
  """Return dataset, series and shots of a cell; seeds are averaged."""
  return cell.dataset, cell.series, cell.shots


def cells_of(results: Results) -> dict[tuple[str, Series, int], None]:
  """Return the cells (dataset, series, shots) that have a value, in their order."""
  return dict.fromkeys((dataset, series, shots) for dataset, series, shots, _ in results.folded)
