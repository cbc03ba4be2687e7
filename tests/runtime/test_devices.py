"""Numbers of devices that the environment shows before JAX starts."""

import pytest

from genbench_jax.runtime.devices import Devices, declared_devices

EIGHT = "--xla_force_host_platform_device_count=8"


@pytest.mark.parametrize(
  ("environment", "expected"),
  [
    ({"JAX_PLATFORMS": "cpu"}, ("cpu", 1)),
    ({"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_dump_to=x {EIGHT}"}, ("cpu", 8)),
    ({"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{EIGHT} {EIGHT[:-1]}2"}, ("cpu", 2)),
    ({"JAX_PLATFORMS": "cpu", "XLA_FLAGS": EIGHT, "JAX_NUM_CPU_DEVICES": "4"}, ("cpu", 4)),
    ({"JAX_PLATFORMS": "cuda,cpu", "CUDA_VISIBLE_DEVICES": "3"}, ("cuda", 1)),
    ({"JAX_PLATFORMS": "cuda", "CUDA_VISIBLE_DEVICES": "0, GPU-8932f937,-1,2"}, ("cuda", 2)),
    ({"JAX_PLATFORMS": "cuda", "JAX_LOCAL_DEVICE_IDS": "0,1"}, ("cuda", 2)),
    ({"JAX_PLATFORMS": "cuda"}, ("cuda", 2)),
    ({"JAX_PLATFORMS": "tpu"}, ("tpu", 4)),
    ({"JAX_PLATFORMS": "tpu", "TPU_VISIBLE_DEVICES": "0,1"}, ("tpu", 2)),
    ({"JAX_PLATFORMS": "rocm"}, ("", -1)),
  ],
)
def test_number_of_devices(tmp_path, environment, expected):
  (tmp_path / "dev").mkdir()
  for name in ("nvidia0", "nvidia1", "nvidiactl", "accel0", "accel1", "accel2", "accel3"):
    (tmp_path / "dev" / name).touch()
  assert declared_devices(environment, tmp_path)[:2] == expected


def test_only_known_numbers_are_compared():
  assert Devices("cpu", 1, "default").equal(Devices("cpu", 1, "XLA_FLAGS"))
  assert not Devices("cpu", 1).equal(Devices("cuda", 1))
  assert Devices("cpu", 1).equal(Devices())
