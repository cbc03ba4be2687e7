"""The rows of a run, indexed for the page."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from genbench_jax.prompts.strategies import STRATEGIES
from genbench_jax.report.labels import series_label
from genbench_jax.report.quantities import (
  HEADLINE_STRATEGIES,
  QUANTITIES,
  SOURCES,
  excess_name,
  in_space,
  is_distance,
  on_its_features,
  order_of,
)

Row = Mapping[str, Any]
ACCURACIES = tuple(name for name, quantity in QUANTITIES.items() if quantity.kind == "accuracy")


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A value with its 95 % intervals; the ends are None if none was measured.

  Attributes:
    low, high: interval for *these images*: other test images, the same training images.
    wide_low, wide_high: interval for *this generator*: other training images and seeds as well.
  """

  value: float
  low: float | None = None
  high: float | None = None
  wide_low: float | None = None
  wide_high: float | None = None

  @property
  def interval(self) -> tuple[float, float] | None:
    """The interval for these images."""
    return None if self.low is None or self.high is None else (self.low, self.high)

  @property
  def wide_interval(self) -> tuple[float, float] | None:
    """The interval for this generator."""
    return (
      None if self.wide_low is None or self.wide_high is None else (self.wide_low, self.wide_high)
    )


@dataclasses.dataclass(frozen=True)
class Series:
  """A source with its generator and prompt strategy, measured at several shots.

  Attributes:
    hue: position of the generator among all, from 1; 0 if there is only one.
    only: whether all generators have just this strategy, so that labels omit it.
  """

  source: str
  strategy: str
  generator: str = ""
  hue: int = dataclasses.field(default=0, compare=False)
  only: bool = dataclasses.field(default=False, compare=False)

  @property
  def label(self) -> str:
    """The name on the page."""
    return series_label(self.source, "" if self.only else self.strategy, self.generator)

  @property
  def plain(self) -> "Series":
    """The series without its strategy."""
    return dataclasses.replace(self, strategy="")

  @property
  def order(self) -> tuple[tuple[int, str], int, str, tuple[int, str]]:
    return (
      order_of(self.source, SOURCES),
      self.hue,
      self.generator,
      order_of(self.strategy, STRATEGIES),
    )


@dataclasses.dataclass(frozen=True)
class Cell:
  """One (dataset, source, generator, strategy, shots, seed) with its measurements."""

  dataset: str
  series: Series
  shots: int
  seed: int
  protocol: str
  encoder: str
  estimates: Mapping[str, Estimate]
  facts: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class View:
  """A protocol and an encoder. Rows of one view are comparable."""

  protocol: str
  encoder: str


@dataclasses.dataclass(frozen=True)
class Results:
  """The cells of one view, and the zero-shot baseline of each dataset."""

  view: View
  cells: tuple[Cell, ...]
  zero_shot: Mapping[str, Estimate]
  folded: Mapping[tuple[str, Series, int, str], Estimate]

  @functools.cached_property
  def measured(self) -> tuple[Cell, ...]:
    """The cells that a config counts: a control is its cell with shuffled labels, not one more."""
    return tuple(cell for cell in self.cells if cell.series.source != "control")

  @functools.cached_property
  def datasets(self) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cell.dataset for cell in self.cells))

  @functools.cached_property
  def series(self) -> tuple[Series, ...]:
    return tuple(sorted({cell.series for cell in self.cells}, key=lambda series: series.order))

  @functools.cached_property
  def shots(self) -> tuple[int, ...]:
    return tuple(sorted({cell.shots for cell in self.cells}, key=lambda shots: (shots <= 0, shots)))

  @functools.cached_property
  def quantities(self) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for cell in self.cells for name in cell.estimates))

  def estimate(self, dataset: str, series: Series, shots: int, quantity: str) -> Estimate | None:
    """Return the mean over seeds, or None if it was not measured.

    Args:
      dataset: name of the dataset.
      series: source, generator and strategy.
      shots: images per class.
      quantity: name of the quantity.
    """
    return self.folded.get((dataset, series, shots, quantity))

  def recognizers(self) -> list[str]:
    """Accuracies that are compared with zero-shot, trained ones first."""
    accuracies = [name for name, q in QUANTITIES.items() if q.kind == "accuracy"]
    return [name for name in accuracies if name in self.quantities and name != "zero_shot"]

  @functools.cached_property
  def _measured(self) -> frozenset[tuple[Series, str]]:
    return frozenset((series, quantity) for _, series, _, quantity in self.folded)

  def has(self, series: Series, quantity: str) -> bool:
    return (series, quantity) in self._measured

  @functools.cached_property
  def generators(self) -> tuple[Series, ...]:
    """The headline series of every generator; empty with at most one generator."""
    found = [
      series
      for series in self.headline_series()
      if series.generator and series.source != "combined"
    ]
    return tuple(found) if len(found) > 1 else ()

  def headline_series(self) -> tuple[Series, ...]:
    """Return one series per source and generator, without controls."""
    chosen: dict[tuple[str, str], Series] = {}
    by_convention = sorted(self.series, key=lambda s: order_of(s.strategy, HEADLINE_STRATEGIES))
    for series in by_convention:
      if series.source != "control":
        chosen.setdefault((series.source, series.generator), series)
    return tuple(sorted(chosen.values(), key=lambda series: series.order))


def with_control(results: Results, series: Sequence[Series], quantity: str) -> tuple[Series, ...]:
  """Return the series, followed by a label-shuffled control of the headline strategy if measured.

  Args:
    results: the rows.
    series: the series.
    quantity: the recognizer.
  """
  measured = [s for s in results.series if s.source == "control" and results.has(s, quantity)]
  chosen = sorted(measured, key=lambda s: order_of(s.strategy, HEADLINE_STRATEGIES))[:1]
  return (*series, *chosen)


def is_number(value: Any) -> TypeGuard[int | float]:
  return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def beside_their_encoder(rows: Sequence[Row]) -> list[Row]:
  """Turn rows of encoders without recognition (DINOv2) into quantities of the other cells.

  Their quantity then names the features, and they belong to every encoder.
  """
  recognizes = {row.get("encoder") for row in rows if row["quantity"] in ACCURACIES}
  if not recognizes:
    return list(rows)
  return [
    row
    if not row.get("encoder") or row["encoder"] in recognizes
    else {**row, "quantity": in_space(row["quantity"], row["encoder"]), "encoder": ""}
    for row in rows
  ]


def views(rows: Sequence[Row]) -> tuple[View, ...]:
  """Return every protocol and encoder that has rows, `strict` first."""
  found = {View(row.get("protocol") or "", row.get("encoder") or "") for row in rows}
  protocols = {view.protocol for view in found if view.protocol} or {""}
  encoders = {view.encoder for view in found if view.encoder} or {""}
  named = {View(protocol, encoder) for protocol in protocols for encoder in encoders}
  measured = [view for view in named if any(belongs(row, view) for row in rows)]
  # Rows of the run's main encoder come first.
  order = list(dict.fromkeys(row.get("encoder") or "" for row in rows))
  return tuple(
    sorted(
      measured,
      key=lambda v: (
        order_of(v.protocol, ("strict",)),
        order.index(v.encoder) if v.encoder else -1,
      ),
    )
  )


def results_of(rows: Sequence[Row], view: View) -> Results:
  """Return the rows of a view as cells; rows without a finite value are left out."""
  mine = [
    excess
    for row in rows
    if is_number(row.get("value")) and belongs(row, view)
    for excess in with_excess(
      {**row, "quantity": on_its_features(row["quantity"], row.get("encoder") or "")}
    )
  ]
  cells = tuple(sorted(_cells(mine, view), key=_cell_order(mine)))
  return Results(view, cells, _zero_shot(mine), folded_of(cells))


def with_excess(row: Row) -> list[Row]:
  """Yield the row and, if it has a floor, its excess over the floor as a further quantity.

  With few images, a distance is mostly bias, which real training images have as well. The floor is
  the distance of as many real images; only the excess is due to the images.
  """
  floor = row.get("floor")
  if not is_number(floor) or not is_distance(row["quantity"]):
    return [row]
  shifted = {
    key: row[key] - floor
    for key in ("value", "ci_low", "ci_high", "generator_low", "generator_high")
    if is_number(row.get(key))
  }
  return [row, {**row, **shifted, "quantity": excess_name(row["quantity"])}]


def unreadable(rows: Sequence[Row]) -> int:
  """Return the number of rows without a finite value."""
  return sum(not is_number(row.get("value")) for row in rows)


def fold_seeds(estimates: Sequence[Estimate]) -> Estimate:
  """Return the mean over seeds with both intervals.

  The seeds share the test images, so the interval for *these images* has the mean half-width of the
  seeds' intervals. For *this generator*, the variation between images and seeds is added in
  quadrature. It is Student's t interval of the mean over seeds or, if larger, the variation that
  the rows report, divided by the root of the number of seeds. Two seeds can agree by chance.
  """
  count = len(estimates)
  value = math.fsum(e.value for e in estimates) / count
  known = [(e.value, *e.interval) for e in estimates if e.interval]
  if len(known) < count:
    return Estimate(value)
  below = math.fsum(middle - low for middle, low, _ in known) / count
  above = math.fsum(high - middle for middle, _, high in known) / count
  if count == 1:
    return Estimate(value, value - below, value + above, *(estimates[0].wide_interval or ()))
  spread = max(_seed_spread(estimates, value), _image_spread(estimates) / math.sqrt(count))
  wide = value - math.hypot(below, spread), value + math.hypot(above, spread)
  return Estimate(value, value - below, value + above, *wide)


def _seed_spread(estimates: Sequence[Estimate], mean: float) -> float:
  """Return half the width of Student's t interval (95 %) of the mean over two or more seeds."""
  from scipy.special import stdtrit

  count = len(estimates)
  variance = math.fsum((e.value - mean) ** 2 for e in estimates) / (count - 1)
  return float(stdtrit(count - 1, 0.975)) * math.sqrt(variance / count)


def _image_spread(estimates: Sequence[Estimate]) -> float:
  """Return the part of one seed's half-width due to training images; 0 if no row reports it."""
  parts = [
    (e.wide_interval[1] - e.wide_interval[0]) ** 2 - (e.interval[1] - e.interval[0]) ** 2
    for e in estimates
    if e.wide_interval and e.interval
  ]
  return math.sqrt(max(math.fsum(parts) / len(parts), 0.0)) / 2 if parts else 0.0


def belongs(row: Row, view: View) -> bool:
  """Rows that name no protocol or no encoder hold under each."""
  return (row.get("protocol") or view.protocol) == view.protocol and (
    row.get("encoder") or view.encoder
  ) == view.encoder


def _estimate(row: Row) -> Estimate:
  ends: list[float | None] = []
  for names in (("ci_low", "ci_high"), ("generator_low", "generator_high")):
    found = [float(row[name]) for name in names if is_number(row.get(name))]
    ends += found if len(found) == 2 else [None, None]
  return Estimate(float(row["value"]), *ends)


def _cells(rows: Sequence[Row], view: View) -> list[Cell]:
  grouped: dict[tuple, list[Row]] = {}
  hues = _hues(rows)
  strategies = {row.get("strategy") for row in rows if row.get("generator") and row.get("strategy")}
  only = len(hues) > 1 and len(strategies) == 1
  for row in rows:
    if row["quantity"] != "zero_shot":
      generator = row.get("generator") or ""
      key = (
        row["dataset"],
        Series(row["source"], row.get("strategy") or "", generator, hues.get(generator, 0), only),
        row.get("shots") or 0,
        row.get("seed") or 0,
      )
      grouped.setdefault(key, []).append(row)
  return [
    Cell(
      dataset,
      series,
      int(shots),
      int(seed),
      view.protocol,
      view.encoder,
      {row["quantity"]: _estimate(row) for row in group},
      _facts(group),
    )
    for (dataset, series, shots, seed), group in grouped.items()
  ]


def _hues(rows: Sequence[Row]) -> dict[str, int]:
  """Return generator -> position from 1; empty with one generator."""
  names = dict.fromkeys(row["generator"] for row in rows if row.get("generator"))
  return {name: place for place, name in enumerate(names, 1)} if len(names) > 1 else {}


def _facts(rows: Sequence[Row]) -> dict[str, float]:
  """Return the counts of a cell, the largest of its rows, and the total of their seconds."""
  facts: dict[str, float] = {}
  for name in ("shots_given", "n_external", "n_real", "n_test", "missing_classes"):
    if found := [row[name] for row in rows if is_number(row.get(name))]:
      facts[name] = max(found)
  if seconds := [row["seconds"] for row in rows if is_number(row.get("seconds"))]:
    facts["seconds"] = math.fsum(seconds)
  return facts


def _cell_order(rows: Sequence[Row]) -> Any:
  datasets = {
    name: index for index, name in enumerate(dict.fromkeys(row["dataset"] for row in rows))
  }
  return lambda cell: (
    datasets[cell.dataset],
    cell.series.order,
    cell.shots <= 0,
    cell.shots,
    cell.seed,
  )


def _zero_shot(rows: Iterable[Row]) -> dict[str, Estimate]:
  """Return the baseline of each dataset. It uses no external image, so repeated rows agree."""
  found: dict[str, Estimate] = {}
  for row in rows:
    if row["quantity"] == "zero_shot":
      found.setdefault(row["dataset"], _estimate(row))
  return found


def folded_of(cells: Iterable[Cell]) -> dict[tuple[str, Series, int, str], Estimate]:
  """Return the estimates of cells, averaged over seeds, by dataset, series, shots and quantity."""
  seeds: dict[tuple[str, Series, int, str], list[Estimate]] = {}
  for cell in cells:
    for name, estimate in cell.estimates.items():
      seeds.setdefault((cell.dataset, cell.series, cell.shots, name), []).append(estimate)
  return {key: fold_seeds(estimates) for key, estimates in seeds.items()}
