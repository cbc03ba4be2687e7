"""Every test runs on eight fake CPU devices, so that sharding is always exercised."""

import collections
import inspect
import os
import shutil
import sys
from pathlib import Path

# On a busy machine, a device may reach a collective long after the others; that is not an error.
os.environ["XLA_FLAGS"] = " ".join([
  os.environ.get("XLA_FLAGS", ""),
  "--xla_force_host_platform_device_count=8",
  "--xla_cpu_collective_call_warn_stuck_timeout_seconds=300",
  "--xla_cpu_collective_call_terminate_timeout_seconds=900",
])  # fmt: skip
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["USE_TF"] = "0"
os.environ["USE_TORCH"] = "0"

import jax
import jaxtyping
import numpy as np
import pytest

# Types and shapes are checked at every call of a function in these rooms, which work on arrays. The other
# rooms are tested with stand-ins for models and data, and beartype would read files to check sequences.
CHECKED = (
  "analysis", "diffusion", "embedding", "metrics", "models", "recognizers", "runtime", "store",
)  # fmt: skip
sys.path.insert(0, str(Path(__file__).parent))
# The package's functions take NumPy arrays for JAX arrays, as those of JAX do.
jaxtyping.Array = jax.Array | np.ndarray
jaxtyping.install_import_hook([f"genbench_jax.{room}" for room in CHECKED], "typechecker.checked")

DATA = Path(__file__).parent / "data"


@pytest.fixture(autouse=True)
def _checked_types(request):
  """Do not check types in tests that pass what annotations forbid.

  These expect a UsageError of the package's own, or are marked `unchecked` because they pass stand-ins.
  """
  unchecked = "UsageError" in inspect.getsource(request.function)
  unchecked |= request.node.get_closest_marker("unchecked") is not None
  jaxtyping.config.update("jaxtyping_disable", unchecked)
  yield
  jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def _threads_of_this_process():
  """Keep the number of threads that a command sets for eight devices from the processes of later tests.

  Matrix products are rounded differently with another number.
  """
  yield
  os.environ.pop("NPROC", None)


# Files that take minutes, the longest first.
LONGEST = (
  "test_main.py",
  "test_documented_commands.py",
  "test_image_stage.py",
  "test_engine.py",
  "test_stage.py",
  "test_hosts.py",
  "test_families.py",
  "test_examples.py",
  "test_trainer.py",
  "test_images.py",
)


def pytest_collection_modifyitems(items):
  """The longest files come first, so that of several processes none works alone at the end."""
  places = {name: place for place, name in enumerate(LONGEST)}
  items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def traces():
  """How often JAX has traced each function, by its name; tests look at differences."""
  counts = collections.Counter()

  def count(event, _, fun_name="", **about):
    counts[fun_name] += event.endswith("jaxpr_trace_duration")

  jax.monitoring.register_event_duration_secs_listener(count)
  return counts


@pytest.fixture(scope="session")
def mesh():
  from genbench_jax.runtime.mesh import data_mesh

  return data_mesh()


@pytest.fixture(scope="session")
def one_device_mesh():
  import jax

  from genbench_jax.runtime.mesh import data_mesh

  return data_mesh(jax.devices()[:1])


def _golden(name):
  with np.load(DATA / f"golden_{name}.npz") as file:
    return {key: file[key] for key in file.files}


@pytest.fixture(scope="session")
def golden_clip():
  """What PyTorch made of the tiny CLIP's weights."""
  return _golden("clip")


@pytest.fixture(scope="session")
def golden_diffusion():
  """What PyTorch made of the tiny diffusion model's weights."""
  return _golden("diffusion")


@pytest.fixture(scope="session")
def tiny_clip_folder(tmp_path_factory):
  from genbench_jax.zoo.tiny import write_tiny_clip

  return write_tiny_clip(tmp_path_factory.mktemp("tiny") / "clip")


@pytest.fixture(scope="session")
def tiny_clip(tiny_clip_folder):
  from genbench_jax.models.clip import load_clip

  return load_clip(tiny_clip_folder)


@pytest.fixture(scope="session")
def tiny_diffusion_folder(tmp_path_factory):
  from genbench_jax.zoo.tiny import write_tiny_stable_diffusion

  return write_tiny_stable_diffusion(tmp_path_factory.mktemp("tiny") / "epsilon")


@pytest.fixture(scope="session")
def tiny_diffusion(tiny_diffusion_folder):
  from genbench_jax.models.stable_diffusion import load_stable_diffusion

  return load_stable_diffusion(tiny_diffusion_folder)


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
  """Headless Chromium that logs console and network; skipped only outside CI if it is missing."""
  chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
  if not (chromium and driver):
    if os.environ.get("CI"):
      pytest.fail("chromium and chromedriver are required in CI")
    pytest.skip("chromium or chromedriver is not installed")
  from selenium import webdriver

  options = webdriver.ChromeOptions()
  options.binary_location = chromium
  for flag in (
    "headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "window-size=1280,900",
    f"user-data-dir={tmp_path_factory.mktemp('profile')}",
  ):  # fmt: skip
    options.add_argument(f"--{flag}")
  options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
  service = webdriver.ChromeService(executable_path=driver)
  opened = webdriver.Chrome(options=options, service=service)
  yield opened
  opened.quit()
