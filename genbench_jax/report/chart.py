"""The geometry of a plot: scales, ticks, marks. `templates/panel.svg.jinja` draws it."""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Literal

from genbench_jax.cells import strategy_parts

# One marker per strategy; sources without a strategy use the circle.
MARKERS = {
  "": "circle",
  "simple_template": "square",
  "defined_template": "circle",
  "category_enhancement": "triangle",
  "restrictive_description": "diamond",
  "negative_prompts": "wedge",
  "category_grammar": "triangle",
}


# Width of a character of a label, in pixels.
CHARACTER = 6.5


@dataclasses.dataclass(frozen=True)
class Scale:
  """Map from data [low, high] to drawing coordinates [start, end]."""

  low: float
  high: float
  start: float
  end: float

  def __call__(self, value: float) -> float:
    clipped = min(max(value, self.low), self.high)
    return self.start + (clipped - self.low) / (self.high - self.low) * (self.end - self.start)


@dataclasses.dataclass(frozen=True)
class Tick:
  at: float
  text: str


@dataclasses.dataclass(frozen=True)
class Shape:
  """A path with its CSS classes; `tip` is shown when the pointer rests on it."""

  path: str
  css: str
  tip: str = ""


@dataclasses.dataclass(frozen=True)
class Text:
  x: float
  y: float
  text: str
  css: str = ""
  anchor: str = "start"
  turn: float = 0.0


@dataclasses.dataclass(frozen=True)
class Panel:
  """One plot. Lengths are in CSS pixels, the origin is at the top left.

  Attributes:
    title: text above the frame.
    note: smaller text beside the title.
    description: the plot in words, for screen readers.
    frame: left, top, right, bottom of the plotting area.
    own_grid: whether the shapes contain the grid lines.
  """

  width: float
  height: float
  title: str
  description: str
  frame: tuple[float, float, float, float]
  note: str = ""
  x_ticks: tuple[Tick, ...] = ()
  y_ticks: tuple[Tick, ...] = ()
  x_label: str = ""
  y_label: str = ""
  shapes: tuple[Shape, ...] = ()
  texts: tuple[Text, ...] = ()
  own_grid: bool = False


@dataclasses.dataclass(frozen=True)
class Key:
  """An entry of the legend: CSS classes, drawing style and name of a series."""

  css: str
  path: str
  text: str


@dataclasses.dataclass(frozen=True)
class Variant:
  """One state of a figure with choices, such as (linear probe, 16 images per class).

  Attributes:
    layout: arrangement of the panels: `medium`, `large` or `small` in a grid, or `forest`, the same
      plot twice, for wide and for narrow screens.
  """

  choice: tuple[str, ...]
  panels: tuple[Panel, ...]
  keys: tuple[Key, ...] = ()
  layout: Literal["medium", "large", "small", "forest"] = "medium"


@dataclasses.dataclass(frozen=True)
class Figure:
  """Panels under one caption.

  Attributes:
    choices: (label, options) of each choice; the chosen options together select the variant.
  """

  name: str
  title: str
  caption: str
  variants: tuple[Variant, ...]
  choices: tuple[tuple[str, tuple[str, ...]], ...] = ()

  @property
  def shown(self) -> Variant:
    """The variant that is shown first, printed and written to a file: the last one."""
    return self.variants[-1]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
  """Return round numbers in steps of 1, 2 or 5 times a power of ten.

  Args:
    low: start of the axis.
    high: end of the axis.
    count: approximate number of ticks.
  """
  raw = (high - low) / max(count, 1)
  power = 10.0 ** math.floor(math.log10(raw))
  step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
  first = math.ceil(low / step - 1e-9)
  return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def apart(given: Sequence[Tick]) -> tuple[Tick, ...]:
  """Return the ticks from left to right, without labels that would run into the next one."""
  kept, limit = list[Tick](), math.inf
  for tick in reversed(given):
    half = CHARACTER * (len(tick.text) + 1) / 2
    fits = tick.at + half <= limit
    kept.insert(0, tick if fits else dataclasses.replace(tick, text=""))
    limit = tick.at - half if fits else limit
  return tuple(kept)


def tick_text(value: float) -> str:
  """Return a number for an axis, with a typographic minus sign."""
  return f"{value:g}".replace("-", "−")


def cut(text: str, letters: int) -> str:
  """Return the text, shortened with an ellipsis if it is longer than `letters`."""
  return text if len(text) <= letters else f"{text[: letters - 1].rstrip()}…"


def padded(
  values: Iterable[float],
  share: float = 0.06,
  least: float = 0.02,
  within: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[float, float]:
  """Return the range of the values with a margin at both ends; its width is never zero.

  Args:
    values: the data.
    share: margin as a fraction of the range.
    least: smallest width of the range.
    within: bounds that the margin must not exceed.
  """
  found = [value for value in values if math.isfinite(value)] or [0.0]
  low, high = min(found), max(found)
  room = max(share * (high - low), (least - (high - low)) / 2, 1e-9)
  return max(low - room, min(low, within[0])), min(high + room, max(high, within[1]))


def polyline(xy: Sequence[tuple[float, float]]) -> str:
  return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in xy) if len(xy) > 1 else ""


def segment(x: float, y: float, to_x: float, to_y: float) -> str:
  """Return the path of a straight line.

  Args:
    x: horizontal start.
    y: vertical start.
    to_x: horizontal end.
    to_y: vertical end.
  """
  return f"M{x:.1f} {y:.1f}L{to_x:.1f} {to_y:.1f}"


def rectangle(left: float, top: float, right: float, bottom: float) -> str:
  """Return the path of a rectangle.

  Args:
    left: left edge.
    top: top edge.
    right: right edge.
    bottom: bottom edge.
  """
  return f"M{left:.1f} {top:.1f}H{right:.1f}V{bottom:.1f}H{left:.1f}Z"


def marker(strategy: str, x: float, y: float, radius: float = 3.4) -> str:
  """Return the outline of a strategy's marker; all markers have about the same area.

  Args:
    strategy: prompt strategy, with or without new tokens.
    x: horizontal center.
    y: vertical center.
    radius: size in pixels.
  """
  shape, r = MARKERS.get(strategy_parts(strategy)[0], "circle"), radius
  if shape == "circle":
    return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z"
  corners = {
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "triangle": ((0, -1.25), (1.2, 0.85), (-1.2, 0.85)),
    "diamond": ((0, -1.35), (1.25, 0), (0, 1.35), (-1.25, 0)),
    "wedge": ((0, 1.25), (1.2, -0.85), (-1.2, -0.85)),
  }[shape]
  return polyline([(x + r * dx, y + r * dy) for dx, dy in corners]) + "Z"
