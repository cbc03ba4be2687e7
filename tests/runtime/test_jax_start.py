"""Startup of JAX: several CPU devices in one process have threads enough."""

import os
import subprocess
import sys

import pytest

from genbench_jax.runtime.jax_start import thread_settings

# Three fits side by side; on two cores this waited forever with as many threads as devices.
FITS = """
from genbench_jax.runtime.jax_start import start_jax
start_jax()
import jax, numpy as np
from genbench_jax.recognizers.strict_probe import TrainingSet, fit_strict
from genbench_jax.runtime.mesh import data_mesh
labels = np.arange(10) % 4
draw = np.random.default_rng(0)
features = [np.eye(4, 8, dtype=np.float32)[labels] + draw.standard_normal((10, 8), np.float32) / 3 for _ in range(3)]
cells = [TrainingSet(each, np.eye(4, dtype=np.float32)[labels], 0) for each in features]
fits = fit_strict(cells, 100 * np.eye(4, 8, dtype=np.float32), False, True, data_mesh())
print(len(jax.devices()), len(fits))
"""


@pytest.mark.parametrize(
  ("environment", "expected"),
  [
    ({"JAX_NUM_CPU_DEVICES": "512"}, {"NPROC": "1024"}),
    ({"XLA_FLAGS": "--xla_force_host_platform_device_count=512"}, {"NPROC": "1024"}),
    ({"JAX_NUM_CPU_DEVICES": "512", "NPROC": "700"}, {}),
    ({"JAX_NUM_CPU_DEVICES": "1"}, {}),
    ({}, {}),
    ({"JAX_PLATFORMS": "cuda", "JAX_NUM_CPU_DEVICES": "512"}, {}),
  ],
)
def test_two_threads_per_device(environment, expected):
  assert thread_settings({"JAX_PLATFORMS": "cpu"} | environment) == expected


def test_there_are_never_fewer_threads_than_cores(monkeypatch):
  monkeypatch.setattr(os, "cpu_count", lambda: 64)
  environment = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
  assert thread_settings(environment) == {"NPROC": "64"}


def test_as_many_devices_as_cores_do_not_wait_for_each_other():
  environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
  environment |= {"JAX_NUM_CPU_DEVICES": "2", "JAX_PLATFORMS": "cpu"}
  run = subprocess.run(
    [sys.executable, "-c", FITS],
    env=environment,
    capture_output=True,
    text=True,
    timeout=120,
    check=True,
  )
  assert run.stdout.split() == ["2", "3"]
