"""The five-minute use: a folder of images in, the table and the page out."""

import pytest

import genbench_jax as gb
from genbench_jax.benchmark.reader import open_split
from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.cli.evaluate import main
from genbench_jax.pipeline.evaluate import shots_up_to
from genbench_jax.store.rows import COLUMNS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Digits by name, three of each class but the last, and a folder that is no class."""
  root = tmp_path_factory.mktemp("given") / "my_images"
  spec = dataset_spec("digits")
  split = open_split(spec, "train")
  left = dict.fromkeys(range(9), 3)
  for index in range(200):
    example = split.example(index)
    if left.get(example["label"]):
      left[example["label"]] -= 1
      path = root / spec.names[example["label"]].upper() / f"{index}.png"
      path.parent.mkdir(parents=True, exist_ok=True)
      example["image"].save(path)
  assert not any(left.values())
  (root / "unicorn").mkdir()
  return root


def test_one_call_gives_the_rows_and_the_page(folder, tmp_path):
  settings = {"scoring.resamples": 20, "scoring.quantities": ("zero_shot", "cler", "clip_score")}
  rows = gb.evaluate_folder(folder, "digits", tmp_path / "out", shots=(3,), settings=settings)
  assert {tuple(row) for row in rows} == {COLUMNS}
  found = {row["quantity"]: row for row in rows if row["source"] == "folder"}
  assert set(found) == {"zero_shot", "cler", "clip_score", "linear_probe"}
  cler = found["cler"]
  assert cler["value"] > 0.9
  assert (cler["n_external"], cler["n_real"], cler["missing_classes"]) == (27, 0, 1)
  page = (tmp_path / "out" / "report" / "index.html").read_text(encoding="utf-8")
  assert "How good are the images of my_images as training data?" in page
  assert "unicorn" in page
  assert "1 classes have no image" in page


def test_mistakes_end_in_one_line(folder, tmp_path, capsys):
  assert main([str(tmp_path / "none"), "--dataset", "digits"]) == 2
  assert "there is no folder" in capsys.readouterr().err
  assert main([str(folder), "--dataset", "shapes"]) == 2
  assert "is a class of 'shapes'" in capsys.readouterr().err
  assert main([str(folder), "--dataset", "digit"]) == 2
  assert "Did you mean 'digits'?" in capsys.readouterr().err


def test_shots_grow_by_four_up_to_the_largest_class():
  assert [shots_up_to(n) for n in (1, 3, 4, 20)] == [(1,), (1, 3), (1, 4), (1, 4, 16, 20)]
