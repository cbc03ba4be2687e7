"""The stage `recognize` with every recognizer, on a dataset with several labels an image and on a mixture."""

import csv
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
from PIL import Image

from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.main import main
from genbench_jax.metrics.accuracy import recognition_score
from genbench_jax.models.clip import load_clip
from genbench_jax.recognizers.models import load_probe_scores
from genbench_jax.recognizers.prompt_tuning import context_text_features, load_context
from genbench_jax.recognizers.results import load_predictions
from genbench_jax.recognizers.zero_shot import zero_shot_scores
from genbench_jax.store import embedding_set

ROOT = Path(__file__).parents[2]
SPEC = dataset_spec("voc2007")
# Those that train on images have tests/recognizers/test_image_stage.py.
RECOGNIZERS = ("linear_probe", "coop", "vpt")
STEPS = 10


class Voc:
  """A run on a drawn VOC 2007: originals, a folder of other images, and both together."""

  def __init__(self, clip_folder, images):
    self.clip_folder, self.images = clip_folder, images

  def arguments(self, workdir, stages):
    return [
      "main",
      f"--config={ROOT / 'configs' / 'full.py'}:mock",
      "--config.datasets=('voc2007',)",
      "--config.sources=('original', 'folder', 'combined')",
      "--config.mixture.with_sources=('folder',)",
      f"--config.folder.path={self.images}",
      f"--config.encoder.checkpoint={self.clip_folder}",
      "--config.encoder.batch_per_device=8",
      f"--config.recognition.recognizers={RECOGNIZERS}",
      "--config.recognition.protocols=('strict', 'reference')",
      "--config.recognition.save_every=1",
      *(f"--config.recognition.{name}.steps={STEPS}" for name in ("coop", "vpt")),
      *(f"--config.recognition.{name}.batch_size=8" for name in ("coop", "vpt")),
      "--config.recognition.coop.context_length=2",
      "--config.recognition.vpt.prompt_length=2",
      f"--stages={stages}",
      f"--workdir={workdir}",
    ]

  def start(self, workdir):
    """Run the stage in its own process, on the same number of devices."""
    command = [sys.executable, "-m", "genbench_jax.main", *self.arguments(workdir, "recognize")[1:]]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def voc(tiny_clip_folder, tmp_path_factory):
  images = tmp_path_factory.mktemp("images")
  for index, name in enumerate(SPEC.names):
    for number in range(2):
      path = images / name / f"{number}.png"
      path.parent.mkdir(exist_ok=True)
      Image.new("RGB", (40, 32), (12 * index, 120 * number, 90)).save(path)
  return Voc(tiny_clip_folder, images)


@pytest.fixture(scope="module")
def embedded(voc, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("embedded")
  assert main(voc.arguments(workdir, "images,embed")) == 0
  return workdir


@pytest.fixture(scope="module")
def traced():
  """Step -> number of its traces in the run `undisturbed`."""
  return {}


@pytest.fixture(scope="module")
def undisturbed(voc, embedded, tmp_path_factory, traces, traced):
  workdir = tmp_path_factory.mktemp("undisturbed") / "run"
  shutil.copytree(embedded, workdir)
  before = dict(traces)
  assert main(voc.arguments(workdir, "recognize")) == 0
  traced.update({step: traces[step] - before.get(step, 0) for step in ("coop_step", "vpt_step")})
  return workdir


def rows_of(workdir):
  lines = (workdir / "results.jsonl").read_text(encoding="utf-8").splitlines()
  rows = [json.loads(line) for line in lines]
  return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def folders_of(workdir, recognizer=""):
  """The folder of each cell and training, and what its summary says."""
  return [
    (path.parent, json.loads(path.read_text()))
    for path in sorted((workdir / "recognizers").rglob(f"{recognizer}*/summary.json"))
  ]


def test_every_source_has_a_row_of_every_recognizer(undisturbed):
  rows = {(r["source"], r["protocol"], r["quantity"]): r["value"] for r in rows_of(undisturbed)}
  for source in ("original", "folder", "combined"):
    strict = [rows[source, "strict", recognizer] for recognizer in RECOGNIZERS]
    assert all(0 < value < 1 for value in strict) and len(set(strict)) == len(RECOGNIZERS)
    last = rows[source, "reference", "linear_probe_last_epoch"]
    assert rows[source, "reference", "linear_probe"] >= last >= 0
  assert len(rows) == 3 * 5


def test_one_program_serves_all_cells(undisturbed, traced):
  assert traced == {"coop_step": 1, "vpt_step": 1}


def test_rows_can_be_recomputed_from_the_files_of_predictions(undisturbed):
  values = {(r["source"], r["protocol"], r["quantity"]): r["value"] for r in rows_of(undisturbed)}
  found = folders_of(undisturbed)
  assert len(found) == 3 * 4
  for folder, summary in found:
    recognizer, protocol, _ = folder.name.split("-")
    scores, labels, ids = load_predictions(folder / "predictions.npz")
    value = values[summary["source"], protocol, recognizer]
    assert recognition_score(scores, labels, SPEC.metric) == value == summary["score"]
    assert len(set(ids)) == len(scores) == len(labels)
    with (folder / "classes.csv").open() as file:
      table = list(csv.DictReader(file))
    assert [row["class_name"] for row in table] == list(SPEC.names)
    assert [int(row["images"]) for row in table] == labels.sum(axis=0).tolist()


def test_models_are_loaded_back_and_predict_the_same(undisturbed, voc):
  (path,) = (undisturbed / "embeddings" / "voc2007").glob("test-*")
  test = embedding_set.load(path).readable().features
  for folder, _ in folders_of(undisturbed, "linear_probe"):
    scores = load_probe_scores(folder / "model.safetensors", test)
    np.testing.assert_allclose(scores, load_predictions(folder / "predictions.npz")[0], atol=1e-4)
  clip = load_clip(voc.clip_folder)
  for folder, _ in folders_of(undisturbed, "coop"):
    context = load_context(folder / "model.safetensors")
    text = context_text_features(clip, SPEC.names, context)
    scores = zero_shot_scores(test, text, np.exp(clip.params["logit_scale"]), multi_label=True)
    np.testing.assert_allclose(scores, load_predictions(folder / "predictions.npz")[0], atol=1e-4)


@pytest.mark.long
def test_a_run_killed_in_each_training_ends_with_identical_models(
  voc, embedded, undisturbed, tmp_path
):
  workdir = tmp_path / "run"
  shutil.copytree(embedded, workdir)
  for recognizer, moment in (
    ("linear_probe", "classes.csv"),
    ("coop", "checkpoints/2"),
    ("vpt", "checkpoints/2"),
  ):
    first = workdir / folders_of(undisturbed, recognizer)[0][0].relative_to(undisturbed)
    with voc.start(workdir) as process:
      deadline = time.monotonic() + 300
      while not (first / moment).exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
      process.send_signal(signal.SIGKILL)
    if recognizer != "linear_probe":
      assert not (first / "summary.json").exists()
      assert steps_saved(first)[-1] < STEPS
  assert main(voc.arguments(workdir, "recognize")) == 0
  models = sorted(path.relative_to(undisturbed) for path in undisturbed.rglob("model.safetensors"))
  assert len(models) == 3 * 4
  for path in models:
    assert (workdir / path).read_bytes() == (undisturbed / path).read_bytes(), path
  assert rows_of(workdir) == rows_of(undisturbed)


def steps_saved(folder):
  names = (path.name for path in (folder / "checkpoints").iterdir())
  return sorted(int(name) for name in names if name.isdigit())
