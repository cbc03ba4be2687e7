"""Counters of generation, on a clock that the test sets."""

import pytest

from genbench_jax.runtime.peak import Peak, peak_of
from genbench_jax.runtime.throughput import Cost, Meter


class Clock:
  now = 0.0

  def __call__(self):
    return self.now


def run_batches(batches):
  """Return a meter after batches of ten images, each given as (launched, ended)."""
  clock = Clock()
  meter = Meter(2, lambda: 4.0, lambda: Peak(100.0, "published"), clock)
  meter.count_flops()
  events = [(launched, 0) for launched, _ in batches] + [(ended, 1) for _, ended in batches]
  for clock.now, ends in sorted(events):
    if ends:
      meter.ended(10)
    else:
      meter.launched()
  return meter.cost()


def test_devices_with_a_next_batch_are_never_idle():
  cost = run_batches([(0, 50), (1, 60), (51, 70), (61, 80)])
  assert cost.waiting_share == 0
  assert (cost.images, cost.seconds) == (40, 80)
  # The first batch, which compiles, is left out of the rate: 30 images in 30 seconds on two chips.
  assert (cost.images_per_second, cost.images_per_second_per_chip) == (1.0, 0.5)
  assert cost.utilization == pytest.approx(0.5 * 4 / 100)
  assert cost.chip_hours == pytest.approx(80 * 2 / 3600)
  assert (
    str(cost) == "0.5/s per chip, devices idle 0.0%, 2.0% of the published peak of 1e-10 TFLOP/s"
  )


def test_gaps_between_batches_are_idle_time():
  cost = run_batches([(0, 50), (55, 60), (65, 70)])
  assert cost.waited_seconds == 10
  assert cost.waiting_share == 0.5


def test_a_single_batch_determines_the_rate():
  cost = run_batches([(0, 5)])
  assert (cost.images_per_second, cost.waiting_share) == (2.0, 0)
  assert str(Cost()) == ""


def test_restarts_add_up():
  one, two = run_batches([(0, 50), (1, 60)]), run_batches([(0, 50), (55, 60), (65, 70)])
  both = one + two
  assert (both.images, both.seconds, both.warm_seconds) == (50, 130, 30)
  assert Cost() + one == one


def test_batches_are_reported():
  told = []
  meter = Meter()
  meter.tell(told.append)
  meter.launched()
  meter.ended(3)
  assert told == [3]


@pytest.mark.unchecked
@pytest.mark.parametrize(
  ("kind", "flops"),
  [
    ("TPU v5 lite", 197e12),
    ("TPU v5", 459e12),
    ("NVIDIA H100 80GB HBM3", 989e12),
    ("NVIDIA H100 PCIe", 756e12),
    ("NVIDIA A100-SXM4-40GB", 312e12),
    ("NVIDIA L4", 121e12),
  ],
)
def test_published_peaks(kind, flops):
  class Device:
    device_kind = kind
    platform = "gpu"

  assert peak_of(Device()) == (flops, "published")


def test_other_devices_are_measured(mesh):
  peak = peak_of(mesh.devices.flat[0])
  assert peak.origin == "measured"
  assert 1e8 < peak.flops < 1e14
