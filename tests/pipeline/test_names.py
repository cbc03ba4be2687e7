"""Fingerprints: everything that determines a number is part of its name."""

import os
import shutil

import pytest
from PIL import Image

from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.stand_in import prepare_stand_in
from genbench_jax.cells import image_sets
from genbench_jax.config import Config, make_config
from genbench_jax.pipeline import artifacts
from genbench_jax.pipeline.artifacts import test_path as path_of_test
from genbench_jax.run import Run
from genbench_jax.store import digests, versions

CLASSES = ("circle", "square")


def draw(path, shade):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new("RGB", (8, 8), (shade, 0, 0)).save(path)


@pytest.fixture
def places(tmp_path, monkeypatch):
  """A dataset and a folder of generated images; digests are cached immediately."""
  monkeypatch.setattr(digests, "_RESOLUTION_NS", -1)
  for number, name in enumerate(CLASSES):
    for shot in range(2):
      draw(tmp_path / "names" / "test" / name / f"{shot}.png", 50 * number + shot)
      draw(tmp_path / "names" / "train" / name / f"{shot}.png", 100 + 50 * number + shot)
      draw(tmp_path / "made" / name / f"{shot}.png", 30 * number + shot)
  return tmp_path


def named(places, **changes):
  """Return the paths of all artifacts for a new process."""
  values = {
    "datasets": (f"folder:{places / 'names'}",),
    "sources": ("folder", "original"),
    "shots": (1,),
    "folder": {"path": str(places / "made")},
    **changes,
  }
  run = Run(make_config(values), places / "out")
  sets = list(image_sets(run.config))
  folder, original = (next(k for k in sets if k.source == s) for s in ("folder", "original"))
  return {
    "test": path_of_test(run, folder.dataset).name,
    "text": artifacts.text_path(run, folder.dataset).name,
    "folder": artifacts.image_folder(run, folder).name,
    "original": artifacts.image_folder(run, original).name,
    "score": artifacts.rows_path(run, folder, "score").name,
    "recognize": artifacts.rows_path(run, folder, "recognize").name,
  }


def swap_test_classes(root):
  test = root / "names" / "test"
  (test / "circle").rename(test / "x")
  (test / "square").rename(test / "circle")
  (test / "x").rename(test / "square")


def change_metric(root):
  (root / "names" / "dataset.yaml").write_text("metric: mean_per_class\n")


def change_templates(root):
  (root / "names" / "dataset.yaml").write_text("templates: ['a drawing of a {}.']\n")


def change_class_names(root):
  (root / "names" / "dataset.yaml").write_text("class_names: {circle: disc, square: square}\n")


def replace_in_silence(path):
  """Replace the content, keeping path, size and modification time."""
  before, content = path.stat(), path.read_bytes()
  path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
  assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


ROWS = {"score", "recognize"}


@pytest.mark.parametrize(
  ("change", "renamed"),
  [
    (swap_test_classes, {"test", *ROWS}),
    (change_metric, ROWS),
    (change_templates, {"text", *ROWS}),
    (change_class_names, {"text", "folder", "original", *ROWS}),
    (lambda root: replace_in_silence(root / "names/test/circle/0.png"), {"test", *ROWS}),
    # Floors and guided scores of every source use training images.
    (lambda root: replace_in_silence(root / "names/train/circle/0.png"), {"original", "score"}),
    (lambda root: replace_in_silence(root / "made/circle/0.png"), {"folder", *ROWS}),
    (lambda root: draw(root / "names/train/square/2.png", 9), {"original", "score"}),
    (lambda root: (root / "names/test/square/1.png").unlink(), {"test", *ROWS}),
  ],
)
def test_a_change_of_the_data_renames_dependent_artifacts(places, change, renamed):
  before = named(places)
  assert named(places) == before
  change(places)
  after = named(places)
  assert {name for name in before if before[name] != after[name]} == renamed


def test_rows_that_use_guides_are_named_by_them(places):
  scoring = {"quantities": ("class_chamfer",), "guides": 1}
  one, two = (named(places, scoring=scoring, seeds=seeds)["score"] for seeds in ((0,), (0, 1)))
  assert one != two  # more seeds leave other images to be guides


def test_rows_that_state_real_images_are_named_by_them(places):
  folder = {"path": str(places / "made"), "real_images": 5}
  before, after = named(places), named(places, folder=folder)
  assert {name for name in before if before[name] != after[name]} == ROWS


def test_reverting_a_change_restores_the_old_results(places):
  before = named(places)
  swap_test_classes(places)
  swap_test_classes(places)
  assert named(places) == before


def test_unchanged_files_are_not_read_again(places, monkeypatch):
  before = named(places)
  monkeypatch.setattr(digests.os, "read", lambda *_: pytest.fail("a file was read again"))
  run = Run(make_config({"datasets": (f"folder:{places / 'names'}",)}), places / "out")
  assert path_of_test(run, "names").name == before["test"]


def test_the_digest_of_a_file_that_just_changed_is_not_cached(places, monkeypatch):
  monkeypatch.undo()
  named(places)
  assert not list((places / "out" / "digests").glob("*"))


@pytest.mark.parametrize("stage", ["images", "embed", "score", "recognize"])
def test_a_new_code_version_reuses_nothing_that_it_changes(places, monkeypatch, stage):
  before = named(places)
  monkeypatch.setitem(versions.VERSIONS, stage, 99)
  after = named(places)
  same = {name for name in before if before[name] == after[name]}
  assert (
    same
    == {
      "images": {"test", "text"},
      "embed": {"folder", "original"},
      "score": {"test", "text", "folder", "original", "recognize"},
      "recognize": {"test", "text", "folder", "original", "score"},
    }[stage]
  )


def test_a_tfds_dataset_that_is_prepared_again_has_a_new_name(tmp_path):
  spec, data = dataset_spec("cifar10"), tmp_path / "data"
  config = Config(datasets=("cifar10",), sources=("original",), data_dir=str(data))

  def prepared(seed):
    shutil.rmtree(data, ignore_errors=True)
    prepare_stand_in(spec, data, dict.fromkeys(spec.splits, 1), seed)
    run = Run(config, tmp_path / "out")
    (key,) = image_sets(config)
    return path_of_test(run, "cifar10").name, artifacts.image_folder(run, key).name

  first, other = prepared(0), prepared(1)
  assert not set(first) & set(other)
  assert prepared(0) == first
