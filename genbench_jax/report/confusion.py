"""Confusion matrices of the test images."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from genbench_jax.report import chart
from genbench_jax.report.labels import budget_words, images_label
from genbench_jax.report.number_words import percent
from genbench_jax.report.quantities import quantity_of
from genbench_jax.report.recognitions import Recognition

# More classes than this are not legible; the most confused ones are shown.
MOST_CLASSES = 24
# Shades of a cell, from few images to all images of the class.
SHADES = 8
WIDE, NARROW = 800.0, 358.0


def confusion_figure(found: Sequence[Recognition]) -> chart.Figure | None:
  """Return the matrix of each dataset and source, shown one at a time; None without predictions."""
  known = [recognition for recognition in _first_seeds(found) if recognition.confusion is not None]
  if not known:
    return None
  variants = [_variant(recognition) for recognition in known]
  return chart.Figure(
    name="confusion",
    title="Confusion matrix",
    caption=(
      f"Test images by true class (rows) and recognized class (columns), {quantity_of(known[0].quantity).label}, "
      f"{budget_words(known[0].shots)}; darker cells are a larger fraction of the row. Of more than {MOST_CLASSES} "
      "classes, the most confused are shown."
    ),
    variants=tuple(reversed(variants)),
    choices=(
      ("Dataset", tuple(dict.fromkeys(v.choice[0] for v in variants))),
      ("Trained on", tuple(dict.fromkeys(v.choice[1] for v in variants))),
    ),
  )


def most_confused(counts: Int[np.ndarray, "k k"], most: int) -> list[int]:
  """Return the classes with the most errors in row or column, in label order."""
  wrong = counts - np.diag(np.diag(counts))
  errors = wrong.sum(axis=0) + wrong.sum(axis=1)
  return sorted(int(i) for i in np.argsort(-errors, kind="stable")[:most])


def taken_for(recognition: Recognition) -> dict[str, str]:
  """Return class name -> the most frequent wrong prediction, with its count."""
  if recognition.confusion is None:
    return {}
  wrong = recognition.confusion - np.diag(np.diag(recognition.confusion))
  best = wrong.argmax(axis=1)
  return {
    name: f"{recognition.class_names[best[i]]} ({wrong[i, best[i]]})"
    for i, name in enumerate(recognition.class_names)
    if wrong[i, best[i]] > 0
  }


def class_counts(found: Sequence[Recognition]) -> dict[str, dict[str, int]]:
  """Return dataset -> class name -> number of test images."""
  return {
    recognition.dataset: dict(
      zip(recognition.class_names, recognition.confusion.sum(axis=1).tolist(), strict=True)
    )
    for recognition in found
    if recognition.confusion is not None
  }


def _first_seeds(found: Sequence[Recognition]) -> list[Recognition]:
  chosen: dict[tuple, Recognition] = {}
  for recognition in sorted(found, key=lambda recognition: recognition.seed):
    chosen.setdefault((recognition.dataset, recognition.series), recognition)
  return list(chosen.values())


def _variant(recognition: Recognition) -> chart.Variant:
  panels = tuple(_panel(recognition, width) for width in (WIDE, NARROW))
  label = images_label(recognition.series.source, recognition.series.generator)
  return chart.Variant((recognition.dataset, label), panels, (), "forest")


@dataclasses.dataclass(frozen=True)
class _Grid:
  """Positions of the cells of a matrix; `letters` is the space for a name."""

  left: float
  top: float
  side: float
  letters: int
  numbered: bool


def _grid(count: int, width: float) -> _Grid:
  wide = width == WIDE
  left, top = (140.0, 96.0) if wide else (76.0, 70.0)
  side = min((width - left - 56) / count, 30.0)
  return _Grid(left, top, side, 18 if wide else 9, wide and side >= 22)


def _panel(recognition: Recognition, width: float) -> chart.Panel:
  assert recognition.confusion is not None
  shown = most_confused(recognition.confusion, MOST_CLASSES)
  counts, names = (
    recognition.confusion[np.ix_(shown, shown)],
    [recognition.class_names[i] for i in shown],
  )
  totals, grid = recognition.confusion.sum(axis=1)[shown], _grid(len(shown), width)
  right, bottom = grid.left + grid.side * len(names), grid.top + grid.side * len(names)
  shapes = [chart.Shape(chart.rectangle(grid.left, grid.top, right, bottom), "frame")]
  note = "recognized as (columns); right: correct, %"
  texts = [*_heads(names, grid), chart.Text(grid.left, bottom + 18, note, "tiny quiet")]
  for row in range(len(names)):
    texts += _row_texts(row, names, counts[row], int(totals[row]), grid)
    shapes += _row_cells(row, names, counts[row], int(totals[row]), grid)
  errors = int(totals.sum() - np.trace(counts))
  return chart.Panel(
    width=width,
    height=bottom + 30,
    title="",
    description=(
      f"{recognition.dataset}, {images_label(recognition.series.source, recognition.series.generator)}: {errors} of {int(totals.sum())} test "
      "images of the classes shown were misclassified."
    ),
    frame=(grid.left, grid.top, right, bottom),
    shapes=tuple(shapes),
    texts=tuple(texts),
    own_grid=True,
  )


def _heads(names: Sequence[str], grid: _Grid) -> list[chart.Text]:
  """Return the rotated column names."""
  return [
    chart.Text(
      grid.left + (i + 0.5) * grid.side + 4,
      grid.top - 6,
      chart.cut(name, grid.letters - 4),
      "tiny",
      "start",
      -60.0,
    )
    for i, name in enumerate(names)
  ]


def _row_texts(
  row: int, names: Sequence[str], counts: Int[np.ndarray, "k"], total: int, grid: _Grid
) -> list[chart.Text]:
  """Return the name of a row, its accuracy, and the counts if the cells are large enough."""
  y = grid.top + (row + 0.5) * grid.side + 4
  right = grid.left + grid.side * len(names)
  recall = counts[row] / total if total else 0.0
  texts = [
    chart.Text(grid.left - 6, y, chart.cut(names[row], grid.letters), "tiny", "end"),
    chart.Text(right + 6, y, percent(recall), "tiny quiet"),
  ]
  for column in np.flatnonzero(counts) if grid.numbered else []:
    dark = counts[column] / max(total, 1) > 0.55
    x = grid.left + (column + 0.5) * grid.side
    css = "tiny count light" if dark else "tiny count"
    texts.append(chart.Text(x, y, str(counts[column]), css, "middle"))
  return texts


def _row_cells(
  row: int, names: Sequence[str], counts: Int[np.ndarray, "k"], total: int, grid: _Grid
) -> list[chart.Shape]:
  """Return a shaded square for every class that images of the row were assigned to."""
  return [
    _cell(
      grid.left + column * grid.side,
      grid.top + row * grid.side,
      grid.side,
      float(counts[column] / max(total, 1)),
      row == column,
      _tip(names[row], names[column], int(counts[column]), total),
    )
    for column in np.flatnonzero(counts).tolist()
  ]


def _cell(x: float, y: float, side: float, share: float, right: bool, tip: str) -> chart.Shape:
  shade = min(SHADES, 1 + int(share * SHADES))
  kind = "hit" if right else "miss"
  inner = chart.rectangle(x + 0.5, y + 0.5, x + side - 0.5, y + side - 0.5)
  return chart.Shape(inner, f"heat {kind} h-{shade}", tip)


def _tip(true: str, taken: str, count: int, total: int) -> str:
  return (
    f"{count} of {total} test images of {true} were classified as {taken}"
    if true != taken
    else f"{count} of {total} test images of {true} were classified correctly"
  )
