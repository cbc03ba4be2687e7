"""A sortable table of all classes: accuracy, gain from the images, most frequent confusion."""

from collections.abc import Mapping, Sequence
from typing import Any

from genbench_jax.report.classes import ClassScores, Counts, class_gain, headline_scores, wilson
from genbench_jax.report.results import Estimate, Series

# With more classes, the page shows those with the largest gains and losses. The file has all.
MOST_LINES = 3000

Confusions = Mapping[tuple[str, Series], Mapping[str, str]]


def class_data(
  all_scores: Sequence[ClassScores], counts: Counts, taken: Confusions
) -> tuple[dict[str, Any], int] | None:
  """Return the table for the page's script and the number of omitted lines; None without scores.

  Args:
    all_scores: accuracies of the classes.
    counts: dataset -> class -> number of test images.
    taken: dataset and series -> class -> its most frequent confusion.
  """
  chosen = headline_scores(all_scores)
  if not chosen:
    return None
  series = sorted({cell.series for cell in chosen}, key=lambda item: item.order)
  scores = {(cell.dataset, cell.series): cell for cell in chosen}
  lines = [
    (dataset, name)
    for dataset in dict.fromkeys(cell.dataset for cell in chosen)
    for name in dict.fromkeys(
      name for cell in chosen if cell.dataset == dataset for name in cell.zero_shot
    )
  ]
  kept = _thinned(lines, scores, series)
  columns = [
    {"name": "dataset", "label": "dataset", "kind": "key"},
    {"name": "class", "label": "class", "kind": "key"},
    {"name": "tests", "label": "test images", "kind": "fact"},
    {"name": "zero_shot", "label": "zero-shot", "kind": "accuracy"},
  ]
  for item in series:
    label = item.label
    columns += [
      {"name": "score", "label": label, "kind": "accuracy"},
      {"name": "gain", "label": "gain", "kind": "difference"},
    ]
    if any(key[1] == item for key in taken):
      columns.append({"name": "taken", "label": "most often classified as", "kind": "fact"})
  rows = [_line(dataset, name, series, scores, counts, taken) for dataset, name in kept]
  return {"columns": columns, "rows": rows, "noun": "classes"}, len(lines) - len(kept)


def _line(
  dataset: str,
  name: str,
  series: Sequence[Series],
  scores: Mapping[tuple[str, Series], ClassScores],
  counts: Counts,
  taken: Confusions,
) -> list[Any]:
  count = counts.get(dataset, {}).get(name)
  known = [
    cell for (where, _), cell in scores.items() if where == dataset and name in cell.zero_shot
  ]
  values: list[Any] = [dataset, name, count, _numbers(wilson(known[0].zero_shot[name], count))]
  for item in series:
    mine = scores.get((dataset, item))
    score = wilson(mine.scores[name], count) if mine and name in mine.scores else None
    values += [_numbers(score), _numbers(class_gain(mine, name, count))]
    if any(key[1] == item for key in taken):
      values.append(taken.get((dataset, item), {}).get(name))
  return values


def _thinned(
  lines: Sequence[tuple[str, str]],
  scores: Mapping[tuple[str, Series], ClassScores],
  series: Sequence[Series],
) -> list[tuple[str, str]]:
  """Return the lines that fit: the classes of each dataset with extreme gains."""
  if len(lines) <= MOST_LINES:
    return list(lines)
  datasets = list(dict.fromkeys(dataset for dataset, _ in lines))
  share = max(2, MOST_LINES // len(datasets))
  kept = []
  for dataset in datasets:
    names = [name for where, name in lines if where == dataset]
    first = next((scores[dataset, item] for item in series if (dataset, item) in scores), None)
    ranked = sorted(names, key=lambda name: _gain(first, name))
    shown = {*ranked[: share // 2], *ranked[-(share // 2) :]} if len(names) > share else {*names}
    kept += [(dataset, name) for name in names if name in shown]
  return kept


def _gain(scores: ClassScores | None, name: str) -> float:
  estimate = class_gain(scores, name, None)
  return estimate.value if estimate else 0.0


def _numbers(estimate: Estimate | None) -> list[float] | None:
  if estimate is None:
    return None
  ends = (estimate.value, estimate.low, estimate.high)
  return [float(f"{end:.6g}") for end in ends if end is not None]
