"""Textual inversion in the images stage, with tokens learned here or read from a folder."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.cells import ImageSetKey, image_sets
from genbench_jax.config import Config, Generation, TextualInversion
from genbench_jax.errors import UsageError
from genbench_jax.pipeline.artifacts import image_folder
from genbench_jax.pipeline.images import make_images
from genbench_jax.pipeline.ledger import Ledger
from genbench_jax.run import Run
from genbench_jax.sources import inversion
from genbench_jax.sources.generative import class_prompts
from genbench_jax.sources.registry import SOURCES
from genbench_jax.store.image_set import ImageSet
from genbench_jax.zoo.tiny import SHALLOW_UNET, write_tiny_stable_diffusion


@pytest.fixture(scope="module")
def config(tmp_path_factory):
  folder = tmp_path_factory.mktemp("model") / "tiny"
  write_tiny_stable_diffusion(folder, unet=SHALLOW_UNET)
  return Config(
    datasets=("shapes",),
    sources=("generative",),
    shots=(1,),
    generation=Generation(checkpoint=str(folder), steps=2, guidance_scale=1.0, batch_per_device=1),
    textual_inversion=TextualInversion(
      references=("", "original"), steps=2, batch=1, shots=2, learning_rate=0.1, warm_up=0
    ),
  )


def _with(config, **settings):
  changed = dataclasses.replace(config.textual_inversion, **settings)
  return dataclasses.replace(config, textual_inversion=changed)


def _key(references, strategy="defined_template"):
  return ImageSetKey("shapes", "generative", f"{strategy}+inversion_{references}", 0)


def test_a_modified_strategy_adds_an_image_set(config):
  plain, modified = image_sets(config)
  assert (plain.strategy, plain.references) == ("defined_template", "")
  assert modified == _key("original")
  assert modified.references == "original"


def test_a_dataset_without_training_images_has_no_original_references(config):
  keys = image_sets(dataclasses.replace(config, datasets=("imagenet2012",)))
  assert [key.references for key in keys] == [""]


@pytest.mark.slow
def test_images_use_learned_tokens_that_are_stored(config, tmp_path):
  run = Run(config, tmp_path)
  make_images(run, Ledger(run.workdir, run.config, ""))
  plain, modified = (ImageSet(image_folder(run, key)) for key in image_sets(config))
  assert plain[3].prompt.replace("pentagon", "<shapes-pentagon> pentagon") == modified[3].prompt
  assert plain[3].seed == modified[3].seed and plain[3].image != modified[3].image
  files = sorted(tmp_path.rglob("learned_embeds.safetensors"))
  assert [path.parent.name for path in files][:4] == [
    "0000-circle",
    "0001-square",
    "0002-triangle",
    "0003-pentagon",
  ]
  (name,) = load_file(files[3])
  assert name == "<shapes-pentagon>" and load_file(files[3])[name].shape == (32,)
  before = {path: path.read_bytes() for path in files}
  files[5].unlink()
  inversion.learn_share(Run(config, tmp_path), _key("original"))
  assert {path: path.read_bytes() for path in files} == before
  _made_elsewhere(config, tmp_path, files)


def _made_elsewhere(config, tmp_path, files):
  """Read the same tokens from a user's folder, under other names of the classes."""
  theirs = tmp_path / "theirs"
  theirs.mkdir()
  (vector,) = load_file(files[3]).values()
  save_file({"*": np.stack([vector, vector + 1])}, theirs / "Pentagon.safetensors")
  (theirs / "ring").mkdir()
  save_file({"*": vector}, theirs / "ring" / "learned_embeds.safetensors")
  run = Run(_with(config, references=("folder",), folder=str(theirs), real_images=7), tmp_path)
  tokens = inversion.class_tokens(run, _key("folder"))
  assert tokens.names[3] == "<shapes-pentagon> pentagon" and tokens.names[0] == "circle"
  assert [len(v) for v in tokens.learned.vectors.values()] == [2, 1]
  assert SOURCES["generative"].real_images(run, _key("folder")) == {1: 7}
  prompts = class_prompts(run, _key("folder", "negative_prompts"), tokens.names)
  assert "<" in prompts[3][0].text and not any("<" in p[0].negative for p in prompts)


def test_settings_determine_the_folders_of_tokens_and_images(config, tmp_path):
  run, key = Run(config, tmp_path), _key("original")
  changed = [
    _with(config, reference_resolution=8),
    _with(config, shots=3),
    _with(config, scope="dataset"),
    _with(config, steps=3),
  ]
  runs = [run, *(Run(variant, tmp_path) for variant in changed)]
  assert len({inversion.inversion_folder(variant, key) for variant in runs}) == 5
  assert len({image_folder(variant, key) for variant in runs}) == 5
  plain = dataclasses.replace(key, strategy="defined_template")
  assert len({image_folder(variant, plain) for variant in runs}) == 1
  saved_often = Run(_with(config, save_every=1), tmp_path)
  assert inversion.inversion_folder(saved_often, key) == inversion.inversion_folder(run, key)


def test_the_budget_counts_the_references(config, tmp_path):
  source = SOURCES["generative"]
  plain, modified = image_sets(config)
  assert source.real_images(Run(config, tmp_path), plain) == {1: 0}
  assert source.real_images(Run(config, tmp_path), modified) == {1: 16}


def test_a_token_per_dataset_is_learned_from_all_classes(config, tmp_path):
  run = Run(_with(config, scope="dataset"), tmp_path)
  (concept,), paths = inversion._concepts(run, _key("original"))
  assert concept.placeholder == "<shapes>" and set(paths) == set(range(8))
  assert concept.labels == tuple(label for label in range(8) for _ in range(2))
  assert [image.size for image in concept.images()] == [(32, 32)] * 16


def test_placeholders_are_plain_and_distinct_for_any_names():
  names = ("../../etc", "Missile", "missile", "</s> <|endoftext|>", "猫", "café au lait")
  spec = dataclasses.replace(
    dataset_spec("shapes"), name="my/data", class_names=tuple((n,) for n in names)
  )
  found = inversion._placeholders(spec, "category")
  assert found == [
    "<my-data-etc>",
    "<my-data-missile.1>",
    "<my-data-missile.2>",
    "<my-data-s-endoftext>",
    "<my-data-.4>",
    "<my-data-cafe-au-lait>",
  ]
  assert [inversion._folder_name(spec, label) for label in (0, 4)] == ["0000-etc", "0004"]


def test_a_missing_folder_is_named(config, tmp_path):
  run = Run(_with(config, references=("folder",), folder=str(tmp_path / "no")), tmp_path)
  with pytest.raises(UsageError, match="does not exist"):
    inversion.class_tokens(run, _key("folder"))
  (tmp_path / "no").mkdir()
  with pytest.raises(UsageError, match="contains no learned embeddings"):
    inversion.class_tokens(run, _key("folder"))


def test_sentences_use_the_new_names():
  given = (("A Cat sits.", "no such animal."), ("a dog",))
  found = inversion.renamed(given, ("cat", "dog"), ("<c> cat", "dog"))
  assert found == (("A <c> cat sits.", "no such animal, <c> cat"), ("a dog",))


def test_settings_of_the_tokens_are_valid_json(config, tmp_path):
  json.dumps(inversion.made_from(Run(config, tmp_path), _key("original")))
