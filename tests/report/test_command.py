"""Pages from work folders alone."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from genbench_jax.cli.compare import main as compare
from genbench_jax.cli.report import main
from genbench_jax.report.from_disk import shown_rows, write_page
from genbench_jax.report.gallery import Nearest
from genbench_jax.report.thumbnails import SIDE, thumbnail
from genbench_jax.store import files
from genbench_jax.store.image_bytes import UNREADABLE
from genbench_jax.store.image_set import (
  ImageRecord,
  ImageSet,
  ImageSetLayout,
  ImageSetWriter,
  encode_png,
)


def image_set(folder, strategy, unreadable=()):
  made_from = {"dataset": "digits", "source": "generative", "strategy": strategy, "seed": 0}
  layout = ImageSetLayout("digits_generative", ("zero", "one"), 4, 4, made_from)
  pixels = np.zeros((300, 200, 3), np.uint8)
  records = [ImageRecord(encode_png(pixels), i % 2, i, f"prompt {strategy}") for i in range(4)]
  for index in unreadable:
    records[index] = ImageRecord(UNREADABLE, index % 2, index)
  writer = ImageSetWriter(folder, layout)
  writer.write_shard(0, records)
  writer.close()
  return folder


@pytest.fixture
def workdir(rows, run, tmp_path):
  """A run whose page showed one of its two image sets."""
  files.write_json_lines(tmp_path / "results.jsonl", rows)
  shown = image_set(tmp_path / "images" / "digits" / "a", "simple_template")
  image_set(tmp_path / "images" / "digits" / "b", "defined_template")
  nearest = {shown: {1: Nearest(encode_png(np.ones((9, 9, 3), np.uint8)), "seven", 0.987)}}
  write_page(tmp_path, rows, run, [shown], 1, nearest=nearest)
  return tmp_path


def test_images_that_cannot_be_decoded_are_not_shown(rows, run, tmp_path):
  """Image sets keep a placeholder for them, so that later images keep their index."""
  folder = image_set(tmp_path / "images" / "digits" / "a", "simple_template", unreadable=(0,))
  write_page(tmp_path, rows, run, [folder], 2)
  page = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
  assert page.count("data:image/jpeg") == 3


def test_captions_contain_the_nearest_test_images(workdir):
  text = (workdir / "report" / "index.html").read_text(encoding="utf-8")
  assert "Nearest test image, of class seven" in text
  assert "cosine 0.987" in text
  assert text.count("Nearest test image:") == 1


def test_a_page_is_rebuilt_from_the_work_folder(workdir):
  page = workdir / "report" / "index.html"
  page.unlink()
  assert main([str(workdir)]) == 0
  text = page.read_text(encoding="utf-8")
  assert "The demo worlds" in text
  assert "prompt simple_template" in text
  assert "prompt defined_template" not in text
  # Without a record, every image set that has rows is shown.
  (workdir / "report" / "run.json").unlink()
  assert main([str(workdir)]) == 0
  assert "prompt defined_template" in page.read_text(encoding="utf-8")


def test_two_runs_are_compared(workdir, rows, tmp_path_factory):
  other = tmp_path_factory.mktemp("other")
  files.write_json_lines(other / "results.jsonl", rows)
  files.write_json(other / "runs" / "x.json", {"command": "mended", "seconds": {}})
  out = other / "out"
  assert compare([str(workdir), str(other), "--out", str(out)]) == 0
  text = (out / "index.html").read_text(encoding="utf-8")
  assert other.name in text
  assert "mended" in text


def test_usage_errors_are_one_line(tmp_path, capfd):
  assert main([]) == 2
  assert main([str(tmp_path)]) == 2
  (tmp_path / "results.jsonl").write_text("{")
  assert main([str(tmp_path)]) == 1
  said = capfd.readouterr().err.splitlines()
  assert len(said) == 3
  assert "the following arguments are required: workdir" in said[0]
  assert "there is no" in said[1]
  assert "damaged" in said[2]


def test_a_page_of_many_sets_shows_fewer_of_each(workdir):
  images = ImageSet(workdir / "images" / "digits" / "a")
  assert shown_rows(images, 6, 1, {}) == [0, 1, 2, 3]
  assert shown_rows(images, 1, 1, {}) == [0, 1]
  images.manifest["class_names"] = [str(i) for i in range(1000)]
  assert shown_rows(images, 6, 10**6, {}) == [0]  # of 1,000 classes 24, evenly: 0, 41, 83, ...
  gains = {str(i): i - 500.0 for i in range(1000)}
  assert shown_rows(images, 6, 10**6, {"digits": gains}) == [
    0,
    1,
  ]  # the twelve worst and the twelve best


def test_thumbnails_are_small_and_small_images_unchanged():
  large = thumbnail(encode_png(np.zeros((300, 200, 3), np.uint8)))
  assert large.startswith(b"\xff\xd8\xff")
  small = encode_png(np.zeros((30, 20, 3), np.uint8))
  assert thumbnail(small) == small
  assert thumbnail(Image.new("L", (SIDE, SIDE))).startswith(b"\x89PNG")


def test_the_inputs_of_the_page_are_json(workdir):
  made_from = json.loads((workdir / "report" / "run.json").read_text())
  assert made_from["image_sets"] == ["images/digits/a"]


def test_a_price_is_kept_with_the_page(workdir, capfd):
  assert main([str(workdir), "--price", "1.2"]) == 0
  made_from = json.loads((workdir / "report" / "run.json").read_text())
  assert made_from["run"]["price"] == 1.2
  for wrong in ("much", "-1", "inf", "nan"):
    assert main([str(workdir), f"--price={wrong}"]) == 2
  assert "is not a price" in capfd.readouterr().err


def test_the_older_form_of_the_comparison(workdir, tmp_path):
  out = tmp_path / "both"
  command = [
    sys.executable,
    "-m",
    "genbench_jax.report",
    "--compare",
    workdir,
    workdir,
    "--out",
    out,
  ]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  assert (out / "index.html").exists()
