"""Progress and rows for TensorBoard and Weights & Biases.

`config.report.trackers` names the trackers. Rows become scalars over shots, with one tracker run
per source and strategy, so that the tracker's charts overlay them. Progress becomes a rate over the
number of images.
"""

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from genbench_jax.errors import UsageError
from genbench_jax.report.results import beside_their_encoder
from genbench_jax.runtime.progress import curves_drawn_by, watched_by
from genbench_jax.store import files

PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


@runtime_checkable
class Tracker(Protocol):
  """Interface that receives the progress and rows of a run."""

  def progress(self, what: str, done: int, unit: str, rate: float) -> None:
    """Report progress.

    Args:
      what: name of the work.
      done: number of finished items.
      unit: name of an item.
      rate: items per second.
    """

  def curve(self, name: str, value: float, step: int) -> None:
    """Report a measurement during training.

    Args:
      name: name of the quantity, such as the loss.
      value: its value.
      step: the training step.
    """

  def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
    """Report all rows so far."""

  def close(self) -> None:
    """Finish the run."""


@contextlib.contextmanager
def tracking(names: Sequence[str], settings: Mapping[str, Any], workdir: Path) -> Iterator[None]:
  """Report progress to trackers inside this context, and the work folder's rows at its end.

  Args:
    names: names of trackers, keys of `PACKAGES`.
    settings: the config of the run, in plain values.
    workdir: the work folder.

  Raises:
    UsageError: the package of a tracker is not installed.
  """
  for name in names:
    if importlib.util.find_spec(PACKAGES[name]) is None:
      raise UsageError(
        f"config.report.trackers names {name!r}, but the package {PACKAGES[name]} is not installed."
        f" pip install {PACKAGES[name]}, or leave it out."
      )
  kinds: dict[str, Callable[[Mapping[str, Any], Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
  }
  trackers: list[Tracker] = [kinds[name](settings, workdir) for name in names]
  try:
    with (
      watched_by(*(tracker.progress for tracker in trackers)),
      curves_drawn_by(*(tracker.curve for tracker in trackers)),
    ):
      yield
  finally:
    results = workdir / "results.jsonl"
    for tracker in trackers:
      tracker.rows(files.read_json_lines(results) if results.exists() else [])
      tracker.close()


def series_of(row: Mapping[str, Any]) -> str:
  """Return the name of a curve over shots, safe as a folder name."""
  parts = (
    row["source"],
    row.get("generator", ""),
    row["strategy"],
    f"seed{row['seed']}",
    row["protocol"],
  )
  return "-".join(str(part) for part in parts if part != "")


class TensorBoard:
  """Event files in `WORKDIR/tensorboard`; those of the rows are rewritten each time."""

  def __init__(self, settings: Mapping[str, Any], workdir: Path) -> None:
    self.folder = workdir / "tensorboard"
    self._progress: Any = None

  def progress(self, what: str, done: int, unit: str, rate: float) -> None:
    if self._progress is None:
      self._progress = self._writer("progress")
    self._progress.add_scalar(f"{unit}_a_second/{what}", rate, done)
    self._progress.flush()

  def curve(self, name: str, value: float, step: int) -> None:
    if self._progress is None:
      self._progress = self._writer("progress")
    self._progress.add_scalar(name, value, step)

  def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
    rows = beside_their_encoder(rows)
    for name in dict.fromkeys(series_of(row) for row in rows):
      for old in (self.folder / name).glob("events.out.tfevents.*"):
        old.unlink()
      with self._writer(name) as writer:
        for row in rows:
          if series_of(row) == name:
            writer.add_scalar(f"{row['quantity']}/{row['dataset']}", row["value"], row["shots"])

  def close(self) -> None:
    if self._progress is not None:
      self._progress.close()

  def _writer(self, name: str) -> Any:
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(self.folder / name))


class WeightsAndBiases:
  """One tracker run per config and work folder, which later commands resume.

  Rows are a table. The environment variables of Weights & Biases apply.
  """

  def __init__(self, settings: Mapping[str, Any], workdir: Path) -> None:
    import wandb

    self._wandb = wandb
    self._run = wandb.init(
      project="genbench_jax",
      id=files.digest([dict(settings), str(workdir.resolve())]),
      resume="allow",
      dir=str(workdir),
      config=dict(settings),
    )

  def progress(self, what: str, done: int, unit: str, rate: float) -> None:
    self._run.log({f"{unit}_a_second/{what}": rate, f"{unit}/{what}": done})

  def curve(self, name: str, value: float, step: int) -> None:
    self._run.log({name: value, f"{name}/step": step})

  def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
      columns = list(rows[0])
      data = [[row.get(column) for column in columns] for row in rows]
      self._run.log({"rows": self._wandb.Table(columns=columns, data=data)})

  def close(self) -> None:
    self._run.finish()
