"""A figure as a single SVG file: its panels in a grid below title and legend."""

import dataclasses
from collections.abc import Sequence

from genbench_jax.report import chart

MARGIN, GAP, LETTER = 16.0, 18.0, 7.0


@dataclasses.dataclass(frozen=True)
class PlacedPanel:
  panel: chart.Panel
  x: float
  y: float


@dataclasses.dataclass(frozen=True)
class PlacedKey:
  key: chart.Key
  x: float
  y: float


@dataclasses.dataclass(frozen=True)
class Sheet:
  """The input of `templates/figure.svg.jinja`."""

  figure: chart.Figure
  keys: tuple[PlacedKey, ...]
  placed: tuple[PlacedPanel, ...]
  width: float
  height: float


def sheet_of(figure: chart.Figure) -> Sheet:
  """Return the figure's shown variant with three panels per row; a forest uses its wide layout."""
  panels = figure.shown.panels[:1] if figure.shown.layout == "forest" else figure.shown.panels
  columns = min(3, max(len(panels), 1))
  across = max((panel.width for panel in panels), default=300.0) + GAP
  width = 2 * MARGIN + columns * across - GAP
  keys, top = _legend(figure.shown.keys, width)
  down = max((panel.height for panel in panels), default=0.0) + GAP
  placed = tuple(
    PlacedPanel(panel, MARGIN + index % columns * across, top + index // columns * down)
    for index, panel in enumerate(panels)
  )
  height = top + -(-len(panels) // columns) * down + MARGIN - GAP
  return Sheet(figure, keys, placed, width, height)


def _legend(keys: Sequence[chart.Key], width: float) -> tuple[tuple[PlacedKey, ...], float]:
  """Return the wrapped legend keys and the vertical position below them."""
  placed: list[PlacedKey] = []
  x, y = MARGIN, 38.0
  for key in keys:
    length = 40 + LETTER * len(key.text)
    if x > MARGIN and x + length > width - MARGIN:
      x, y = MARGIN, y + 20
    placed.append(PlacedKey(key, x, y))
    x += length
  return tuple(placed), y + 32
