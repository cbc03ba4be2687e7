"""If one of two cells fails, the other continues on request or if a model caused the failure."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from genbench_jax.main import main
from genbench_jax.zoo.tiny import write_tiny_stable_diffusion

STAGES = "--stages=images,embed,score"
TWO_CELLS = ("--config.sources=('original',)", "--config.seeds=(0, 1)")


@pytest.fixture
def half_broken(tiny, tmp_path, capfd):
  """The arguments of a run with two cells; the images of one are damaged."""
  arguments = tiny.arguments(tmp_path, *TWO_CELLS)
  assert main(["main", *arguments, "--stages=images"]) == 0
  shard = next((tmp_path / "images" / "digits").glob("original-seed0-*/*.array_record-00001-*"))
  data = shard.read_bytes()
  shard.write_bytes(data[:150] + bytes([data[150] ^ 1]) + data[151:])
  capfd.readouterr()
  return ["main", *arguments, STAGES], shard


def test_without_keep_going_a_run_stops_at_the_first_failure(half_broken, tmp_path, capfd):
  arguments, shard = half_broken
  assert main(arguments) == 1
  said = capfd.readouterr().err.splitlines()
  assert said[-1].startswith(f"error: shard {shard} is damaged")
  assert not any(line.startswith(("failed:", "score:")) for line in said)
  assert not list((tmp_path / "embeddings").rglob("original-*.safetensors"))
  assert not (tmp_path / "results.jsonl").exists()


def test_with_keep_going_other_cells_finish_and_failures_are_listed(
  half_broken, tiny, tmp_path, capfd
):
  arguments, shard = half_broken
  assert main([*arguments, "--keep-going"]) == 1
  said = capfd.readouterr().err.splitlines()
  failed = f"digits original-seed0: shard {shard} is damaged"
  assert [line for line in said if line.startswith(f"failed: {failed}")]
  assert said[-2] == "error: 1 failed, the others are done:"
  assert said[-1].startswith(f"  {failed}")
  assert {row["seed"] for row in tiny.rows(tmp_path)} == {1}

  # The same command makes that shard again, and only the failed cell remains.
  (shard.parent / "manifest.json").unlink()
  rows = next((tmp_path / "rows" / "digits").glob("*seed1*")).read_bytes()
  assert main([arguments[0], *arguments[1:], "--keep-going"]) == 0
  assert {row["seed"] for row in tiny.rows(tmp_path)} == {0, 1}
  assert next((tmp_path / "rows" / "digits").glob("*seed1*")).read_bytes() == rows


@pytest.mark.long
def test_nan_from_a_model_fails_only_its_cell(tiny, tmp_path):
  folder = write_tiny_stable_diffusion(tmp_path / "diffusion")
  weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
  tensors = load_file(weights)
  tensors["decoder.conv_in.bias"] = np.full_like(tensors["decoder.conv_in.bias"], np.nan)
  save_file(tensors, weights)
  status, output = tiny.run(
    tmp_path / "run",
    f"--config.generation.checkpoint={folder}",
    STAGES,
  )
  assert status == 1, output
  said = output.splitlines()
  assert said[-2] == "error: 1 failed, the others are done:"
  assert "digits generative-defined_template-seed0: " in said[-1]
  assert "prompt '" in said[-1]
  assert {row["source"] for row in tiny.rows(tmp_path / "run")} >= {"original"}
  assert "generative" not in {row["source"] for row in tiny.rows(tmp_path / "run")}


@pytest.mark.slow
def test_a_cell_that_is_trained_again_is_bit_identical(tiny, tmp_path):
  """This happens if a run is killed while it saves cells that were trained together."""
  shots = ("--config.sources=('original',)", "--config.shots=(3, 4)")  # after 1 and 2
  arguments = ["main", *tiny.arguments(tmp_path, *shots)]
  assert main([*arguments, "--stages=images,embed,recognize"]) == 0
  before = tiny.bytes(tmp_path, "recognizers")
  shutil.rmtree(next(tmp_path.glob("recognizers/*/*/linear_probe-strict-3shots")))
  for rows in tmp_path.glob("rows/*/*-recognize-*"):
    rows.unlink()
  assert main([*arguments, "--stages=recognize"]) == 0
  after = tiny.bytes(tmp_path, "recognizers")
  assert after.keys() == before.keys()
  for name, content in after.items():
    if name.endswith("summary.json"):
      assert without_seconds(content) == without_seconds(before[name]), name
    else:
      assert content == before[name], name


def without_seconds(summary):
  """Return the summary without its time."""
  return {key: value for key, value in json.loads(summary).items() if key != "seconds"}
