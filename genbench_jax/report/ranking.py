"""The ranking of generators and other sources: quality, cost and pairwise comparisons."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from genbench_jax.report.duels import Duel
from genbench_jax.report.gains import average, average_gain
from genbench_jax.report.generators import Cost, cost_of
from genbench_jax.report.labels import images_label
from genbench_jax.report.number_words import number, percent, points
from genbench_jax.report.quantities import RECOGNIZERS, excess_name, quantity_of
from genbench_jax.report.results import Estimate, Results, Series
from genbench_jax.report.tables import Table, Value, words_of

# Further columns of the ranking, if measured: other recognizers, then training-free scores.
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
    place: rank from 1; lines that cannot be told apart from the first of a place share it.
    accuracy: mean over the datasets that all lines have.
  """

  place: int
  series: Series
  accuracy: Estimate


def ranks(
  results: Results, series: Sequence[Series], shots: int, quantity: str, duels: Sequence[Duel]
) -> list[Rank]:
  """Return the series from best to worst by mean accuracy over the datasets that all have.

  The best series has the first place, and so has every series that cannot be told apart from it.
  The first series that the first of a place beats starts the next place.

  Args:
    results: the rows.
    series: the series to rank.
    shots: images per class.
    quantity: the recognizer.
    duels: pairwise comparisons of the series.
  """
  shared = shared_datasets(results, series, shots, quantity)
  means = {item: mean_over(results, item, shots, quantity, shared) for item in series}
  known = {item: mean for item, mean in means.items() if mean}
  ordered = sorted(known, key=lambda item: -known[item].value)
  lost = {(duel.winner, loser) for duel in duels for loser in (duel.first, duel.second)}
  found: list[Rank] = []
  first, place = None, 1
  for index, item in enumerate(ordered, 1):
    if first is None or (first != item and (first, item) in lost):
      first, place = item, index
    found.append(Rank(place, item, known[item]))
  return found


def shared_datasets(
  results: Results, series: Sequence[Series], shots: int, quantity: str
) -> list[str]:
  """Return the datasets on which every series was measured.

  Args:
    results: the rows.
    series: the series.
    shots: images per class.
    quantity: the recognizer.
  """
  return [
    dataset
    for dataset in results.datasets
    if all(results.estimate(dataset, item, shots, quantity) for item in series)
  ]


def mean_over(
  results: Results, series: Series, shots: int, quantity: str, datasets: Sequence[str]
) -> Estimate | None:
  """Return the mean over exactly these datasets; None if one of them is missing.

  Args:
    results: the rows.
    series: source, generator and strategy.
    shots: images per class.
    quantity: the recognizer.
    datasets: the datasets to average over.
  """
  each = {name: results.estimate(name, series, shots, quantity) for name in datasets}
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
  """Return the ranking as a table; columns without values are left out.

  Args:
    results: the rows.
    ranked: the lines, see `ranks`.
    shots: images per class.
    quantity: the recognizer of the ranking.
    gain_quantity: the recognizer that is compared with zero-shot; it uses the class names too.
    costs: generator -> cost of its images.
    settings: generator -> its settings.
    price: USD per device-hour, if known.
    exchange: series -> number of real images per class of the same worth, in words.
  """
  series = [rank.series for rank in ranked]
  shared = shared_datasets(results, series, shots, quantity)
  columns: dict[str, list[Value]] = {
    "place": [rank.place for rank in ranked],
    "images": [s.label for s in series],
    f"{quantity_of(quantity).label}, %": [_percent_words(rank.accuracy) for rank in ranked],
    f"gain over zero-shot, {quantity_of(gain_quantity).label}": [
      _gain_words(results, item, shots, gain_quantity) for item in series
    ],
    "worth in real images per class": [(exchange or {}).get(item) for item in series],
  }
  for name in _beside(results, quantity):
    columns[_head(name)] = [
      _shown(name, mean_over(results, item, shots, name, shared)) for item in series
    ]
  own = [settings.get(item.generator, {}) if item.source == "generative" else {} for item in series]
  for name, label in (("steps", "steps"), ("guidance_scale", "guidance")):
    columns[label] = [_setting(item.get(name)) for item in own]
  spent = [cost_of(costs, item) for item in series]
  columns["images per second and chip"] = [number(c.rate) if c and c.rate else None for c in spent]
  columns["chip-hours"] = [number(c.chip_hours) if c else None for c in spent]
  if price is not None:
    columns["USD"] = [number(c.chip_hours * price) if c else None for c in spent]
  kept = {name: values for name, values in columns.items() if any(v is not None for v in values)}
  caption = "Lines that can’t be told apart from the first of a place share it."
  return Table("ranking", caption, tuple(kept), tuple(zip(*kept.values(), strict=True)))


def duels_table(duels: Sequence[Duel], ranked: Sequence[Rank]) -> Table:
  """Return pairwise differences, row minus column in points, best first."""
  series = [rank.series for rank in ranked]
  labels = [images_label(item.source, item.generator) for item in series]
  found = {(duel.first, duel.second): duel for duel in duels}
  rows = []
  for item, label in zip(series, labels, strict=True):
    words = [_duel_words(found.get((item, other)), found.get((other, item))) for other in series]
    rows.append((label, *words))
  caption = "Row minus column, in points; better and worse after Holm’s correction for all comparisons shown, = if the two can’t be told apart."
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
  """Return the measured quantities of `BESIDE`; a raw distance only if its floor is unknown."""
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


def _gain_words(results: Results, item: Series, shots: int, quantity: str) -> str | None:
  mean = average_gain(results, item, shots, quantity)
  return words_of(mean.estimate) if mean else None


def _setting(value: Any) -> str | None:
  return None if value is None else f"{value:g}" if isinstance(value, int | float) else str(value)
