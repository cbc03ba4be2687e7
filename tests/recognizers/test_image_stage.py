"""Stage `recognize` with recognizers that train on images: mixtures, divergence, killed
processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from genbench_jax.main import main
from genbench_jax.pipeline import tasks
from genbench_jax.recognizers.results import load_predictions

ROOT = Path(__file__).parents[2]
RECOGNIZERS = ("tip_adapter", "lora", "fine_tune", "from_scratch")
TINY = (
  "min_steps=6",
  "epochs=0.0",
  "batch_size=16",
  "search_rates=(1.0,)",
  "search_epochs=(1.0,)",
)


def arguments(workdir, stages, *more):
  return [
    "main",
    f"--config={ROOT / 'configs' / 'demo.py'}",
    "--config.datasets=('shapes',)",
    "--config.sources=('retrieval', 'original', 'combined')",
    "--config.mixture.with_sources=('retrieval',)",
    "--config.mixture.loss_weights=(0.8, 0.2)",
    "--config.mixture.order=real_last",
    "--config.shots=(2,)",
    f"--config.recognition.recognizers={RECOGNIZERS}",
    "--config.recognition.save_every=2",
    "--config.recognition.tip_adapter.train=True",
    "--config.recognition.tip_adapter.min_steps=4",
    *(f"--config.recognition.{name}.recipe.{item}" for name in RECOGNIZERS[1:] for item in TINY),
    "--config.recognition.from_scratch.network=resnet8",
    "--config.recognition.from_scratch.image_size=16",
    "--config.recognition.from_scratch.stem=small_half",
    "--config.recognition.from_scratch.shots=(2,)",
    *more,
    f"--stages={stages}",
    f"--workdir={workdir}",
  ]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("embedded")
  assert main(arguments(workdir, "images,embed")) == 0
  return workdir


@pytest.fixture(scope="module")
def undisturbed(embedded, tmp_path_factory):
  """Return a run whose decoded images are in files, as for a large cell."""
  workdir = tmp_path_factory.mktemp("undisturbed") / "run"
  shutil.copytree(embedded, workdir)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tasks, "IN_MEMORY_BYTES", 0)
    assert main(arguments(workdir, "recognize")) == 0
  assert not (workdir / "decoded").exists()
  return workdir


def rows_of(workdir):
  lines = (workdir / "results.jsonl").read_text(encoding="utf-8").splitlines()
  rows = [json.loads(line) for line in lines]
  return {(row["source"], row["quantity"]): row["value"] for row in rows}


def test_every_source_has_a_row_of_every_recognizer(undisturbed):
  rows = rows_of(undisturbed)
  assert rows.keys() == {
    (source, name) for source in ("retrieval", "original", "combined") for name in RECOGNIZERS
  }
  for folder in (path.parent for path in undisturbed.rglob("summary.json")):
    scores, labels, _ = load_predictions(folder / "predictions.npz")
    summary = json.loads((folder / "summary.json").read_text())
    assert (scores.argmax(axis=1) == labels).mean() == pytest.approx(summary["score"])
    assert (folder / "model.safetensors").exists() and not (folder / "checkpoints").exists()


@pytest.mark.slow
def test_only_diverging_cells_fail(embedded, tmp_path, capsys):
  """Their rows are missing, the others are there, the run says which, and the next one tries them
  again."""
  workdir = tmp_path / "run"
  shutil.copytree(embedded, workdir)
  wild = (
    "--config.recognition.recognizers=('tip_adapter', 'from_scratch', 'linear_probe')",
    "--config.recognition.tip_adapter.learning_rate=1e30",
    "--config.recognition.from_scratch.recipe.learning_rate=1e30",
    "--config.sources=('original',)",
  )
  assert main(arguments(workdir, "recognize", *wild)) == 1
  told = capsys.readouterr().err
  assert all(f"{name} (strict): " in told for name in ("tip_adapter", "from_scratch"))
  assert "step" in told and "2 failed" in told
  assert rows_of(workdir).keys() == {("original", "linear_probe")}
  assert main(arguments(workdir, "recognize", *wild)) == 1


@pytest.mark.slow
def test_a_run_killed_midway_ends_with_identical_models(undisturbed, tmp_path):
  """The run has the models of the other recognizers, whose training loop is the same."""
  workdir = tmp_path / "run"
  shutil.copytree(undisturbed, workdir)
  trained = list(workdir.rglob("from_scratch-*"))
  for folder in trained:
    shutil.rmtree(folder)
  for path in workdir.glob("rows/*/*-recognize-*"):
    path.unlink()
  command = [sys.executable, "-m", "genbench_jax.main", *arguments(workdir, "recognize")[1:]]
  with subprocess.Popen(command, cwd=ROOT, env=os.environ, stderr=subprocess.DEVNULL) as process:
    deadline = time.monotonic() + 300
    while not any(any(folder.glob("checkpoints/*/4")) for folder in trained):
      assert process.poll() is None and time.monotonic() < deadline
      time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
  assert main(arguments(workdir, "recognize")) == 0
  assert rows_of(workdir) == rows_of(undisturbed)
  models = sorted(path.relative_to(undisturbed) for path in undisturbed.rglob("model.safetensors"))
  assert len(models) == 12
  for path in models:
    assert (workdir / path).read_bytes() == (undisturbed / path).read_bytes(), path
  assert np.isfinite(list(rows_of(workdir).values())).all()
