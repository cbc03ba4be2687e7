"""The head of the page: gains where class names are known, and accuracies from images alone."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from genbench_jax.report.gains import (
  Average,
  average,
  average_gain,
  budgets,
  difference,
  gains,
)
from genbench_jax.report.labels import budget_words
from genbench_jax.report.legend import css_of
from genbench_jax.report.number_words import percent, points
from genbench_jax.report.quantities import RECOGNIZERS, WITH_TEXT, quantity_of
from genbench_jax.report.results import Estimate, Results, Series

# Recognizers that use images only, trained ones first.
WITHOUT_TEXT = ("from_scratch", "cler_image", "topk_vote")
# With more sources, only the ranking shows all of them.
MOST_FINDINGS = 4


@dataclasses.dataclass(frozen=True)
class Finding:
  """Result of one source, as the head of the page shows it.

  Attributes:
    css: CSS classes of its color.
    label: source, generator and strategy.
    figure: the number, in `unit`.
    interval: its 95 % interval and the kind of interval, or "".
    count: number of datasets, and on how many of them it is above the baseline.
    missing: datasets that are not in the average.
  """

  css: str
  label: str
  figure: str
  unit: str
  interval: str
  count: str
  missing: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class HeadLine:
  """One of the two comparisons of the head.

  Attributes:
    quantity: the recognizer used on both sides.
    baseline: the baseline in words.
    shots: number of images per class.
    left_out: number of sources that only the ranking shows.
  """

  quantity: str
  question: str
  baseline: str
  shots: int
  findings: tuple[Finding, ...]
  left_out: int = 0

  @property
  def heading(self) -> str:
    return f"{self.question}: {quantity_of(self.quantity).label}, {budget_words(self.shots)}"


def text_start(run: Mapping[str, Any]) -> bool:
  """Return whether the linear probe starts from the class texts, according to the config."""
  try:
    config = json.loads(run.get("config") or "{}")
  except (TypeError, ValueError):
    return True
  recognition = config.get("recognition") if isinstance(config, Mapping) else None
  known = recognition if isinstance(recognition, Mapping) else {}
  return bool(known.get("language_init", True))


def with_text(results: Results, probe_knows_text: bool) -> list[str]:
  """Return the measured recognizers that use the class names, trained ones first."""
  names = ("linear_probe", "linear_probe_last_epoch") if probe_knows_text else ()
  return [name for name in (*names, *WITH_TEXT) if name in results.quantities]


def without_text(results: Results, probe_knows_text: bool) -> list[str]:
  """Return the measured recognizers that use images only, trained ones first."""
  names = () if probe_knows_text else ("linear_probe", "linear_probe_last_epoch")
  return [name for name in (*names, *WITHOUT_TEXT) if name in results.quantities]


def head_lines(results: Results, probe_knows_text: bool) -> list[HeadLine]:
  """Return the comparisons for which the rows have numbers: with text, then without."""
  lines = [
    _gain_line(results, with_text(results, probe_knows_text)),
    _alone_line(results, without_text(results, probe_knows_text)),
  ]
  return [line for line in lines if line]


def against_originals(
  results: Results, series: Series, shots: int, quantity: str
) -> dict[str, Estimate]:
  """Return dataset -> difference between the images and as many original images.

  Args:
    results: the rows.
    series: source, generator and strategy.
    shots: images per class.
    quantity: the recognizer.
  """
  original = originals(results)
  if original is None:
    return {}
  found = {}
  for dataset in results.datasets:
    mine = results.estimate(dataset, series, shots, quantity)
    theirs = results.estimate(dataset, original, shots, quantity)
    if mine and theirs:
      found[dataset] = difference(mine, theirs)
  return found


def originals(results: Results) -> Series | None:
  """Return the series of the dataset's own training images, if it was measured."""
  return next((item for item in results.headline_series() if item.source == "original"), None)


def shared_budget(results: Results, quantity: str) -> int | None:
  """Return the largest budget at which every headline series was measured, else the largest of any."""
  measured = budgets(results, quantity)
  series = [item for item in results.headline_series() if results.has(item, quantity)]
  shared = [
    shots
    for shots in measured
    if all(
      any(results.estimate(d, item, shots, quantity) for d in results.datasets) for item in series
    )
  ]
  return next(iter(reversed(shared or measured)), None)


def interval_words(estimate: Estimate, source: str = "generative") -> str:
  """Return text such as `95 % interval −0.2 to 4.0, for this generator`; empty without an interval."""
  interval = estimate.wide_interval or estimate.interval
  if interval is None:
    return ""
  wide = "for this generator" if source in ("generative", "folder") else "for this source"
  kind = wide if estimate.wide_interval else "for these images"
  return f"95 % interval {points(interval[0])} to {points(interval[1])}, {kind}"


def _gain_line(results: Results, quantities: Sequence[str]) -> HeadLine | None:
  """Return the gain over zero-shot of the first recognizer that uses the class names."""
  for quantity in quantities if results.zero_shot else ():
    shots = shared_budget(results, quantity)
    if shots is None:
      continue
    chosen = [
      item for item in results.headline_series() if average_gain(results, item, shots, quantity)
    ]
    found = []
    for item in _first(chosen, results, quantity, shots):
      mean = average_gain(results, item, shots, quantity)
      assert mean is not None
      above = sum(e.value > 0 for e in gains(results, item, shots, quantity).values())
      found.append(_finding(item, mean, "above zero-shot", above))
    if found:
      question = "Gain over zero-shot of a classifier that uses the class names"
      return HeadLine(
        quantity, question, "zero-shot", shots, tuple(found), len(chosen) - len(found)
      )
  return None


def _alone_line(results: Results, quantities: Sequence[str]) -> HeadLine | None:
  """Return the accuracy of the first recognizer that uses images only, beside as many originals."""
  for quantity in quantities:
    shots = shared_budget(results, quantity)
    if shots is None:
      continue
    chosen = [item for item in results.headline_series() if results.has(item, quantity)]
    first = _first(chosen, results, quantity, shots)
    found = [_accuracy_finding(results, item, shots, quantity) for item in first]
    known = tuple(finding for finding in found if finding)
    if known:
      question = "Accuracy of a classifier that uses the images and no text"
      baseline = "as many original images" if originals(results) else ""
      return HeadLine(quantity, question, baseline, shots, known, len(chosen) - len(known))
  return None


def _first(series: Sequence[Series], results: Results, quantity: str, shots: int) -> list[Series]:
  """Return the series that fit into the head: the best generators, then the other sources."""
  if len(series) <= MOST_FINDINGS:
    return list(series)
  others = [item for item in series if item not in results.generators]

  def mean(item: Series) -> float:
    by_dataset = [results.estimate(d, item, shots, quantity) for d in results.datasets]
    known = [e.value for e in by_dataset if e]
    return sum(known) / len(known) if known else -1.0

  ranked = sorted(results.generators, key=mean, reverse=True)
  kept = {*ranked[: max(1, MOST_FINDINGS - len(others))], *others}
  return [item for item in series if item in kept][:MOST_FINDINGS]


def _finding(item: Series, mean: Average, baseline: str, above: int) -> Finding:
  on = f"on {mean.included[0]}" if len(mean.included) == 1 else ""
  return Finding(
    css=css_of(item),
    label=item.label,
    figure=points(mean.estimate.value),
    unit="points",
    interval=interval_words(mean.estimate, item.source),
    count=on or f"{baseline} on {above} of {len(mean.included)} datasets",
    missing=mean.missing,
  )


def _accuracy_finding(results: Results, item: Series, shots: int, quantity: str) -> Finding | None:
  by_dataset = {d: results.estimate(d, item, shots, quantity) for d in results.datasets}
  mean = average({d: e for d, e in by_dataset.items() if e}, results.datasets)
  if mean is None:
    return None
  versus = average(against_originals(results, item, shots, quantity), results.datasets)
  if item.source == "original":
    comparison = "the baseline: real training images"
  elif versus:
    comparison = f"{points(versus.estimate.value)} points from as many original images"
  else:
    comparison = ""
  return Finding(
    css=css_of(item),
    label=item.label,
    figure=percent(mean.estimate.value),
    unit="%",
    interval=comparison,
    count=interval_words(versus.estimate, item.source)
    if versus and item.source != "original"
    else _share(mean),
    missing=mean.missing,
  )


def _share(mean: Average) -> str:
  count = len(mean.included)
  return f"on {mean.included[0]}" if count == 1 else f"mean of {count} datasets"


def compared(results: Results, probe_knows_text: bool) -> list[str]:
  """Return the recognizers that the figures compare with zero-shot."""
  measured = with_text(results, probe_knows_text)
  return [name for name in measured if name in (*RECOGNIZERS, "cler")] or measured
