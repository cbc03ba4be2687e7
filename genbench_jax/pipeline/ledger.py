"""The cost of the runs of a config on a work folder, over all restarts."""

import dataclasses
import time
from pathlib import Path
from typing import Any

import jax

from genbench_jax.config import Config
from genbench_jax.runtime.throughput import Cost
from genbench_jax.store import files


class Ledger:
  """Seconds and images of each stage, cost of each generated image set, and facts for the page."""

  def __init__(self, workdir: Path, config: Config, command: str) -> None:
    self.config = config
    self.name = files.digest(config.as_json())
    self.path = workdir / "runs" / f"{self.name}.json"
    self.entry: dict[str, Any] = {
      "command": command,
      "started": _now(),
      "seconds": {},
      "images": {},
    }
    if self.path.exists():
      self.entry = _stored(self.path)
    self.entry.setdefault("costs", {})
    # Identifies the rows for a page that is made without the config.
    self.entry |= {"run": self.name, "title": config.report.title, "config": config.as_json()}

  def keep(self) -> None:
    """Write the config, for readers of its rows."""
    if not self.path.exists():
      files.write_json(self.path, self.entry)

  def add(self, stage: str, done: int, seconds: float) -> None:
    """Record work of a stage.

    Args:
      stage: name of the stage.
      done: number of images or cells.
      seconds: wall-clock time.
    """
    if done:
      totals = self.entry["seconds"]
      totals[stage] = round(totals.get(stage, 0.0) + seconds, 3)
      if stage in ("images", "embed"):
        self.entry["images"][stage] = self.entry["images"].get(stage, 0) + done
      files.write_json(self.path, self.entry)

  def add_cost(self, image_set: str, cost: Cost) -> None:
    """Record the cost of generated images of a set."""
    if cost.images:
      fields = {field.name for field in dataclasses.fields(Cost)}
      before = self.entry["costs"].get(image_set, {})
      before = Cost(**{name: value for name, value in before.items() if name in fields})
      self.entry["costs"][image_set] = (before + cost).as_json()
      files.write_json(self.path, self.entry)

  def about(self) -> dict[str, Any]:
    """Return the report's `RunInfo`."""
    devices = jax.devices()
    return {
      **self.entry,
      "datasets": tuple(self.config.specs),
      "versions": _versions(),
      "device": f"{len(devices)} x {devices[0].device_kind}",
      "devices": len(devices),
    }


def _stored(path: Path) -> dict[str, Any]:
  """Return the entry of earlier runs.

  Raises:
    RunError: the file is damaged.
  """
  entry = files.read_json(path)
  with files.reading(path):
    return {**entry, **{name: dict(entry[name]) for name in ("seconds", "images")}}


def _now() -> str:
  return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())


def _versions() -> dict[str, str]:
  from importlib.metadata import version

  packages = ("genbench_jax", "jax", "flax", "optax", "diffusers", "transformers", "numpy")
  return {package: version(package) for package in packages}
