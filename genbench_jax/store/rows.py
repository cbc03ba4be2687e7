"""Rows: measured quantities of cells, one JSON object per line."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from genbench_jax.errors import RunError
from genbench_jax.metrics.registry import usual_quantities
from genbench_jax.store import files

# What a cell is measured with; every row has these keys.
KEYS = ("dataset", "source", "generator", "strategy", "shots", "seed", "protocol", "encoder")
# Quantities that the stage `score` measures by default, see `metrics.registry`.
SCORED = usual_quantities()
# Quantities of the recognizers. The reference protocol reports two values of a linear probe: at the epoch
# with the best test score, as published, and at the last epoch.
RECOGNIZED = ("linear_probe", "linear_probe_last_epoch", "coop", "vpt")
QUANTITIES = SCORED + RECOGNIZED


class Row(TypedDict):
  """A measured quantity of a cell.

  `value` is in the quantity's own unit; accuracies are fractions. Missing intervals are None, and `note`
  says why.

  - `ci_low` to `ci_high`: interval over test images, given these external images.
  - `generator_low` to `generator_high`: interval over newly drawn external images, too, given the generator
    and the budget.
  - `generator`: name of the model or folder that the images come from; empty if there is only one.
  - `floor`: the same quantity for an equal number of real training images. A distance is meaningful only in
    excess of it.
  - `shots_given`: mean number of images per class, over the classes with images.
  - `n_real`: number of real images that the cell used: for training, as references, queries or validation.
  - `versions`: versions of the package and of JAX.
  """

  dataset: str
  source: str
  generator: str
  strategy: str
  shots: int
  seed: int
  protocol: str
  encoder: str
  quantity: str
  value: float
  ci_low: float | None
  ci_high: float | None
  generator_low: float | None
  generator_high: float | None
  note: str
  floor: float | None
  shots_given: float
  n_external: int
  n_test: int
  missing_classes: int
  seconds: float
  n_real: int
  versions: str


COLUMNS = tuple(Row.__annotations__)


RESULTS, RESULTS_CSV, ABOUT_RESULTS = "results.jsonl", "results.csv", "results.about.json"


def write_results(workdir: Path, rows: Sequence[Mapping[str, Any]], run: str = "") -> None:
  """Write `results.jsonl`, `results.csv` and their description, unless they are up to date or empty.

  Args:
    workdir: work folder of the run.
    rows: all rows of a config.
    run: name of the config's file in `runs/`. It keeps the report from showing one config's rows under
      another config's name.
  """
  path, csv, about = (workdir / name for name in (RESULTS, RESULTS_CSV, ABOUT_RESULTS))
  if not rows:
    return
  is_new = not _holds(path, rows)
  if is_new or not csv.exists():  # nothing reads the CSV, so a user may edit it
    files.write_csv(csv, rows, COLUMNS)
  if is_new:
    files.write_json_lines(path, rows)
  if _about(workdir) != described_results(workdir, run):
    files.write_json(about, described_results(workdir, run))


def results_run(workdir: Path) -> tuple[str, bool]:
  """Return the results' run, empty if unknown, and whether they are unchanged since that run."""
  about = _about(workdir)
  run = str(about.get("run", ""))
  return run, not about or about == described_results(workdir, run)


def _holds(path: Path, rows: Sequence[Mapping[str, Any]]) -> bool:
  try:
    return files.read_json_lines(path) == list(rows)
  except (FileNotFoundError, RunError):
    return False


def _about(workdir: Path) -> dict[str, Any]:
  """Return the last run's description of its results; empty if it can't be read."""
  try:
    about = files.read_json(workdir / ABOUT_RESULTS)
  except (FileNotFoundError, RunError):
    return {}
  return about if isinstance(about, dict) else {}


def described_results(workdir: Path, run: str) -> dict[str, Any]:
  """Return the description of the results: their run and checksum."""
  return {"run": run, "sha256": files.sha256(workdir / RESULTS)}


def write_rows(path: Path, rows: Sequence[Row]) -> None:
  """Write rows with a checksum, atomically."""
  files.write_json_lines(path, rows, sealed=True)


def files_behind(workdir: Path, rows: Sequence[Mapping[str, Any]]) -> frozenset[tuple[str, str]]:
  """Return (dataset, name) of each file of `write_rows` in a work folder whose rows are among these.

  Files of other data or settings may have rows of the same cells. Class values, contributions of test images
  and predictions have the names of the files of their rows.
  """
  known = {_key(row): row for row in rows}
  found = set()
  for path in sorted(workdir.glob("rows/*/*.jsonl")):
    first = _first(path)
    if first and known.get(_key(first)) == first:
      found.add((path.parent.name, path.name.removesuffix(".jsonl").removesuffix(".partial")))
  return frozenset(found)


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
  return tuple(map(str, (*(row.get(key) for key in KEYS), row.get("quantity"))))


def _first(path: Path) -> dict[str, Any]:
  """Return the first row of a file; empty if the file is damaged, which its other readers report."""
  try:
    value = json.loads(files.read_text(path).split("\n", 1)[0])
  except (FileNotFoundError, RunError, ValueError, RecursionError):
    return {}
  return value if isinstance(value, dict) else {}


def read_rows(paths: Iterable[Path]) -> list[dict[str, Any]]:
  """Return the rows of several files of `write_rows`, in order."""
  return [row for path in paths for row in files.read_json_lines(path, sealed=True)]
