"""Accuracy against shots, one panel per dataset."""

from collections.abc import Mapping, Sequence

from genbench_jax.report import chart
from genbench_jax.report.gains import average
from genbench_jax.report.labels import budget_words, shots_label
from genbench_jax.report.legend import ZERO_SHOT, css_of, keys_of
from genbench_jax.report.number_words import percent
from genbench_jax.report.quantities import quantity_of
from genbench_jax.report.results import Estimate, Results, Series, with_control

# Many series at many budgets need space side by side.
MEDIUM, LARGE, CROWDED = 332.0, 504.0, 45
ONE, ALL = "one per source", "all"
# A single dataset uses the full width of the page.
SINGLE = 800.0
LEFT, TOP, MARGIN = 34.0, 30.0, 8.0
Curve = dict[int, Estimate]
# Limit on the points of all panels. Beyond it, strategies are dropped first, then recognizers.
MOST_POINTS = 6000


def curves_figure(results: Results, quantities: Sequence[str]) -> chart.Figure:
  """Return the mean over datasets and every dataset, for every recognizer and CLER."""
  crowded = len(_trained(results)) * len(results.shots) > CROWDED
  prompts: tuple[str, ...] = (ONE, ALL) if crowded else (ALL,)
  prompts, quantities, left_out = _fitting(results, prompts, quantities)
  return chart.Figure(
    name="accuracy-against-shots",
    title="Accuracy against the number of training images per class",
    caption=(
      "Accuracy in percent, with 95 % intervals; the dashed line is zero-shot with its interval. "
      "Points of one budget are drawn side by side so that their intervals stay visible. Each panel has its "
      "own vertical scale." + left_out
    ),
    variants=tuple(
      _variant(results, name, which) for name in reversed(quantities) for which in reversed(prompts)
    ),
    choices=(
      ("Recognizer", tuple(quantity_of(name).label for name in quantities)),
      ("Prompt strategies", prompts),
    ),
  )


def _fitting(
  results: Results, prompts: tuple[str, ...], quantities: Sequence[str]
) -> tuple[tuple[str, ...], list[str], str]:
  """Return the strategies and recognizers that fit into the figure, and a sentence on omissions."""
  points = len(results.shots) * (len(results.datasets) + 1)
  num_series, per_source = len(_trained(results)), len(results.headline_series())
  omissions = ""
  if prompts != (ONE,) and points * num_series * len(quantities) > MOST_POINTS:
    prompts = (ONE,)
    omissions = (
      " One prompt strategy per source is drawn; the others are in the table of all cells."
    )
  most = (
    max(1, MOST_POINTS // max(points * per_source, 1)) if prompts == (ONE,) else len(quantities)
  )
  if len(quantities) > most:
    omissions += " Some recognizers are left out to keep the page small."
  return prompts, list(quantities)[:most], omissions


def _trained(results: Results) -> list[Series]:
  return [series for series in results.series if series.source != "control"]


def _variant(results: Results, quantity: str, which: str) -> chart.Variant:
  """Return the panels of one recognizer, for all series or one strategy per source."""
  candidates = results.headline_series() if which == ONE else _trained(results)
  series = with_control(
    results, [item for item in candidates if results.has(item, quantity)], quantity
  )
  keys = (*keys_of(series, by_strategy=True), ZERO_SHOT)
  choice = (quantity_of(quantity).label, which)
  if len(results.datasets) == 1:
    both = [_panels(results, quantity, series, width)[0] for width in (SINGLE, MEDIUM)]
    return chart.Variant(choice, tuple(both), keys, "forest")
  large = len(series) * len(results.shots) > CROWDED
  panels = _panels(results, quantity, series, LARGE if large else MEDIUM)
  return chart.Variant(choice, tuple(panels), keys, "large" if large else "medium")


def _panels(
  results: Results, quantity: str, series: Sequence[Series], width: float
) -> list[chart.Panel]:
  panels = [
    curve_panel(
      title=dataset,
      note="",
      curves={item: _curve(results, dataset, item, quantity) for item in series},
      baseline=results.zero_shot.get(dataset),
      shots=results.shots,
      about=quantity_of(quantity).label,
      width=width,
    )
    for dataset in results.datasets
  ]
  mean = _average_panel(results, quantity, series, width) if len(panels) > 1 else None
  return [mean, *panels] if mean else panels


def _curve(results: Results, dataset: str, series: Series, quantity: str) -> Curve:
  found = {shots: results.estimate(dataset, series, shots, quantity) for shots in results.shots}
  return {shots: estimate for shots, estimate in found.items() if estimate is not None}


def _average_panel(
  results: Results, quantity: str, series: Sequence[Series], width: float
) -> chart.Panel | None:
  """Return the mean over the datasets that have every series at every budget drawn."""
  measured = {(s, k) for _, s, k, name in results.folded if name == quantity and s in series}
  full = [
    dataset
    for dataset in results.datasets
    if dataset in results.zero_shot
    and all((dataset, s, k, quantity) in results.folded for s, k in measured)
  ]
  if not full:
    return None
  curves = {item: _mean_curve(results, item, quantity, full) for item in series}
  return curve_panel(
    title="mean over datasets",
    note=f"n = {len(full)} of {len(results.datasets)}",
    curves=curves,
    baseline=_mean(results.zero_shot, full),
    shots=results.shots,
    about=quantity_of(quantity).label,
    width=width,
  )


def _mean_curve(results: Results, series: Series, quantity: str, datasets: Sequence[str]) -> Curve:
  curves = {dataset: _curve(results, dataset, series, quantity) for dataset in datasets}
  found = {
    shots: _mean({name: curve[shots] for name, curve in curves.items() if shots in curve}, datasets)
    for shots in results.shots
  }
  return {shots: estimate for shots, estimate in found.items() if estimate is not None}


def _mean(estimates: Mapping[str, Estimate], datasets: Sequence[str]) -> Estimate | None:
  """Return the mean over exactly these datasets, or None if one is missing."""
  mean = average(estimates, datasets)
  return mean.estimate if mean and not mean.missing else None


def curve_panel(
  title: str,
  note: str,
  curves: dict[Series, Curve],
  baseline: Estimate | None,
  shots: Sequence[int],
  about: str,
  width: float,
) -> chart.Panel:
  """Return the panel of one dataset.

  Budgets are equally spaced, and the series of a budget are drawn side by side.

  Args:
    title: name of the dataset.
    note: text beside the title.
    curves: series -> shots -> accuracy.
    baseline: zero-shot accuracy.
    shots: budgets on the x axis.
    about: what the y axis shows, for the description.
    width: width in pixels.
  """
  height = 262.0 if width < SINGLE else 340.0
  left, top, right, bottom = frame = (LEFT, TOP, width - MARGIN, height - 42)
  drawn = {series: curve for series, curve in curves.items() if curve}
  known = [e for curve in drawn.values() for e in curve.values()] + ([baseline] if baseline else [])
  ends = [end for e in known for end in (e.value, e.low, e.high) if end is not None]
  y = chart.Scale(*chart.padded(ends, least=0.05, within=(0, 1)), bottom, top)
  step = (right - left) / max(len(shots), 1)
  shapes = _baseline(baseline, y, right)
  for place, (series, curve) in enumerate(drawn.items()):
    offset = step * 0.72 * ((place + 0.5) / len(drawn) - 0.5)
    at = {s: left + step * (shots.index(s) + 0.5) + offset for s in curve}
    shapes += _series(series, curve, at, y)
  for index, budget in enumerate(shots):
    zone = chart.rectangle(left + step * index, top, left + step * (index + 1), bottom)
    if width != LARGE:
      shapes.append(chart.Shape(zone, "zone", _tip(title, budget, drawn, baseline)))
  return chart.Panel(
    width=width,
    height=height,
    title=title,
    note=note,
    description=_description(title, about, drawn, baseline),
    frame=frame,
    x_ticks=tuple(chart.Tick(left + step * (i + 0.5), shots_label(s)) for i, s in enumerate(shots)),
    y_ticks=tuple(chart.Tick(y(t), chart.tick_text(100 * t)) for t in chart.ticks(y.low, y.high)),
    x_label="images per class",
    shapes=tuple(shapes),
  )


def _baseline(baseline: Estimate | None, y: chart.Scale, right: float) -> list[chart.Shape]:
  if baseline is None:
    return []
  line = chart.Shape(chart.segment(LEFT, y(baseline.value), right, y(baseline.value)), "zero-shot")
  if baseline.low is None or baseline.high is None:
    return [line]
  band = chart.rectangle(LEFT, y(baseline.high), right, y(baseline.low))
  return [chart.Shape(band, "zero-shot-band"), line]


def _series(
  series: Series, curve: Curve, at: dict[int, float], y: chart.Scale
) -> list[chart.Shape]:
  """Return the line, the intervals in one path and the markers in another."""
  css = css_of(series)
  whiskers = "".join(
    f"M{at[s]:.1f} {y(e.low):.1f}V{y(e.high):.1f}"
    for s, e in curve.items()
    if e.low is not None and e.high is not None
  )
  markers = "".join(chart.marker(series.strategy, at[s], y(e.value), 2.9) for s, e in curve.items())
  line = chart.polyline([(at[s], y(e.value)) for s, e in curve.items()])
  drawn = (("line", line), ("whisker thin", whiskers), ("mark", markers))
  return [chart.Shape(path, f"series {css} {kind}") for kind, path in drawn if path]


def _interval(estimate: Estimate) -> str:
  if estimate.low is None or estimate.high is None:
    return percent(estimate.value)
  return f"{percent(estimate.value)} ({percent(estimate.low)}–{percent(estimate.high)})"


def _tip(title: str, budget: int, curves: dict[Series, Curve], baseline: Estimate | None) -> str:
  ranked = sorted(
    ((series, curve[budget]) for series, curve in curves.items() if budget in curve),
    key=lambda item: -item[1].value,
  )
  lines = [f"{title}, {budget_words(budget)}"]
  lines += [f"{_interval(e)}  {series.label}" for series, e in ranked]
  return "\n".join(lines + ([f"{_interval(baseline)}  zero-shot"] if baseline else []))


def _description(
  title: str, about: str, curves: dict[Series, Curve], baseline: Estimate | None
) -> str:
  parts = [
    f"{series.label} from {percent(next(iter(curve.values())).value)} "
    f"to {percent(list(curve.values())[-1].value)}"
    for series, curve in curves.items()
  ]
  zero = f" Zero-shot {percent(baseline.value)} percent." if baseline else ""
  return f"{title}, {about} in percent from the fewest to the most images per class: {'; '.join(parts)}.{zero}"
