"""Rows: one measured quantity of a cell, one JSON object a line."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

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


COLUMNS = tuple(Row.__annotations__)


def write_results(workdir: Path, rows: Sequence[Mapping[str, Any]]) -> None:
  """Writes `results.jsonl` and `results.csv`, unless they hold these rows already or there are none."""
  path = workdir / "results.jsonl"
  if not rows or (path.exists() and files.read_json_lines(path) == list(rows)):
    return
  files.write_csv(workdir / "results.csv", rows, COLUMNS)
  files.write_json_lines(path, rows)


def write_rows(path: Path, rows: Sequence[Row]) -> None:
  """Writes rows with their checksum, whole or not at all."""
  files.write_json_lines(path, rows, sealed=True)


def read_rows(paths: Iterable[Path]) -> list[dict[str, Any]]:
  """The rows of several files that `write_rows` wrote, in their order."""
  return [row for path in paths for row in files.read_json_lines(path, sealed=True)]
