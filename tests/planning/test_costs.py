"""Costs of configs, and the command that prints them."""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest

from genbench_jax.cells import image_sets
from genbench_jax.config import Config, Generation, Selection
from genbench_jax.errors import UsageError
from genbench_jax.main import main
from genbench_jax.planning.costs import EFFICIENCY, chip_hours, costs, set_size
from genbench_jax.planning.machines import machine, machines
from genbench_jax.planning.overview import overview

ROOT = Path(__file__).parent.parent.parent
SMALL = Config(datasets=("digits", "shapes"), shots=(1, 4), seeds=(0, 1))


def test_images_are_counted():
  found = costs(SMALL)
  digits, shapes = found.datasets
  assert (digits.generated, digits.copied, digits.test) == (2 * 40, 2 * 40, 497)
  assert shapes.generated == 2 * 4 * shapes.num_classes
  assert found.total(lambda one: one.embedded) == sum(one.embedded for one in found.datasets)


def test_real_images_are_limited_by_the_dataset():
  key = next(key for key in image_sets(SMALL) if key.source == "original")
  assert set_size(key, dataclasses.replace(SMALL, shots=(10**6,))) == 400


@pytest.mark.parametrize(("keep_images", "kept"), [("all", 4), ("none", 0), ("1", 1), ("9", 4)])
def test_disk_counts_the_kept_images(keep_images, kept):
  """Digits has 10 classes, 2 seeds; 32 x 32 pixels of 1.7 bytes, 64 features of 4 bytes plus 13."""
  config = dataclasses.replace(SMALL, generation=Generation(keep_images=keep_images))
  digits = costs(config).datasets[0]
  assert digits.kept == 2 * 10 * kept
  embeddings = (80 + 80 + 497) * (4 * 64 + 13)
  assert digits.disk == pytest.approx(digits.kept * 1024 * 1.7 + 80 * 2_000 + embeddings)
  said = overview(config, None, machine("h100"))
  assert ("of the generated images kept" in said) == (kept < 4)


def test_disk_counts_candidates_and_selected_images():
  config = dataclasses.replace(SMALL, selection=Selection("random", candidates=3))
  digits, plain = costs(config).datasets[0], costs(SMALL).datasets[0]
  assert (digits.generated, digits.kept) == (3 * 80, 4 * 80)
  assert digits.disk - plain.disk == pytest.approx(3 * 80 * 1024 * 1.7)


def test_guidance_doubles_and_steps_multiply():
  def flops(**settings):
    return costs(dataclasses.replace(SMALL, generation=Generation(**settings))).flops(("images",))

  once, twice = flops(steps=10), flops(steps=20)
  assert twice > 1.8 * once
  assert flops(steps=10, guidance_scale=1.0) == pytest.approx(once / 2, rel=0.2)
  assert flops(steps=9, scheduler="pndm") == once


def test_an_unknown_checkpoint_has_unknown_cost():
  config = dataclasses.replace(SMALL, generation=Generation(checkpoint="someone/something"))
  found = costs(config)
  assert found.diffusion.folder is None
  assert found.flops() is None
  assert found.flops(("embed",)) > 0


def test_chip_hours_are_bound_by_arithmetic_or_memory():
  fast = machine("h100")
  slow = dataclasses.replace(fast, bandwidth_gbs=1.0)
  assert chip_hours(fast.tflops * 1e12 * 3600, dataclasses.replace(fast, bandwidth_gbs=1e9)) == (
    pytest.approx(1 / EFFICIENCY)
  )
  assert chip_hours(1e15, slow) > chip_hours(1e15, fast)


def test_the_cost_of_a_function_of_the_users_is_unknown():
  config = dataclasses.replace(SMALL, generation=Generation(backend="my_module:images"))
  assert costs(config).diffusion.flops is None and costs(config).flops(("images",)) is None
  assert "my_module:images  ready, unknown architecture" in overview(config, None, machine("h100"))


def test_names_of_machines():
  assert machine("v5e-64").chips == 64
  assert machine("a100-40").chips == 1
  assert machine("a100-40x8").label == "8 x NVIDIA A100 40 GB"
  assert machine("H100", price=2.5).usd_hour == 2.5
  assert all(one.source and one.as_of for one in machines().values())
  with pytest.raises(UsageError, match="Did you mean 'h100'"):
    machine("h10")


def test_machines_of_today_are_known_with_a_date_each():
  known = machines()
  assert known.keys() >= {"v5e", "v6e", "tpu7x", "a100", "h100", "h200", "b200", "l4"}
  assert machine("tpu7x-16").chips == 16
  assert known["h100"].as_of == "2026-11" and known["v5e"].as_of == "2025-06"
  for one in known.values():
    # Operations a byte of memory traffic: from a CPU's 9 to an RTX 4090's 164, H100's 295 and L4's 403.
    assert 5 < 1e3 * one.tflops / one.bandwidth_gbs < 600, one.name


def test_a_machine_without_a_price_is_planned_without_money():
  said = overview(SMALL, None, machine("tpu7x"))
  assert "no price" in said and "2026-11" in said and "no public list price" in said


def test_a_custom_table_of_machines(tmp_path):
  file = tmp_path / "mine.yaml"
  file.write_text(
    "as_of: 2026-01\nmachines:\n  mine: {what: mine, tflops: 1, memory_gb: 1, bandwidth_gbs: 1, usd_hour: 1, source: me}"
  )
  assert machine("mine-2", str(file)).as_of == "2026-01"
  file.write_text("machines: [1]")
  with pytest.raises(UsageError, match="not a table of machines"):
    machine("mine", str(file))


def test_the_full_benchmark_is_planned_quickly_and_without_jax():
  program = (
    "import sys; from genbench_jax.main import main;"
    f" status = main(['main', '--config={ROOT}/configs/full.py', '--plan', '--machine=v5e-64']);"
    " from jax._src import xla_bridge; assert not xla_bridge._backends; sys.exit(status)"
  )
  began = time.monotonic()
  done = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT
  )
  assert done.returncode == 0, done.stderr
  assert time.monotonic() - began < 60  # 3.4 CPU seconds; the machine may be busy
  for words in ("22, 2548 classes", "6,370,000 of 512 x 512 pixels", "64 x TPU v5e", "sun397"):
    assert words in done.stdout
  assert not done.stderr


def test_usage_errors_are_one_line(capfd):
  assert main(["main", f"--config={ROOT}/configs/demo.py", "--plan", "--machine=v9"]) == 2
  assert capfd.readouterr().err.startswith("error: unknown machine 'v9'.")


def test_every_recognizer_costs_its_training_steps():
  """There are 2 x 8 x 2 cells at 4 shots; 40 images give 400 steps of 64, each with three passes."""
  from genbench_jax.config import RECOGNIZERS, Recognition
  from genbench_jax.models.classifier_cost import network_flops
  from genbench_jax.recognizers.settings import FromScratchSettings, Recipe

  def recognizing(**settings):
    config = dataclasses.replace(SMALL, datasets=("digits",), recognition=Recognition(**settings))
    return costs(config).flops(("recognize",))

  for name in RECOGNIZERS:
    assert recognizing(recognizers=(name,)) > 0, name
  recipe = Recipe(search_rates=(1.0,), search_epochs=(1.0,))
  scratch = FromScratchSettings(image_size=32, shots=(4,), recipe=recipe)
  cells = 2 * 2  # sources and seeds, one strategy
  wanted = cells * network_flops("resnet18", 32, 10) * (3 * 400 * 64 + 497)
  assert recognizing(recognizers=("from_scratch",), from_scratch=scratch) == pytest.approx(wanted)
  assert recognizing(
    recognizers=("from_scratch",), from_scratch=scratch, protocols=("strict", "reference")
  ) == pytest.approx(2 * wanted)
  searched = dataclasses.replace(scratch, recipe=Recipe(search_rates=(0.3, 1.0), search_epochs=(0.5, 1.0)))  # fmt: skip
  assert recognizing(recognizers=("from_scratch",), from_scratch=searched) > 3.5 * wanted
