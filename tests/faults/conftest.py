"""The smallest real run: models with random weights, one dataset, few metrics."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genbench_jax.zoo.tiny import write_tiny_clip, write_tiny_stable_diffusion

ROOT = Path(__file__).parents[2]


class TinyRun:
  """Runs the command on tiny models, on one device, in its own process."""

  def __init__(self, models: Path) -> None:
    self.models = models

  def arguments(self, workdir, *extra):
    return [
      f"--config={ROOT / 'configs' / 'demo.py'}:quick",
      "--config.shots=(1, 2)",
      "--config.generation.strategies=('defined_template',)",
      f"--config.generation.checkpoint={self.models / 'diffusion'}",
      f"--config.encoder.checkpoint={self.models / 'clip'}",
      "--config.generation.steps=2",
      "--config.generation.batch_per_device=4",
      "--config.generation.shard_size=4",
      "--config.scoring.quantities=('cler', 'fid', 'vendi')",
      "--config.scoring.resamples=10",
      f"--workdir={workdir}",
      *extra,
    ]

  def environment(self, devices=1):
    # The suite's timeouts for collectives; the last of a repeated flag wins.
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}

  def command(self, workdir, *extra):
    return [sys.executable, "-m", "genbench_jax.main", *self.arguments(workdir, *extra)]

  def start(self, workdir, *extra, devices=1, program=None):
    command = program or self.command(workdir, *extra)
    return subprocess.Popen(
      command,
      env=self.environment(devices),
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )

  def on_hosts(self, workdir, processes, *extra, devices=1):
    """Run several processes on this machine, as `launch/local.py` starts them."""
    local = [sys.executable, "launch/local.py", f"--processes={processes}", f"--devices={devices}"]
    return self.start(workdir, program=[*local, "--", *self.arguments(workdir, *extra)])

  def run(self, workdir, *extra, **options):
    process = self.start(workdir, *extra, **options)
    output, _ = process.communicate(timeout=600)
    return process.returncode, output

  @staticmethod
  def rows(workdir):
    lines = (workdir / "results.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

  @staticmethod
  def bytes(workdir, *folders):
    return {
      str(path.relative_to(workdir)): path.read_bytes()
      for folder in folders
      for path in sorted((workdir / folder).rglob("*"))
      if path.is_file()
    }


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
  models = tmp_path_factory.mktemp("models")
  write_tiny_clip(models / "clip")
  write_tiny_stable_diffusion(models / "diffusion")
  return TinyRun(models)


@pytest.fixture(scope="session")
def on_four_devices(tiny, tmp_path_factory):
  """The same in one process on four devices, where one pixel in thousands may round differently."""
  workdir = tmp_path_factory.mktemp("on_four_devices")
  status, output = tiny.run(workdir, devices=4)
  assert status == 0, output
  return workdir
