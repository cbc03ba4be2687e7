"""Power laws of accuracy over the number of images, as a table and as a figure."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from genbench_jax.analysis.curves import Point, PowerLaw, power_law
from genbench_jax.report import chart
from genbench_jax.report.exchange import complete_datasets, curve
from genbench_jax.report.legend import css_of, keys_of
from genbench_jax.report.number_words import percent
from genbench_jax.report.quantities import quantity_of
from genbench_jax.report.results import Results, Series
from genbench_jax.report.tables import Table
from genbench_jax.runtime.protocol import NORMAL

LEFT, TOP, MARGIN = 34.0, 30.0, 8.0
# Extrapolation of the drawn laws, as a multiple of the largest number of images, and number of
# points.
BEYOND, POINTS = 2.0, 40


class ScalingCurve(NamedTuple):
  """Mean accuracy of a series at each number of images per class, with its power law."""

  series: Series
  points: list[Point]
  law: PowerLaw


def scaling_curves(results: Results, series: Sequence[Series], quantity: str) -> list[ScalingCurve]:
  """Return the curves of the series to which a power law could be fitted.

  Args:
    results: the rows.
    series: the series to fit.
    quantity: the recognizer.
  """
  found = []
  for item in series:
    points = curve(results, item, quantity, complete_datasets(results, (item,), quantity))
    law = power_law(points)
    if not law.reason:
      found.append(ScalingCurve(item, points, law))
  return found


def scaling_table(curves: Sequence[ScalingCurve], quantity: str) -> Table | None:
  """Return exponents and limits; None without a power law.

  error(n) = floor + scale · n^−exponent, with n images per class.
  """
  if not curves:
    return None
  rows = tuple(
    (
      series.label,
      f"{law.exponent:.2f} ({law.exponent_low:.2f} to {law.exponent_high:.2f})",
      f"{percent(1 - law.floor)} ({percent(law.limit_low)} to {percent(law.limit_high)})",
    )
    for series, _, law in curves
  )
  caption = (
    f"Power law through the mean {quantity_of(quantity).label}: error = floor + scale × n^−exponent, n images per class; "
    "95 % intervals. A limit far above the measured range is an extrapolation."
  )
  return Table("scaling", caption, ("images", "exponent", "limit of the accuracy, %"), rows)


def scaling_figure(curves: Sequence[ScalingCurve], quantity: str) -> chart.Figure | None:
  """Return the points and their power laws; None without a power law."""
  if not curves:
    return None
  label = quantity_of(quantity).label
  panels = tuple(scaling_panel(curves, label, width) for width in (800.0, 332.0))
  return chart.Figure(
    name="scaling",
    title="What more images would give",
    caption=(
      f"Mean {label} accuracy in percent over the number of images per class, with 95 % intervals, and the power law through "
      f"each source's points, drawn on to {BEYOND:g} times the most images. Each source counts the datasets that it has all budgets of."
    ),
    variants=(
      chart.Variant((), panels, tuple(keys_of([c.series for c in curves], by_strategy=True)), "forest"),
    ),
  )  # fmt: skip


def scaling_panel(curves: Sequence[ScalingCurve], about: str, width: float) -> chart.Panel:
  """Return the plot with the number of images on a logarithmic axis.

  Args:
    curves: the curves to draw.
    about: what the y axis shows, for the description.
    width: width in pixels.
  """
  height = 340.0 if width > 400 else 262.0
  left, top, right, bottom = frame = (LEFT, TOP, width - MARGIN, height - 42)
  budgets = sorted({point.images for curve in curves for point in curve.points})
  first, last = budgets[0], BEYOND * budgets[-1]
  x = chart.Scale(math.log2(first), math.log2(last), left + MARGIN, right - MARGIN)
  ends = [end for curve in curves for point in curve.points for end in interval(point)]
  ends += [curve.law.accuracy(last) for curve in curves]
  y = chart.Scale(*chart.padded(ends, least=0.05, within=(0, 1)), bottom, top)
  grid = [first * (last / first) ** (i / (POINTS - 1)) for i in range(POINTS)]
  return chart.Panel(
    width=width,
    height=height,
    title="",
    description=_description(curves, about, last),
    frame=frame,
    x_ticks=chart.apart([chart.Tick(x(math.log2(n)), f"{n:g}") for n in budgets]),
    y_ticks=tuple(chart.Tick(y(t), chart.tick_text(100 * t)) for t in chart.ticks(y.low, y.high)),
    x_label="images per class",
    shapes=tuple(shape for curve in curves for shape in _shapes(curve, grid, x, y)),
  )


def interval(point: Point) -> tuple[float, float]:
  """Return the ends of the 95 % interval of a point; the point itself if its error is unknown."""
  half = NORMAL * point.error if math.isfinite(point.error) else 0.0
  return point.value - half, point.value + half


def _shapes(
  curve: ScalingCurve, grid: Sequence[float], x: chart.Scale, y: chart.Scale
) -> list[chart.Shape]:
  """Return the law as a line, and the intervals and markers of the points."""
  css = css_of(curve.series)
  line = chart.polyline([(x(math.log2(n)), y(curve.law.accuracy(n))) for n in grid])
  places = [(x(math.log2(point.images)), point) for point in curve.points]
  ends = [(at, *interval(point)) for at, point in places]
  whiskers = "".join(
    f"M{at:.1f} {y(low):.1f}V{y(high):.1f}" for at, low, high in ends if high > low
  )
  markers = "".join(chart.marker(curve.series.strategy, at, y(p.value), 2.9) for at, p in places)
  drawn = (("line", line), ("whisker thin", whiskers), ("mark", markers))
  return [chart.Shape(path, f"series {css} {kind}") for kind, path in drawn if path]


def _description(curves: Sequence[ScalingCurve], about: str, last: float) -> str:
  parts = [
    f"{curve.series.label} from {percent(curve.points[0].value)} to {percent(curve.points[-1].value)}, "
    f"by its law {percent(curve.law.accuracy(last))} at {last:g}"
    for curve in curves
  ]
  return f"{about} in percent over images per class: {'; '.join(parts)}."
