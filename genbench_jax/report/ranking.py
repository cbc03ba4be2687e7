"""The ranking of generators and other sources: quality, cost, and who beats whom."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from genbench_jax.report.duels import Duel
from genbench_jax.report.gains import average, average_gain
from genbench_jax.report.generators import Cost, cost_of
from genbench_jax.report.quantities import (
  RECOGNIZERS,
  excess_name,
  images_label,
  number,
  percent,
  points,
  quantity_of,
)
from genbench_jax.report.results import Estimate, Results, Series
from genbench_jax.report.tables import Table, Value, words_of

# What the ranking shows besides, where it was measured: other recognizers, then what needs no training.
BESIDE = (
  *RECOGNIZERS,
  "cler",
  "class_chamfer",
  "guide_ridge",
  "fid_excess",
  "fid",
  "fid_inception_excess",
  "fid_inception",
  "vendi",
)


@dataclasses.dataclass(frozen=True)
class Rank:
  """One line of the ranking.

  Attributes:
    place: from 1; lines that the first of a place can't be told apart from share it.
    accuracy: mean over the datasets that all lines have.
  """

  place: int
  series: Series
  accuracy: Estimate


def ranks(
  results: Results, series: Sequence[Series], shots: int, quantity: str, duels: Sequence[Duel]
) -> list[Rank]:
  """Return the series from the best to the worst by mean accuracy over the datasets that all have.

  The best has the first place, and so have those that can't be told apart from it. The first line that is beaten by
  the first of its place starts the next one.
  """
  shared = shared_datasets(results, series, shots, quantity)
  means = {one: mean_over(results, one, shots, quantity, shared) for one in series}
  known = {one: mean for one, mean in means.items() if mean}
  ordered = sorted(known, key=lambda one: -known[one].value)
  lost = {(duel.winner, loser) for duel in duels for loser in (duel.first, duel.second)}
  found: list[Rank] = []
  first, place = None, 1
  for index, one in enumerate(ordered, 1):
    if first is None or (first != one and (first, one) in lost):
      first, place = one, index
    found.append(Rank(place, one, known[one]))
  return found


def shared_datasets(
  results: Results, series: Sequence[Series], shots: int, quantity: str
) -> list[str]:
  """Return the datasets on which every series was measured."""
  return [
    dataset
    for dataset in results.datasets
    if all(results.estimate(dataset, one, shots, quantity) for one in series)
  ]


def mean_over(
  results: Results, one: Series, shots: int, quantity: str, datasets: Sequence[str]
) -> Estimate | None:
  """Return the mean over exactly these datasets; None where one of them is missing."""
  each = {name: results.estimate(name, one, shots, quantity) for name in datasets}
  mean = average({name: e for name, e in each.items() if e}, datasets)
  return mean.estimate if mean and not mean.missing else None


def ranking_table(
  results: Results,
  ranked: Sequence[Rank],
  shots: int,
  quantity: str,
  *,
  gain_quantity: str = "",
  costs: Mapping[str, Cost],
  settings: Mapping[str, Mapping[str, Any]],
  price: float | None = None,
  exchange: Mapping[Series, str] | None = None,
) -> Table:
  """Return the ranking as a table; columns without a value in any line are left out.

  Args:
    results: the rows.
    ranked: the lines, see `ranks`.
    shots: images a class.
    quantity: the recognizer that ranks.
    gain_quantity: the recognizer that is set against zero-shot: one that knows the class names, too.
    costs: generator -> what its images have cost.
    settings: generator -> its settings.
    price: USD of a device and hour, where it is known.
    exchange: series -> how many real images a class are worth as much, in words.
  """
  series = [rank.series for rank in ranked]
  shared = shared_datasets(results, series, shots, quantity)
  columns: dict[str, list[Value]] = {
    "place": [rank.place for rank in ranked],
    "images": [s.label for s in series],
    f"{quantity_of(quantity).label}, %": [_percent_words(rank.accuracy) for rank in ranked],
    f"gain over zero-shot, {quantity_of(gain_quantity).label}": [
      _gain_words(results, one, shots, gain_quantity) for one in series
    ],
    "real images a class worth": [(exchange or {}).get(one) for one in series],
  }
  for name in _beside(results, quantity):
    columns[_head(name)] = [
      _shown(name, mean_over(results, one, shots, name, shared)) for one in series
    ]
  own = [settings.get(one.generator, {}) if one.source == "generative" else {} for one in series]
  for name, label in (("steps", "steps"), ("guidance_scale", "guidance")):
    columns[label] = [_setting(one.get(name)) for one in own]
  spent = [cost_of(costs, one) for one in series]
  columns["images a second a chip"] = [number(c.rate) if c and c.rate else None for c in spent]
  columns["chip-hours"] = [number(c.chip_hours) if c else None for c in spent]
  if price is not None:
    columns["USD"] = [number(c.chip_hours * price) if c else None for c in spent]
  kept = {name: values for name, values in columns.items() if any(v is not None for v in values)}
  caption = "Lines that the first of a place can’t be told apart from share it."
  return Table("ranking", caption, tuple(kept), tuple(zip(*kept.values(), strict=True)))


def duels_table(duels: Sequence[Duel], ranked: Sequence[Rank]) -> Table:
  """Return who beats whom: row against column, in points, best first. The upper half says all."""
  series = [rank.series for rank in ranked]
  labels = [images_label(one.source, one.generator) for one in series]
  found = {(duel.first, duel.second): duel for duel in duels}
  rows = []
  for one, label in zip(series, labels, strict=True):
    words = [_duel_words(found.get((one, other)), found.get((other, one))) for other in series]
    rows.append((label, *words))
  caption = "Row less column, in points; better and worse after Holm’s correction for all comparisons shown, = where the two can’t be told apart."
  return Table("who-beats-whom", caption, ("", *labels), tuple(rows))


def _duel_words(forward: Duel | None, backward: Duel | None) -> str:
  duel = forward or backward
  if duel is None:
    return ""
  value = duel.difference.value if forward else -duel.difference.value
  if duel.winner is None:
    return f"{points(value)} ="
  return f"{points(value)} {'better' if value > 0 else 'worse'}"


def _beside(results: Results, quantity: str) -> list[str]:
  """The quantities of `BESIDE` that were measured; a distance as it is only where its floor is unknown."""
  names = [
    name
    for base in BESIDE
    for name in results.quantities
    if name.partition(" [")[0] == base and name != quantity
  ]
  own = [name for name in names if "[" not in name or name.endswith(f"[{results.view.encoder}]")]
  return [name for name in own if excess_name(name) not in own]


def _head(name: str) -> str:
  quantity = quantity_of(name)
  return f"{quantity.label}, %" if quantity.kind == "accuracy" else quantity.label


def _shown(name: str, estimate: Estimate | None) -> str | None:
  if estimate is None:
    return None
  kind = quantity_of(name).kind
  return percent(estimate.value) if kind == "accuracy" else number(estimate.value)


def _percent_words(estimate: Estimate) -> str:
  ends = estimate.wide_interval or estimate.interval
  text = percent(estimate.value)
  return f"{text} ({percent(ends[0])} to {percent(ends[1])})" if ends else text


def _gain_words(results: Results, one: Series, shots: int, quantity: str) -> str | None:
  mean = average_gain(results, one, shots, quantity)
  return words_of(mean.estimate) if mean else None


def _setting(value: Any) -> str | None:
  return None if value is None else f"{value:g}" if isinstance(value, int | float) else str(value)
