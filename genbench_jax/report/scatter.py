"""Metrics against trained accuracy: CLER in its own units, every metric by rank."""

import math
from collections.abc import Sequence
from typing import Literal

from genbench_jax.report import chart
from genbench_jax.report.agreement import Agreement, agrees, grouped
from genbench_jax.report.labels import budget_words
from genbench_jax.report.legend import css_of, keys_of
from genbench_jax.report.number_words import shown, the
from genbench_jax.report.quantities import quantity_of, short_name
from genbench_jax.report.results import Cell, Series

SIZE = (332.0, 288.0)
# Limits on the dots of a figure with tips and of the rank figure. With more cells, every second,
# third, ... is drawn.
MOST_DOTS, MOST_RANKS = 4000, 40_000
# A single dataset uses the full width of the page.
WIDE_SIZE = (800.0, 380.0)
SMALL_SIDE = 188.0
# Letters of a small panel's title: alone, and with its number of cells.
WHOLE_LINE, BESIDE_NOTE = 24, 14
SMALL_FRAME = (4.0, 40.0, 182.0, 168.0)


def metric_figure(item: Agreement) -> chart.Figure:
  """Return one metric against the recognizer, one panel per dataset, with rank correlations."""
  metric, recognizer = quantity_of(item.metric), quantity_of(item.recognizer)
  names = [name for name, cells in item.cells.items() if cells]
  sizes = (WIDE_SIZE, SIZE) if len(names) == 1 else (SIZE,)
  step = step_of(item.count * len(sizes), MOST_DOTS)
  panels = tuple(_value_panel(item, name, size, step) for name in names for size in sizes)
  layout: Literal["medium", "forest"] = "forest" if len(names) == 1 else "medium"
  return chart.Figure(
    name=f"{item.metric.replace('_', '-')}-against-{item.recognizer.replace('_', '-')}",
    title=f"{metric.label} against {the(recognizer.label)}",
    caption=(
      f"Each point is a cell: source, strategy and number of images. ρ is the mean of Spearman’s rank "
      f"correlations among cells with equal numbers of images. {metric.label} needs no training; with ρ near 1 it orders the "
      "cells as training would." + step_words(step)
    ),
    variants=(chart.Variant((), panels, keys_of(_series_of([item]), by_strategy=True), layout),),
  )


def cross_figure(found: Sequence[tuple[str, str, Agreement]]) -> chart.Figure | None:
  """Return CLER on one encoder against the probe on another; None with one encoder.

  Args:
    found: encoder of CLER, encoder of the probe and their agreement; the first is shown first.
  """
  known = [(cler, probe, item) for cler, probe, item in found if item.known]
  if not known:
    return None
  variants = []
  step = step_of(sum(item.count for *_, item in known), MOST_DOTS)
  for cler, probe, item in known:
    names = [name for name, cells in item.cells.items() if cells]
    panels = tuple(_value_panel(item, name, SIZE, step) for name in names)
    keys = keys_of(_series_of([item]), by_strategy=False)
    variants.append(chart.Variant((short_name(cler), short_name(probe)), panels, keys))
  return chart.Figure(
    name="cler-across-encoders",
    title="CLER on one encoder against the probe on another",
    caption=(
      "Each point is a cell. CLER and a probe on the same features agree in part by construction; across encoders, CLER has "
      "to predict from other features. ρ is the mean rank correlation among cells with equal numbers of images."
      + step_words(step)
    ),
    variants=tuple(reversed(variants)),
    choices=(
      ("CLER on", tuple(dict.fromkeys(variant.choice[0] for variant in variants))),
      ("Probe on", tuple(dict.fromkeys(variant.choice[1] for variant in variants))),
    ),
  )


def ranks_figure(items: Sequence[Agreement]) -> chart.Figure:
  """Return every metric by rank within the datasets, sorted by agreement."""
  ordered = sorted(
    items, key=lambda item: -agrees(item, item.mean if item.mean is not None else -2)
  )
  recognizer = quantity_of(items[0].recognizer).label
  step = step_of(sum(item.count for item in items), MOST_RANKS)
  sources = dict.fromkeys(series.plain for series in _series_of(items))
  keys = keys_of(sources, by_strategy=False)
  return chart.Figure(
    name="all-metrics",
    title=f"Every metric against {the(recognizer)}, by rank",
    caption=(
      "Cells of equal dataset and number of images are ranked from the lowest to the highest, by the metric "
      f"(across) and by {the(recognizer)} (up), with all groups overlaid. ρ is the mean of the groups’ "
      "own rank correlations, with its 95 % interval (whole series resampled); n counts cells. Where lower is "
      "better, ρ near −1 is agreement. Panels are sorted by agreement. Metrics that order all cells identically are drawn once."
      + step_words(step)
    ),
    variants=(
      chart.Variant(
        (), tuple(_rank_panel(item, step) for item in ordered if not item.same_as), keys, "small"
      ),
    ),
  )


def step_of(dots: int, most: int) -> int:
  """Return n such that drawing every n-th cell gives at most `most` dots."""
  return max(1, -(-dots // most))


def step_words(step: int) -> str:
  """Return the sentence of the caption about cells that are not drawn."""
  return f" To keep the page small, one in {step} cells is drawn; the numbers use all cells." * (
    step > 1
  )


def rho_text(rho: float | None) -> str:
  return "ρ not defined" if rho is None else f"ρ = {rho:.2f}".replace("-", "−")


def _rho_and_interval(item: Agreement) -> str:
  if item.interval is None:
    return rho_text(item.mean)
  low, high = (f"{end:.2f}".replace("-", "−") for end in item.interval)
  return f"{rho_text(item.mean)} ({low} to {high})"


def _series_of(items: Sequence[Agreement]) -> list[Series]:
  found = {cell.series for item in items for cells in item.cells.values() for cell in cells}
  return sorted(found, key=lambda series: series.order)


def _value_panel(
  item: Agreement, dataset: str, size: tuple[float, float], step: int
) -> chart.Panel:
  width, height = size
  left, top, right, bottom = frame = (46.0, 30.0, width - 8, height - 42)
  metric, recognizer = quantity_of(item.metric), quantity_of(item.recognizer)
  factor = 100.0 if metric.kind == "accuracy" else 1.0
  points = [
    (cell, factor * cell.estimates[item.metric].value, 100 * cell.estimates[item.recognizer].value)
    for cell in item.cells[dataset]
  ]
  within = (0.0, 100.0) if metric.kind == "accuracy" else (-math.inf, math.inf)
  x = chart.Scale(*chart.padded([p[1] for p in points], 0.08, 0.02 * factor, within), left, right)
  y = chart.Scale(*chart.padded([p[2] for p in points], 0.08, 2.0, (0.0, 100.0)), bottom, top)
  shapes = tuple(
    chart.Shape(
      chart.marker(cell.series.strategy, x(across), y(up), 3.1),
      f"series {css_of(cell.series)} dot",
      f"{_cell_words(cell)}: {metric.label} {shown(metric, cell.estimates[item.metric].value)}, "
      f"{recognizer.label} {up:.1f}",
    )
    for cell, across, up in points[::step]
  )
  note = f"{rho_text(item.of_dataset(dataset))}, n = {len(points)}"
  return chart.Panel(
    width=width,
    height=height,
    title=dataset,
    note=note,
    description=f"{dataset}: {metric.label} across and {recognizer.label} up, {len(points)} cells, {note}.",
    frame=frame,
    x_ticks=tuple(chart.Tick(x(t), chart.tick_text(t)) for t in chart.ticks(x.low, x.high, 4)),
    y_ticks=tuple(chart.Tick(y(t), chart.tick_text(t)) for t in chart.ticks(y.low, y.high, 4)),
    x_label=f"{metric.label}{', %' if metric.kind == 'accuracy' else ''}",
    y_label=f"{recognizer.label}, %",
    shapes=shapes,
  )


def _rank_panel(item: Agreement, step: int) -> chart.Panel:
  """Draw ranks as dots of zero length with round caps, one path per source, to save bytes."""
  left, top, right, bottom = SMALL_FRAME
  x, y = chart.Scale(0, 1, left + 6, right - 6), chart.Scale(0, 1, bottom - 6, top + 6)
  paths: dict[str, list[str]] = {}
  for cells in grouped([cell for group in item.cells.values() for cell in group]).values():
    across = ranks([cell.estimates[item.metric].value for cell in cells])
    up = ranks([cell.estimates[item.recognizer].value for cell in cells])
    for cell, a, u in list(zip(cells, across, up, strict=True))[::step]:
      paths.setdefault(css_of(cell.series.plain), []).append(f"M{x(a):.1f} {y(u):.1f}h0")
  quantity = quantity_of(item.metric)
  better = "" if quantity.better == "higher" else "lower is better"
  return chart.Panel(
    width=SMALL_SIDE,
    height=SMALL_SIDE,
    title=chart.cut(quantity.label, WHOLE_LINE),
    note=f"n = {item.count}" if len(quantity.label) <= BESIDE_NOTE else "",
    description=(
      f"{quantity.label}: mean {rho_text(item.mean)} over {len(item.known)} groups, {item.count} cells."
    ),
    frame=SMALL_FRAME,
    x_label=better,
    shapes=tuple(chart.Shape("".join(path), f"{css} dust") for css, path in paths.items()),
    texts=(chart.Text(left, 31, _rho_and_interval(item), "rho"),),
  )


def ranks(values: Sequence[float]) -> list[float]:
  """Return ranks from 0 (lowest) to 1 (highest), ties at their mean; 0.5 if all values are equal."""
  from scipy.stats import rankdata

  if len(values) < 2:
    return [0.5] * len(values)
  return [float(rank - 1) / (len(values) - 1) for rank in rankdata(values)]


def _cell_words(cell: Cell) -> str:
  where = cell.series.label
  return f"{where}, {budget_words(cell.shots)}"
