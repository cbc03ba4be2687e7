"""The sampler in the real TPU compiler, small; needs libtpu (`pip install "jax[tpu]"`), not a TPU."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="libtpu is not installed")
def test_a_small_sampler_compiles_for_tpus_without_collectives(tmp_path):
  out = tmp_path / "tpu.json"
  script = ROOT / "benchmarks" / "tpu_compile.py"
  arguments = ["--small", "--topologies=v5e:2x2", "--batch=2", "--steps=2", f"--json={out}"]
  done = subprocess.run(
    [sys.executable, str(script), *arguments],
    env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "XLA_FLAGS": ""},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(out.read_text())
  sampler = found["v5e:2x2"]
  assert sampler["chips"] == 4
  assert sampler["collectives"] == 0
  assert sampler["argument_gb"] + sampler["temporary_gb"] + sampler["output_gb"] < 1
  steps = found["step"]
  assert steps["ours"]["gb_per_image"] > 0
  if "stock" in steps:  # where diffusers still has it
    assert steps["ours"]["gb_per_image"] < steps["stock"]["gb_per_image"]
