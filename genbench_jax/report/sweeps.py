"""Accuracy against guidance and steps, and the front of quality against cost."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from genbench_jax.report import chart
from genbench_jax.report.generators import Cost, cost_of
from genbench_jax.report.labels import images_label
from genbench_jax.report.legend import css_of, keys_of
from genbench_jax.report.number_words import number, percent
from genbench_jax.report.quantities import quantity_of
from genbench_jax.report.ranking import Rank
from genbench_jax.report.results import Estimate, Series

SWEPT = {"guidance_scale": "guidance scale", "steps": "steps"}
# A curve needs three points to show a bend.
FEWEST_POINTS = 2
SIZE = (332.0, 262.0)
WIDE_SIZE = (800.0, 340.0)

Point = tuple[float, Series, Estimate]


def sweeps_figure(
  ranked: Sequence[Rank], settings: Mapping[str, Mapping[str, Any]], quantity: str
) -> chart.Figure | None:
  """Return accuracy against guidance and steps; None if no generators differ only in those.

  Args:
    ranked: the ranked series.
    settings: generator -> its settings.
    quantity: the recognizer.
  """
  label = quantity_of(quantity).label
  panels = []
  for name, words in SWEPT.items():
    curves = curves_of(ranked, settings, name)
    if curves:
      panels.append(_sweep_panel(curves, words, label))
  if not panels:
    return None
  return chart.Figure(
    name="sweeps",
    title="Accuracy by guidance and steps",
    caption=(
      f"Mean {label} over the datasets, with 95 % intervals. A line joins settings of a generator that "
      "differ in nothing else. Choosing the best setting from this figure is choosing on test data."
    ),
    variants=(chart.Variant((), tuple(panels), keys_of([r.series for r in ranked], False)),),
  )


def curves_of(
  ranked: Sequence[Rank], settings: Mapping[str, Mapping[str, Any]], name: str
) -> list[list[Point]]:
  """Return groups of generators that differ only in one setting, each sorted by it.

  Args:
    ranked: the ranked series.
    settings: generator -> its settings.
    name: the setting that differs.
  """
  groups: dict[str, list[Point]] = {}
  for rank in ranked:
    own = (
      dict(settings.get(rank.series.generator, {})) if rank.series.source == "generative" else {}
    )
    value = own.pop(name, None)
    if isinstance(value, int | float) and not isinstance(value, bool):
      rest = json.dumps(own, sort_keys=True, default=str) + rank.series.strategy
      groups.setdefault(rest, []).append((float(value), rank.series, rank.accuracy))
  curves = [sorted(points, key=lambda point: point[0]) for points in groups.values()]
  return [curve for curve in curves if len({x for x, _, _ in curve}) >= FEWEST_POINTS]


def front_figure(
  ranked: Sequence[Rank], costs: Mapping[str, Cost], quantity: str
) -> chart.Figure | None:
  """Return accuracy against the cost per image; None with fewer than two generators of known cost.

  Args:
    ranked: the ranked series.
    costs: generator -> cost of its images.
    quantity: the recognizer.
  """
  points = []
  for rank in ranked:
    cost = cost_of(costs, rank.series)
    if cost and cost.chip_seconds_per_image > 0:
      points.append((cost.chip_seconds_per_image, rank.series, rank.accuracy))
  if len({item for _, item, _ in points}) < 2:
    return None
  label = quantity_of(quantity).label
  panels = tuple(_front_panel(points, label, size) for size in (WIDE_SIZE, SIZE))
  return chart.Figure(
    name="cost-and-quality",
    title="Accuracy by cost per image",
    caption=(
      f"Mean {label} over the datasets against device-seconds per image (without compilation, "
      "logarithmic axis). The line connects the generators that no other beats at equal or lower cost."
    ),
    variants=(chart.Variant((), panels, keys_of([s for _, s, _ in points], False), "forest"),),
  )


def front_of(points: Sequence[Point]) -> list[Point]:
  """Return the points with a higher value than every cheaper one, cheapest first."""
  best, front = -math.inf, []
  for point in sorted(points, key=lambda point: (point[0], -point[2].value)):
    if point[2].value > best:
      best = point[2].value
      front.append(point)
  return front


def _sweep_panel(curves: Sequence[Sequence[Point]], words: str, label: str) -> chart.Panel:
  points = [point for curve in curves for point in curve]
  left, top, right, bottom = frame = (40.0, 30.0, SIZE[0] - 12, SIZE[1] - 42)
  values = sorted({x for x, _, _ in points})
  x = chart.Scale(*chart.padded(values, 0.08, 1.0), left, right)
  y = _y_scale(points, bottom, top)
  shapes: list[chart.Shape] = []
  for curve in curves:
    line = chart.polyline([(x(value), y(e.value)) for value, _, e in curve])
    shapes.append(chart.Shape(line, "series line join"))
    shapes += [shape for point in curve for shape in _dot(point, x(point[0]), y, words, label)]
  listing = "; ".join(
    f"{number(v)}: {percent(e.value)}" for v, _, e in sorted(points, key=lambda p: p[0])
  )
  return chart.Panel(
    *SIZE,
    title=f"against {words}",
    description=f"{label} in percent against {words}. {listing}.",
    frame=frame,
    x_ticks=tuple(chart.Tick(x(v), f"{v:g}") for v in _apart(values, x)),
    y_ticks=_y_ticks(y),
    x_label=words,
    shapes=tuple(shapes),
  )


def _front_panel(points: Sequence[Point], label: str, size: tuple[float, float]) -> chart.Panel:
  left, top, right, bottom = frame = (40.0, 22.0, size[0] - 12, size[1] - 42)
  low, high = chart.padded([math.log10(cost) for cost, _, _ in points], 0.12, 0.3)
  x, y = chart.Scale(low, high, left, right), _y_scale(points, bottom, top)
  front = [(x(math.log10(cost)), y(e.value)) for cost, _, e in front_of(points)]
  shapes = [chart.Shape(chart.polyline(front), "series line join")] if len(front) > 1 else []
  texts = []
  for cost, item, estimate in points:
    at = x(math.log10(cost))
    shapes += list(_dot((cost, item, estimate), at, y, "seconds per image", label))
    if size == WIDE_SIZE and len(points) <= 12:
      end = at > (left + right) / 2
      name = images_label(item.source, item.generator)
      texts.append(
        chart.Text(
          at - 8 if end else at + 8, y(estimate.value) - 7, name, "quiet", "end" if end else "start"
        )
      )
  listing = "; ".join(
    f"{images_label(s.source, s.generator)}: {number(c)} s, {percent(e.value)}"
    for c, s, e in points
  )
  return chart.Panel(
    *size,
    title="",
    description=f"{label} in percent against device-seconds per image. {listing}.",
    frame=frame,
    x_ticks=tuple(chart.Tick(x(math.log10(t)), f"{t:g}") for t in _decades(10**low, 10**high)),
    y_ticks=_y_ticks(y),
    x_label="device-seconds per image",
    shapes=tuple(shapes),
    texts=tuple(texts),
  )


def _dot(point: Point, at: float, y: chart.Scale, words: str, label: str) -> Iterator[chart.Shape]:
  value, item, estimate = point
  css = f"series {css_of(item)}"
  ends = estimate.wide_interval or estimate.interval
  if ends:
    yield chart.Shape(chart.segment(at, y(ends[0]), at, y(ends[1])), f"{css} whisker thin")
  interval = f" ({percent(ends[0])} to {percent(ends[1])})" if ends else ""
  tip = f"{images_label(item.source, item.generator)}: {label} {percent(estimate.value)}{interval}, {number(value)} {words}"
  yield chart.Shape(chart.marker("", at, y(estimate.value), 3.8), f"{css} mark", tip)


def _y_scale(points: Sequence[Point], bottom: float, top: float) -> chart.Scale:
  ends = [end for *_, e in points for end in (e.value, *(e.wide_interval or e.interval or ()))]
  return chart.Scale(*chart.padded(ends, least=0.03, within=(0, 1)), bottom, top)


def _y_ticks(y: chart.Scale) -> tuple[chart.Tick, ...]:
  return tuple(chart.Tick(y(t), chart.tick_text(100 * t)) for t in chart.ticks(y.low, y.high))


def _apart(values: Sequence[float], x: chart.Scale) -> list[float]:
  """Return the values whose labels do not overlap the previous one."""
  kept: list[float] = []
  for value in values:
    if not kept or x(value) - x(kept[-1]) > 22:
      kept.append(value)
  return kept


def _decades(low: float, high: float) -> list[float]:
  """Return 1, 2 and 5 times powers of ten in a range; its ends if it contains fewer than two."""
  powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
  values = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
  found = [value for value in values if low <= value <= high]
  return found if len(found) > 1 else [float(f"{end:.2g}") for end in (low * 1.1, high / 1.1)]
