"""The headline figures: gains over zero-shot and differences from original images."""

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
from genbench_jax.report.labels import strategy_label
from genbench_jax.report.number_words import percent
from genbench_jax.report.results import Estimate, Results, Series, with_control

ALL = "all datasets"
# With more series than this, each line is a series and the dataset is a choice. With fewer, each
# line is a dataset.
MOST_SERIES = 6

# (series, shots, quantity) -> dataset -> the difference shown
Differences = Callable[[Series, int, str], dict[str, Estimate]]


def gains_figure(results: Results, quantities: Sequence[str], reason: str = "") -> chart.Figure:
  """Return the figure of each source against zero-shot at every budget, the average first.

  Args:
    results: the rows.
    quantities: recognizers that use the class names, as zero-shot does.
    reason: a sentence for the caption if they do not.
  """

  def each(item: Series, shots: int, quantity: str) -> dict[str, Estimate]:
    return gains(results, item, shots, quantity)

  return forest_figure(
    name="gains",
    title="Gain over zero-shot, source by source",
    caption=(
      "Accuracy above (right) or below (left) zero-shot in points, with 95 % intervals."
      + reason
      + AVERAGE_CAPTION * (len(results.datasets) > 1)
    ),
    blocks=_blocks(results, quantities, each, _zero_note),
    headline=(quantities[0], shared_budget(results, quantities[0])),
  )


def originals_figure(results: Results, quantities: Sequence[str]) -> chart.Figure | None:
  """Return the figure of each source against as many original images; None without both."""
  baseline = originals(results)

  def each(item: Series, shots: int, quantity: str) -> dict[str, Estimate]:
    return {} if item == baseline else against_originals(results, item, shots, quantity)

  def note(results: Results, dataset: str, shots: int, quantity: str) -> str:
    theirs = results.estimate(dataset, baseline, shots, quantity) if baseline else None
    return f"original {percent(theirs.value)}" if theirs else ""

  blocks = _blocks(results, quantities, each, note)
  blocks = [block for block in blocks if any(e for line in block.lines for e in line.estimates)]
  if not blocks:
    return None
  return forest_figure(
    name="against-originals",
    title="Difference from as many original images, source by source",
    caption=(
      "Accuracy above (right) or below (left) the same recognizer on as many original training images, in points "
      "with 95 % intervals. Neither side uses the class names."
      + AVERAGE_CAPTION
      * (len(results.datasets) > 1)
    ),
    blocks=blocks,
    headline=(blocks[0].quantity, shared_budget(results, blocks[0].quantity)),
    x_label="points above original images",
  )


def strategies_figure(results: Results, quantities: Sequence[str]) -> chart.Figure | None:
  """Return the figure that compares prompt strategies on average; None with only one."""
  prompted = [
    item for item in results.series if item.strategy and item.source not in ("control", "combined")
  ]
  strategies = tuple(dict.fromkeys(item.strategy for item in prompted))
  if len(strategies) < 2:
    return None
  series = tuple(dict.fromkeys(item.plain for item in prompted))
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
      "intervals. Choosing the best strategy from this figure is choosing on test data."
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
  """Return a block for each quantity and budget; with many series, also for each dataset."""
  blocks = []
  for quantity in quantities:
    measured = [item for item in results.headline_series() if results.has(item, quantity)]
    series = with_control(results, measured, quantity)
    for shots in budgets(results, quantity):
      found = {item: each(item, shots, quantity) for item in series}
      shown = tuple(item for item in series if found[item])
      if len(shown) > MOST_SERIES:
        blocks += _by_series(results, quantity, shots, {item: found[item] for item in shown})
      elif shown:
        notes = {name: note_of(results, name, shots, quantity) for name in results.datasets}
        lines = _by_dataset(results, {item: found[item] for item in shown}, notes)
        blocks.append(Block(quantity, shots, shown, tuple(lines)))
  return blocks


def _by_dataset(
  results: Results, found: dict[Series, dict[str, Estimate]], notes: dict[str, str]
) -> list[Line]:
  """Return one line per dataset, the average first."""
  names = [name for name in results.datasets if any(name in values for values in found.values())]
  lines = [
    Line(name, tuple(values.get(name) for values in found.values()), notes[name]) for name in names
  ]
  if len(lines) == 1:
    return lines
  means = [average(values, results.datasets) for values in found.values()]
  return [average_line(means), *by_first(lines)]


def _by_series(
  results: Results, quantity: str, shots: int, found: dict[Series, dict[str, Estimate]]
) -> list[Block]:
  """Return blocks for the average and each dataset with one line per series, the best first."""
  means: dict[Series, Average | None] = {
    item: average(by_dataset, results.datasets) for item, by_dataset in found.items()
  }
  blocks = []
  for where in ([ALL] if len(results.datasets) > 1 else []) + list(results.datasets):
    lines = []
    for item, by_dataset in found.items():
      mean = means[item]
      estimate = by_dataset.get(where) if where != ALL else (mean.estimate if mean else None)
      count = f"n = {len(mean.included)}" if where == ALL and mean else ""
      name = item.label
      if estimate:
        lines.append(Line(name, (estimate,), count, series=(item,)))
    blocks.append(Block(quantity, shots, tuple(found), tuple(by_first(lines)), where))
  return [block for block in blocks if block.lines]


def _zero_note(results: Results, dataset: str, shots: int, quantity: str) -> str:
  known = results.zero_shot.get(dataset)
  return f"zero-shot {percent(known.value)}" if known else ""


def _strategy_line(
  results: Results, quantity: str, shots: int, series: Sequence[Series], strategy: str
) -> Line:
  mean = [
    average_gain(results, dataclasses.replace(item, strategy=strategy), shots, quantity)
    for item in series
  ]
  return dataclasses.replace(average_line(mean, strong=False), name=strategy_label(strategy))
