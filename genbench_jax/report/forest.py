"""The forest plot: a dot and its interval for every gain, a line a dataset."""

import dataclasses
from collections.abc import Mapping, Sequence

from genbench_jax.report import chart
from genbench_jax.report.gains import Average
from genbench_jax.report.legend import css_of, keys_of
from genbench_jax.report.quantities import (
  budget_words,
  points,
  quantity_of,
  series_label,
  shots_label,
  source_label,
)
from genbench_jax.report.results import Estimate, Series


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


AVERAGE_CAPTION = " The top line averages over datasets; n says over how many."
PITCH = 11.0
# Width of a letter of a name, rather too wide.
LETTER = 6.8
WIDE = Layout(width=800, left=176, numbers=64, name_height=0)
NARROW = Layout(width=358, left=10, numbers=0, name_height=17)


@dataclasses.dataclass(frozen=True)
class Block:
  """The lines of one quantity at one budget."""

  quantity: str
  shots: int
  series: tuple[Series, ...]
  lines: tuple[Line, ...]


def forest_figure(
  name: str,
  title: str,
  caption: str,
  blocks: Sequence[Block],
  headline: tuple[str, int | None],
  x_label: str = "points above zero-shot",
) -> chart.Figure:
  """A figure that shows one block at a time, the headline's quantity and budget first.

  The blocks of a quantity share their axis, so that a change of the budget shows as movement.
  """
  reaches = {
    quantity: reach_of([line for b in blocks if b.quantity == quantity for line in b.lines])
    for quantity in dict.fromkeys(block.quantity for block in blocks)
  }
  ordered = sorted(blocks, key=lambda block: (block.quantity, block.shots) == headline)
  every = sorted({block.shots for block in blocks}, key=lambda shots: (shots <= 0, shots))
  return chart.Figure(
    name=name,
    title=title,
    caption=caption,
    variants=tuple(_variant(block, reaches, x_label) for block in ordered),
    choices=(
      ("Measured by", tuple(quantity_of(quantity).label for quantity in reaches)),
      ("Images a class", tuple(shots_label(shots) for shots in every)),
    ),
  )


def average_line(means: Sequence[Average | None], strong: bool = True) -> Line:
  """The line of the means over datasets, with how many are behind them."""
  counts = sorted({len(mean.included) for mean in means if mean})
  note = f"n = {'–'.join(str(count) for count in counts)}" if counts else ""
  return Line("all datasets", tuple(m.estimate if m else None for m in means), note, strong)


def by_first(lines: Sequence[Line]) -> list[Line]:
  """Lines from the highest to the lowest value of their first series, those without it last."""
  return sorted(
    lines, key=lambda line: -line.estimates[0].value if line.estimates[0] else float("inf")
  )


def _variant(
  block: Block, reaches: Mapping[str, tuple[float, float]], x_label: str
) -> chart.Variant:
  about = f"{quantity_of(block.quantity).label}, {budget_words(block.shots)}"
  reach = reaches[block.quantity]
  panels = tuple(
    forest(block.lines, block.series, reach, about, layout, x_label) for layout in (WIDE, NARROW)
  )
  choice = (quantity_of(block.quantity).label, shots_label(block.shots))
  return chart.Variant(choice, panels, keys_of(block.series, by_strategy=False), "forest")


def reach_of(lines: Sequence[Line]) -> tuple[float, float]:
  """The range of the axis: every value, and the interval ends that are not out of all proportion.

  One dataset with a handful of test images would otherwise press all others together.
  """
  known = [e for line in lines for e in line.estimates if e]
  furthest = max(4 * max((abs(e.value) for e in known), default=0.0), 0.15)
  ends = [end for e in known for end in (e.low, e.high) if end is not None and abs(end) <= furthest]
  return chart.padded([0.0, *(e.value for e in known), *ends], least=0.04)


def forest(
  lines: Sequence[Line],
  series: Sequence[Series],
  reach: tuple[float, float],
  about: str,
  layout: Layout,
  x_label: str,
  head: float = 0.0,
) -> chart.Panel:
  """One forest plot, `head` pixels left free for a title. Lines run down the page, the series of a
  line below one another.
  """
  right = layout.width - layout.numbers * len(series) - 10
  scale = chart.Scale(*reach, layout.left, right)
  top = head + (26.0 if layout.numbers else 8.0)
  height = max(layout.name_height + PITCH * len(series) + 12, 38 if layout.numbers else 0)
  stripes: list[chart.Shape] = []
  shapes: list[chart.Shape] = []
  texts = _column_heads(series, right, layout) if layout.numbers else []
  for index, line in enumerate(lines):
    y = top + index * height
    whole = chart.rectangle(0, y, layout.width, y + height)
    stripes += [chart.Shape(whole, "stripe")] if index % 2 == 0 else []
    shapes += _marks(line, series, scale, y, height, layout)
    texts += _names(line, y, height, layout)
    if layout.numbers:
      texts += _numbers(line, series, right, y + height / 2 + 4, layout)
      shapes.append(chart.Shape(whole, "zone", _tip(line, series)))
  bottom = top + len(lines) * height
  return chart.Panel(
    width=layout.width,
    height=bottom + 40,
    title="",
    description=f"{about}: " + "; ".join(_sentence(line, series) for line in lines) + ".",
    frame=(layout.left, top, right, bottom),
    x_ticks=tuple(
      chart.Tick(scale(t), points(t).removesuffix(".0")) for t in chart.ticks(*reach, 6)
    ),
    x_label=x_label,
    shapes=(*stripes, *shapes),
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
    letters = int((layout.width - 24) / LETTER - len(line.note))
    return [chart.Text(8, y + 15, chart.cut(line.name, letters), f"name{strong}"), *note]
  middle = y + height / 2 + (4 if not line.note else -2)
  note = [chart.Text(12, middle + 15, line.note, "quiet")] if line.note else []
  name = chart.cut(line.name, int((layout.left - 16) / LETTER))
  return [chart.Text(12, middle, name, f"name{strong}"), *note]


def _numbers(
  line: Line, series: Sequence[Series], right: float, y: float, layout: Layout
) -> list[chart.Text]:
  return [
    chart.Text(
      right + layout.numbers * (place + 1),
      y,
      points(estimate.value) if estimate else "–",
      f"series {css_of(one)} number{' strong' * line.strong}",
      "end",
    )
    for place, (one, estimate) in enumerate(zip(series, line.estimates, strict=True))
  ]


def _marks(
  line: Line, series: Sequence[Series], scale: chart.Scale, y: float, height: float, layout: Layout
) -> list[chart.Shape]:
  """The zero of one line, and an interval and a dot for each of its series."""
  zero = chart.segment(scale(0), y + layout.name_height, scale(0), y + height)
  shapes = [chart.Shape(zero, "baseline")]
  middle = y + (layout.name_height + height) / 2
  for place, (one, estimate) in enumerate(zip(series, line.estimates, strict=True)):
    at = middle + PITCH * (place + 0.5 - len(series) / 2)
    shapes += _mark(estimate, scale, at, f"series {css_of(one)}", line.strong) if estimate else []
  return shapes


def _mark(
  estimate: Estimate, scale: chart.Scale, y: float, css: str, strong: bool
) -> list[chart.Shape]:
  dot = chart.marker("", scale(estimate.value), y, 4.6 if strong else 3.6)
  if estimate.low is None or estimate.high is None:
    return [chart.Shape(dot, f"{css} mark")]
  interval = chart.segment(scale(estimate.low), y, scale(estimate.high), y)
  interval += _arrows(estimate.low < scale.low, estimate.high > scale.high, scale, y)
  whisker = chart.Shape(interval, f"{css} whisker{' strong' * strong}")
  return [whisker, chart.Shape(dot, f"{css} mark")]


def _arrows(left: bool, right: bool, scale: chart.Scale, y: float) -> str:
  """Arrow heads where an interval goes on beyond the axis."""
  start, end = scale.start, scale.end
  heads = [chart.polyline([(start + 4, y - 3), (start, y), (start + 4, y + 3)])] * left
  heads += [chart.polyline([(end - 4, y - 3), (end, y), (end - 4, y + 3)])] * right
  return "".join(heads)


def _tip(line: Line, series: Sequence[Series]) -> str:
  """A line's name, and a line of text for each series."""
  named = zip(series, line.estimates, strict=True)
  words = (f"{_words(estimate)}  {series_label(s.source, s.strategy)}" for s, estimate in named)
  return "\n".join((line.name, *words))


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
