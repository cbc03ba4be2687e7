"""The headline figure: a dot and its interval for every gain over zero-shot."""

import dataclasses
from collections.abc import Callable, Sequence

from genbench_jax.report import chart
from genbench_jax.report.gains import Average, average_gain, budgets, gain, headline_budget
from genbench_jax.report.legend import css_of, keys_of
from genbench_jax.report.quantities import (
  percent,
  points,
  quantity_of,
  series_label,
  shots_label,
  source_label,
  strategy_label,
)
from genbench_jax.report.results import Estimate, Results, Series, with_control


@dataclasses.dataclass(frozen=True)
class Line:
  """A line of the forest: its name and one estimate a series."""

  name: str
  estimates: tuple[Estimate | None, ...]
  note: str = ""
  strong: bool = False


@dataclasses.dataclass(frozen=True)
class Layout:
  """Where things stand, in pixels; `numbers` is the width of the column of each series."""

  width: float
  left: float
  numbers: float
  name_height: float


WIDE = Layout(width=800, left=176, numbers=64, name_height=0)
NARROW = Layout(width=358, left=10, numbers=0, name_height=17)


def gains_figure(results: Results, quantities: Sequence[str]) -> chart.Figure:
  """Each source against zero-shot: the average first, then every dataset, at every budget."""
  series = results.headline_series()

  def lines(quantity: str, shots: int, shown: Sequence[Series]) -> list[Line]:
    mean = [average_gain(results, one, shots, quantity) for one in shown]
    each = [
      Line(
        name,
        tuple(gain(results, name, one, shots, quantity) for one in shown),
        f"zero-shot {percent(results.zero_shot[name].value)}" if name in results.zero_shot else "",
      )
      for name in results.datasets
    ]
    each.sort(key=lambda line: -line.estimates[0].value if line.estimates[0] else float("inf"))
    return [_average_line(mean), *each] if len(results.datasets) > 1 else each

  return chart.Figure(
    name="gains",
    title="Gain over zero-shot, source by source",
    caption=(
      "Points of accuracy above (right) or below (left) zero-shot, with 95 % intervals. "
      "The top line averages over datasets; n says over how many."
    ),
    variants=_variants(results, quantities, lambda q: with_control(results, series, q), lines),
    choices=_choices(results, quantities),
  )


def strategies_figure(results: Results, quantities: Sequence[str]) -> chart.Figure | None:
  """The prompt strategies against each other, on average; None where there is but one."""
  sources = list(
    dict.fromkeys(s.source for s in results.series if s.strategy and s.source != "control")
  )
  strategies = list(
    dict.fromkeys(s.strategy for s in results.series if s.strategy and s.source in sources)
  )
  if len(strategies) < 2:
    return None

  def lines(quantity: str, shots: int, shown: Sequence[Series]) -> list[Line]:
    found = []
    for strategy in strategies:
      mean = [average_gain(results, Series(s.source, strategy), shots, quantity) for s in shown]
      found.append(
        dataclasses.replace(_average_line(mean, strong=False), name=strategy_label(strategy))
      )
    return found

  shown = tuple(Series(source, "") for source in sources)
  return chart.Figure(
    name="strategies",
    title="Prompt strategies compared",
    caption=(
      "Points above zero-shot, averaged over datasets, for each way of writing the prompt, with 95 % "
      "intervals. To pick the best of them by this figure is to pick on test data."
    ),
    variants=_variants(results, quantities, lambda _: shown, lines),
    choices=_choices(results, quantities),
  )


def _choices(
  results: Results, quantities: Sequence[str]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
  every = sorted({s for q in quantities for s in budgets(results, q)}, key=lambda s: (s <= 0, s))
  return (
    ("Measured by", tuple(quantity_of(name).label for name in quantities)),
    ("Images a class", tuple(shots_label(shots) for shots in every)),
  )


def _variants(
  results: Results,
  quantities: Sequence[str],
  series_of: Callable[[str], Sequence[Series]],
  lines: Callable[[str, int, Sequence[Series]], list[Line]],
) -> tuple[chart.Variant, ...]:
  """A variant for every quantity and budget; the headline of the first quantity stands last."""
  found: list[tuple[bool, chart.Variant]] = []
  for quantity in quantities:
    series = series_of(quantity)
    blocks = {shots: lines(quantity, shots, series) for shots in budgets(results, quantity)}
    reach = _reach([line for block in blocks.values() for line in block])
    for shots, block in blocks.items():
      head = quantity == quantities[0] and shots == headline_budget(results, quantity)
      about = f"{quantity_of(quantity).label}, {shots_label(shots)} images a class"
      panels = tuple(forest(block, series, reach, about, layout) for layout in (WIDE, NARROW))
      choice = (quantity_of(quantity).label, shots_label(shots))
      found.append(
        (head, chart.Variant(choice, panels, keys_of(series, by_strategy=False), "forest"))
      )
  return tuple(variant for _, variant in sorted(found, key=lambda item: item[0]))


def _average_line(means: Sequence[Average | None], strong: bool = True) -> Line:
  counts = sorted({len(mean.included) for mean in means if mean})
  note = f"n = {'–'.join(str(count) for count in counts)}" if counts else ""
  return Line("all datasets", tuple(m.estimate if m else None for m in means), note, strong)


def _reach(lines: Sequence[Line]) -> tuple[float, float]:
  """The range of the axis: every value, and every interval end up to twice as far as any value."""
  known = [e for line in lines for e in line.estimates if e]
  furthest = 2 * max((abs(e.value) for e in known), default=0.05) + 0.01
  ends = [end for e in known for end in (e.low, e.high) if end is not None and abs(end) <= furthest]
  return chart.padded([0.0, *(e.value for e in known), *ends], least=0.04)


def forest(
  lines: Sequence[Line],
  series: Sequence[Series],
  reach: tuple[float, float],
  about: str,
  layout: Layout,
) -> chart.Panel:
  """One forest plot. Lines run down the page, the series of a line below one another."""
  right = layout.width - layout.numbers * len(series) - 10
  scale = chart.Scale(*reach, layout.left, right)
  top = 26.0 if layout.numbers else 8.0
  pitch = 11.0
  height = max(layout.name_height + pitch * len(series) + 12, 38 if layout.numbers else 0)
  shapes: list[chart.Shape] = []
  texts = _column_heads(series, right, layout) if layout.numbers else []
  for index, line in enumerate(lines):
    y = top + index * height
    if index % 2 == 0:
      shapes.append(chart.Shape(chart.rectangle(0, y, layout.width, y + height), "stripe"))
    texts += _names(line, y, height, layout)
    zero = chart.segment(scale(0), y + layout.name_height, scale(0), y + height)
    shapes.append(chart.Shape(zero, "baseline"))
    middle = y + (layout.name_height + height) / 2
    for place, (one, estimate) in enumerate(zip(series, line.estimates, strict=True)):
      at = middle + pitch * (place + 0.5 - len(series) / 2)
      tip = f"{line.name}, {series_label(one.source, one.strategy)}: {_words(estimate)}"
      shapes += _mark(one, estimate, scale, at, line.strong, tip)
      if layout.numbers:
        x = right + layout.numbers * (place + 1)
        text = points(estimate.value) if estimate else "–"
        texts.append(
          chart.Text(x, middle + 4, text, f"number {css_of(one)}{' strong' * line.strong}", "end")
        )
  bottom = top + len(lines) * height
  stripes = [shape for shape in shapes if shape.css == "stripe"]
  others = [shape for shape in shapes if shape.css != "stripe"]
  return chart.Panel(
    width=layout.width,
    height=bottom + 40,
    title="",
    description=f"{about}: " + "; ".join(_sentence(line, series) for line in lines) + ".",
    frame=(layout.left, top, right, bottom),
    x_ticks=tuple(
      chart.Tick(scale(t), points(t).removesuffix(".0")) for t in chart.ticks(*reach, 6)
    ),
    x_label="points above zero-shot",
    shapes=(*stripes, *others),
    texts=tuple(texts),
  )


def _column_heads(series: Sequence[Series], right: float, layout: Layout) -> list[chart.Text]:
  return [
    chart.Text(
      right + layout.numbers * (i + 1),
      14,
      source_label(one.source).removeprefix("label-"),
      f"head {css_of(one)}",
      "end",
    )
    for i, one in enumerate(series)
  ]


def _names(line: Line, y: float, height: float, layout: Layout) -> list[chart.Text]:
  strong = " strong" if line.strong else ""
  if layout.name_height:
    note = [chart.Text(layout.width - 8, y + 15, line.note, "quiet", "end")] if line.note else []
    return [chart.Text(8, y + 15, line.name, f"name{strong}"), *note]
  middle = y + height / 2 + (4 if not line.note else -2)
  note = [chart.Text(12, middle + 15, line.note, "quiet")] if line.note else []
  return [chart.Text(12, middle, line.name, f"name{strong}"), *note]


def _mark(
  one: Series, estimate: Estimate | None, scale: chart.Scale, y: float, strong: bool, tip: str
) -> list[chart.Shape]:
  if estimate is None:
    return []
  css = css_of(one) + (" strong" if strong else "")
  shapes = []
  if estimate.low is not None and estimate.high is not None:
    path = chart.segment(scale(estimate.low), y, scale(estimate.high), y)
    shapes.append(chart.Shape(path, f"{css} whisker", tip))
  radius = 4.6 if strong else 3.6
  path = chart.marker("", scale(estimate.value), y, radius)
  return [*shapes, chart.Shape(path, f"{css} mark", tip)]


def _words(estimate: Estimate | None) -> str:
  if estimate is None:
    return "not measured"
  if estimate.low is None or estimate.high is None:
    return f"{points(estimate.value)} points"
  return f"{points(estimate.value)} points ({points(estimate.low)} to {points(estimate.high)})"


def _sentence(line: Line, series: Sequence[Series]) -> str:
  parts = (
    f"{source_label(one.source)} {points(estimate.value)}"
    for one, estimate in zip(series, line.estimates, strict=True)
    if estimate
  )
  return f"{line.name}: " + (", ".join(parts) or "not measured")
