"""The headline figures: what each source adds to zero-shot, and how it stands against original images."""

import dataclasses
from collections.abc import Callable, Sequence

from genbench_jax.report import chart
from genbench_jax.report.forest import (
  AVERAGE_CAPTION,
  Block,
  Line,
  average_line,
  by_first,
  forest_figure,
)
from genbench_jax.report.gains import Average, average, average_gain, budgets, gains
from genbench_jax.report.headline import against_originals, originals, shared_budget
from genbench_jax.report.quantities import percent, strategy_label
from genbench_jax.report.results import Estimate, Results, Series, with_control

ALL = "all datasets"
# With more series than this a line is a series, and the datasets are chosen; with fewer a line is a dataset.
MOST_SERIES = 6

# (series, shots, quantity) -> dataset -> the difference that a figure shows.
Differences = Callable[[Series, int, str], dict[str, Estimate]]


def gains_figure(results: Results, quantities: Sequence[str], reason: str = "") -> chart.Figure:
  """Each source against zero-shot: the average first, then every dataset, at every budget.

  Args:
    results: the rows.
    quantities: recognizers that know the class names, as zero-shot does.
    reason: a sentence for the caption where they don't.
  """

  def each(one: Series, shots: int, quantity: str) -> dict[str, Estimate]:
    return gains(results, one, shots, quantity)

  return forest_figure(
    name="gains",
    title="Gain over zero-shot, source by source",
    caption=(
      "Points of accuracy above (right) or below (left) zero-shot, with 95 % intervals."
      + reason
      + AVERAGE_CAPTION * (len(results.datasets) > 1)
    ),
    blocks=_blocks(results, quantities, each, _zero_note),
    headline=(quantities[0], shared_budget(results, quantities[0])),
  )


def originals_figure(results: Results, quantities: Sequence[str]) -> chart.Figure | None:
  """Each source against as many original images; None where no dataset has both."""
  baseline = originals(results)

  def each(one: Series, shots: int, quantity: str) -> dict[str, Estimate]:
    return {} if one == baseline else against_originals(results, one, shots, quantity)

  def note(results: Results, dataset: str, shots: int, quantity: str) -> str:
    theirs = results.estimate(dataset, baseline, shots, quantity) if baseline else None
    return f"original {percent(theirs.value)}" if theirs else ""

  blocks = _blocks(results, quantities, each, note)
  blocks = [block for block in blocks if any(e for line in block.lines for e in line.estimates)]
  if not blocks:
    return None
  return forest_figure(
    name="against-originals",
    title="Against as many original images, source by source",
    caption=(
      "Points of accuracy above (right) or below (left) the same recognizer on as many original training images, "
      "with 95 % intervals. Neither side knows the class names."
      + AVERAGE_CAPTION
      * (len(results.datasets) > 1)
    ),
    blocks=blocks,
    headline=(blocks[0].quantity, shared_budget(results, blocks[0].quantity)),
    x_label="points above original images",
  )


def strategies_figure(results: Results, quantities: Sequence[str]) -> chart.Figure | None:
  """The prompt strategies against each other, on average; None where there is but one."""
  prompted = [
    one for one in results.series if one.strategy and one.source not in ("control", "combined")
  ]
  strategies = tuple(dict.fromkeys(one.strategy for one in prompted))
  if len(strategies) < 2:
    return None
  series = tuple(dict.fromkeys(one.plain for one in prompted))
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
    headline=(quantities[0], shared_budget(results, quantities[0])),
  )


def _blocks(
  results: Results,
  quantities: Sequence[str],
  each: Differences,
  note_of: Callable[[Results, str, int, str], str],
) -> list[Block]:
  """A block for each quantity and budget, and with many series for each dataset."""
  blocks = []
  for quantity in quantities:
    measured = [one for one in results.headline_series() if results.has(one, quantity)]
    series = with_control(results, measured, quantity)
    for shots in budgets(results, quantity):
      found = {one: each(one, shots, quantity) for one in series}
      shown = tuple(one for one in series if found[one])
      if len(shown) > MOST_SERIES:
        blocks += _by_series(results, quantity, shots, {one: found[one] for one in shown})
      elif shown:
        notes = {name: note_of(results, name, shots, quantity) for name in results.datasets}
        lines = _by_dataset(results, {one: found[one] for one in shown}, notes)
        blocks.append(Block(quantity, shots, shown, tuple(lines)))
  return blocks


def _by_dataset(
  results: Results, found: dict[Series, dict[str, Estimate]], notes: dict[str, str]
) -> list[Line]:
  """A line a dataset, the average first."""
  names = [name for name in results.datasets if any(name in each for each in found.values())]
  lines = [
    Line(name, tuple(each.get(name) for each in found.values()), notes[name]) for name in names
  ]
  if len(lines) == 1:
    return lines
  means = [average(each, results.datasets) for each in found.values()]
  return [average_line(means), *by_first(lines)]


def _by_series(
  results: Results, quantity: str, shots: int, found: dict[Series, dict[str, Estimate]]
) -> list[Block]:
  """A block for the average and for each dataset, with a line a series, the best first."""
  means: dict[Series, Average | None] = {
    one: average(each, results.datasets) for one, each in found.items()
  }
  blocks = []
  for where in ([ALL] if len(results.datasets) > 1 else []) + list(results.datasets):
    lines = []
    for one, each in found.items():
      mean = means[one]
      estimate = each.get(where) if where != ALL else (mean.estimate if mean else None)
      count = f"n = {len(mean.included)}" if where == ALL and mean else ""
      name = one.label
      if estimate:
        lines.append(Line(name, (estimate,), count, series=(one,)))
    blocks.append(Block(quantity, shots, tuple(found), tuple(by_first(lines)), where))
  return [block for block in blocks if block.lines]


def _zero_note(results: Results, dataset: str, shots: int, quantity: str) -> str:
  known = results.zero_shot.get(dataset)
  return f"zero-shot {percent(known.value)}" if known else ""


def _strategy_line(
  results: Results, quantity: str, shots: int, series: Sequence[Series], strategy: str
) -> Line:
  mean = [
    average_gain(results, dataclasses.replace(one, strategy=strategy), shots, quantity)
    for one in series
  ]
  return dataclasses.replace(average_line(mean, strong=False), name=strategy_label(strategy))
