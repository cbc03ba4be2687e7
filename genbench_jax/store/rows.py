"""Rows: one measured quantity of a cell, one JSON object a line."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from genbench_jax.errors import RunError
from genbench_jax.metrics.registry import usual_quantities
from genbench_jax.store import files

# What the stage `score` measures unless a config says otherwise, see `metrics.registry`.
SCORED = usual_quantities()
# Of the recognizers. The reference protocol has two figures of a linear probe: that of the epoch with the best test
# score, which was published, and that of the last epoch.
RECOGNIZED = ("linear_probe", "linear_probe_last_epoch", "coop", "vpt")
QUANTITIES = SCORED + RECOGNIZED


class Row(TypedDict):
  """`value` is in the quantity's own unit, accuracies as fractions; None where there is no interval.

  `ci_low` to `ci_high` is for these images: how the value varies with the test images. `generator_low` to `generator_high`
  is for this generator at this budget: external images drawn anew, too. `note` says why one is missing.
  `generator` is the name of the model or folder that the images are from, empty where there is but one.
  `floor` is the same distance of as many real training images; what a distance says is its excess over that.
  `shots_given` is how many images a class there were, in the mean over the classes that have some.
  `n_real` is how many real images the cell has seen: for training, as references, queries or validation data.
  `versions` are those of the package and of JAX that measured it.
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
  """Write `results.jsonl`, `results.csv` and what they are, unless they stand there already or there are no rows.

  Args:
    workdir: of the run.
    rows: all rows of a config.
    run: the name of the config's file in `runs/`, so that a page is never made of one config's rows under another's name.
  """
  path, csv, about = (workdir / name for name in (RESULTS, RESULTS_CSV, ABOUT_RESULTS))
  if not rows:
    return
  is_new = not _holds(path, rows)
  if is_new or not csv.exists():  # one that the user has edited stays: it is nobody's source
    files.write_csv(csv, rows, COLUMNS)
  if is_new:
    files.write_json_lines(path, rows)
  if _about(workdir) != described_results(workdir, run):
    files.write_json(about, described_results(workdir, run))


def results_run(workdir: Path) -> tuple[str, bool]:
  """Return which run the results are of, empty where that is not known, and whether they are as that run wrote them."""
  about = _about(workdir)
  run = str(about.get("run", ""))
  return run, not about or about == described_results(workdir, run)


def _holds(path: Path, rows: Sequence[Mapping[str, Any]]) -> bool:
  try:
    return files.read_json_lines(path) == list(rows)
  except (FileNotFoundError, RunError):
    return False


def _about(workdir: Path) -> dict[str, Any]:
  """What the last run wrote of its results; empty where nothing can be read."""
  try:
    about = files.read_json(workdir / ABOUT_RESULTS)
  except (FileNotFoundError, RunError):
    return {}
  return about if isinstance(about, dict) else {}


def described_results(workdir: Path, run: str) -> dict[str, Any]:
  """What stands beside the results: whose they are, and their checksum."""
  return {"run": run, "sha256": files.sha256(workdir / RESULTS)}


def write_rows(path: Path, rows: Sequence[Row]) -> None:
  """Writes rows with their checksum, whole or not at all."""
  files.write_json_lines(path, rows, sealed=True)


def read_rows(paths: Iterable[Path]) -> list[dict[str, Any]]:
  """The rows of several files that `write_rows` wrote, in their order."""
  return [row for path in paths for row in files.read_json_lines(path, sealed=True)]
