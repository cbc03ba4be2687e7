"""Names do no work, plans write nothing, and finished runs leave nothing in the process."""

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
from PIL import Image

import genbench_jax as gb
from genbench_jax import run as run_module
from genbench_jax.main import main
from genbench_jax.models.clip import Clip
from genbench_jax.zoo.tiny import write_tiny_clip

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  return str(write_tiny_clip(tmp_path_factory.mktemp("models") / "clip"))


def contents(folder):
  return {
    path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.stat().st_size)
    for path in sorted(folder.rglob("*"))
  }


PLAN = """
import sys
from genbench_jax.main import main
assert main(sys.argv) == 0
jax = sys.modules.get("jax")
if jax is not None:
  from jax._src import xla_bridge
  assert not xla_bridge.backends_are_initialized(), "a device was started"
"""


@pytest.mark.slow
def test_a_plan_of_more_shots_retrieves_and_writes_nothing_and_starts_no_device(clip, tmp_path):
  """Images exist for shots (1, 2). The plan is for (1, 16), which selects differently from the pool."""
  arguments = [
    f"--config={ROOT / 'configs' / 'demo.py'}:quick",
    "--config.datasets=('shapes',)",
    "--config.sources=('retrieval', 'original')",
    f"--config.encoder.checkpoint={clip}",
    f"--workdir={tmp_path / 'run'}",
  ]
  assert main(["main", *arguments, "--config.shots=(1, 2)", "--stages=images"]) == 0
  before = contents(tmp_path)
  for shots, made in (("(1, 2)", "2 of 2"), ("(1, 16)", "0 of 2")):
    done = subprocess.run(
      [sys.executable, "-c", PLAN, *arguments, f"--config.shots={shots}", "--plan"],
      env={**os.environ, "JAX_PLATFORMS": "cpu"},
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.split()[:1] == ["made"]]
    assert made in line
    assert "retrieve" not in done.stderr
  assert contents(tmp_path) == before


@pytest.mark.slow
def test_finished_evaluations_leave_no_run_and_no_model_in_memory(clip, tmp_path, monkeypatch):
  made = []

  def note(kind):
    start = kind.__init__

    def noted(self, *args, **kwargs):
      start(self, *args, **kwargs)
      made.append((kind, weakref.ref(self)))

    monkeypatch.setattr(kind, "__init__", noted)

  note(run_module.Run)
  note(Clip)
  for label in range(10):
    path = tmp_path / "made" / str(label) / "0.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (8, 8), (20 * label, 0, 0)).save(path)
  settings = {
    "scoring.quantities": ("zero_shot",),
    "scoring.resamples": 2,
    "recognition.language_init": False,
  }
  for _ in range(3):
    rows = gb.evaluate_folder(tmp_path / "made", "digits", encoder=clip, settings=settings)
    assert rows
  del rows
  gc.collect()
  assert [kind for kind, _ in made].count(run_module.Run) >= 3
  assert [kind for kind, _ in made].count(Clip) >= 3
  assert [kind for kind, alive in made if alive() is not None] == []


def test_a_run_of_another_config_shares_no_cached_values():
  from genbench_jax.config import Config, Encoder

  run = run_module.Run(Config(), Path("unused"))
  _ = run.space, run.hosts
  other = run.with_config(Config(encoder=Encoder(checkpoint="another"), shots=(3,)))
  assert other.space.name == "another" and other.per_class == 3
  assert other.shared is run.shared and other.failures is run.failures
