"""Output of a training: progress, TensorBoard curves, and the end at a nonfinite loss."""

import jax
import numpy as np
import pytest

from genbench_jax.errors import ModelError
from genbench_jax.models.classifier_cost import network_flops
from genbench_jax.recognizers import from_scratch
from genbench_jax.recognizers.method import Method, step_flops
from genbench_jax.recognizers.problem import Outcome, Problem, View
from genbench_jax.recognizers.settings import FromScratchSettings, Recipe
from genbench_jax.recognizers.training_report import Report, utilization, watcher
from genbench_jax.report.trackers import tracking
from genbench_jax.runtime.mesh import data_mesh
from genbench_jax.runtime.progress import curves_drawn_by

METHOD = Method(
  "from_scratch",
  Problem(lambda *model: model, View(16, (0.5,) * 3, (0.5,) * 3)),
  lambda seed: None,
  Recipe(),
)


def told(steps, lanes=1, losses=None):
  """What the report of a training hears, step by step."""
  with Report(METHOD, "digits 16 shots", steps * lanes, 8, data_mesh(jax.devices()[:1])) as report:
    watch = watcher(report, lanes)
    for number in range(steps):
      loss = 2.0 / (1 + number) if losses is None else losses[number]
      watch(number, Outcome(np.asarray(loss), np.asarray(number / steps)))


def test_curves_have_a_point_every_tenth_step():
  points = []
  with curves_drawn_by(lambda *point: points.append(point)):
    told(21)
  name = "from_scratch/digits 16 shots"
  assert [point for point in points if point[0] == f"{name}/loss"] == [
    (f"{name}/loss", 2.0, 0),
    (f"{name}/loss", pytest.approx(2 / 11), 10),
    (f"{name}/loss", pytest.approx(2 / 21), 20),
  ]
  assert [step for curve, _, step in points if curve == f"{name}/accuracy"] == [0, 10, 20]


def test_tensorboard_shows_them(tmp_path):
  pytest.importorskip("tensorboardX")
  from tests.report.test_trackers import scalars

  with tracking(("tensorboard",), {}, tmp_path):
    told(11)
  found = {
    (tag, step): value for tag, step, value in scalars(tmp_path / "tensorboard" / "progress")
  }
  losses = {step: value for (tag, step), value in found.items() if tag.endswith("/loss")}
  assert losses == {0: 2.0, 10: pytest.approx(2 / 11)}
  assert any(tag.startswith("images_a_second/from_scratch") for tag, _ in found)


def test_a_nonfinite_loss_ends_only_its_own_cell():
  with pytest.raises(ModelError, match="digits 16 shots: the loss is nan at step 2"):
    told(3, losses=[1.0, float("nan"), 1.0])
  told(2, lanes=2, losses=[[1.0, float("nan")], [0.5, float("nan")]])


def test_operations_of_a_step_are_those_of_the_network():
  """XLA also counts norms and activations, and no products with the padding."""
  method = from_scratch.method(FromScratchSettings("resnet8", 32), 10, False)
  assert step_flops(method) == pytest.approx(3 * network_flops("resnet8", 32, 10), rel=0.15)


def test_utilization_is_a_share_of_the_devices_peak():
  assert utilization(4e15, seconds=10, peak=1e15) == ", MFU 40%"
  assert utilization(4e15, seconds=0.5, peak=1e15) == ""


def test_the_accuracy_of_several_cells_is_their_mean():
  points = []
  with (
    curves_drawn_by(lambda *point: points.append(point)),
    Report(METHOD, "digits", 2, 8, data_mesh(jax.devices()[:1])) as report,
  ):
    watcher(report, 2)(0, Outcome(np.array([1.0, np.nan]), np.array([0.5, 1.0])))
  found = {name.rpartition("/")[2]: value for name, value, _ in points}
  assert found["accuracy"] == 0.75 and found["loss"] == 1.0


@pytest.mark.parametrize(
  ("seconds", "shown"), [(0.999, ""), (1.0, ", MFU 50%"), (2.0, ", MFU 25%")]
)
def test_utilization_is_shown_from_the_first_second_on(seconds, shown):
  assert utilization(5e14, seconds, 1e15) == shown


def test_progress_counts_the_images_of_all_cells(monkeypatch):
  advanced = []
  with Report(METHOD, "digits", 6, 8, data_mesh(jax.devices()[:1])) as report:
    monkeypatch.setattr(report._progress, "advance", advanced.append)
    report.step(0, 1.23456, 0.5, 3)
    report.step(1, 0.5, 0.756, 3)
  assert advanced == [24, 24] and report._images == 48
  assert report._note == "loss 0.500, accuracy 0.76"
