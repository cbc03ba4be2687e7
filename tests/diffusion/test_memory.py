"""The automatic batch size, from synthetic memory estimates."""

from types import SimpleNamespace

import pytest

from genbench_jax.diffusion import memory


def program(constant, per_image):
  """Return a program with a given memory estimate."""

  def lower(size):
    analysis = SimpleNamespace(
      argument_size_in_bytes=constant,
      output_size_in_bytes=0,
      temp_size_in_bytes=size * per_image,
      generated_code_size_in_bytes=0,
    )
    return SimpleNamespace(compile=lambda: SimpleNamespace(memory_analysis=lambda: analysis))

  return lower


@pytest.mark.unchecked
@pytest.mark.parametrize(
  "constant,per_image,batch", [(0, 10, 8), (50, 10, 2), (0, 1, 32), (90, 90, 1)]
)
def test_largest_power_of_two_that_fits(monkeypatch, one_device_mesh, constant, per_image, batch):
  monkeypatch.setattr(memory, "memory_of", lambda device, sharers: 100)
  assert memory.batch_that_fits(program(constant, per_image), one_device_mesh) == batch


def test_cpu_devices_share_the_machines_memory(mesh):
  device = mesh.devices.flat[0]
  assert memory.memory_of(device, 8) == memory.memory_of(device, 1) // 8 > 1e8


@pytest.mark.unchecked
def test_accelerators_say_what_they_have(mesh):
  stats = {"bytes_limit": 80}
  device = SimpleNamespace(platform="gpu", memory_stats=lambda: stats)
  assert memory.memory_of(device, 8) == 80
