"""Predictions that the recognizers stored in the work folder: confusions, hits and the penalty."""

import csv
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from genbench_jax.report.quantities import RECOGNIZERS
from genbench_jax.report.results import Row, Series
from genbench_jax.store import files
from genbench_jax.store.image_set import distinct_names
from genbench_jax.store.rows import files_behind

FOLDER = re.compile(r"^(?P<quantity>[a-z_]+)-(?P<protocol>[a-z]+)-(?P<shots>\d+)shots$")
MEND = "Delete its folder and the rows of the same name, then run again."


@dataclasses.dataclass(frozen=True)
class Recognition:
  """Predictions of one recognizer on one cell.

  Attributes:
    class_names: names in label order.
    confusion: true classes (rows) by predicted classes (columns); None for multi-label sets.
    hits: 1 where a test image was recognized, in the order of the test set; None if it was not
      kept.
    penalty, grid: the chosen penalty of the linear probe, and all that were tried.
  """

  dataset: str
  series: Series
  shots: int
  seed: int
  quantity: str
  class_names: tuple[str, ...] = ()
  confusion: Int[np.ndarray, "k k"] | None = None
  penalty: float | None = None
  grid: tuple[float, ...] = ()

  @property
  def at_edge(self) -> bool:
    """Whether the penalty is the smallest or largest that was tried."""
    return (
      self.penalty is not None
      and len(self.grid) > 1
      and self.penalty in (min(self.grid), max(self.grid))
    )


def recognitions(
  workdir: Path, rows: Sequence[Row], quantity: str, shots: int, protocol: str
) -> list[Recognition]:
  """Return the stored predictions behind the rows of one recognizer.

  A folder is used only if it belongs to the rows and its score equals that of a row, since folders
  of other data and settings may exist.

  Args:
    workdir: work folder of the run.
    rows: rows of `results.jsonl`.
    quantity: the recognizer.
    shots: images per class.
    protocol: `strict` or `reference`.
  """
  if quantity not in RECOGNIZERS:
    return []
  values = {
    _key(row): row["value"] for row in rows if (row["quantity"], row["shots"]) == (quantity, shots)
  }
  found: dict[tuple[Any, ...], Recognition] = {}
  behind = files_behind(workdir, rows)
  for path in sorted(
    workdir.glob(f"recogni[sz]ers/*/*/{quantity}-{protocol}-{shots}shots/summary.json")
  ):
    of_rows = path.parent.parent
    if (of_rows.parent.name, of_rows.name) not in behind:
      continue
    with files.reading(path, MEND):
      summary = files.read_json(path)
      summary.setdefault("generator", _generator(workdir, of_rows))
      key = _key(summary)
      if values.get(key) == summary.get("score") and key not in found:
        found[key] = _recognition(path.parent, summary, quantity, shots)
  return list(found.values())


def _generator(workdir: Path, folder: Path) -> str:
  """Return the generator of a recognizer's training images from its rows; empty without rows."""
  rows = workdir / "rows" / folder.parent.name / f"{folder.name}.jsonl"
  if not rows.exists():
    return ""
  first = next(iter(files.read_json_lines(rows, sealed=True)), {})
  return str(first.get("generator") or "")


def _key(of: Mapping[str, Any]) -> tuple[Any, ...]:
  return (
    of.get("dataset"),
    of.get("source"),
    of.get("generator") or "",
    of.get("strategy") or "",
    of.get("seed") or 0,
  )


def _recognition(
  folder: Path, summary: Mapping[str, Any], quantity: str, shots: int
) -> Recognition:
  names, confusion = _confusion(folder / "confusion.csv")
  losses = summary.get("validation_losses")
  grid = tuple(float(name) for name in losses) if isinstance(losses, Mapping) else ()
  penalty = summary.get("penalty")
  return Recognition(
    summary["dataset"],
    Series(summary["source"], summary.get("strategy") or "", summary.get("generator") or ""),
    shots,
    summary.get("seed") or 0,
    quantity,
    names,
    confusion,
    _nearest(penalty, grid),
    grid,
  )


def _nearest(penalty: float | None, grid: Sequence[float]) -> float | None:
  """Return the exact value of the grid, since the summary stores a 32-bit float."""
  if penalty is None or not grid:
    return penalty
  return min(grid, key=lambda value: abs(value - penalty))


def _confusion(path: Path) -> tuple[tuple[str, ...], Int[np.ndarray, "k k"] | None]:
  if not path.exists():
    return (), None
  with files.reading(path, MEND):
    return _confusion_of(path)


def _confusion_of(path: Path) -> tuple[tuple[str, ...], Int[np.ndarray, "k k"] | None]:
  lines = list(csv.reader(io.StringIO(files.read_text(path), newline="")))
  # A label prefix distinguishes equal names of different classes.
  names = distinct_names([name.partition(" ")[2] for name in lines[0][1:]])
  counts = np.array([[int(value) for value in line[1:]] for line in lines[1:]])
  return tuple(names), counts if counts.shape == (len(names), len(names)) else None


def _plain(value: float) -> str:
  """Return a number to three digits, without an exponent."""
  return np.format_float_positional(value, precision=3, fractional=False, trim="-")


def penalty_words(found: Sequence[Recognition]) -> str:
  """Describe the chosen penalties and how many are at the edge of the grid."""
  known = [
    recognition for recognition in found if recognition.penalty is not None and recognition.grid
  ]
  if not known:
    return ""
  chosen = sorted({recognition.penalty for recognition in known if recognition.penalty is not None})
  grid = sorted({value for recognition in known for value in recognition.grid})
  span = " to ".join(dict.fromkeys((_plain(chosen[0]), _plain(chosen[-1]))))
  text = f"Its penalty was chosen on held-out training images among {_plain(grid[0])} to {_plain(grid[-1])}: {span} in the headline's cells"
  edge = sum(recognition.at_edge for recognition in known)
  return (
    f"{text}; {edge} of {len(known)} lie at the edge of the grid."
    if edge
    else f"{text}, none at the edge of the grid."
  )
