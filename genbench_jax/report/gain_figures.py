"""The headline figures: what each source, and each prompt strategy, adds to zero-shot."""

import dataclasses
from collections.abc import Sequence

from genbench_jax.report import chart
from genbench_jax.report.forest import (
  AVERAGE_CAPTION,
  Block,
  Line,
  average_line,
  by_first,
  forest_figure,
)
from genbench_jax.report.gains import average_gain, budgets, gain, headline_budget
from genbench_jax.report.quantities import percent, strategy_label
from genbench_jax.report.results import Results, Series, with_control


def gains_figure(results: Results, quantities: Sequence[str]) -> chart.Figure:
  """Each source against zero-shot: the average first, then every dataset, at every budget."""
  blocks = []
  for quantity in quantities:
    series = with_control(results, results.headline_series(), quantity)
    blocks += [
      Block(quantity, shots, series, tuple(_source_lines(results, quantity, shots, series)))
      for shots in budgets(results, quantity)
    ]
  return forest_figure(
    name="gains",
    title="Gain over zero-shot, source by source",
    caption=(
      "Points of accuracy above (right) or below (left) zero-shot, with 95 % intervals."
      + AVERAGE_CAPTION * (len(results.datasets) > 1)
    ),
    blocks=blocks,
    headline=(quantities[0], headline_budget(results, quantities[0])),
  )


def strategies_figure(results: Results, quantities: Sequence[str]) -> chart.Figure | None:
  """The prompt strategies against each other, on average; None where there is but one."""
  prompted = [one for one in results.series if one.strategy and one.source != "control"]
  strategies = tuple(dict.fromkeys(one.strategy for one in prompted))
  if len(strategies) < 2:
    return None
  series = tuple(dict.fromkeys(Series(one.source, "") for one in prompted))
  blocks = [
    Block(
      quantity,
      shots,
      series,
      tuple(_strategy_line(results, quantity, shots, series, strategy) for strategy in strategies),
    )
    for quantity in quantities
    for shots in budgets(results, quantity)
  ]
  return forest_figure(
    name="strategies",
    title="Prompt strategies compared",
    caption=(
      "Points above zero-shot, averaged over datasets, for each way of writing the prompt, with 95 % "
      "intervals. To pick the best of them by this figure is to pick on test data."
    ),
    blocks=blocks,
    headline=(quantities[0], headline_budget(results, quantities[0])),
  )


def _source_lines(
  results: Results, quantity: str, shots: int, series: Sequence[Series]
) -> list[Line]:
  each = [
    Line(
      name,
      tuple(gain(results, name, one, shots, quantity) for one in series),
      f"zero-shot {percent(results.zero_shot[name].value)}" if name in results.zero_shot else "",
    )
    for name in results.datasets
  ]
  if len(each) == 1:
    return each
  return [
    average_line([average_gain(results, one, shots, quantity) for one in series]),
    *by_first(each),
  ]


def _strategy_line(
  results: Results, quantity: str, shots: int, series: Sequence[Series], strategy: str
) -> Line:
  mean = [average_gain(results, Series(one.source, strategy), shots, quantity) for one in series]
  return dataclasses.replace(average_line(mean, strong=False), name=strategy_label(strategy))
