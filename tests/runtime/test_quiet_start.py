"""A signal during the imports of any command ends it with one line."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def obeying():
  """Programs that start meanwhile obey Ctrl-C, also if the tests run in the background, which ignores it."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  yield
  signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("obeying")
@pytest.mark.parametrize("module", ["", ".evaluate", ".main", ".report", ".verify"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_imports(module, number, status, tmp_path):
  # Every command imports argparse.
  (tmp_path / "argparse.py").write_text(
    "import time\nprint('importing', flush=True)\ntime.sleep(60)"
  )
  process = subprocess.Popen(
    [sys.executable, "-m", f"genbench_jax{module}", "plan", "demo"],
    env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout is not None
  assert process.stdout.readline() == "importing\n"
  process.send_signal(number)
  _, said = process.communicate(timeout=30)
  assert process.returncode == status
  assert said.startswith("stopped by ") and said.count("\n") == 1
