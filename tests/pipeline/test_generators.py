"""Several generators: separate image sets and rows; shared images are made once."""

import json
import runpy
from pathlib import Path

import pytest

from genbench_jax.cells import all_cells, image_sets
from genbench_jax.config import default_config, generator_sweep, make_config
from genbench_jax.errors import UsageError
from genbench_jax.pipeline.artifacts import image_folder, open_image_set
from genbench_jax.pipeline.manifest import wanted_images
from genbench_jax.pipeline.stages import run_stages
from genbench_jax.planning.costs import costs
from genbench_jax.planning.machines import machine
from genbench_jax.planning.overview import overview
from genbench_jax.run import Run, pins
from genbench_jax.zoo.tiny import SHALLOW_UNET, write_tiny_clip, write_tiny_stable_diffusion

STAGES = ("images", "embed", "score", "report")
PROTOCOL = Path(__file__).parents[2] / "configs" / "generators.py"


@pytest.fixture(scope="module")
def values(tmp_path_factory):
  folder = tmp_path_factory.mktemp("models")
  first = write_tiny_stable_diffusion(folder / "first", unet=SHALLOW_UNET)
  config = default_config()
  config.datasets = ("shapes",)
  config.sources = ("generative", "original")
  config.shots = (1,)
  config.generation.checkpoint = str(first)
  config.generation.steps = 1
  config.generation.guidance_scale = 1.0
  config.generation.batch_per_device = 1
  config.encoder.checkpoint = str(write_tiny_clip(folder / "clip"))
  config.scoring.quantities = ("zero_shot", "cler")
  config.scoring.resamples = 4
  config.generators = {
    "plain": {},
    "same": {"steps": 1},
    "longer": {"steps": 2, "negative_prompt": "blurry"},
  }
  return config


@pytest.fixture(scope="module")
def measured(values, tmp_path_factory):
  config, workdir = make_config(values), tmp_path_factory.mktemp("run")
  run_stages(config, workdir, STAGES, "a test")
  lines = (workdir / "results.jsonl").read_text().splitlines()
  return Run(config, workdir), [json.loads(line) for line in lines]


def test_rows_carry_their_generator(measured):
  run, rows = measured
  found = {(row["source"], row["generator"]) for row in rows}
  named = {("generative", name) for name in run.config.generators}
  assert found >= {*named, ("original", "")}
  values = {
    name: {
      row["quantity"]: row["value"]
      for row in rows
      if (row["source"], row["generator"]) == ("generative", name)
    }
    for name in run.config.generators
  }
  assert values["plain"] == values["same"]
  assert {cell.generator for cell in all_cells(run.config)} == {*run.config.generators, ""}


def test_shared_images_are_made_once(measured):
  run, _ = measured
  longer, plain, same, _ = image_sets(run.config)
  assert image_folder(run, plain) == image_folder(run, same) != image_folder(run, longer)
  assert len(list((run.workdir / "images" / "shapes").glob("generative-*"))) == 2
  first, other = open_image_set(run, plain)[3], open_image_set(run, longer)[3]
  assert first.prompt == other.prompt and first.image != other.image
  assert (first.negative_prompt, other.negative_prompt) == ("", "blurry")


def test_costs_and_pins_cover_every_generator(measured, values):
  run, _ = measured
  ledger = json.loads(next((run.workdir / "runs").glob("*.json")).read_text())
  assert "shapes generative-plain-defined_template-seed0" in ledger["costs"]  # the page uses it
  found = costs(run.config)
  assert list(found.diffusions) == ["longer", "plain", "same"]
  flops = [model.flops for model in found.diffusions.values()]
  assert flops[0] > flops[1] == flops[2]
  assert found.datasets[0].flops["images"] == 8 * sum(flops)
  assert len(list(pins(run.config))) == 2  # one checkpoint, and the encoder


def test_the_list_of_wanted_images_names_each_generator(measured):
  run, _ = measured
  lines = list(wanted_images(run.config, run.workdir))
  assert len({line["file"] for line in lines}) == len(lines) == 24
  seeds = {
    name: [o["seed"] for o in lines if o["set"].startswith(name)] for name in ("plain", "longer")
  }
  assert seeds["plain"] == seeds["longer"] and len(set(seeds["plain"])) == 8


def test_a_sweep_has_every_combination():
  table = generator_sweep("sd21", checkpoint="a/b", guidance_scale=(1.5, 4.0), steps=(10, 25))
  assert list(table) == [
    "sd21-guidance_scale1_5-steps10",
    "sd21-guidance_scale1_5-steps25",
    "sd21-guidance_scale4-steps10",
    "sd21-guidance_scale4-steps25",
  ]
  assert table["sd21-guidance_scale4-steps10"] == {
    "checkpoint": "a/b",
    "guidance_scale": 4.0,
    "steps": 10,
  }


def test_another_checkpoint_does_not_inherit_the_pin():
  values = {
    "generation": {"checkpoint": "a/b", "revision": "1", "sha256": "2", "steps": 7},
    "generators": {"own": {"checkpoint": "c/d"}, "pinned": {"guidance_scale": 2}},
  }
  config = make_config(values)
  own, pinned = config.generators.values()
  assert (own.checkpoint, own.revision, own.sha256, own.steps) == ("c/d", "", "", 7)
  assert (pinned.revision, pinned.sha256, pinned.guidance_scale) == ("1", "2", 2.0)
  assert make_config(json.loads(config.as_json())) == config


@pytest.mark.parametrize(
  ("table", "message"),
  [
    ({"a b": {}}, "a name may have at most"),
    ({"x": {"stps": 1}}, "Did you mean 'config.generators.x.steps'"),
    ({"x": {"steps": 0}}, r"config\.generators\.x\.steps is 0"),
    ({"x": {"shard_size": 3}}, r"set config\.generation\.shard_size"),
    ((1, 2), "expected a table"),
  ],
)
def test_a_mistake_in_the_table_is_reported_by_name(table, message):
  with pytest.raises(UsageError, match=message):
    make_config({"generators": table})


# ---- configs/generators.py ----------------------------------------------------------------------


def protocol(arguments=""):
  return make_config(runpy.run_path(str(PROTOCOL))["get_config"](arguments))


@pytest.mark.parametrize(
  ("arguments", "count", "checkpoints"), [("", 6, 6), ("sweep", 12, 6), ("quick", 4, 1)]
)
def test_the_protocols_generators_are_planned(arguments, count, checkpoints):
  """Without a network, models that are not downloaded have the published architecture's cost."""
  config = protocol(arguments)
  found = costs(config)
  assert found.diffusions.keys() == config.generators.keys() and len(config.generators) == count
  assert all(model.flops > 0 and model.memory > 0 for model in found.diffusions.values())
  distinct = {generator.checkpoint for generator in config.generators.values()}
  assert len(distinct) == checkpoints
  assert all(pin.checkpoint for pin in pins(config))
  assert found.flops(("images", "embed")) is not None  # the encoders are known as well


def test_the_plan_compares_generators():
  config = protocol("quick")
  lines = overview(config, None, machine("h100")).splitlines()
  start = lines.index("An image on one NVIDIA H100 SXM") + 2
  table = [line.split() for line in lines[start : start + 4]]
  assert [row[0] for row in table] == list(config.generators)
  # operations, bytes, images/s and price: guidance doubles them, and so nearly do steps.
  rates = {row[0]: float(row[5].replace(",", "")) for row in table}
  one, two = (rates[f"zoo-guidance_scale{scale}-steps8"] for scale in (1, 3))
  assert 1.5 < one / two < 2.1


@pytest.mark.long
def test_the_quick_protocol_ranks_its_generators(tmp_path):
  """Guidance makes better training images, and eight steps no better ones than two."""
  config = protocol("quick")
  run_stages(config, tmp_path, (*STAGES[:3], "recognize", "report"), "a test")
  rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
  probes = {
    row["generator"]: row["value"]
    for row in rows
    if (row["source"], row["quantity"], row["shots"]) == ("generative", "linear_probe", 8)
  }
  assert probes.keys() == config.generators.keys()
  unguided = [value for name, value in probes.items() if "guidance_scale1-" in name]
  guided = [value for name, value in probes.items() if "guidance_scale3-" in name]
  assert min(guided) > max(unguided)
  page = (tmp_path / "report" / "index.html").read_text()
  assert all(name in page for name in config.generators)
