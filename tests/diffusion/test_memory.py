"""The automatic batch size, from synthetic memory estimates."""

import os
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


@pytest.mark.unchecked
def test_a_program_takes_its_inputs_outputs_temporaries_and_code():
  names = ("argument", "output", "temp", "generated_code", "alias", "host_temp")
  analysis = SimpleNamespace(**{f"{n}_size_in_bytes": 10**i for i, n in enumerate(names)})
  compiled = SimpleNamespace(memory_analysis=lambda: analysis)
  assert memory._bytes(SimpleNamespace(compile=lambda: compiled)) == 1111


@pytest.mark.unchecked
def test_a_device_that_states_no_memory_has_its_share_of_half_of_the_hosts(mesh):
  half = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
  silent = SimpleNamespace(platform="gpu", memory_stats=lambda: None)
  for device in (mesh.devices.flat[0], silent):
    assert memory.memory_of(device, 1) == half
    assert memory.memory_of(device, 3) == half // 3


@pytest.mark.unchecked
@pytest.mark.parametrize(("bytes_of_one", "batch"), [(85, 1), (42, 2), (43, 1), (21, 4), (22, 2)])
def test_the_last_byte_of_85_percent_is_used(monkeypatch, one_device_mesh, bytes_of_one, batch):
  monkeypatch.setattr(memory, "memory_of", lambda device, sharers: 100)
  assert memory.batch_that_fits(program(0, bytes_of_one), one_device_mesh) == batch


@pytest.mark.unchecked
def test_a_program_that_does_not_grow_takes_the_largest_batch(monkeypatch, one_device_mesh):
  monkeypatch.setattr(memory, "memory_of", lambda device, sharers: 100)
  assert memory.batch_that_fits(program(50, 0), one_device_mesh) == 32
  assert memory.batch_that_fits(program(90, 0), one_device_mesh) == 1  # not even one fits


@pytest.mark.unchecked
def test_the_log_tells_the_memory_of_one_image_and_of_two(monkeypatch, one_device_mesh, caplog):
  monkeypatch.setattr(memory, "memory_of", lambda device, sharers: 10**11)
  with caplog.at_level("INFO", memory.logger.name):
    memory.batch_that_fits(program(10**9, 2 * 10**9), one_device_mesh)
  assert caplog.messages == ["32 images per device: 3.00 GB for one, 5.00 GB for two"]
