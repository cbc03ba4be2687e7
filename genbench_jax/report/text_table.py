"""Rows as a plain-text table for the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from genbench_jax.report.labels import FEWER_THAN_ASKED, images_label, shots_label
from genbench_jax.report.number_words import shown
from genbench_jax.report.quantities import Quantity, by_quantity, in_space, known_name, quantity_of

ARROWS = {"higher": "↑", "lower": "↓"}
UNITS = {"accuracy": "%", "difference": "points", "number": ""}
# Zero-shot uses no images and has its own line. Control rows are explained below the table.
_LEFT_OUT = ("control",)
_NOTE = "{} of the rows are controls, the same images with shuffled labels. They are in results.jsonl and on the page."

Row = Mapping[str, Any]


def table(rows: Sequence[Row], width: int | None = None) -> str:
  """Return the rows as a table: one block per source, one line per quantity, one column per shots.

  A name is followed by its unit and an arrow toward better values. A value follows its 95 %
  interval, so the last word of a line is a number, for people and for `awk`. Values are means over
  seeds.

  Args:
    rows: the rows.
    width: characters of a line; a wider block is continued below itself. None never breaks.
  """
  shown_rows = [row for row in rows if row["source"] not in _LEFT_OUT]
  main = _main_encoder(shown_rows)
  blocks = [zero_shot_line(shown_rows)]
  for protocol in dict.fromkeys(row["protocol"] for row in shown_rows):
    of_protocol = [row for row in shown_rows if row["protocol"] == protocol]
    for label in dict.fromkeys(map(_label, of_protocol)):
      of_label = [
        row for row in of_protocol if _label(row) == label and row["quantity"] != "zero_shot"
      ]
      blocks.append(_block(f"{label}, {protocol} protocol", of_label, main, width))
      blocks.append(_short_note(label, of_label))
  controls = len(rows) - len(shown_rows)
  return "\n\n".join(filter(None, [*blocks, _NOTE.format(controls) if controls else ""]))


def _short_note(label: str, rows: Sequence[Row]) -> str:
  """Return a sentence if a source has fewer images per class than a column says; empty if not."""
  given = [row.get("shots_given") or row["shots"] for row in rows]
  short = [n for n, row in zip(given, rows, strict=True) if n < FEWER_THAN_ASKED * row["shots"]]
  if not short:
    return ""
  return (
    f"{label} has {max(short):.3g} images per class, on average. Columns with more use all of them."
  )


def zero_shot_line(rows: Sequence[Row]) -> str:
  """Return the zero-shot accuracy of each dataset; empty if it was not measured."""
  found: dict[str, Row] = {}
  for row in rows:
    if row["quantity"] == "zero_shot":
      found.setdefault(row["dataset"], row)
  quantity = quantity_of("zero_shot")
  return "\n".join(
    f"zero-shot on {name}, without these images: {' '.join(reversed(_cell(quantity, [row]).rsplit(' ', 1)))} %"
    for name, row in found.items()
  )


def _label(row: Row) -> str:
  parts = (images_label(row["source"], row.get("generator", "")), row.get("strategy", ""))
  return ", ".join(part for part in parts if part)


def _main_encoder(rows: Sequence[Row]) -> str:
  """Return the encoder of the first row; other encoders appear in a quantity's name."""
  return next((row.get("encoder", "") for row in rows), "")


def _block(head: str, rows: Sequence[Row], main_encoder: str, width: int | None) -> str:
  columns = sorted({row["shots"] for row in rows})
  cells: dict[str, dict[int, list[Row]]] = {}
  for row in rows:
    encoder = row.get("encoder", "")
    name = row["quantity"] if encoder in ("", main_encoder) else in_space(row["quantity"], encoder)
    cells.setdefault(name, {}).setdefault(row["shots"], []).append(row)
  lines = [[head, *(f"{shots_label(shots)} per class" for shots in columns)]]
  for name in sorted(cells, key=by_quantity):
    quantity = quantity_of(name)
    values = [_cell(quantity, cells[name].get(shots, [])) for shots in columns]
    lines.append([_name(quantity), *values])
  return "\n\n".join(aligned(part) for part in _parts(lines, width))


def _parts(lines: Sequence[Sequence[str]], width: int | None) -> Iterator[list[list[str]]]:
  """Yield the lines with as many columns at a time as fit, each with the first column."""
  widths = [2 + max(map(len, column)) for column in zip(*lines, strict=True)]
  start = 1
  while start < len(widths):
    end = start + 1
    while end < len(widths) and (
      width is None or widths[0] + sum(widths[start : end + 1]) - 2 <= width
    ):
      end += 1
    yield [[line[0], *line[start:end]] for line in lines]
    start = end


def _name(quantity: Quantity) -> str:
  unit = UNITS[quantity.kind]
  # The page does not know the direction of a metric that a plug-in has registered.
  arrow = ARROWS[quantity.better] if known_name(quantity.name) else ""
  return f"{quantity.label} {f'({unit}) ' if unit else ''}{arrow}".rstrip()


def _cell(quantity: Quantity, rows: Sequence[Row]) -> str:
  """Return the mean over seeds, with the interval of one seed or the range of several."""
  if not rows:
    return ""
  value = shown(quantity, float(np.mean([row["value"] for row in rows])))
  given = [row.get(end) for row in rows for end in ("ci_low", "ci_high")]
  ends = [float(end) for end in given if end is not None]
  if len(ends) < len(given):
    return value
  low, high = (float(np.mean(ends[at::2])) for at in range(2))
  return f"[{shown(quantity, low)}, {shown(quantity, high)}] {value}"


def aligned(lines: Sequence[Sequence[str]]) -> str:
  """Return lines of cells in columns, the first left-aligned, the others right-aligned."""
  count = max(map(len, lines))
  widths = [max(len(line[at]) if at < len(line) else 0 for line in lines) for at in range(count)]
  return "\n".join(
    "  ".join(
      [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=False))]
    ).rstrip()
    for line in lines
  )
