"""Lists of prompts, and the import of images that other programs generated from them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.benchmark.user_images import open_user_images
from genbench_jax.cli.genbench import main

ARGUMENTS = [
  "demo:quick", "--config.shots=(1, 2)",
  "--config.generation.strategies=('defined_template',)",
]  # fmt: skip


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
  out = tmp_path_factory.mktemp("list") / "prompts.jsonl"
  assert main(["prompts", *ARGUMENTS, "--out", str(out)]) == 0
  return out


def lines_of(manifest):
  return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def made(manifest, tmp_path):
  """Images of another program: JPEG, in the folders of the list."""
  for number, line in enumerate(lines_of(manifest)):
    path = (tmp_path / "made" / line["file"]).with_suffix(".JPG")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 9), (number * 11, 5, 7)).save(path, format="JPEG")
  return tmp_path / "made"


def test_the_list_has_every_image_in_index_order(manifest):
  lines = lines_of(manifest)
  spec = dataset_spec("digits")
  assert [line["index"] for line in lines] == list(range(20))
  assert [line["class"] for line in lines] == [*spec.names, *spec.names]
  assert len({line["seed"] for line in lines}) == 20
  assert all(line["class"] in line["prompt"] for line in lines)
  assert all(0 <= line["seed"] < 1 << 31 for line in lines)


def test_seeds_do_not_depend_on_the_number_of_images(manifest, tmp_path):
  few = [argument.replace("(1, 2)", "(1,)") for argument in ARGUMENTS]
  assert main(["prompts", *few, f"--out={tmp_path / 'few.jsonl'}"]) == 0
  assert lines_of(tmp_path / "few.jsonl") == lines_of(manifest)[:10]


def take(made, manifest, out, name="flux"):
  return main(["import", str(made), "--prompts", str(manifest), "--name", name, "--out", str(out)])


def test_images_are_imported_with_their_prompts_and_scored(made, manifest, tmp_path, capsys):
  assert take(made, manifest, tmp_path / "in") == 0
  assert "20 of 20 images of flux are imported." in capsys.readouterr().out
  folder = tmp_path / "in" / "flux" / "digits" / "defined_template-seed0"
  images = open_user_images(folder, dataset_spec("digits"), tmp_path / "cache")
  assert np.bincount(images.labels()).tolist() == [2] * 10 and not images.notes
  rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
  assert rows[3]["prompt"] == lines_of(manifest)[3]["prompt"]


def test_missing_damaged_duplicate_and_unwanted_images_are_reported(
  made, manifest, tmp_path, capsys
):
  files = sorted(made.glob("digits/*/*.JPG"))
  whole = files[4].read_bytes()
  files[3].unlink()
  files[4].write_bytes(b"no image")
  shutil.copy(files[5], files[6])
  shutil.copy(files[7], files[7].with_name("holiday.jpg"))
  assert take(made, manifest, tmp_path / "in") == 1
  told = capsys.readouterr().err
  assert "1 missing: 'digits/defined_template-seed0/00000003.png'." in told
  assert "1 cannot be decoded: 'digits/defined_template-seed0/00000004.png" in told
  assert "1 the same as another image: 'digits/defined_template-seed0/00000006.png = " in told
  assert "1 not wanted, and left out: 'digits/defined_template-seed0/holiday.jpg'." in told
  # Only the rejected images are needed again; imported ones may be deleted.
  shutil.rmtree(made)
  for file, color in ((files[3], 200), (files[6], 20)):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 9), (color, 99, 7)).save(file, format="JPEG")
  files[4].write_bytes(whole)
  assert take(made, manifest, tmp_path / "in") == 0
  assert "20 of 20" in capsys.readouterr().out


def test_images_of_a_single_set_may_be_in_the_folder_itself(made, manifest, tmp_path):
  flat = made / "digits" / "defined_template-seed0"
  assert take(flat, manifest, tmp_path / "in") == 0


@pytest.mark.parametrize(
  ("text", "said"),
  [("{", "cannot read"), ('{"file": "a"}', "line 1 is not a line"), ("[]", "line 1 is not a line")],
)
def test_an_invalid_list_is_rejected(text, said, made, tmp_path, capsys):
  (tmp_path / "p.jsonl").write_text(text)
  assert take(made, tmp_path / "p.jsonl", tmp_path / "in") == 2
  assert said in capsys.readouterr().err


def test_a_list_cannot_name_files_outside_the_folder(made, manifest, tmp_path, capsys):
  line = lines_of(manifest)[0] | {"dataset": "../../up", "file": "../x.png"}
  (tmp_path / "p.jsonl").write_text(json.dumps(line))
  assert take(made, tmp_path / "p.jsonl", tmp_path / "in") == 2
  (tmp_path / "p.jsonl").write_text(json.dumps(line | {"file": "x.png"}))
  assert take(made, tmp_path / "p.jsonl", tmp_path / "in") == 2
  assert take(made, manifest, tmp_path / "in", name="../x") == 2


def test_a_config_without_generated_images_has_no_list(tmp_path, capsys):
  arguments = ["demo", "--config.sources=('original',)", "--out", str(tmp_path / "p.jsonl")]
  assert main(["prompts", *arguments]) == 2
  assert "generates no images" in capsys.readouterr().err
  assert main(["prompts", "demo"]) == 2
  assert "required: --out" in capsys.readouterr().err


def test_two_files_for_an_image_and_links_are_named(made, manifest, tmp_path, capsys):
  first, second, *_ = sorted(made.glob("digits/*/*.JPG"))
  Image.new("RGB", (9, 9), (1, 2, 3)).save(first.with_suffix(".png"))
  second.with_name("link.png").symlink_to(second)
  assert take(made, manifest, tmp_path / "in") == 0
  told = capsys.readouterr().err
  assert "1 left out, for the same image as 'digits/defined_template-seed0/00000000.JPG'" in told
  assert "1 left out, symbolic links: 'digits/defined_template-seed0/link.png'." in told
