"""The answer in plain words."""

from collections.abc import Mapping, Sequence

from genbench_jax.analysis.exchange import ExchangeRate
from genbench_jax.report.agreement import Agreement, agrees
from genbench_jax.report.exchange import exchange_sentence
from genbench_jax.report.gains import average, average_gain, gains, headline_budget
from genbench_jax.report.headline import HeadLine, against_originals
from genbench_jax.report.labels import budget_words, images_words
from genbench_jax.report.number_words import points, the
from genbench_jax.report.quantities import quantity_of
from genbench_jax.report.results import Estimate, Results, Series, with_control

# There is one sentence per source; for more sources than this, the ranking is clearer.
MOST_SENTENCES = 4


def answer(
  results: Results,
  lines: Sequence[HeadLine],
  exchange: Mapping[Series, ExchangeRate] | None = None,
) -> list[str]:
  """Return one sentence per source and comparison: its gain, its extremes and its exchange rate.

  Args:
    results: the rows.
    lines: the comparisons of the head.
    exchange: series -> number of original images with the same accuracy.
  """
  series = results.headline_series()
  if len(series) > MOST_SENTENCES:
    return []
  paragraphs = []
  for item in series:
    sentences = [
      _gain_sentence(results, item, line)
      if line.baseline == "zero-shot"
      else _alone_sentence(results, item, line)
      for line in lines
    ]
    if exchange and item in exchange:
      sentences.append(exchange_sentence(exchange[item]))
    paragraphs.append(" ".join(filter(None, sentences)))
  return [text for text in paragraphs if text]


def control_words(results: Results) -> str:
  """Describe what remains of CLER if the labels of the external images are shuffled."""
  shots = headline_budget(results, "cler")
  series = with_control(results, results.headline_series()[:1], "cler")
  if shots is None or len(series) < 2:
    return ""
  means = [average_gain(results, item, shots, "cler") for item in series]
  if not all(means):
    return ""
  real, shuffled = (points(mean.estimate.value) for mean in means if mean)
  what = images_words(series[0].source, series[0].generator)
  return (
    f"With {budget_words(shots)}, CLER on {what} differs from zero-shot by {real} points; with shuffled "
    f"labels, by {shuffled}. "
    "The difference is due to images that show their class."
  )


def agreement_words(items: Sequence[Agreement]) -> str:
  """Describe how well CLER, and the best other metric, orders the cells as training does."""
  known = [(agrees(item, item.mean), item) for item in items if item.mean is not None]
  cler = next(((rho, item) for rho, item in known if item.metric == "cler"), None)
  if cler is None:
    return ""
  rho, item = cler
  trained = quantity_of(item.recognizer).label
  text = (
    f"CLER, which needs no training, {_order(item, rho, trained)}: mean rank correlation "
    f"{signed(rho)}{_rho_interval(item)} within {_count(len(item.known), 'group')} with equal dataset and "
    "number of images."
  )
  best, best_item = max(known, key=lambda pair: pair[0])
  if best_item is item or best <= rho:
    return text
  quantity = quantity_of(best_item.metric)
  turned = "" if quantity.better == "higher" else ", with its sign reversed"
  return f"{text} The best metric is {quantity.label} ({signed(best)}{turned})."


def _gain_sentence(results: Results, item: Series, line: HeadLine) -> str:
  """Return the mean gain, and the datasets with the smallest and the largest."""
  mean = average_gain(results, item, line.shots, line.quantity)
  if mean is None:
    return ""
  verdict = _verdict(mean.estimate, quantity_of(line.quantity).label, "zero-shot")
  by_dataset = gains(results, item, line.shots, line.quantity)
  return f"{_images_of(item)} {verdict} with {budget_words(line.shots)}{_spread(by_dataset)}."


def _alone_sentence(results: Results, item: Series, line: HeadLine) -> str:
  """Return the mean difference from as many original images."""
  by_dataset = against_originals(results, item, line.shots, line.quantity)
  mean = average(by_dataset, results.datasets)
  if mean is None or item.source == "original":
    return ""
  label = quantity_of(line.quantity).label
  verdict = _verdict(mean.estimate, label, "its accuracy on as many original images")
  return f"By themselves, without text, they {verdict}{_spread(by_dataset)}."


def _spread(by_dataset: dict[str, Estimate]) -> str:
  """Describe the number of datasets, and the smallest and largest value."""
  if len(by_dataset) == 1:
    return f", on {next(iter(by_dataset))}"
  least = min(by_dataset, key=lambda name: by_dataset[name].value)
  most = max(by_dataset, key=lambda name: by_dataset[name].value)
  return (
    f", on average over {len(by_dataset)} datasets: from {points(by_dataset[least].value)} on {least} to "
    f"{points(by_dataset[most].value)} on {most}"
  )


def _images_of(item: Series) -> str:
  """Return `Generated images` or `The images of NAME`, to begin a sentence."""
  words = images_words(item.source, item.generator)
  return words[0].upper() + words[1:]


def _verdict(estimate: Estimate, label: str, baseline: str) -> str:
  """Describe a difference, judged by the wider of its intervals."""
  size = points(abs(estimate.value)).lstrip("+")
  interval = estimate.wide_interval or estimate.interval
  if interval and interval[0] <= 0 <= interval[1]:
    return f"leave {the(label)} level with {baseline} (can’t be told apart: {points(estimate.value)} points)"
  way = "above" if estimate.value >= 0 else "below"
  return f"put {the(label)} {size} points {way} {baseline}"


def _order(item: Agreement, rho: float, trained: str) -> str:
  if item.interval and item.interval[0] <= 0 <= item.interval[1]:
    return f"orders cells no better than chance, judged by {the(trained)}"
  strength = "largely" if rho >= 0.8 else "roughly" if rho >= 0.5 else "hardly"
  return f"orders cells {strength} as {the(trained)} does"


def _rho_interval(item: Agreement) -> str:
  if item.interval is None:
    return ""
  low, high = item.interval
  return f" (95 % interval {signed(low)} to {signed(high)})"


def signed(value: float) -> str:
  """Return a correlation with two decimals and a typographic minus sign."""
  text = f"{value:.2f}"
  return "0.00" if text == "-0.00" else text.replace("-", "−")


def _count(count: int, noun: str) -> str:
  return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
