"""Tables of a comparison of runs: settings that differ, cells, verdicts."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genbench_jax.analysis.paired import LEVEL
from genbench_jax.report.compare import (
  Comparison,
  RunToCompare,
  cells_of,
  differences_of,
  largest_budget,
)
from genbench_jax.report.duels import holm_corrected, p_of
from genbench_jax.report.gains import average
from genbench_jax.report.number_words import p_value
from genbench_jax.report.quantities import by_quantity
from genbench_jax.report.results import Estimate
from genbench_jax.report.tables import Table, Value, words_of

ENDS = ("", "_ci_low", "_ci_high")


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
  for dataset, series, shots in dict.fromkeys(
    c for less in comparison.less for c in cells_of(less)
  ):
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
  shots = largest_budget(comparison, headline) if headline else None
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
      by_dataset = differences_of(less, series, shots, quantity)
      mean = average(by_dataset, less.datasets)
      if mean and len(by_dataset) > 1:
        yield label, f"all {len(by_dataset)} datasets", other, mean.estimate
      yield from ((label, dataset, other, estimate) for dataset, estimate in by_dataset.items())


def _verdict(estimate: Estimate, p: float, first: str, other: str) -> str:
  if p >= LEVEL:
    return "can’t be told apart"
  return f"{other if estimate.value > 0 else first} is better"


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
