"""The command end to end on the small models: restarts, devices, usage errors."""

import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genbench_jax.main import main, run
from genbench_jax.metrics.accuracy import recognition_score
from genbench_jax.recognizers.results import load_predictions
from genbench_jax.store import embedding_set
from genbench_jax.store.workdir import locked

ROOT = Path(__file__).parent.parent
DEMO = str(ROOT / "configs" / "demo.py")
SMALL = [
  f"--config={DEMO}:quick",
  "--config.shots=(1, 2)",
  "--config.generation.steps=2",
  "--config.generation.batch_per_device=4",
  "--config.generation.shard_size=8",
  "--config.encoder.batch_per_device=64",
  "--config.scoring.resamples=50",
]
# Quantities that are shares of images: equal to the last bit on any number of devices.
COUNTED = (
  "zero_shot",
  "cler",
  "cler_gain",
  "cler_image",
  "topk_vote",
  "topk_vote_text",
  "linear_probe",
)

# Shares of a few dozen yes-or-no decisions about generated images, in which a single pixel may round otherwise on
# other devices (one in a thousand, by 1/255): one decision may fall the other way.
DECIDED = ("precision", "recall", "density", "coverage", "proxy_a_distance")


def _command(workdir, *extra):
  return [sys.executable, "-m", "genbench_jax.main", *SMALL, f"--workdir={workdir}", *extra]


def _environment(devices):
  flags = f"--xla_force_host_platform_device_count={devices}"
  return {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}


def _run(workdir, *extra, devices=1):
  return subprocess.run(
    _command(workdir, *extra),
    env=_environment(devices),
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
  )


def _rows(workdir):
  lines = (workdir / "results.jsonl").read_text(encoding="utf-8").splitlines()
  rows = [json.loads(line) for line in lines]
  return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def _digests(workdir, folder):
  return {
    str(path.relative_to(workdir)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted((workdir / folder).rglob("*"))
    if path.is_file()
  }


def _models(workdir):
  """Return the weights that the recognizers saved."""
  found = _digests(workdir, "recognizers")
  return {path: digest for path, digest in found.items() if path.endswith("model.safetensors")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  """An undisturbed run on one device."""
  workdir = tmp_path_factory.mktemp("undisturbed")
  finished = _run(workdir)
  assert finished.returncode == 0, finished.stderr
  return workdir


@pytest.fixture(scope="module")
def on_eight_devices(tmp_path_factory):
  """The same run on the eight devices of this process."""
  workdir = tmp_path_factory.mktemp("eight")
  assert main(["main", *SMALL, f"--workdir={workdir}"]) == 0
  return workdir


def test_every_cell_has_every_quantity(undisturbed):
  rows = _rows(undisturbed)
  keys = {(r["source"], r["strategy"], r["shots"], r["quantity"]) for r in rows}
  assert len(keys) == len(rows)
  for strategy in ("defined_template", "negative_prompts"):
    for shots in (1, 2):
      # One image per class has no pair of a class: no kernel distance without bias.
      kid = () if shots == 1 else ("kid",)
      for quantity in (*COUNTED, *kid, "clip_score", "fid", "cmmd", "coverage", "vendi"):
        assert ("generative", strategy, shots, quantity) in keys
        assert ("original", "", shots, quantity) in keys
  assert {r["strategy"] for r in rows if r["source"] == "control"} == {
    "defined_template",
    "negative_prompts",
    "original",
  }
  for row in rows:
    assert row["ci_low"] <= row["value"] + 1e-9
    assert row["value"] <= row["ci_high"] + 1e-9
    assert row["n_test"] == 497
    assert row["n_external"] == 10 * row["shots"]
  assert (undisturbed / "results.csv").read_text().count("\n") == len(rows) + 1


def test_predictions_and_tables_agree_with_the_rows(undisturbed):
  rows = [row for row in _rows(undisturbed) if row["quantity"] == "linear_probe"]
  values = {(row["source"], row["strategy"], row["shots"]): row["value"] for row in rows}
  summaries = list((undisturbed / "recognizers").rglob("summary.json"))
  assert len(summaries) == len(rows) == len(values)
  for path in summaries:
    cell = json.loads(path.read_text())
    value = values[cell["source"], cell["strategy"], cell["shots"]]
    scores, labels, _ = load_predictions(path.with_name("predictions.npz"))
    assert recognition_score(scores, labels, cell["metric"]) == value
    counts = np.loadtxt(
      path.with_name("confusion.csv"), int, delimiter=",", skiprows=1, usecols=range(1, 11)
    )
    assert (counts.sum(), counts.trace() / counts.sum()) == (497, pytest.approx(value))
    with path.with_name("classes.csv").open() as file:
      by_class = list(csv.DictReader(file))
    assert [int(line["images"]) for line in by_class] == counts.sum(axis=1).tolist()
    assert [int(line["predicted"]) for line in by_class] == counts.sum(axis=0).tolist()


def test_image_sets_are_tfds_datasets_with_their_prompts(undisturbed):
  import tensorflow_datasets as tfds

  folders = sorted((undisturbed / "images" / "digits").iterdir())
  assert len(folders) == 3
  source = tfds.builder_from_directory(folders[1]).as_data_source("train")
  assert folders[1].name.startswith("generative-negative_prompts-seed0-")
  assert len(source) == 20
  example = source[13]
  assert example["image"].shape == (32, 32, 3)
  assert (example["label"], example["index"], example["seed"]) == (3, 13, 0)
  assert "three" in example["prompt"].decode()
  assert "disfigured" in example["negative_prompt"].decode()


def test_eight_devices_give_the_same_rows(undisturbed, on_eight_devices):
  one, eight = _rows(undisturbed), _rows(on_eight_devices)
  assert len(one) == len(eight)
  for left, right in zip(one, eight, strict=True):
    if left["quantity"] in COUNTED:
      assert left == right
    elif left["quantity"] in DECIDED:
      assert right["value"] == pytest.approx(left["value"], abs=0.05)
    else:
      assert right["value"] == pytest.approx(left["value"], rel=1e-3, abs=1e-5)


def test_results_open_in_pandas_in_one_line(undisturbed):
  pandas = pytest.importorskip("pandas")
  table = pandas.read_csv(undisturbed / "results.csv")
  rows = _rows(undisturbed)
  assert len(table) == len(rows)
  assert table["value"].tolist() == [row["value"] for row in rows]


def test_the_plan_reports_finished_work(undisturbed, tmp_path, capsys):
  for workdir, count in ((undisturbed, 3), (tmp_path, 0)):
    assert main(["main", *SMALL, f"--workdir={workdir}", "--plan", "--machine=h100"]) == 0
    words = capsys.readouterr().out.split()
    for stage in ("made", "embedded", "scored", "recognized"):
      assert words[words.index(stage) + 1] == str(count)


def test_a_second_run_reports_that_nothing_is_left(on_eight_devices, capfd):
  before = _digests(on_eight_devices, ".")
  assert main(["main", *SMALL, f"--workdir={on_eight_devices}"]) == 0
  said = capfd.readouterr().err
  for stage in ("images", "embed", "score", "recognize", "report"):
    assert f"{stage}: nothing to do" in said
  assert _digests(on_eight_devices, ".") == before


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_artifacts(undisturbed, tmp_path):
  rng = random.Random(0)
  killed = 0
  for _ in range(3):
    process = subprocess.Popen(
      _command(tmp_path), env=_environment(1), cwd=ROOT, stderr=subprocess.DEVNULL
    )
    began, target = time.monotonic(), rng.choice([1, 3, 5, 8])
    # After a random number of files have appeared, so that kills fall into all stages on any machine.
    at_start = len(list(tmp_path.rglob("*.*")))
    while process.poll() is None and time.monotonic() - began < 300:
      if len(list(tmp_path.rglob("*.*"))) - at_start >= target:
        break
      time.sleep(0.01)
    if process.poll() is None:
      process.send_signal(signal.SIGKILL)
      killed += 1
    process.wait()
  assert killed >= 2
  finished = _run(tmp_path)
  assert finished.returncode == 0, finished.stderr
  for folder in ("images", "embeddings"):
    assert _digests(tmp_path, folder) == _digests(undisturbed, folder)
  assert _models(tmp_path) == _models(undisturbed)
  rows, expected = _rows(tmp_path), _rows(undisturbed)
  assert len(rows) == len(expected)
  assert [pair for pair in zip(rows, expected, strict=True) if pair[0] != pair[1]] == []


@pytest.mark.slow
def test_a_changed_setting_makes_new_artifacts_and_keeps_old_ones(on_eight_devices):
  before = {}
  for folder in ("images", "embeddings", "rows"):
    before |= _digests(on_eight_devices, folder)
  changed = ["--config.generation.guidance_scale=2", "--stages=images,embed,score"]
  assert main(["main", *SMALL, f"--workdir={on_eight_devices}", *changed]) == 0
  after = {}
  for folder in ("images", "embeddings", "rows"):
    after |= _digests(on_eight_devices, folder)
  assert before.items() <= after.items()
  assert len(after) > len(before)


def test_damaged_shards_are_reported_before_embedding(on_eight_devices, capfd):
  shard = next((on_eight_devices / "images").rglob("original-*/*.array_record-*"))
  whole = shard.read_bytes()
  embedded = next((on_eight_devices / "embeddings").rglob("original-*"))
  kept = embedded.read_bytes()
  embedded.unlink()
  shard.write_bytes(whole[:200] + b"!" + whole[201:])
  try:
    assert main(["main", *SMALL, f"--workdir={on_eight_devices}", "--stages=embed"]) == 1
    assert f"error: shard {shard} is damaged" in capfd.readouterr().err
  finally:
    shard.write_bytes(whole)
    embedded.write_bytes(kept)


def test_two_runs_at_once_are_rejected(tmp_path, capfd):
  with locked(tmp_path):
    assert main(["main", *SMALL, f"--workdir={tmp_path}"]) == 2
  assert "is in use by another run" in capfd.readouterr().err


def test_the_last_of_a_repeated_setting_wins():
  twice = ["--config.shots=(1, 2)", "--config.shots=(4,)", "--config.seeds=(0,)"]
  config = run.parse([f"--config={DEMO}", *twice]).config
  assert (config.shots, config.seeds) == ((4,), (0,))


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([f"--config={DEMO}"], "no work folder given"),
    (["--workdir=x"], "no config given"),
    ([f"--config={DEMO}", "--workdir=nowhere://bucket/x"], "Protocol not known: nowhere"),
    (["--config=nowhere.py", "--workdir=x"], "nowhere.py"),
    (
      [f"--config={DEMO}:quik", "--workdir=x"],
      "unknown config argument 'quik'. Did you mean 'quick'?",
    ),
    ([f"--config={DEMO}", "--workdir=x", "--config.datasets=('digit',)"], "Did you mean 'digits'?"),
    (
      [f"--config={DEMO}", "--workdir=x", "--config.generation.stps=3"],
      "unknown setting 'config.generation.stps'. Did you mean 'config.generation.steps'?",
    ),
    ([f"--config={DEMO}", "--workdir=x", "--config.generation.steps=many"], "many"),
    (
      [f"--config={DEMO}", "--workdir=x", "--stages=image"],
      "unknown stage 'image'. Did you mean 'images'?",
    ),
    ([f"--config={DEMO}", "--workdir=x", "--wokdir=y"], "wokdir"),
    ([f"--config={DEMO}", "--workdir=x", "extra"], "unexpected argument 'extra'"),
    (
      [f"--config={DEMO}", "--workdir=x", "--config.generation.checkpoint=nowhere"],
      "no checkpoint at 'nowhere'",
    ),
  ],
)
def test_usage_errors_are_one_line_and_status_2(arguments, message, capfd, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main(["main", *arguments]) == 2
  said = capfd.readouterr().err.strip()
  assert message in said
  assert said.startswith("error: ")
  assert "\n" not in said


def test_a_stage_without_input_names_the_stage_to_run(tmp_path, capfd):
  for stage, first in (("embed", "images"), ("score", "embed"), ("report", "score")):
    arguments = [*SMALL, "--config.sources=original", f"--workdir={tmp_path / stage}"]
    assert main(["main", *arguments, f"--stages={stage}"]) == 1
    assert f"Run the stage{'s' if stage == 'report' else ''} `{first}`" in capfd.readouterr().err


QUIRKS = ("voc2007", "hateful_memes", "kitti_distance", "fer2013")
OWN_YAML = """
name: leaves
class_names: {rust: [leaf with rust, rusty leaf], well: healthy leaf}
templates: ["a close-up of a {}."]
metric: mean_per_class
resize: squash
"""


def _own_folder(root):
  """A dataset in `split/class/*.jpg` with unequal class sizes and a YAML file."""
  for split, per_class in (("train", (2, 3)), ("test", (2, 4))):
    for label, count in zip(("rust", "well"), per_class, strict=True):
      for number in range(count):
        file = root / split / label / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (50, 40), (120 + 9 * number, 90 if label == "rust" else 200, 60)).save(
          file
        )
  (root / "dataset.yaml").write_text(OWN_YAML)
  return f"folder:{root}"


@pytest.fixture(scope="module")
def mocked(tmp_path_factory):
  """`configs/full.py:mock` on unusual datasets, and on two that the package does not know."""
  workdir = tmp_path_factory.mktemp("mocked")
  datasets = (*QUIRKS, "tfds:beans", _own_folder(tmp_path_factory.mktemp("own")))
  arguments = [
    f"--config={ROOT / 'configs' / 'full.py'}:mock",
    f"--config.datasets={datasets}",
    "--config.scoring.protocols=('strict', 'reference')",
    "--config.scoring.resamples=20",
    "--config.generation.batch_per_device=8",
    "--config.encoder.batch_per_device=16",
    f"--workdir={workdir}",
  ]
  finished = subprocess.run(
    [sys.executable, "-m", "genbench_jax.main", *arguments],
    env=_environment(1),
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
  )
  assert finished.returncode == 0, finished.stderr
  return workdir


@pytest.mark.parametrize("dataset", [*QUIRKS, "beans", "leaves"])
def test_every_kind_of_dataset_passes_every_stage(mocked, dataset):
  """Multi-label, AUC, squashed images with derived labels, synonyms, a TFDS name, a folder with YAML."""
  for source in ("generative", "original"):
    found = {
      r["quantity"]: r
      for r in _rows(mocked)
      if (r["dataset"], r["source"], r["protocol"]) == (dataset, source, "strict")
    }
    for quantity in COUNTED:
      assert -1 <= found[quantity]["value"] <= 1, quantity
    gain = found["cler"]["value"] - found["zero_shot"]["value"]
    assert found["cler_gain"]["value"] == pytest.approx(gain, abs=1e-9)
    assert found["clip_score"]["value"] > 0
    if dataset == "leaves":
      assert (found["cler"]["n_external"], found["cler"]["n_test"]) == (4, 6)
  assert dataset in (mocked / "report" / "index.html").read_text(encoding="utf-8")


def test_both_protocols_have_rows(mocked):
  """Equal unless the published code differs; its Fréchet distance divides both covariances by one n."""
  wanted = ("voc2007", "original")
  rows = [r for r in _rows(mocked) if (r["dataset"], r["source"]) == wanted]
  strict, reference = (
    {r["quantity"]: r["value"] for r in rows if r["protocol"] == protocol}
    for protocol in ("strict", "reference")
  )
  assert set(strict) - set(reference) == {"linear_probe"}
  for quantity in ("zero_shot", "cler", "cler_gain", "cler_image", "clip_score", "kid", "vendi"):
    assert strict[quantity] == reference[quantity]
  external, test = (_unit_features(mocked, name) for name in ("original-seed0", "test"))
  published = _published_frechet(external, test)
  assert reference["fid"] == pytest.approx(published, rel=1e-3)
  assert strict["fid"] != pytest.approx(published, rel=1e-3)


def _unit_features(workdir, name):
  (path,) = (workdir / "embeddings" / "voc2007").glob(f"{name}-*")
  features = embedding_set.load(path).readable().features.astype(np.float64)
  return features / np.linalg.norm(features, axis=1, keepdims=True)


def _published_frechet(external, test):
  """Return the Fréchet distance with one n for both covariances, that of the external images."""
  deviations = [rows - rows.mean(0) for rows in (external, test)]
  first, second = (rows.T @ rows / (len(external) - 1) for rows in deviations)
  cross = np.sqrt(np.linalg.eigvals(first @ second).astype(complex)).real.sum()
  means = np.sum((external.mean(0) - test.mean(0)) ** 2)
  return means + np.trace(first) + np.trace(second) - 2 * cross


def test_help_imports_nothing_heavy():
  code = (
    "import sys; from genbench_jax.main import main; assert main(['main', '--help']) == 0;"
    "assert not {'jax', 'flax', 'transformers', 'tensorflow_datasets'} & set(sys.modules)"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  assert "--config" in done.stdout


def test_the_package_imports_nothing_heavy():
  code = (
    "import sys, genbench_jax; assert 'jax' not in sys.modules;"
    "assert genbench_jax.clip_score is not None and 'jax' in sys.modules"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
