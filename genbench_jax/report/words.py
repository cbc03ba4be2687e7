"""The answer in plain words."""

import dataclasses
from collections.abc import Sequence

from genbench_jax.report.agreement import Agreement, agrees
from genbench_jax.report.gains import average_gain, gains, headline_budget, worth
from genbench_jax.report.legend import css_of
from genbench_jax.report.quantities import (
  budget_words,
  points,
  quantity_of,
  series_label,
  source_label,
)
from genbench_jax.report.results import Estimate, Results, Series, with_control


@dataclasses.dataclass(frozen=True)
class Finding:
  """What one source does to recognition, as the head of the page sets it out.

  Attributes:
    css: the classes of its color.
    label: the source and its strategy.
    figure: the mean gain in points.
    interval: its 95 % interval, or "".
    count: how many datasets are behind it, and on how many of them it beats zero-shot.
    missing: the datasets that are not in the average.
  """

  css: str
  label: str
  figure: str
  interval: str
  count: str
  missing: tuple[str, ...]


def findings(results: Results, quantity: str) -> list[Finding]:
  """One finding a source at the headline budget."""
  shots = headline_budget(results, quantity)
  if shots is None:
    return []
  found = [_finding(results, one, shots, quantity) for one in results.headline_series()]
  return [finding for finding in found if finding]


def answer(results: Results, quantity: str) -> list[str]:
  """A sentence or two a source: what it adds at the headline budget, where, and what it is worth."""
  shots = headline_budget(results, quantity)
  if shots is None:
    return []
  series = results.headline_series()
  original = next((one for one in series if one.source == "original"), None)
  paragraphs = []
  for one in series:
    sentences = [_sentence(results, one, shots, quantity)]
    if original and one != original:
      sentences.append(_worth(results, one, original, shots, quantity))
    paragraphs.append(" ".join(filter(None, sentences)))
  return [text for text in paragraphs if text]


def control_words(results: Results) -> str:
  """What is left of CLER where the labels of the external images are shuffled."""
  shots = headline_budget(results, "cler")
  series = with_control(results, results.headline_series()[:1], "cler")
  if shots is None or len(series) < 2:
    return ""
  means = [average_gain(results, one, shots, "cler") for one in series]
  if not all(means):
    return ""
  real, shuffled = (points(mean.estimate.value) for mean in means if mean)
  what = f"{source_label(series[0].source)} images"
  return (
    f"With {budget_words(shots)}, CLER on {what} stands {real} points from zero-shot; with their "
    f"labels shuffled, {shuffled}. "
    "What lies between the two it owes to images that show their class."
  )


def agreement_words(items: Sequence[Agreement]) -> str:
  """How far CLER, and the best of the others, orders the cells as training does."""
  known = [(agrees(item, item.mean), item) for item in items if item.mean is not None]
  cler = next(((rho, item) for rho, item in known if item.metric == "cler"), None)
  if cler is None:
    return ""
  rho, item = cler
  trained = quantity_of(item.recognizer).label
  text = (
    f"CLER, which trains nothing, {_order(item, rho, trained)}: "
    f"mean rank correlation {_signed(rho)}{_rho_interval(item)} over {_count(len(item.known), 'dataset')}."
  )
  best, best_item = max(known, key=lambda pair: pair[0])
  if best_item is item or best <= rho:
    return text
  quantity = quantity_of(best_item.metric)
  turned = "" if quantity.better == "higher" else ", its sign turned"
  return f"{text} The closest of all metrics is {quantity.label} ({_signed(best)}{turned})."


def _finding(results: Results, one: Series, shots: int, quantity: str) -> Finding | None:
  mean = average_gain(results, one, shots, quantity)
  if mean is None:
    return None
  above = sum(e.value > 0 for e in gains(results, one, shots, quantity).values())
  return Finding(
    css=css_of(one),
    label=series_label(one.source, one.strategy),
    figure=points(mean.estimate.value),
    interval=interval_words(mean.estimate),
    count=_above(above, mean.included),
    missing=mean.missing,
  )


def _above(count: int, datasets: Sequence[str]) -> str:
  if len(datasets) == 1:
    return f"on {datasets[0]}"
  return f"above zero-shot on {count} of {len(datasets)} datasets"


def _sentence(results: Results, one: Series, shots: int, quantity: str) -> str:
  """The mean gain, and the datasets where it is least and most."""
  mean = average_gain(results, one, shots, quantity)
  if mean is None:
    return ""
  what = f"{source_label(one.source)} images".capitalize()
  verdict = _verdict(mean.estimate, quantity_of(quantity).label)
  each = gains(results, one, shots, quantity)
  if len(each) == 1:
    return f"{what} {verdict} with {budget_words(shots)}, on {mean.included[0]}."
  least = min(each, key=lambda name: each[name].value)
  most = max(each, key=lambda name: each[name].value)
  return (
    f"{what} {verdict} with {budget_words(shots)}, on average over {len(each)} datasets: "
    f"from {points(each[least].value)} on {least} to {points(each[most].value)} on {most}."
  )


def _verdict(estimate: Estimate, label: str) -> str:
  size = points(abs(estimate.value)).lstrip("+")
  if estimate.low is not None and estimate.high is not None and estimate.low <= 0 <= estimate.high:
    return f"make no difference to the {label} that this test could tell from none ({points(estimate.value)} points)"
  way = "above" if estimate.value >= 0 else "below"
  return f"put the {label} {size} points {way} zero-shot"


def _worth(results: Results, one: Series, original: Series, shots: int, quantity: str) -> str:
  bracket = worth(results, one, original, shots, quantity)
  if bracket is None:
    return ""
  worse, no_worse = bracket
  amount = {
    (False, True): f"no more than {no_worse}",
    (True, False): f"more than {worse}",
    (True, True): f"between {worse} and {no_worse}",
  }[worse is not None, no_worse is not None]
  noun = "image" if amount == "no more than 1" else "images"
  return f"They are worth {amount} original {noun} a class."


def interval_words(estimate: Estimate) -> str:
  if estimate.low is None or estimate.high is None:
    return ""
  return f"95 % interval {points(estimate.low)} to {points(estimate.high)}"


def _order(item: Agreement, rho: float, trained: str) -> str:
  if item.interval and item.interval[0] <= 0 <= item.interval[1]:
    return (
      f"orders the cells of a dataset in no way that could be told from chance by the {trained}"
    )
  strength = "largely" if rho >= 0.8 else "roughly" if rho >= 0.5 else "hardly"
  return f"orders the cells of a dataset {strength} as the {trained} does"


def _rho_interval(item: Agreement) -> str:
  if item.interval is None:
    return ""
  low, high = item.interval
  return f" (95 % interval {_signed(low)} to {_signed(high)})"


def _signed(rho: float) -> str:
  return f"{rho:.2f}".replace("-", "−")


def _count(count: int, noun: str) -> str:
  return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
