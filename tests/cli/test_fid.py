"""What `genbench fid` prints."""

import json

import pytest

from genbench_jax.cli.fid import main
from genbench_jax.metrics.inception import MeanOverParts
from genbench_jax.pipeline import fid as pipeline
from genbench_jax.pipeline.fid import FolderDistance

FOUND = FolderDistance(
  12.3456,
  MeanOverParts(0.0123, 0.0004),
  (3000, 2500),
  "inception",
  "clean",
  "ab12",
  11.5,
  {"a\tb": 20.0},
)


@pytest.fixture
def asked(monkeypatch):
  """The arguments of the measurement, which returns `FOUND` or another distance."""
  calls = {"found": FOUND}

  def measured(*arguments):
    calls["arguments"] = arguments
    return calls["found"]

  monkeypatch.setattr(pipeline, "fid_between_folders", measured)
  return calls


def test_the_distances_are_printed_with_their_settings(asked, capsys):
  assert main(["a", "b"]) == 0
  assert capsys.readouterr().out.splitlines() == [
    "FID 12.346   (3,000 images and 2,500 images, inception, clean resizing)",
    "KID x 1000 12.300 ± 0.400",
    "FID of infinitely many images 11.500",
    "weights: SHA-256 ab12",
  ]
  assert asked["arguments"] == ("a", "b", "inception", None, 32, None, None, "")


def test_classes_are_printed_if_asked_for_and_cannot_imitate_output(asked, capsys):
  assert main(["a", "b", "--by-class"]) == 0
  assert capsys.readouterr().out.splitlines()[-2] == "  a\\tb: FID 20.000"


def test_classes_that_are_asked_for_and_missing_are_explained(asked, capsys):
  asked["found"] = FolderDistance(1.0, None, (5, 0), "inception", "legacy", "ab12")
  assert main(["a", "b.npz", "--by-class"]) == 0
  assert "no class: no subfolder has the same name" in capsys.readouterr().out


def test_statistics_have_no_number_of_images_and_no_kernel_distance(asked, capsys):
  asked["found"] = FolderDistance(1.0, None, (5, 0), "inception", "legacy", "ab12")
  options = ["--resize", "legacy", "--save", "mine.npz", "--batch-per-device", "4"]
  assert main(["a", "b.npz", *options]) == 0
  assert capsys.readouterr().out == (
    "FID 1.000   (5 images and statistics, inception, legacy resizing)\nweights: SHA-256 ab12\n"
  )
  assert asked["arguments"][3:5] == ("legacy", 4) and asked["arguments"][5].name == "mine.npz"


def test_json_has_every_number(asked, capsys):
  assert main(["a", "b", "--json", "--encoder", "zoo/clip"]) == 0
  assert json.loads(capsys.readouterr().out) == {
    "fid": 12.3456, "kid": 0.0123, "images": [3000, 2500], "encoder": "inception", "resize": "clean", "sha256": "ab12",
    "fd_infinity": 11.5, "by_class": {"a\tb": 20.0},
  }  # fmt: skip


@pytest.mark.parametrize("words", [["a"], ["a", "b", "--resize", "none"], ["a", "b", "--batch-per-device", "0"]])  # fmt: skip
def test_usage_errors_are_one_line(asked, words, capsys):
  assert main(words) == 2
  assert capsys.readouterr().err.count("\n") == 1 and "arguments" not in asked
