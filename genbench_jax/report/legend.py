"""Colors and markers: the same source has the same color in every figure, with new tokens hollow and dashed."""

from collections.abc import Iterable

from genbench_jax.cells import strategy_parts
from genbench_jax.report import chart
from genbench_jax.report.quantities import (
  SOURCES,
  STRATEGIES,
  images_label,
)
from genbench_jax.report.results import Series

# What new tokens can be learned from: the classes that `assets/figure.css` has for them.
TOKEN_REFERENCES = ("original", "retrieval", "folder")
# As many as `assets/figure.css` has.
GENERATOR_COLORS = 10


def css_of(series: Series) -> str:
  """The classes of a series. Names from outside never become classes: unknown ones share one."""
  source = series.source if series.source in SOURCES else "other"
  prompts, references = strategy_parts(series.strategy)
  strategy = f" t-{STRATEGIES.index(prompts)}" if prompts in STRATEGIES else ""
  tokens = f" tokens-{references}" if references in TOKEN_REFERENCES else ""
  return f"s-{source}{_hue(series)}{strategy}{tokens}"


def _hue(series: Series) -> str:
  """One of ten colors for a generator among several; the eleventh has that of the first again."""
  colored = series.hue > 0 and series.source in ("generative", "folder", "combined")
  return f" g-{(series.hue - 1) % GENERATOR_COLORS + 1}" if colored else ""


ZERO_SHOT = chart.Key("zero-shot", chart.segment(2, 7, 22, 7), "zero-shot")


def keys_of(series: Iterable[Series], by_strategy: bool) -> tuple[chart.Key, ...]:
  """Legend entries: one a series, or one a source with the plain marker."""
  return tuple(
    chart.Key(
      f"{css_of(one)} mark",
      chart.marker(one.strategy if by_strategy else "", 12, 7, 3.8),
      one.label if by_strategy else images_label(one.source, one.generator),
    )
    for one in series
  )
