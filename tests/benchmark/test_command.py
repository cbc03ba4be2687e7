import importlib.util
import json
import subprocess
import sys

import pytest

from genbench_jax.benchmark.prepare import prepare
from genbench_jax.benchmark.reader import open_split
from genbench_jax.benchmark.readiness import readiness
from genbench_jax.benchmark.registry import dataset_spec, known_datasets
from genbench_jax.benchmark.stand_in import prepare_stand_in
from genbench_jax.cli.benchmark import main
from genbench_jax.errors import RunError, UsageError


def test_table_has_a_row_for_each_of_the_22_and_says_what_to_do(tmp_path, capsys, monkeypatch):
  # As on a machine without the extra.
  monkeypatch.setattr(
    "genbench_jax.benchmark.readiness.missing_packages", lambda spec: ("tensorflow",)
  )
  assert main(["--data-dir", str(tmp_path)]) == 1
  text = capsys.readouterr().out
  lines = text.splitlines()
  assert [line.split()[0] for line in lines[1:23]] == list(known_datasets())
  assert "0 of 22 ready, 2548 classes." in text
  assert f"put hateful_memes.zip into {tmp_path / 'downloads' / 'manual'}: https://" in text
  assert text.count("pip install 'genbench_jax[prepare]'") == 1


def test_json_has_the_same_content(tmp_path, capsys):
  assert main(["list", "--json", "--data-dir", str(tmp_path), "gtsrb", "cifar-10"]) == 1
  rows = json.loads(capsys.readouterr().out)
  assert [(row["name"], row["classes"], row["ready"]) for row in rows] == [
    ("gtsrb", 43, False),
    ("cifar10", 10, False),
  ]
  assert rows[0]["steps"] == ["genbench benchmark prepare gtsrb"]
  assert rows[0]["expected_sizes"] == {"train": 26640, "validation": 12569, "test": 12630}


def test_exit_status_is_0_if_all_datasets_are_ready(tmp_path, capsys):
  prepare_stand_in(dataset_spec("mnist"), tmp_path, {"train": 1, "test": 1})
  assert main(["list", "mnist", "digits", "--data-dir", str(tmp_path)]) == 0
  assert "stand-in" in capsys.readouterr().out
  state = readiness(dataset_spec("mnist"), tmp_path)
  assert (state.ready, state.stand_in, state.sizes) == (True, True, {"train": 10, "test": 10})


def test_a_dataset_with_an_unexpected_size_is_reported(tmp_path):
  prepare_stand_in(dataset_spec("mnist"), tmp_path, {"train": 1, "test": 1})
  (tmp_path / "STAND_IN").unlink()
  state = readiness(dataset_spec("mnist"), tmp_path)
  assert state.missing == "train has 10 images, not 60000; test has 10 images, not 10000"
  assert state.steps[-1].endswith("prepare mnist")


def test_a_derived_split_that_is_too_small_is_reported(tmp_path):
  prepare_stand_in(dataset_spec("eurosat"), tmp_path, {"train": 1, "validation": 1, "test": 1})
  (tmp_path / "STAND_IN").unlink()
  assert readiness(dataset_spec("eurosat"), tmp_path).missing == "train has 30 images, not 15000"


def test_tfrecord_is_not_ready(tmp_path, capsys):
  spec = dataset_spec("mnist")
  prepare_stand_in(spec, tmp_path, {"train": 1, "test": 1})
  (info,) = tmp_path.glob("mnist/*/dataset_info.json")
  info.write_text(info.read_text().replace("array_record", "tfrecord"))
  assert readiness(spec, tmp_path).missing == "prepared as TFRecord, expected ArrayRecord"
  with pytest.raises(RunError, match="was prepared as TFRecord"):
    open_split(spec, "test", tmp_path)


def test_data_are_not_prepared_among_stand_ins(tmp_path):
  prepare_stand_in(dataset_spec("gtsrb"), tmp_path, {"train": 1, "validation": 1, "test": 1})
  with pytest.raises(UsageError, match="is for stand-ins"):
    prepare(dataset_spec("gtsrb"), tmp_path)


def test_a_prepared_dataset_needs_no_packages(tmp_path):
  spec = dataset_spec("mnist")
  prepare_stand_in(spec, tmp_path, {"train": 1, "test": 1})
  (tmp_path / "STAND_IN").unlink()
  prepare(spec, tmp_path)


@pytest.mark.skipif(
  importlib.util.find_spec("tensorflow") is not None, reason="TensorFlow is there"
)
@pytest.mark.parametrize(
  ("name", "packages"), [("food101", "tensorflow"), ("kitti_distance", "tensorflow, cv2")]
)
def test_missing_packages_are_named_before_anything_is_downloaded(name, packages, tmp_path):
  with pytest.raises(RunError, match=f"preparing '{name}' needs {packages}: pip install"):
    prepare(dataset_spec(name), tmp_path)
  assert not list(tmp_path.iterdir())


def test_manually_downloaded_files_are_found(tmp_path):
  spec = dataset_spec("hateful_memes")
  (tmp_path / "downloads" / "manual" / "hateful_memes").mkdir(parents=True)
  assert readiness(spec, tmp_path).missing == "not prepared"
  assert readiness(spec, tmp_path, tmp_path).missing == "files hateful_memes.zip"


def test_prepare_continues_after_a_failure_and_returns_its_status(tmp_path, capsys):
  assert main(["prepare", "--data-dir", str(tmp_path), "--json", "fer2013", "digits"]) == 1
  captured = capsys.readouterr()
  failed, fine = json.loads(captured.out[captured.out.index("[\n") :])
  assert "fer2013.csv" in failed["error"]
  assert not failed["ready"]
  assert fine["ready"]
  assert captured.err.count("error: ") == 1


def test_show_prints_names_templates_and_labels(capsys):
  assert main(["show", "oxford-flower-102"]) == 0
  text = capsys.readouterr().out
  assert "a photo of a {}, a type of flower." in text
  assert "  59  pink and yellow dahlia  [pink-yellow dahlia?]" in text
  assert main(["show", "fer2013", "--json"]) == 0
  (shown,) = json.loads(capsys.readouterr().out)
  assert shown["class_names"][3] == ["happy", "smiling"]


def test_unknown_names_give_one_line(capsys):
  assert main(["show", "cifar11"]) == 2
  error = capsys.readouterr().err
  assert error.startswith("error: unknown dataset 'cifar11'. Did you mean 'cifar10'?")
  assert error.count("\n") == 1
  assert main(["prepare"]) == 2
  assert "NAME" in capsys.readouterr().err


def test_it_answers_without_slow_imports():
  code = (
    "import sys; from genbench_jax.cli.benchmark import main; main(['show', 'mnist']);"
    "slow = {'jax', 'tensorflow', 'tensorflow_datasets', 'transformers'} & set(sys.modules);"
    "sys.exit(f'imported {slow}' if slow else 0)"
  )
  subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
