"""Confusion matrices: what the test images of each class were taken for."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from genbench_jax.report import chart
from genbench_jax.report.quantities import budget_words, images_label, percent, quantity_of
from genbench_jax.report.recognitions import Recognition

# More classes than this can't be told apart in the figure: those that are confused most are shown.
MOST_CLASSES = 24
# Shades of a cell, from a trace to all images of the class.
SHADES = 8
WIDE, NARROW = 800.0, 358.0


def confusion_figure(found: Sequence[Recognition]) -> chart.Figure | None:
  """Return the matrix of each dataset and source, one seen at a time; None where none was kept."""
  known = [one for one in _first_seeds(found) if one.confusion is not None]
  if not known:
    return None
  variants = [_variant(one) for one in known]
  return chart.Figure(
    name="confusion",
    title="What was taken for what",
    caption=(
      f"Test images by true class (rows) and recognized class (columns), {quantity_of(known[0].quantity).label}, "
      f"{budget_words(known[0].shots)}; the darker, the larger the share of the row. Of more than {MOST_CLASSES} "
      "classes those that are confused most are shown."
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


def taken_for(one: Recognition) -> dict[str, str]:
  """Return class name -> what its missed test images were most often taken for, with how many."""
  if one.confusion is None:
    return {}
  wrong = one.confusion - np.diag(np.diag(one.confusion))
  best = wrong.argmax(axis=1)
  return {
    name: f"{one.class_names[best[i]]} ({wrong[i, best[i]]})"
    for i, name in enumerate(one.class_names)
    if wrong[i, best[i]] > 0
  }


def class_counts(found: Sequence[Recognition]) -> dict[str, dict[str, int]]:
  """Return dataset -> class name -> how many test images it has."""
  return {
    one.dataset: dict(zip(one.class_names, one.confusion.sum(axis=1).tolist(), strict=True))
    for one in found
    if one.confusion is not None
  }


def _first_seeds(found: Sequence[Recognition]) -> list[Recognition]:
  chosen: dict[tuple, Recognition] = {}
  for one in sorted(found, key=lambda one: one.seed):
    chosen.setdefault((one.dataset, one.series), one)
  return list(chosen.values())


def _variant(one: Recognition) -> chart.Variant:
  panels = tuple(_panel(one, width) for width in (WIDE, NARROW))
  label = images_label(one.series.source, one.series.generator)
  return chart.Variant((one.dataset, label), panels, (), "forest")


@dataclasses.dataclass(frozen=True)
class _Grid:
  """Where the cells of a matrix stand; `letters` of a name have room."""

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


def _panel(one: Recognition, width: float) -> chart.Panel:
  assert one.confusion is not None
  shown = most_confused(one.confusion, MOST_CLASSES)
  counts, names = one.confusion[np.ix_(shown, shown)], [one.class_names[i] for i in shown]
  totals, grid = one.confusion.sum(axis=1)[shown], _grid(len(shown), width)
  right, bottom = grid.left + grid.side * len(names), grid.top + grid.side * len(names)
  shapes = [chart.Shape(chart.rectangle(grid.left, grid.top, right, bottom), "frame")]
  note = "recognized as (columns); right: share recognized, %"
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
      f"{one.dataset}, {images_label(one.series.source, one.series.generator)}: {errors} of {int(totals.sum())} test "
      "images of the classes shown were missed."
    ),
    frame=(grid.left, grid.top, right, bottom),
    shapes=tuple(shapes),
    texts=tuple(texts),
    own_grid=True,
  )


def _heads(names: Sequence[str], grid: _Grid) -> list[chart.Text]:
  """The names of the columns, turned so that they stand beside each other."""
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
  """The name of a row, its share recognized, and the counts where cells are large enough."""
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
  """A shaded square for every class that some image of the row was taken for."""
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
    f"{count} of {total} test images of {true} were taken for {taken}"
    if true != taken
    else f"{count} of {total} test images of {true} were recognized"
  )
