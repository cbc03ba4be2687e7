"""A benchmark has encoders: what is measured in the main one is measured in each, as far as it knows texts."""

import json

import pytest

from genbench_jax.config import default_config, make_config
from genbench_jax.errors import UsageError
from genbench_jax.pipeline.stages import run_stages
from genbench_jax.planning.costs import costs
from genbench_jax.run import Run, pins
from genbench_jax.zoo.tiny import write_tiny_clip, write_tiny_dinov2

STAGES = ("images", "embed", "score", "recognize", "report")
QUANTITIES = ("zero_shot", "cler", "clip_score", "fid", "linear_probe")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp("models")
  config = default_config()
  config.datasets = ("shapes",)
  config.sources = ("original",)
  config.shots = (1,)
  config.encoder.checkpoint = str(write_tiny_clip(folder / "clip"))
  config.encoders = {
    "other": {"checkpoint": str(write_tiny_clip(folder / "other", seed=1))},
    "dinov2": {"checkpoint": str(write_tiny_dinov2(folder / "dinov2")), "batch_per_device": 8},
  }
  config.scoring.quantities = QUANTITIES[:-1]
  config.scoring.resamples = 4
  return make_config(config)


@pytest.fixture(scope="module")
def measured(config, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("run")
  run_stages(config, workdir, STAGES, "a test")
  lines = (workdir / "results.jsonl").read_text().splitlines()
  return workdir, [json.loads(line) for line in lines]


def test_rows_name_the_encoder_that_they_were_measured_in(config, measured):
  _, rows = measured
  found = {
    name: {row["quantity"]: row["value"] for row in rows if row["encoder"] == name}
    for name in (config.encoder.checkpoint, "other", "dinov2")
  }
  assert {row["encoder"] for row in rows} == set(found)
  main, other, dinov2 = found.values()
  assert main.keys() == other.keys() == set(QUANTITIES)
  assert dinov2.keys() == {"fid", "linear_probe"}  # it knows no texts
  assert len({values["fid"] for values in found.values()}) == 3


def test_nothing_is_made_twice(config, measured, capsys):
  workdir, _ = measured
  run_stages(config, workdir, STAGES, "a test")
  said = capsys.readouterr().err
  assert all(f"{stage}: nothing to do" in said for stage in STAGES)


def test_the_main_encoder_can_go_without_the_others(config, measured, capsys):
  import dataclasses

  workdir, _ = measured
  run_stages(dataclasses.replace(config, encoders={}), workdir, STAGES[:2], "a test")
  assert "embed: nothing to do" in capsys.readouterr().err


def test_every_encoder_is_pinned_and_named(config, tmp_path):
  assert len(list(pins(config))) == 3
  run = Run(config, tmp_path)
  assert [space.name for space in run.other_spaces] == ["dinov2", "other"]
  with pytest.raises(UsageError, match=r"the same as config\.encoder"):
    make_config({"encoders": {"x": {"checkpoint": "zoo/clip"}}})


def test_the_plan_counts_every_encoder(config):
  found = costs(config)
  assert list(found.models) == ["encoder", "encoder dinov2", "encoder other"]
  each = [found.encoder, *found.others.values()]
  count = found.datasets[0].embedded
  assert found.flops(("embed",)) == count * sum(one.flops for one in each)
