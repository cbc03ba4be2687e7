"""The answer in plain words."""

from collections.abc import Mapping, Sequence

from genbench_jax.analysis.exchange import ExchangeRate
from genbench_jax.report.agreement import Agreement, agrees
from genbench_jax.report.exchange import exchange_sentence
from genbench_jax.report.gains import average, average_gain, gains, headline_budget
from genbench_jax.report.headline import HeadLine, against_originals
from genbench_jax.report.quantities import (
  budget_words,
  images_label,
  points,
  quantity_of,
  the,
)
from genbench_jax.report.results import Estimate, Results, Series, with_control

# A sentence a source; with more sources than this the ranking says it better.
MOST_SENTENCES = 4


def answer(
  results: Results,
  lines: Sequence[HeadLine],
  exchange: Mapping[Series, ExchangeRate] | None = None,
) -> list[str]:
  """A sentence a source and comparison: what it adds, where least and most; and what it is worth in original images.

  Args:
    results: the rows.
    lines: the comparisons of the head.
    exchange: series -> how many original images give the same accuracy.
  """
  series = results.headline_series()
  if len(series) > MOST_SENTENCES:
    return []
  paragraphs = []
  for one in series:
    sentences = [
      _gain_sentence(results, one, line)
      if line.baseline == "zero-shot"
      else _alone_sentence(results, one, line)
      for line in lines
    ]
    if exchange and one in exchange:
      sentences.append(exchange_sentence(exchange[one]))
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
  what = f"{images_label(series[0].source, series[0].generator)} images"
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
    f"CLER, which trains nothing, {_order(item, rho, trained)}: mean rank correlation "
    f"{signed(rho)}{_rho_interval(item)} within {_count(len(item.known), 'group')} of equal dataset and "
    "number of images."
  )
  best, best_item = max(known, key=lambda pair: pair[0])
  if best_item is item or best <= rho:
    return text
  quantity = quantity_of(best_item.metric)
  turned = "" if quantity.better == "higher" else ", its sign turned"
  return f"{text} The closest of all metrics is {quantity.label} ({signed(best)}{turned})."


def _gain_sentence(results: Results, one: Series, line: HeadLine) -> str:
  """The mean gain, and the datasets where it is least and most."""
  mean = average_gain(results, one, line.shots, line.quantity)
  if mean is None:
    return ""
  verdict = _verdict(mean.estimate, quantity_of(line.quantity).label, "zero-shot")
  each = gains(results, one, line.shots, line.quantity)
  return f"{_images_of(one)} {verdict} with {budget_words(line.shots)}{_spread(each)}."


def _alone_sentence(results: Results, one: Series, line: HeadLine) -> str:
  """The mean difference to as many original images."""
  each = against_originals(results, one, line.shots, line.quantity)
  mean = average(each, results.datasets)
  if mean is None or one.source == "original":
    return ""
  label = quantity_of(line.quantity).label
  verdict = _verdict(mean.estimate, label, "where as many original images do")
  return f"By themselves, without text, they {verdict}{_spread(each)}."


def _spread(each: dict[str, Estimate]) -> str:
  """On how many datasets, and where least and most."""
  if len(each) == 1:
    return f", on {next(iter(each))}"
  least = min(each, key=lambda name: each[name].value)
  most = max(each, key=lambda name: each[name].value)
  return (
    f", on average over {len(each)} datasets: from {points(each[least].value)} on {least} to "
    f"{points(each[most].value)} on {most}"
  )


def _images_of(one: Series) -> str:
  """`Generated images`; the name of a generator or folder keeps its own letters."""
  label = images_label(one.source, one.generator)
  return f"{label if one.generator else label.capitalize()} images"


def _verdict(estimate: Estimate, label: str, baseline: str) -> str:
  """What a difference says, by the wider of its intervals."""
  size = points(abs(estimate.value)).lstrip("+")
  interval = estimate.wide_interval or estimate.interval
  if interval and interval[0] <= 0 <= interval[1]:
    return (
      f"put {the(label)} about {baseline} (can’t be told apart: {points(estimate.value)} points)"
    )
  way = "above" if estimate.value >= 0 else "below"
  return f"put {the(label)} {size} points {way} {baseline}"


def _order(item: Agreement, rho: float, trained: str) -> str:
  if item.interval and item.interval[0] <= 0 <= item.interval[1]:
    return f"orders cells in no way that could be told from chance by {the(trained)}"
  strength = "largely" if rho >= 0.8 else "roughly" if rho >= 0.5 else "hardly"
  return f"orders cells {strength} as {the(trained)} does"


def _rho_interval(item: Agreement) -> str:
  if item.interval is None:
    return ""
  low, high = item.interval
  return f" (95 % interval {signed(low)} to {signed(high)})"


def signed(value: float) -> str:
  """A correlation: two decimals and a minus that is one."""
  text = f"{value:.2f}"
  return "0.00" if text == "-0.00" else text.replace("-", "−")


def _count(count: int, noun: str) -> str:
  return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
