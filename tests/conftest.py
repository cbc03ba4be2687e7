"""Every test runs on eight fake CPU devices, so that sharding is always exercised."""

import os

os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["USE_TF"] = "0"
os.environ["USE_TORCH"] = "0"

import pytest


@pytest.fixture(scope="session")
def mesh():
  from genbench_jax.parallel.mesh import data_mesh

  return data_mesh()


@pytest.fixture(scope="session")
def one_device_mesh():
  import jax

  from genbench_jax.parallel.mesh import data_mesh

  return data_mesh(jax.devices()[:1])
