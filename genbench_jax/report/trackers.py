"""Where people already look: TensorBoard, and Weights & Biases if it is installed and asked for.

`config.report.trackers` names them. Rows become scalars over shots, one run of the tracker's a source and strategy, so that its
charts overlay them; progress becomes a rate over the images done.
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
  """Takes what a run has to tell."""

  def progress(self, what: str, done: int, unit: str, rate: float) -> None:
    """So many are done, at so many a second."""

  def curve(self, name: str, value: float, step: int) -> None:
    """What a training measured at a step, such as its loss."""

  def rows(self, rows: Sequence[Mapping[str, Any]]) -> None:
    """All rows so far."""

  def close(self) -> None:
    """There is no more."""


@contextlib.contextmanager
def tracking(names: Sequence[str], settings: Mapping[str, Any], workdir: Path) -> Iterator[None]:
  """Tell trackers of all progress meanwhile, and of the work folder's rows in the end.

  Args:
    names: of trackers, keys of `PACKAGES`.
    settings: the config of the run, in plain values.
    workdir: the work folder.

  Raises:
    UsageError: one of them is not installed.
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
  """What stays the same along a curve over shots, in words that are safe as a folder's name."""
  parts = (
    row["source"],
    row.get("generator", ""),
    row["strategy"],
    f"seed{row['seed']}",
    row["protocol"],
  )
  return "-".join(str(part) for part in parts if part != "")


class TensorBoard:
  """Event files in `WORKDIR/tensorboard`; those of the rows are written anew each time."""

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
  """One run a config and work folder, taken up again by later commands; rows as a table. Its own environment variables hold."""

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
