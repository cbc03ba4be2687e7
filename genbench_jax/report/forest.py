"""The forest plot: a dot and an interval for every gain, one line per dataset."""

import dataclasses
from collections.abc import Sequence

from genbench_jax.report import chart
from genbench_jax.report.gains import Average
from genbench_jax.report.labels import budget_words, images_label, shots_label
from genbench_jax.report.legend import css_of, keys_of
from genbench_jax.report.number_words import points
from genbench_jax.report.quantities import quantity_of
from genbench_jax.report.results import Estimate, Series


@dataclasses.dataclass(frozen=True)
class Line:
  """A line of the forest: its name and one estimate per series.

  Attributes:
    series: the series of the estimates, if they differ between lines.
  """

  name: str
  estimates: tuple[Estimate | None, ...]
  note: str = ""
  strong: bool = False
  series: tuple[Series, ...] = ()


@dataclasses.dataclass(frozen=True)
class Layout:
  """Positions in pixels.

  Attributes:
    numbers: width of a column of numbers.
    stacked: whether the numbers of a line share one column, each beside its mark. Otherwise every
      series has a column.
    name_height: height of the row with the name above the marks; 0 if the name is beside them.
    pitch: distance between marks of a line.
  """

  width: float
  left: float
  numbers: float
  stacked: bool
  name_height: float
  pitch: float


AVERAGE_CAPTION = " The top line is the average over datasets; n is their number."
# Width of a letter of a name, an overestimate.
LETTER = 6.8
WIDE = Layout(width=800, left=176, numbers=64, stacked=False, name_height=0, pitch=11.0)
NARROW = Layout(width=358, left=10, numbers=46, stacked=True, name_height=17, pitch=13.0)
# A figure with more marks takes about a megabyte, so rare views are left out.
MOST_MARKS = 1500
LEFT_OUT = (
  " Some views are left out to keep the page small; the file tables/gains.csv has their numbers."
)
# Up to this many series have their own columns; more are stacked.
MOST_COLUMNS = 5
INTERVALS = (
  " Thick lines are 95 % intervals for these images; thin extensions are for this generator: "
  "other images and seeds of it."
)


@dataclasses.dataclass(frozen=True)
class Block:
  """The lines of one quantity at one budget; `where` distinguishes blocks by their datasets."""

  quantity: str
  shots: int
  series: tuple[Series, ...]
  lines: tuple[Line, ...]
  where: str = ""


def forest_figure(
  name: str,
  title: str,
  caption: str,
  blocks: Sequence[Block],
  headline: tuple[str, int | None],
  x_label: str = "points above zero-shot",
  where_label: str = "On",
) -> chart.Figure:
  """Return a figure that shows one block at a time, the headline's quantity and budget first.

  Every block has its own axis. One axis for all budgets would compress most of the marks.

  Args:
    name: name of the figure's file.
    title: title of the figure.
    caption: text below the title.
    blocks: the blocks to choose from.
    headline: quantity and budget that are shown first.
    x_label: label of the axis.
    where_label: label of the choice between blocks with different datasets.
  """
  first = blocks[0].where if blocks else ""
  kept = fitting(blocks, (*headline, first))
  caption += LEFT_OUT * (len(kept) < len(blocks))
  blocks = kept
  ordered = sorted(
    blocks, key=lambda block: (block.quantity, block.shots, block.where) == (*headline, first)
  )
  places = tuple(dict.fromkeys(block.where for block in blocks))
  all_shots = sorted({block.shots for block in blocks}, key=lambda shots: (shots <= 0, shots))
  return chart.Figure(
    name=name,
    title=title,
    caption=caption + INTERVALS * any(_is_wide(line) for block in blocks for line in block.lines),
    variants=tuple(_variant(block, x_label) for block in ordered),
    choices=(
      ("Measured by", tuple(dict.fromkeys(quantity_of(block.quantity).label for block in blocks))),
      ("Images per class", tuple(shots_label(shots) for shots in all_shots)),
      *([(where_label, places)] if any(places) else []),
    ),
  )


def fitting(blocks: Sequence[Block], headline: tuple[str, int | None, str]) -> list[Block]:
  """Return the blocks that fit into a figure, in their order.

  The headline is always kept. Then come its quantity at other budgets, other quantities at its
  budget, and the rest.
  """

  def distance(block: Block) -> int:
    mine = (block.where, block.quantity, block.shots)
    wanted = (headline[2], headline[0], headline[1])
    return sum(weight * (a != b) for weight, a, b in zip((4, 2, 1), mine, wanted, strict=True))

  left, kept = MOST_MARKS, set[tuple[str, int, str]]()
  for block in sorted(blocks, key=distance):
    left -= sum(len(line.series or block.series) for line in block.lines)
    if left < 0 and kept:
      break
    kept.add((block.quantity, block.shots, block.where))
  return [block for block in blocks if (block.quantity, block.shots, block.where) in kept]


def average_line(means: Sequence[Average | None], strong: bool = True) -> Line:
  """Return the line of means over datasets, with the number of datasets."""
  counts = sorted({len(mean.included) for mean in means if mean})
  note = f"n = {'–'.join(str(count) for count in counts)}" if counts else ""
  return Line("all datasets", tuple(m.estimate if m else None for m in means), note, strong)


def by_first(lines: Sequence[Line]) -> list[Line]:
  """Sort lines by descending value of their first series; lines without it come last."""
  return sorted(
    lines, key=lambda line: -line.estimates[0].value if line.estimates[0] else float("inf")
  )


def _is_wide(line: Line) -> bool:
  return any(estimate is not None and estimate.wide_interval for estimate in line.estimates)


def _variant(block: Block, x_label: str) -> chart.Variant:
  about = f"{quantity_of(block.quantity).label}, {budget_words(block.shots)}"
  reach = reach_of(block.lines)
  panels = tuple(
    forest(block.lines, block.series, reach, about, layout, x_label)
    for layout in (wide_layout(block.lines, block.series), NARROW)
  )
  choice = (
    quantity_of(block.quantity).label,
    shots_label(block.shots),
    *([block.where] if block.where else []),
  )
  return chart.Variant(choice, panels, keys_of(block.series, by_strategy=False), "forest")


def wide_layout(lines: Sequence[Line], series: Sequence[Series]) -> Layout:
  """Return the layout for wide screens: one column per series if few, else one stacked column."""
  names = max((len(line.name) for line in lines), default=0)
  left = min(max(WIDE.left, 22 + LETTER * names), 300.0)
  alone = all(line.series for line in lines)
  stacked = alone or len(series) > MOST_COLUMNS
  return dataclasses.replace(WIDE, left=left, stacked=stacked)


def reach_of(lines: Sequence[Line]) -> tuple[float, float]:
  """Return the range of the axis: zero, every value, and interval ends except extreme ones.

  A single dataset with few test images would otherwise compress all others.
  """
  known = [e for line in lines for e in line.estimates if e]
  furthest = max(3 * max((abs(e.value) for e in known), default=0.0), 0.04)
  ends = [
    end
    for e in known
    for end in (e.low, e.high, e.wide_low, e.wide_high)
    if end is not None and abs(end) <= furthest
  ]
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
  """Return one forest plot. The series of a line are drawn below each other.

  Args:
    lines: the lines.
    series: the series of every line.
    reach: lowest and highest value of the axis.
    about: what is shown, for the description.
    layout: positions.
    x_label: label of the axis.
    head: pixels reserved for a title.
  """
  columns = 1 if layout.stacked else len(series)
  right = layout.width - layout.numbers * columns - 10
  scale = chart.Scale(*reach, layout.left, right)
  top = head + (8.0 if layout.stacked else 26.0)
  marks = max((len(line.series or series) for line in lines), default=1)
  height = max(layout.name_height + layout.pitch * marks + 12, 0 if layout.name_height else 38)
  tick_values = chart.ticks(*reach, 6 if not layout.name_height else 4)
  stripes: list[chart.Shape] = []
  shapes: list[chart.Shape] = []
  texts = [] if layout.stacked else _column_heads(series, right, layout)
  for index, line in enumerate(lines):
    y, own = top + index * height, line.series or series
    whole = chart.rectangle(0, y, layout.width, y + height)
    stripes += [chart.Shape(whole, "stripe")] if index % 2 == 0 else []
    # Grid lines end below the names, so that none crosses a number.
    shapes.append(
      chart.Shape(_grid(tick_values, scale, y + layout.name_height, y + height), "grid")
    )
    shapes += _marks(line, own, scale, y, height, layout)
    texts += _names(line, y, height, layout)
    texts += _numbers(line, own, right, y, height, layout)
    shapes.append(chart.Shape(whole, "zone", _tip(line, own)))
  bottom = top + len(lines) * height
  return chart.Panel(
    width=layout.width,
    height=bottom + 40,
    title="",
    description=f"{about}: "
    + "; ".join(_sentence(line, line.series or series) for line in lines)
    + ".",
    frame=(layout.left, top, right, bottom),
    x_ticks=tuple(chart.Tick(scale(t), points(t).removesuffix(".0")) for t in tick_values),
    own_grid=True,
    x_label=x_label,
    shapes=(*stripes, *shapes),
    texts=tuple(texts),
  )


def _column_heads(series: Sequence[Series], right: float, layout: Layout) -> list[chart.Text]:
  return [
    chart.Text(
      right + layout.numbers * (i + 1),
      14,
      chart.cut(images_label(item.source, item.generator).removeprefix("label-"), 10),
      f"head {css_of(item)}",
      "end",
    )
    for i, item in enumerate(series)
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
  line: Line, series: Sequence[Series], right: float, y: float, height: float, layout: Layout
) -> list[chart.Text]:
  """Return the values of a line, in columns or beside their marks."""
  middle = y + (layout.name_height + height) / 2
  texts = []
  for place, (item, estimate) in enumerate(zip(series, line.estimates, strict=True)):
    at = _mark_y(middle, place, len(series), layout)
    x, base = (
      (right + layout.numbers, at + 3.6)
      if layout.stacked
      else (right + layout.numbers * (place + 1), middle + 4)
    )
    css = f"series {css_of(item)} number{' strong' * line.strong}{' small' * layout.stacked}"
    if estimate or not layout.stacked:
      texts.append(chart.Text(x, base, points(estimate.value) if estimate else "–", css, "end"))
  return texts


def _mark_y(middle: float, place: int, count: int, layout: Layout) -> float:
  return middle + layout.pitch * (place + 0.5 - count / 2)


def _grid(values: Sequence[float], scale: chart.Scale, top: float, bottom: float) -> str:
  return "".join(chart.segment(scale(v), top, scale(v), bottom) for v in values if v != 0)


def _marks(
  line: Line, series: Sequence[Series], scale: chart.Scale, y: float, height: float, layout: Layout
) -> list[chart.Shape]:
  """Return the zero mark of a line, and an interval and a dot for each series."""
  zero = chart.segment(scale(0), y + layout.name_height, scale(0), y + height)
  shapes = [chart.Shape(zero, "baseline")]
  middle = y + (layout.name_height + height) / 2
  for place, (item, estimate) in enumerate(zip(series, line.estimates, strict=True)):
    at = _mark_y(middle, place, len(series), layout)
    shapes += _mark(estimate, scale, at, f"series {css_of(item)}", line.strong) if estimate else []
  return shapes


def _mark(
  estimate: Estimate, scale: chart.Scale, y: float, css: str, strong: bool
) -> list[chart.Shape]:
  dot = chart.marker("", scale(estimate.value), y, 4.6 if strong else 3.6)
  drawn = []
  kinds = ((estimate.wide_interval, "thin wide"), (estimate.interval, "strong" * strong))
  for interval, kind in kinds:
    if interval:
      low, high = interval
      path = chart.segment(scale(low), y, scale(high), y)
      path += _arrows(low < scale.low, high > scale.high, scale, y)
      drawn.append(chart.Shape(path, f"{css} whisker {kind}".rstrip()))
  return [*drawn, chart.Shape(dot, f"{css} mark")]


def _arrows(left: bool, right: bool, scale: chart.Scale, y: float) -> str:
  """Return arrow heads for an interval that extends beyond the axis."""
  start, end = scale.start, scale.end
  heads = [chart.polyline([(start + 4, y - 3), (start, y), (start + 4, y + 3)])] * left
  heads += [chart.polyline([(end - 4, y - 3), (end, y), (end - 4, y + 3)])] * right
  return "".join(heads)


def _tip(line: Line, series: Sequence[Series]) -> str:
  """Return a line's name followed by one line of text per series."""
  named = zip(series, line.estimates, strict=True)
  words = (f"{_words(estimate)}  {s.label}" for s, estimate in named)
  return "\n".join((line.name, *words))


def _words(estimate: Estimate | None) -> str:
  if estimate is None:
    return "not measured"
  if estimate.low is None or estimate.high is None:
    return f"{points(estimate.value)} points"
  text = f"{points(estimate.value)} points ({points(estimate.low)} to {points(estimate.high)})"
  if estimate.wide_low is None or estimate.wide_high is None:
    return text
  return (
    f"{text[:-1]}; for this generator {points(estimate.wide_low)} to {points(estimate.wide_high)})"
  )


def _sentence(line: Line, series: Sequence[Series]) -> str:
  parts = (
    f"{images_label(item.source, item.generator)} {points(estimate.value)}"
    for item, estimate in zip(series, line.estimates, strict=True)
    if estimate
  )
  return f"{line.name}: " + (", ".join(parts) or "not measured")
