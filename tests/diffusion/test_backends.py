"""External generators: user functions, and PyTorch pipelines if torch is installed."""

import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genbench_jax.diffusion import backends
from genbench_jax.diffusion.options import parse_loras, parse_scheduler_settings
from genbench_jax.errors import RunError, UsageError
from genbench_jax.prompts.strategies import Prompt
from genbench_jax.runtime.throughput import Meter
from genbench_jax.sources.backend import backend_shards, image_seeds
from genbench_jax.sources.batches import ImageOrder
from genbench_jax.sources.index_space import ClassShot, image_keys
from genbench_jax.store.image_set import ImageSetLayout

SOURCE = """
import numpy as np

def images(prompts, negative_prompts, seeds, size):
  height, width = size or (4, 6)
  return np.stack([np.full((height, width, 3), seed % 251, np.uint8) for seed in seeds])

def wrong(prompts, negative_prompts, seeds, size):
  return np.zeros((1, 4, 4, 3))
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
  (tmp_path / "generator_of_this_test.py").write_text(SOURCE)
  monkeypatch.syspath_prepend(tmp_path)
  yield tmp_path / "generator_of_this_test.py"
  sys.modules.pop("generator_of_this_test", None)


def test_a_function_makes_the_images_of_an_index_space(own_module):
  backend = backends.load_function("generator_of_this_test:images")
  prompts = [[Prompt(f"{label} {shot}", "") for shot in range(3)] for label in range(2)]
  order = ImageOrder(prompts, 5, "shapes", "defined_template")
  layout = ImageSetLayout("set", ("a", "b"), 6, 4, {})
  made = dict(backend_shards(backend, layout, [0, 1], order, 3, None, Meter(1)))
  assert [len(records) for records in made.values()] == [4, 2]
  for records in made.values():
    for record in records:
      place = ClassShot(record.label, record.index // 2)
      (seed,) = image_seeds(image_keys(5, "shapes", "defined_template", [place]))
      pixels = np.asarray(Image.open(io.BytesIO(record.image)))
      assert pixels.shape == (4, 6, 3) and (pixels == seed % 251).all()
      assert record.prompt == f"{record.label} {record.index // 2}"
  # Whatever is left to make, the images are the same.
  alone = dict(backend_shards(backend, layout, [1], order, 1, None, Meter(1)))
  assert [r.image for r in alone[1]] == [r.image for r in made[1]]


def test_seeds_are_those_of_the_list_for_other_programs():
  keys = np.array([[1, 2**32 - 1], [7, 5]], np.uint32)
  assert image_seeds(keys) == [2**31 - 1, 5]


def test_images_that_are_none_and_functions_that_are_not_there_are_refused(own_module):
  with pytest.raises(
    RunError, match=r"returned float64 images of shape \[1, 4, 4, 3\], expected uint8 \[2"
  ):
    backends.load_function("generator_of_this_test:wrong")(["a", "b"], ["", ""], [1, 2], None)
  backend = backends.load_function("generator_of_this_test:images")
  assert backend(["a"], [""], [1], (8, 2)).shape == (1, 8, 2, 3)
  with pytest.raises(UsageError, match="is not a function of that module"):
    backends.load_function("generator_of_this_test:none")
  for use in (backends.load_function, backends.function_fingerprint):
    with pytest.raises(UsageError, match="can't be imported"):
      use("no_such_module:images")
  for name in ("os.system", "a:b:c", "rm -rf", "torch"):
    with pytest.raises(UsageError, match="expected 'diffusers'"):
      backends.check_backend(name)
  for name in ("", "diffusers", "generator_of_this_test:images"):
    backends.check_backend(name)


def test_the_fingerprint_follows_the_functions_file(own_module):
  first = backends.function_fingerprint("generator_of_this_test:images")
  assert first != backends.function_fingerprint("generator_of_this_test:wrong")
  own_module.write_text(SOURCE + "\n# changed\n")
  assert first != backends.function_fingerprint("generator_of_this_test:images")


def test_without_torch_one_line_says_so(monkeypatch, tmp_path):
  monkeypatch.setitem(sys.modules, "torch", None)
  with pytest.raises(UsageError, match="needs torch and diffusers"):
    backends.load_pipeline(str(tmp_path), 4, 5.0)


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="torch is not installed")
def test_a_pipeline_of_pytorch_is_as_called_by_hand():
  # In a process of its own: this one keeps diffusers from importing torch.
  environment = {name: value for name, value in os.environ.items() if name != "USE_TORCH"}
  program = Path(__file__).parent / "torch_backend_program.py"
  done = subprocess.run(
    [sys.executable, str(program)],
    env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr


def test_options_of_a_config_are_text():
  assert parse_loras(("a.safetensors:0.5", "b.safetensors", "C:/x.safetensors")) == (
    ("a.safetensors", 0.5),
    ("b.safetensors", 1.0),
    ("C:/x.safetensors", 1.0),
  )
  with pytest.raises(UsageError, match="FILE:WEIGHT"):
    parse_loras(("a.safetensors:much",))
  assert parse_scheduler_settings('{"timestep_spacing": "trailing"}') == {
    "timestep_spacing": "trailing"
  }
  for text in ("{", "[1]", "3"):
    with pytest.raises(UsageError, match="scheduler_settings"):
      parse_scheduler_settings(text)
