"""Every test runs on eight fake CPU devices, so that sharding is always exercised."""

import os

# On a busy machine a device may come to a collective long after the others: that is no reason to give up.
os.environ["XLA_FLAGS"] = " ".join([
  os.environ.get("XLA_FLAGS", ""),
  "--xla_force_host_platform_device_count=8",
  "--xla_cpu_collective_call_warn_stuck_timeout_seconds=300",
  "--xla_cpu_collective_call_terminate_timeout_seconds=900",
])  # fmt: skip
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["USE_TF"] = "0"
os.environ["USE_TORCH"] = "0"

import pytest

# Files that take minutes, the longest first.
LONGEST = (
  "test_main.py",
  "test_documented_commands.py",
  "test_stage.py",
  "test_examples.py",
  "test_prompt_tuning.py",
  "test_making.py",
  "test_checkpoints.py",
)


def pytest_collection_modifyitems(items):
  """The longest files come first, so that of several processes none works alone at the end."""
  places = {name: place for place, name in enumerate(LONGEST)}
  items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def mesh():
  from genbench_jax.parallel.mesh import data_mesh

  return data_mesh()


@pytest.fixture(scope="session")
def one_device_mesh():
  import jax

  from genbench_jax.parallel.mesh import data_mesh

  return data_mesh(jax.devices()[:1])
