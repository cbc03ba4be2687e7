"""`genbench leaks`: images that are like test images, from features or images."""

import json

import numpy as np
import pytest
from PIL import Image

from genbench_jax.benchmark.worlds import world_example
from genbench_jax.cli.leaks import main


@pytest.fixture
def features(tmp_path):
  """Features of five images, of which two are like test images, and of three test images."""
  random = np.random.default_rng(0)
  test = random.normal(size=(3, 16)).astype(np.float32)
  mine = random.normal(size=(5, 16)).astype(np.float32)
  mine[1], mine[4] = 2 * test[2], test[0] + 0.05 * mine[4]
  np.save(tmp_path / "mine.npy", mine)
  np.save(tmp_path / "test.npy", test)
  return [str(tmp_path / "mine.npy"), "--test", str(tmp_path / "test.npy")]


def test_flagged_images_are_listed_nearest_first(features, capsys):
  assert main([*features, "--threshold", "0.9"]) == 0
  head, *lines = capsys.readouterr().out.splitlines()
  assert head.startswith("2 of 5 images have a cosine of 0.9 or more")
  assert head.endswith("the maximum is 1.0000.")
  assert [line.split("  ")[2] for line in lines] == [
    "'row 1' ~ test image 2", "'row 4' ~ test image 0",
  ]  # fmt: skip


def test_no_more_are_listed_than_asked_for(features, capsys):
  assert main([*features, "--threshold", "0.9", "--show", "1"]) == 0
  assert len(capsys.readouterr().out.splitlines()) == 2


def test_json_lists_all_of_them(features, capsys):
  assert main([*features, "--threshold", "0.9", "--show", "1", "--json"]) == 0
  found = json.loads(capsys.readouterr().out)
  assert (found["images"], found["threshold"]) == (5, 0.9)
  assert [(pair["image"], pair["test_row"]) for pair in found["flagged"]] == [
    ("row 1", 2), ("row 4", 0),
  ]  # fmt: skip
  assert found["flagged"][0]["cosine"] == pytest.approx(1, abs=1e-6)


def test_a_copied_test_image_in_a_folder_is_found_by_its_name(tmp_path, capsys):
  for index in range(3):
    split = "test" if index == 1 else "train"
    image = Image.fromarray(world_example("shapes", split, 10 * index).image)
    image.save(tmp_path / f"{index}.png")
  (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
  assert main([str(tmp_path), "--dataset", "shapes", "--threshold", "0.9999", "--json"]) == 0
  found = json.loads(capsys.readouterr().out)
  assert found["images"] == 3  # the broken one is left out
  assert [(pair["image"], pair["test_row"]) for pair in found["flagged"]] == [("1.png", 10)]


def test_a_folder_without_a_readable_image_is_an_error(tmp_path, capsys):
  (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
  assert main([str(tmp_path), "--dataset", "shapes"]) == 2
  assert "no image in" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["x.npy"], "--dataset"),
    (["x.npy", "--dataset", "a", "--test", "b"], "not allowed with"),
    (["x.npy", "--test", "y.npy"], "x.npy"),
  ],
)
def test_usage_errors_are_one_line(words, message, capsys, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert main(words) == 2
  error = capsys.readouterr().err
  assert message in error and error.count("\n") == 1


def test_other_files_are_no_features(tmp_path, capsys):
  (tmp_path / "x.txt").write_text("x")
  assert main([str(tmp_path / "x.txt"), "--test", str(tmp_path / "x.txt")]) == 2
  assert "expected .npy or .safetensors" in capsys.readouterr().err
