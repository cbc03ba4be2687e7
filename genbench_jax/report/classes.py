"""The classes that the images help most and least."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from genbench_jax.report import chart
from genbench_jax.report.forest import (
  NARROW,
  Layout,
  Line,
  by_first,
  forest,
  reach_of,
  wide_layout,
)
from genbench_jax.report.gains import difference
from genbench_jax.report.labels import budget_words
from genbench_jax.report.legend import keys_of
from genbench_jax.report.number_words import percent
from genbench_jax.report.quantities import (
  HEADLINE_STRATEGIES,
  QUANTITIES,
  RECOGNIZERS,
  order_of,
  quantity_of,
)
from genbench_jax.report.results import Estimate, Series
from genbench_jax.runtime.protocol import PROTOCOLS
from genbench_jax.store.class_values import ClassValues

MOST = 6


@dataclasses.dataclass(frozen=True)
class ClassScores:
  """Accuracy of each class in one cell.

  Attributes:
    quantity: name of the recognizer in the rows.
    scores: class name -> accuracy of the class (recall), a fraction.
    zero_shot: class name -> the same for zero-shot.
    known: the series with the color and label that it has on the page; see `with_series`.
  """

  dataset: str
  source: str
  strategy: str
  shots: int
  quantity: str
  scores: Mapping[str, float]
  zero_shot: Mapping[str, float]
  generator: str = ""
  known: Series | None = None

  @property
  def series(self) -> Series:
    return self.known or Series(self.source, self.strategy, self.generator)


def with_series(all_scores: Sequence[ClassScores], series: Sequence[Series]) -> list[ClassScores]:
  """Return the scores with the series of the page, which has a color for each generator."""
  known = {item: item for item in series}
  return [dataclasses.replace(cell, known=known.get(cell.series)) for cell in all_scores]


# dataset -> class name -> number of test images
Counts = Mapping[str, Mapping[str, int]]


def classes_figure(
  all_scores: Sequence[ClassScores], counts: Counts | None = None
) -> chart.Figure | None:
  """Return the classes of each dataset with the highest and lowest gains; None without scores.

  Args:
    all_scores: accuracies of the classes, for any recognizer and budget.
    counts: numbers of test images of the classes; without them there are no intervals.
  """
  chosen = headline_scores(all_scores)
  if not chosen:
    return None
  series = tuple(sorted({cell.series for cell in chosen}, key=lambda s: s.order))
  by_dataset = {
    name: _lines(
      [cell for cell in chosen if cell.dataset == name], series, (counts or {}).get(name, {})
    )
    for name in dict.fromkeys(cell.dataset for cell in chosen)
  }
  quantity = quantity_of(chosen[0].quantity).label
  alone = len(by_dataset) == 1
  panels = tuple(
    _panel(name, lines, series, quantity, layout)
    for name, lines in by_dataset.items()
    for layout in ((wide_layout(lines, series), NARROW) if alone else (NARROW,))
  )
  shots = sorted({cell.shots for cell in chosen})
  return chart.Figure(
    name="classes",
    title="Classes that the images help and hurt most",
    caption=(
      f"Gain over zero-shot in the accuracy of each class, {quantity}, "
      f"{' or '.join(map(budget_words, shots))}. If a dataset has many classes, the {MOST} with "
      f"the highest and the {MOST} with the lowest gain are shown; extremes among many classes are partly chance."
      + " Lines are 95 % intervals (Wilson’s, combined by Newcombe’s method), which are wide because a class has few test images."
      * bool(counts)
    ),
    variants=(
      chart.Variant(
        (), panels, keys_of(series, by_strategy=False), "forest" if alone else "medium"
      ),
    ),
  )


def class_gains(all_scores: Sequence[ClassScores]) -> dict[str, dict[str, float]]:
  """Return dataset -> class name -> gain, from the first source other than original images if any."""
  chosen = headline_scores(all_scores)
  found: dict[str, dict[str, float]] = {}
  for cell in sorted(chosen, key=lambda cell: (cell.source == "original", cell.series.order)):
    known = cell.scores.keys() & cell.zero_shot.keys()
    gains = {
      name: cell.scores[name] - cell.zero_shot[name] for name in cell.scores if name in known
    }
    found.setdefault(cell.dataset, gains)
  return found


def headline_scores(all_scores: Sequence[ClassScores]) -> list[ClassScores]:
  """Return the scores of one recognizer.

  For each dataset and source, they have one strategy and the largest budget.
  """
  all_scores = [cell for cell in all_scores if cell.source != "control"]
  if not all_scores:
    return []
  first = min(
    (cell.quantity for cell in all_scores), key=lambda name: order_of(name, tuple(QUANTITIES))
  )
  chosen: dict[tuple[str, str, str], ClassScores] = {}
  for cell in sorted(
    all_scores, key=lambda o: (order_of(o.strategy, HEADLINE_STRATEGIES), -o.shots)
  ):
    if cell.quantity == first:
      chosen.setdefault((cell.dataset, cell.source, cell.generator), cell)
  return list(chosen.values())


def _lines(
  scores: Sequence[ClassScores], series: Sequence[Series], counts: Mapping[str, int]
) -> list[Line]:
  by_series = {cell.series: cell for cell in scores}
  zero_shot = {name: value for cell in scores for name, value in cell.zero_shot.items()}
  return by_first([
    Line(
      name,
      tuple(class_gain(by_series.get(item), name, counts.get(name)) for item in series),
      f"zero-shot {percent(value)}",
    )
    for name, value in zero_shot.items()
  ])  # fmt: skip


def class_gain(scores: ClassScores | None, name: str, count: int | None) -> Estimate | None:
  """Return what the images add to one class.

  Args:
    scores: accuracies of the classes in one cell.
    name: the class.
    count: its number of test images; without it there is no interval.
  """
  if scores is None or name not in scores.scores or name not in scores.zero_shot:
    return None
  return difference(wilson(scores.scores[name], count), wilson(scores.zero_shot[name], count))


def wilson(share: float, count: int | None) -> Estimate:
  """Return a fraction of `count` test images with Wilson's 95 % interval."""
  if not count:
    return Estimate(share)
  z = 1.959964
  middle = (share + z * z / (2 * count)) / (1 + z * z / count)
  half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
  return Estimate(share, max(0.0, middle - half), min(1.0, middle + half))


def _panel(
  dataset: str,
  lines: Sequence[Line],
  series: tuple[Series, ...],
  quantity: str,
  layout: Layout,
) -> chart.Panel:
  shown = lines if len(lines) <= 2 * MOST else [*lines[:MOST], *lines[-MOST:]]
  panel = forest(
    shown, series, reach_of(shown), f"{dataset}, {quantity}", layout, "points above zero-shot", 22
  )
  note = f"{len(shown)} of {len(lines)} classes" if len(shown) < len(lines) else ""
  return dataclasses.replace(panel, title=dataset, note=note)


SHOWN = (*RECOGNIZERS, "cler")


def class_scores(all_scores: Sequence[ClassValues]) -> list[ClassScores]:
  """Return the accuracy of each class for each recognizer, beside zero-shot, averaged over seeds.

  All scores have one protocol: `strict` if it was run, else `reference`.
  """
  protocols = {entry["protocol"] for entry in all_scores}
  chosen = [
    entry for entry in all_scores if entry["protocol"] == min(protocols, key=PROTOCOLS.index)
  ]
  zero_shot = {
    entry["dataset"]: entry["values"] for entry in chosen if entry["quantity"] == "zero_shot"
  }
  seeds: dict[tuple[str, str, str, int, str, str], list[Mapping[str, float]]] = {}
  for entry in chosen:
    if entry["quantity"] in SHOWN and entry["dataset"] in zero_shot:
      generator = str(entry.get("generator") or "")
      key = (
        entry["dataset"],
        entry["source"],
        entry["strategy"],
        entry["shots"],
        entry["quantity"],
        generator,
      )
      seeds.setdefault(key, []).append(entry["values"])
  return [
    ClassScores(*key[:5], _means(values), zero_shot[key[0]], key[5])
    for key, values in seeds.items()
  ]


def _means(values: Sequence[Mapping[str, float]]) -> dict[str, float]:
  return {name: float(np.mean([scores[name] for scores in values])) for name in values[0]}
