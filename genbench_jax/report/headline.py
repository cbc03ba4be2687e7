"""The head of the page: what the images add where the class names are known, and what they teach alone."""

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
from genbench_jax.report.legend import css_of
from genbench_jax.report.quantities import (
  RECOGNIZERS,
  WITH_TEXT,
  budget_words,
  percent,
  points,
  quantity_of,
)
from genbench_jax.report.results import Estimate, Results, Series

# Recognizers that see the images alone, trained ones first.
WITHOUT_TEXT = ("from_scratch", "cler_image", "topk_vote")
# More sources than this are told apart in the ranking, not in the head.
MOST_FINDINGS = 4


@dataclasses.dataclass(frozen=True)
class Finding:
  """What one source does to recognition, as the head of the page sets it out.

  Attributes:
    css: the classes of its color.
    label: the source, its generator and its strategy.
    figure: the number, in `unit`.
    interval: its 95 % interval and of what kind it is, or "".
    count: how many datasets are behind it, and on how many of them it is above the baseline.
    missing: the datasets that are not in the average.
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
  """One of the two comparisons of the head: like with like.

  Attributes:
    quantity: the recognizer that stands on both sides.
    baseline: what it is compared with, in words.
    shots: the number of images a class.
    left_out: how many sources are in the ranking only.
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
  """Return whether the linear probe starts from the class texts, by what the run says of its config."""
  try:
    config = json.loads(run.get("config") or "{}")
  except (TypeError, ValueError):
    return True
  recognition = config.get("recognition") if isinstance(config, Mapping) else None
  known = recognition if isinstance(recognition, Mapping) else {}
  return bool(known.get("language_init", True))


def with_text(results: Results, probe_knows_text: bool) -> list[str]:
  """Return the measured recognizers that know the class names, as zero-shot does; trained ones first."""
  names = ("linear_probe", "linear_probe_last_epoch") if probe_knows_text else ()
  return [name for name in (*names, *WITH_TEXT) if name in results.quantities]


def without_text(results: Results, probe_knows_text: bool) -> list[str]:
  """Return the measured recognizers that see images only; trained ones first."""
  names = () if probe_knows_text else ("linear_probe", "linear_probe_last_epoch")
  return [name for name in (*names, *WITHOUT_TEXT) if name in results.quantities]


def head_lines(results: Results, probe_knows_text: bool) -> list[HeadLine]:
  """Return the comparisons that the rows have the numbers for: with text, then without."""
  lines = [
    _gain_line(results, with_text(results, probe_knows_text)),
    _alone_line(results, without_text(results, probe_knows_text)),
  ]
  return [line for line in lines if line]


def against_originals(
  results: Results, series: Series, shots: int, quantity: str
) -> dict[str, Estimate]:
  """Return dataset -> what the images are above (below) as many original images of the dataset."""
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
  """Return the dataset's own training images, where they were measured."""
  return next((one for one in results.headline_series() if one.source == "original"), None)


def shared_budget(results: Results, quantity: str) -> int | None:
  """Return the largest budget at which every headline series was measured; failing that, the largest of any."""
  measured = budgets(results, quantity)
  series = [one for one in results.headline_series() if results.has(one, quantity)]
  shared = [
    shots
    for shots in measured
    if all(
      any(results.estimate(d, one, shots, quantity) for d in results.datasets) for one in series
    )
  ]
  return next(iter(reversed(shared or measured)), None)


def interval_words(estimate: Estimate, source: str = "generative") -> str:
  """Return `95 % interval −0.2 to 4.0, for this generator`, or nothing where there is none."""
  interval = estimate.wide_interval or estimate.interval
  if interval is None:
    return ""
  wide = "for this generator" if source in ("generative", "folder") else "for this source"
  kind = wide if estimate.wide_interval else "for these images"
  return f"95 % interval {points(interval[0])} to {points(interval[1])}, {kind}"


def _gain_line(results: Results, quantities: Sequence[str]) -> HeadLine | None:
  """The gain over zero-shot of the first recognizer that knows the class names."""
  for quantity in quantities if results.zero_shot else ():
    shots = shared_budget(results, quantity)
    if shots is None:
      continue
    chosen = [
      one for one in results.headline_series() if average_gain(results, one, shots, quantity)
    ]
    found = []
    for one in _first(chosen, results, quantity, shots):
      mean = average_gain(results, one, shots, quantity)
      assert mean is not None
      above = sum(e.value > 0 for e in gains(results, one, shots, quantity).values())
      found.append(_finding(one, mean, "above zero-shot", above))
    if found:
      question = "Gain over zero-shot of a classifier that knows the class names"
      return HeadLine(
        quantity, question, "zero-shot", shots, tuple(found), len(chosen) - len(found)
      )
  return None


def _alone_line(results: Results, quantities: Sequence[str]) -> HeadLine | None:
  """The accuracy of the first recognizer that sees images only, beside as many original images."""
  for quantity in quantities:
    shots = shared_budget(results, quantity)
    if shots is None:
      continue
    chosen = [one for one in results.headline_series() if results.has(one, quantity)]
    first = _first(chosen, results, quantity, shots)
    found = [_accuracy_finding(results, one, shots, quantity) for one in first]
    known = tuple(finding for finding in found if finding)
    if known:
      question = "Accuracy of a classifier that sees the images and no text"
      baseline = "as many original images" if originals(results) else ""
      return HeadLine(quantity, question, baseline, shots, known, len(chosen) - len(known))
  return None


def _first(series: Sequence[Series], results: Results, quantity: str, shots: int) -> list[Series]:
  """As many series as the head has room for: the best generators, then the other sources."""
  if len(series) <= MOST_FINDINGS:
    return list(series)
  others = [one for one in series if one not in results.generators]

  def mean(one: Series) -> float:
    each = [results.estimate(d, one, shots, quantity) for d in results.datasets]
    known = [e.value for e in each if e]
    return sum(known) / len(known) if known else -1.0

  ranked = sorted(results.generators, key=mean, reverse=True)
  kept = {*ranked[: max(1, MOST_FINDINGS - len(others))], *others}
  return [one for one in series if one in kept][:MOST_FINDINGS]


def _finding(one: Series, mean: Average, baseline: str, above: int) -> Finding:
  on = f"on {mean.included[0]}" if len(mean.included) == 1 else ""
  return Finding(
    css=css_of(one),
    label=one.label,
    figure=points(mean.estimate.value),
    unit="points",
    interval=interval_words(mean.estimate, one.source),
    count=on or f"{baseline} on {above} of {len(mean.included)} datasets",
    missing=mean.missing,
  )


def _accuracy_finding(results: Results, one: Series, shots: int, quantity: str) -> Finding | None:
  each = {d: results.estimate(d, one, shots, quantity) for d in results.datasets}
  mean = average({d: e for d, e in each.items() if e}, results.datasets)
  if mean is None:
    return None
  versus = average(against_originals(results, one, shots, quantity), results.datasets)
  if one.source == "original":
    said = "the baseline: real training images"
  elif versus:
    said = f"{points(versus.estimate.value)} points against as many original images"
  else:
    said = ""
  return Finding(
    css=css_of(one),
    label=one.label,
    figure=percent(mean.estimate.value),
    unit="%",
    interval=said,
    count=interval_words(versus.estimate, one.source)
    if versus and one.source != "original"
    else _share(mean),
    missing=mean.missing,
  )


def _share(mean: Average) -> str:
  count = len(mean.included)
  return f"on {mean.included[0]}" if count == 1 else f"mean of {count} datasets"


def compared(results: Results, probe_knows_text: bool) -> list[str]:
  """Return what is set against zero-shot in the figures: what knows the class names as zero-shot does."""
  measured = with_text(results, probe_knows_text)
  return [name for name in measured if name in (*RECOGNIZERS, "cler")] or measured
