"""Progress of a training: speed, loss curves, and early detection of divergence."""

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jax.sharding import Mesh

from genbench_jax.errors import ModelError
from genbench_jax.recognizers.method import Method, step_flops
from genbench_jax.recognizers.problem import Outcome
from genbench_jax.runtime.peak import peak_of
from genbench_jax.runtime.progress import Progress, tell_curve

CURVE_EVERY = 10


class Report:
  """Reports images per second, loss, accuracy, and model FLOPs utilization (MFU) of a training."""

  def __init__(self, method: Method, name: str, steps: int, batch_size: int, mesh: Mesh) -> None:
    self.method, self.name, self.batch_size = method, name, batch_size
    self._note, self._mesh, self._began = "", mesh, 0.0
    self._images = 0
    self._progress = Progress(
      f"{method.name} {name}", steps * batch_size, "images", lambda: self._note
    )

  def __enter__(self) -> "Report":
    self._began = time.monotonic()
    self._progress.__enter__()
    return self

  def __exit__(self, *error: Any) -> None:
    self._progress.__exit__(*error)

  def step(self, number: int, loss: float, accuracy: float, lanes: int) -> None:
    """Report a finished step of `lanes` cells."""
    self._images += lanes * self.batch_size
    self._note = f"loss {loss:.3f}, accuracy {accuracy:.2f}{self._utilization()}"
    self._progress.advance(lanes * self.batch_size)
    if number % CURVE_EVERY == 0:
      tell_curve(f"{self.method.name}/{self.name}/loss", loss, number)
      tell_curve(f"{self.method.name}/{self.name}/accuracy", accuracy, number)

  def _utilization(self) -> str:
    device = self._mesh.devices.flat[0]
    if device.platform == "cpu":
      return ""
    peak = peak_of(device).flops * self._mesh.size
    return utilization(self._images * self._flops, time.monotonic() - self._began, peak)

  @functools.cached_property
  def _flops(self) -> float:
    return step_flops(self.method)


def utilization(operations: float, seconds: float, peak: float) -> str:
  """Return the MFU: the network's operations over the peak of the devices in the same time.

  Args:
    operations: so far.
    seconds: so far; in the first one there is nothing to say.
    peak: operations per second of all devices.
  """
  return f", MFU {operations / seconds / peak:.0%}" if seconds >= 1 else ""


def watcher(report: "Report", lanes: int) -> Callable[[int, Outcome], None]:
  """Return the callback for each step; a non-finite loss stops a single cell, but not several."""

  def watch(number: int, outcome: Outcome) -> None:
    loss, accuracy = np.asarray(outcome.loss), np.asarray(outcome.accuracy)
    if lanes == 1 and not np.isfinite(loss):
      raise ModelError(
        f"{report.method.name} {report.name}: the loss is {loss} at step {number + 1}. A lower learning rate may help."
      )
    report.step(number, float(np.nanmean(loss)), float(accuracy.mean()), lanes)

  return watch
