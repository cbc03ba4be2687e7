"""The command that builds a pool: layout, features, restarts and errors."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import genbench_jax as gb
from genbench_jax.cli.embed import main
from genbench_jax.errors import RunError, UsageError
from genbench_jax.retrieval.build import _is_sealed
from genbench_jax.retrieval.pool import open_pool
from genbench_jax.store import files
from genbench_jax.store.versions import VERSIONS


def _images(folder, png, count, start=0):
  folder.mkdir(parents=True, exist_ok=True)
  for number in range(start, start + count):
    (folder / f"{number:03d}.png").write_bytes(png(number))
    (folder / f"{number:03d}.txt").write_text(f"photo of number {number}")


def _embed(collection, out, clip_folder, *extra):
  sizes = ("--shard-size=3", "--batch-per-device=1")
  return main([str(collection), f"--out={out}", f"--checkpoint={clip_folder}", *sizes, *extra])


@pytest.fixture(scope="module")
def built(tmp_path_factory, png, clip_folder):
  """Return a collection of seven readable images and a damaged one, and its pool."""
  folder = tmp_path_factory.mktemp("built")
  _images(folder / "images", png, 7)
  (folder / "images" / "004.txt").unlink()
  (folder / "images" / "005.png").write_bytes(b"not an image")
  assert _embed(folder / "images", folder / "pool", clip_folder) == 0
  return folder


def test_the_pool_has_clip_retrievals_layout(built):
  pool = open_pool(built / "pool")
  assert [shard.path.name for shard in pool.of("image")] == [
    f"img_emb_{number:05d}.npy" for number in range(3)
  ]
  assert [shard.rows for shard in pool.of("text")] == [3, 2, 1]
  assert len(pool) == 6
  assert pool.manifest["rows"] == 6
  assert pool.manifest["captions"] == 5
  assert pool.manifest["unreadable"] == 1
  line = pool.metadata([5, 0])[5]
  assert (line["image_path"], line["caption"]) == ("006.png", "photo of number 6")
  assert line["sha256"] == files.sha256(built / "images" / "006.png")


def test_features_are_those_of_the_encoder(built, clip_folder):
  pool = open_pool(built / "pool")
  names = ["000", "001", "002", "003", "004", "006"]
  images = gb.embed_images([built / "images" / f"{name}.png" for name in names], clip_folder)
  texts = gb.embed_texts([f"photo of number {int(name)}" for name in names], clip_folder)
  for modality, wanted in (("image", images), ("text", texts)):
    unit = wanted / np.linalg.norm(wanted, axis=1, keepdims=True)
    found = pool.features(modality, np.arange(6))
    keep = np.arange(6) != 4 if modality == "text" else np.full(6, True)
    np.testing.assert_allclose(found[keep], unit[keep], atol=1e-3)
  assert not pool.features("text", np.array([4])).any()


def test_nothing_is_done_twice_and_changed_images_are_done_again(built, png, clip_folder, capfd):
  def times():
    return {path: path.stat().st_mtime_ns for path in (built / "pool").rglob("*.npy")}

  before = times()
  assert _embed(built / "images", built / "pool", clip_folder) == 0
  assert "nothing to do" in capfd.readouterr().err
  assert times() == before
  path = built / "images" / "006.png"
  about, changed = path.stat(), png(66)
  path.write_bytes(changed.ljust(about.st_size, b"\0"))  # the metadata may stay as they were
  os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
  assert _embed(built / "images", built / "pool", clip_folder) == 0
  assert {path.name for path, when in times().items() if when != before[path]} == {
    "img_emb_00002.npy",
    "text_emb_00002.npy",
  }
  before = times()
  (built / "images" / "000.txt").write_text("photo of nothing at all")
  (built / "images" / "004.json").write_text('{"caption": "photo of number 4"}')
  assert _embed(built / "images", built / "pool", clip_folder) == 0
  assert {path.stem[-1] for path, when in times().items() if when != before[path]} == {"0", "1"}
  captions = open_pool(built / "pool").metadata([0, 4])
  assert [captions[row]["caption"] for row in (0, 4)] == [
    "photo of nothing at all",
    "photo of number 4",
  ]


@pytest.mark.parametrize("content", ["{", "[1]", "{}", '{"made_from": 1}'])
def test_a_shard_with_a_damaged_seal_is_not_finished(tmp_path, content):
  (tmp_path / "seals").mkdir()
  (tmp_path / "seals" / "00000.json").write_text(content)
  assert not _is_sealed(tmp_path, 0, "digest")


def test_another_version_of_the_code_embeds_again(tmp_path, png, clip_folder, monkeypatch, capfd):
  _images(tmp_path / "images", png, 1)
  assert _embed(tmp_path / "images", tmp_path / "pool", clip_folder) == 0
  monkeypatch.setitem(VERSIONS, "embed", 99)
  assert _embed(tmp_path / "images", tmp_path / "pool", clip_folder) == 0
  assert "nothing to do" not in capfd.readouterr().err
  assert open_pool(tmp_path / "pool").manifest["version"] == 99


def test_a_killed_build_goes_on_to_the_same_pool(tmp_path, png, clip_folder):
  _images(tmp_path / "images", png, 12)
  assert _embed(tmp_path / "images", tmp_path / "whole", clip_folder) == 0
  command = [sys.executable, "-m", "genbench_jax.embed", str(tmp_path / "images")]
  command += [f"--out={tmp_path / 'killed'}", f"--checkpoint={clip_folder}"]
  command += ["--shard-size=3", "--batch-per-device=1"]
  with subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.DEVNULL) as process:
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / "seals" / "00000.json").exists():
      assert process.poll() is None or (tmp_path / "killed" / "pool.json").exists()
      assert time.monotonic() < deadline
      time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
  assert _embed(tmp_path / "images", tmp_path / "killed", clip_folder) == 0

  def content(name):
    folder = tmp_path / name
    return {
      str(path.relative_to(folder)): path.read_bytes()
      for path in folder.rglob("*")
      if path.suffix in (".npy", ".parquet", ".json")
    }

  assert content("killed") == content("whole")


def test_mistakes_end_in_one_line(tmp_path, png, clip_folder, capfd):
  _images(tmp_path / "images", png, 2)
  assert _embed(tmp_path / "absent", tmp_path / "pool", clip_folder) == 2
  assert "neither a folder nor a .tar" in capfd.readouterr().err
  assert _embed(tmp_path / "images", tmp_path / "pool", tmp_path / "no_clip") == 2
  assert capfd.readouterr().err.count("\n") == 1
  assert _embed(tmp_path / "images", tmp_path / "pool", clip_folder, "--shard-size=0") == 2


def test_metadata_must_fit_the_shards(built, tmp_path):
  import shutil

  import pyarrow as pa
  from pyarrow import parquet

  pool = tmp_path / "pool"
  shutil.copytree(built / "pool", pool)
  table = pool / "metadata" / "metadata_00001.parquet"
  parquet.write_table(pa.Table.from_pylist([{"caption": "one too few"}]), table)
  with pytest.raises(RunError, match="has 1 lines for a shard of 2 rows"):
    open_pool(pool).metadata([3])
  table.write_bytes(b"no table")
  with pytest.raises(RunError, match="can't be read as Parquet"):
    open_pool(pool).metadata([3])
  table.unlink()
  with pytest.raises(
    UsageError, match=r"has 3 files in img_emb and 2 in metadata.*metadata_00001|img_emb_00001"
  ):
    open_pool(pool)
  shutil.rmtree(pool / "metadata")
  with pytest.raises(UsageError, match="has no metadata"):
    open_pool(pool).metadata([3])


def test_a_pool_names_images_elsewhere_only_where_it_was_made(tmp_path, png, clip_folder):
  import shutil

  from genbench_jax.retrieval import images
  from genbench_jax.store import files

  (tmp_path / "collection").mkdir()
  (tmp_path / "collection" / "a.png").write_bytes(png(0))
  assert _embed(tmp_path / "collection", tmp_path / "pool", clip_folder) == 0
  pool = open_pool(tmp_path / "pool")
  assert images.ImageFinder(pool, "").place(pool.metadata([0])[0]).read() == png(0)
  shutil.copytree(tmp_path / "pool", tmp_path / "copied")  # as one that was downloaded
  with pytest.raises(UsageError, match=r"outside of the pool.*image_root"):
    images.ImageFinder(open_pool(tmp_path / "copied"), "")
  assert images.ImageFinder(open_pool(tmp_path / "copied"), str(tmp_path / "collection"))
  about = files.read_json(tmp_path / "pool" / "pool.json")
  files.write_json(tmp_path / "pool" / "pool.json", {**about, "collection": "/"})
  with pytest.raises(UsageError, match="outside of the pool"):
    images.ImageFinder(open_pool(tmp_path / "pool"), "")


def test_a_pool_without_a_readable_image_is_an_error(tmp_path, clip_folder, capfd):
  (tmp_path / "images").mkdir()
  (tmp_path / "images" / "a.png").write_bytes(b"not an image")
  assert _embed(tmp_path / "images", tmp_path / "pool", clip_folder) == 2
  assert "none of the images" in capfd.readouterr().err
  assert not (tmp_path / "pool" / "pool.json").exists()
