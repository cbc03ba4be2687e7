"""The page that compares runs with the first of them."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from genbench_jax.report import render
from genbench_jax.report.cell_table import cell_data
from genbench_jax.report.chart import Figure
from genbench_jax.report.compare import (
  Comparison,
  RunToCompare,
  cells_of,
  compare,
  differences_of,
  key_of,
  largest_budget,
  mean_difference,
)
from genbench_jax.report.comparison_tables import differences_table, settings_table, verdicts_table
from genbench_jax.report.forest import (
  AVERAGE_CAPTION,
  Block,
  Line,
  average_line,
  by_first,
  forest_figure,
)
from genbench_jax.report.from_disk import EDITED, read_run
from genbench_jax.report.gains import budgets
from genbench_jax.report.headline import Finding, interval_words
from genbench_jax.report.hits import hits_of
from genbench_jax.report.labels import budget_words
from genbench_jax.report.legend import css_of
from genbench_jax.report.number_words import points
from genbench_jax.report.quantities import quantity_of
from genbench_jax.report.results import beside_their_encoder, views
from genbench_jax.runtime.public import public


def compare_folders(workdirs: Sequence[Path], out: Path) -> Path:
  """Write the page that compares work folders with the first of them; return its path.

  Raises:
    UsageError: a folder has no results or no cell in common with the first.
  """
  runs = []
  for workdir, name in zip(workdirs, short_names(workdirs), strict=True):
    rows, about = read_run(workdir)
    hits = {
      view: hits_of(workdir, rows, view) for view in views(public(beside_their_encoder(rows)))
    }
    runs.append(RunToCompare(name, rows, about, hits))
  return write_comparison(runs, out)


def _titles(runs: Sequence[RunToCompare]) -> list[tuple[str, str]]:
  """Return the name and title of each run; one line without a name if all have the same title."""
  titles = [(run.name, run.about.get("title") or "") for run in runs]
  same = {title for _, title in titles}
  return [("", same.pop())] if len(same) == 1 else titles


def short_names(workdirs: Sequence[Path]) -> list[str]:
  """Return the shortest trailing part of each path that no other has; equal paths are numbered."""
  paths = [path.resolve() for path in workdirs]
  names = [_short_name(path, set(paths) - {path}) for path in paths]
  return [
    f"{name} ({names[:index].count(name) + 1})" if names.count(name) > 1 else name
    for index, name in enumerate(names)
  ]


def _short_name(path: Path, others: Collection[Path]) -> str:
  for count in range(1, len(path.parts)):
    end = path.parts[-count:]
    if all(other.parts[-count:] != end for other in others):
      return str(Path(*end))
  return str(path)


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
  shots = largest_budget(comparison, headline) if headline else None
  context = {
    "title": " against ".join(comparison.names) if len(runs) == 2 else f"{len(runs)} runs compared",
    "names": comparison.names,
    "titles": _titles(runs),
    "shared": len({(*key_of(c), c.seed) for less in comparison.less for c in less.measured}),
    "alone": _alone(comparison),
    "headline": quantity_of(headline) if headline else None,
    "budget": None if shots is None else budget_words(shots),
    "groups": list(_groups(comparison, headline, shots)) if headline and shots is not None else [],
    "verdicts": verdicts,
    "figures": figures,
    "settings": settings,
    "silent": [run.name for run in runs if not run.about],
    "warnings": [f"{r.name}: {EDITED}" for r in runs if EDITED in r.about.get("warnings", ())],
    "cells": cell_data(cells),
  }
  page = render.render("compare.html.jinja", **render.assets(), **context)
  return render.write(folder / "index.html", page)


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
        mean = average_line([mean_difference(less, item, shots, quantity) for item in series])
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
      headline=(blocks[0].quantity, largest_budget(comparison, blocks[0].quantity)),
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
      if mean := mean_difference(less, series, shots, quantity):
        above = sum(e.value > 0 for e in differences_of(less, series, shots, quantity).values())
        count = f"{other} above {first} on {above} of {len(mean.included)} datasets"
        label = series.label
        figure, interval = points(mean.estimate.value), interval_words(mean.estimate)
        found.append(
          Finding(css_of(series), label, figure, "points", interval, count, mean.missing)
        )
    yield f"{other} minus {first}", found


def _alone(comparison: Comparison) -> list[str]:
  """Describe how many cells of each run the others lack."""
  sets = [set(cells_of(results)) for results in comparison.runs]
  texts = []
  for index, (name, results) in enumerate(zip(comparison.names, comparison.runs, strict=True)):
    others = set().union(*(cells for place, cells in enumerate(sets) if place != index))
    if count := sum(key_of(cell) not in others for cell in results.measured):
      texts.append(f"{count} only in {name}")
  return texts
