"""Colors and markers: the same source has the same color in every figure, with new tokens hollow and dashed."""

from collections.abc import Iterable

from genbench_jax.cells import strategy_parts
from genbench_jax.config import TOKEN_REFERENCES
from genbench_jax.report import chart
from genbench_jax.report.quantities import SOURCES, STRATEGIES, series_label, source_label
from genbench_jax.report.results import Series


def css_of(series: Series) -> str:
  """The classes of a series. Names from outside never become classes: unknown ones share one."""
  source = series.source if series.source in SOURCES else "other"
  prompts, references = strategy_parts(series.strategy)
  strategy = f" t-{STRATEGIES.index(prompts)}" if prompts in STRATEGIES else ""
  tokens = f" tokens-{references}" if references in TOKEN_REFERENCES else ""
  return f"s-{source}{strategy}{tokens}"


ZERO_SHOT = chart.Key("zero-shot", chart.segment(2, 7, 22, 7), "zero-shot")


def keys_of(series: Iterable[Series], by_strategy: bool) -> tuple[chart.Key, ...]:
  """Legend entries: one a series, or one a source with the plain marker."""
  return tuple(
    chart.Key(
      f"{css_of(one)} mark",
      chart.marker(one.strategy if by_strategy else "", 12, 7, 3.8),
      series_label(one.source, one.strategy) if by_strategy else source_label(one.source),
    )
    for one in series
  )
