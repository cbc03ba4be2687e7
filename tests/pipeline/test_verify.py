"""`genbench verify` names every changed file and accepts an unchanged work folder."""

import fcntl
import hashlib
import json
import shutil

import numpy as np
import pytest

from genbench_jax.benchmark.inputs.spool import ensure_copy
from genbench_jax.cli.genbench import main
from genbench_jax.diffusion.inversion.embeddings import save_embedding
from genbench_jax.errors import UsageError
from genbench_jax.pipeline.verify import verify
from genbench_jax.store import class_values, embedding_set, files, hits, rows
from genbench_jax.store.embedding_set import EmbeddingSet
from genbench_jax.store.image_set import ImageRecord, ImageSetLayout, ImageSetWriter, encode_png

ROW = {"dataset": "digits", "source": "original", "strategy": "", "shots": 1, "seed": 0, "protocol": "strict", "encoder": "zoo/clip"}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """A work folder like that of a run, written by the same functions without models."""
  workdir = tmp_path_factory.mktemp("verify") / "whole"
  layout = ImageSetLayout("digits_original", ("zero", "one"), 4, 2, {"dataset": "digits"})
  folder = workdir / "images" / "digits" / f"original-seed0-{layout.fingerprint}"
  writer = ImageSetWriter(folder, layout)
  for shard in range(2):
    records = [
      ImageRecord(encode_png(np.full((4, 4, 3), 9 * index, np.uint8)), index % 2, index)
      for index in layout.shard_range(shard)
    ]
    writer.write_shard(shard, records)
  writer.close()
  features = EmbeddingSet(
    np.eye(4, dtype=np.float32),
    np.arange(4, dtype=np.int32) % 2,
    np.arange(4),
    np.ones(4, np.uint8),
  )
  embedding_set.save(
    workdir / "embeddings" / "digits" / "original-seed0-0123.safetensors", features, {"clip": "c"}
  )
  measured = [{**ROW, "quantity": name, "value": 0.5} for name in ("cler", "zero_shot")]
  rows.write_rows(workdir / "rows" / "digits" / "original-score-0.jsonl", measured)
  values = [class_values.of_row(row, {0: 0.5}, ("zero\u2028", "one")) for row in measured]
  class_values.write(workdir / "classes" / "digits" / "original-score-0.jsonl", values)
  recognized = hits.PerImage(np.array([1.0, 0, 1, 0]), "t")
  kept = [hits.of_row(row, recognized) for row in measured]
  hits.write(workdir / "hits" / "digits" / "original-score-0.jsonl", kept)
  rows.write_results(workdir, measured)
  cell = workdir / "recognizers" / "digits" / "original-recognize-0" / "linear_probe-strict-1shots"
  files.write_csv(cell / "classes.csv", [{"class": "zero"}], ["class"])
  files.write_json(cell / "summary.json", {"accuracy": 0.5, "files": files.checksums(cell)})
  files.write_json(workdir / "runs" / "0123.json", {"seconds": {"score": 1.5}})
  files.write_json(workdir / "retrieved" / "digits" / "0" / "000001.json", {"images": []})
  files.write_json(workdir / "sentences" / "digits-seed0-0.json", {"zero": ["a zero"]})
  ensure_copy(workdir / "folders" / "npz-2-0123.images", lambda out: [out.write(b"two images")])
  files.write_json(workdir / "sources.json", {"dataset": "digits", "sources": {"": "/x"}})
  own = {"dataset": "digits", "templates": ["a {}"]}
  files.write_text(workdir / f"dataset-{files.digest(own)}.yaml", json.dumps(own, indent=1) + "\n")
  tokens = workdir / "textual_inversion" / "digits" / "original-seed0-0" / "zero"
  save_embedding(tokens / "learned_embeds.safetensors", "<zero>", np.ones(4, np.float32))
  files.write_text(workdir / "report" / "index.html", "<!doctype html>")
  about = {
    "run": {},
    "image_sets": [folder.relative_to(workdir).as_posix()],
    "files": files.checksums(workdir / "report"),
  }
  files.write_json(workdir / "report" / "run.json", about)
  (workdir / ".lock").touch()
  return workdir


@pytest.fixture
def workdir(whole, tmp_path):
  shutil.copytree(whole, tmp_path / "w")
  return tmp_path / "w"


def _paths(workdir):
  return sorted(path for path in workdir.rglob("*") if path.is_file() and path.name != ".lock")


def test_an_unchanged_folder_passes(workdir, capsys):
  assert verify(workdir).faults == ()
  assert main(["verify", str(workdir)]) == 0
  assert "no faults" in capsys.readouterr().out


def _named(workdir, path):
  """Return whether a fault names the file or its artifact."""
  name = path.relative_to(workdir).as_posix()
  return any(name == fault.path or name.startswith(fault.path) for fault in verify(workdir).faults)


UNSEALED = {
  "dataset_info.json",
  "features.json",
  "label.labels.txt",
}  # TFDS's own files: only their presence is checked


@pytest.mark.parametrize("how", ["flip", "cut", "empty"])
def test_every_changed_file_is_named(workdir, how):
  for path in _paths(workdir):
    if path.name in UNSEALED:
      continue
    content = path.read_bytes()
    at = len(content) // 2
    flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    path.write_bytes({"flip": flipped, "cut": content[:-3], "empty": b""}[how])
    assert _named(workdir, path), path
    path.write_bytes(content)
  assert verify(workdir).faults == ()


# A run makes these again or does not need them; nothing says that they should exist.
MAY_GO = {
  "label.labels.txt",
  "0123.json",
  "000001.json",
  "original-seed0-0123.safetensors",
  "manifest.json",
  "summary.json",
  "digits-seed0-0.json",
  "sources.json",
  "npz-2-0123.json",
  "learned_embeds.safetensors",
}


def test_every_deleted_file_is_reported(workdir):
  for path in _paths(workdir):
    content = path.read_bytes()
    path.unlink()
    assert verify(workdir).faults or path.name in MAY_GO or path.suffix == ".yaml", path
    path.write_bytes(content)


def test_unknown_files_are_orphans(workdir, capsys):
  strange = [
    workdir / "images" / "digits" / "x\x1b.png",
    workdir / "notes.txt",
    workdir / "rows" / ".x.1.part",
  ]
  for path in strange:
    path.write_text("?")
  assert sorted(fault.path for fault in verify(workdir).faults) == sorted(
    p.relative_to(workdir).as_posix() for p in strange
  )
  assert main(["verify", str(workdir)]) == 1
  said = capsys.readouterr().out
  assert "orphaned: 'notes.txt'" in said and "3 faults" in said and "\x1b" not in said
  assert main(["verify", str(workdir), "--json"]) == 1
  assert {one["kind"] for one in json.loads(capsys.readouterr().out)["faults"]} == {"orphaned"}


def test_a_later_format_is_reported_and_not_read(workdir):
  path = workdir / "runs" / "0123.json"
  written = json.loads(path.read_text())
  assert written["genbench_jax"]["format"] == files.FORMAT
  written["genbench_jax"]["format"] = 99
  path.write_text(json.dumps(written))
  path = workdir / "rows" / "digits" / "original-score-0.jsonl"
  lines = path.read_text().replace('"format": 1', '"format": 99').split("\n")[:-2]
  text = "".join(f"{line}\n" for line in lines)
  path.write_text(text + json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest()}) + "\n")
  faults = {fault.path: fault.why for fault in verify(workdir).faults}
  assert (
    "format 99" in faults["runs/0123.json"]
    and "Upgrade" in faults["rows/digits/original-score-0.jsonl"]
  )


def test_edited_rows_and_wrong_names_are_found(workdir):
  path = workdir / "results.jsonl"
  path.write_text(path.read_text().replace("0.5", "0.9", 1))
  told = [fault.why for fault in verify(workdir).faults if fault.path == "results.jsonl"]
  assert "it was edited" in told[0] and "1 of its 2 rows are in no file of rows" in told[1]
  (folder,) = (workdir / "images" / "digits").iterdir()
  folder.rename(folder.with_name("original-seed0-0123456789ab"))
  assert any("does not match the fingerprint" in fault.why for fault in verify(workdir).faults)


def test_an_unfinished_set_is_not_a_fault(workdir):
  (manifest,) = workdir.glob("images/*/*/manifest.json")
  manifest.unlink()
  shutil.rmtree(workdir / "report")
  assert verify(workdir).faults == ()


def test_missing_and_busy_work_folders_are_usage_errors(workdir, tmp_path):
  with pytest.raises(UsageError, match=r"the work folder .* does not exist"):
    verify(tmp_path / "nowhere")
  (tmp_path / "bare").mkdir()
  with pytest.raises(UsageError, match="not a work folder"):
    verify(tmp_path / "bare")
  with (workdir / ".lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match="a run is using"):
      verify(workdir)
