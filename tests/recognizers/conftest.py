"""Fixtures of the tests of recognizers."""

import pytest


@pytest.fixture(scope="session")
def two_device_mesh():
  """Two devices split a batch as eight do, and on two cores they take a fraction of the time."""
  import jax

  from genbench_jax.runtime.mesh import data_mesh

  return data_mesh(jax.devices()[:2])
