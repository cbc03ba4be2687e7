"""Colors and markers. A source has the same color in all figures; new tokens are hollow and dashed."""

from collections.abc import Iterable

from genbench_jax.cells import strategy_parts
from genbench_jax.diffusion.inversion.settings import TOKEN_REFERENCES
from genbench_jax.prompts.strategies import STRATEGIES
from genbench_jax.report import chart
from genbench_jax.report.labels import images_label
from genbench_jax.report.quantities import SOURCES
from genbench_jax.report.results import Series

# Sources of new tokens that have classes in `assets/figure.css`.
# Number of colors in `assets/figure.css`.
GENERATOR_COLORS = 10


def css_of(series: Series) -> str:
  """Return the CSS classes of a series. Unknown names share one class."""
  source = series.source if series.source in SOURCES else "other"
  prompts, references = strategy_parts(series.strategy)
  strategy = f" t-{STRATEGIES.index(prompts)}" if prompts in STRATEGIES else ""
  tokens = f" tokens-{references}" if references in TOKEN_REFERENCES else ""
  return f"s-{source}{_hue(series)}{strategy}{tokens}"


def _hue(series: Series) -> str:
  """Return one of ten colors for a generator; the eleventh has the color of the first."""
  colored = series.hue > 0 and series.source in ("generative", "folder", "combined")
  return f" g-{(series.hue - 1) % GENERATOR_COLORS + 1}" if colored else ""


ZERO_SHOT = chart.Key("zero-shot", chart.segment(2, 7, 22, 7), "zero-shot")


def keys_of(series: Iterable[Series], by_strategy: bool) -> tuple[chart.Key, ...]:
  """Return legend entries: one per series, or one per source with the plain marker."""
  return tuple(
    chart.Key(
      f"{css_of(item)} mark",
      chart.marker(item.strategy if by_strategy else "", 12, 7, 3.8),
      item.label if by_strategy else images_label(item.source, item.generator),
    )
    for item in series
  )
