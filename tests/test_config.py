"""Errors in a config are one line that names the setting."""

import json

import pytest

from genbench_jax.config import Config, check_setting, default_config, make_config, parse_arguments
from genbench_jax.errors import UsageError


@pytest.mark.parametrize("path", ["generation", "generators.own"])
def test_a_backend_refuses_settings_that_it_would_ignore(path):
  entry = {"backend": "module:function", "loras": ("a.safetensors",)}
  section, _, name = path.partition(".")
  given = {section: {name: entry} if name else entry}
  with pytest.raises(UsageError, match=rf"config\.{path}\.loras has no effect with backend"):
    make_config(given)


def test_a_backend_takes_both_sides_of_a_size_or_none():
  make_config({"generation": {"backend": "module:function", "height": 64, "width": 32}})
  with pytest.raises(UsageError, match="takes height and width together"):
    make_config({"generation": {"backend": "module:function", "height": 64}})


def test_the_defaults_make_the_default_config():
  assert make_config(default_config()) == Config()


def test_sections_are_frozen_and_typed():
  given = default_config()
  given.datasets = ("digits", "shapes")
  given.generation.guidance_scale = 3
  config = make_config(given)
  assert config.generation.guidance_scale == 3.0
  assert isinstance(config.generation.guidance_scale, float)
  with pytest.raises(AttributeError):
    config.generation.steps = 3


@pytest.mark.parametrize(
  ("path", "value", "message"),
  [
    ("datasets", ("digit",), "unknown dataset 'digit'. Did you mean 'digits'?"),
    ("sources", ("generativ",), "unknown source 'generativ'. Did you mean 'generative'? Known:"),
    ("generation.strategies", ("simple",), "unknown strategy 'simple'."),
    ("generation.scheduler", "dpm", "unknown scheduler 'dpm'."),
    ("scoring.quantities", ("fidd",), "unknown metric 'fidd'. Did you mean 'fid'?"),
    ("scoring.protocols", ("stict",), "unknown protocol 'stict'. Did you mean 'strict'?"),
    ("recognition.recognizers", ("probe",), "unknown recognizer 'probe'."),
    ("shots", (0, 1), "config.shots is 0, expected at least 1."),
    ("shots", (), "config.shots is empty"),
    ("shots", (1, 1), "config.shots contains duplicates"),
    ("seeds", (-1,), "config.seeds is -1, expected at least 0"),
    ("stand_in", -2, "config.stand_in is -2, expected at least 0"),
    ("generation.lora_sha256", ("a",), "lora_sha256 has 1 checksums for 0 files"),
    ("generation.steps", 0, "config.generation.steps is 0, expected at least 1."),
    ("generation.guidance_scale", float("nan"), "guidance_scale is nan, expected a finite number."),
    ("seeds", (2**32,), "config.seeds is 4294967296, expected at most 4294967295."),
    ("generation.keep_images", "0", "config.generation.keep_images is '0', expected 'all'"),
    (
      "retrieval.recall_target",
      0.0,
      "config.retrieval.recall_target is 0.0, expected more than 0.",
    ),
    ("textual_inversion.scope", "class", "unknown textual_inversion.scope 'class'."),
    ("recognition.lora.template", "photo", "config.recognition.lora.template is 'photo', expected"),
    (
      "recognition.lora.dropout",
      1.0,
      "config.recognition.lora.dropout is 1.0, expected less than 1",
    ),
    ("recognition.lora.matrices", "", "config.recognition.lora.matrices is '', expected letters"),
    ("mixture.loss_weights", (0.8, 0.0), "config.mixture.loss_weights is 0.0, expected more than"),
    ("recognition.coop.steps", 0, "config.recognition.coop.steps is 0, expected at least 1."),
    ("generation.guidance_scale", -1.0, "config.generation.guidance_scale is -1.0"),
    (
      "data_dir",
      "gs://bucket/tfds",
      "config.data_dir is 'gs://bucket/tfds', expected a local folder",
    ),
  ],
)
def test_bad_values(path, value, message):
  given = default_config()
  *sections, leaf = path.split(".")
  section = given
  for name in sections:
    section = section[name]
  section[leaf] = value
  with pytest.raises(UsageError) as error:
    make_config(given)
  assert message in str(error.value)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"generatoin": {}}, "unknown setting 'config.generatoin'. Did you mean 'config.generation'?"),
    ({"generation": {"step": 3}}, "Did you mean 'config.generation.steps'?"),
    ({"generation": {"steps": "many"}}, "config.generation.steps is 'many' (str), expected int."),
    ({"generation": {"steps": True}}, "config.generation.steps is True (bool), expected int."),
    ({"generation": 3}, "config.generation is 3, expected a section of settings."),
    ({"shots": (1, "x")}, "config.shots is 'x' (str), expected int."),
  ],
)
def test_unknown_keys_and_wrong_types(given, message):
  with pytest.raises(UsageError) as error:
    make_config(given)
  assert message in str(error.value)


def test_a_single_value_is_accepted_as_a_tuple():
  assert make_config({"datasets": "digits", "shots": 4}).shots == (4,)


def test_arguments_of_a_config_file_are_typed():
  assert parse_arguments("quick,steps=3", quick=False, steps=1, name="a").steps == 3
  assert parse_arguments("quick", quick=False).quick is True
  assert parse_arguments("", quick=False).quick is False


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("quik", "unknown config argument 'quik'. Did you mean 'quick'?"),
    ("steps=many", "config argument steps is 'many', expected int."),
  ],
)
def test_bad_arguments(text, message):
  with pytest.raises(UsageError) as error:
    parse_arguments(text, quick=False, steps=1)
  assert message in str(error.value)


@pytest.mark.parametrize(
  ("path", "message"),
  [
    ("generation.stps", "Did you mean 'config.generation.steps'?"),
    ("shot", "Did you mean 'config.shots'?"),
    ("shots.first", "config.shots is a single setting and has no 'first'."),
  ],
)
def test_unknown_setting_paths(path, message):
  check_setting("generators.few_step.loras")
  check_setting("generation.steps")
  with pytest.raises(UsageError) as error:
    check_setting(path)
  assert message in str(error.value)


def test_paths_of_other_bytes_are_in_the_json():
  text = Config(data_dir="caf\udce9").as_json()
  assert text.encode("utf-8") and json.loads(text)["data_dir"] == "caf\udce9"


def mixed_config(**changes):
  given = default_config()
  given.sources = ("original", "generative", "combined")
  given.mixture.update(changes)
  return make_config(given)


def test_loss_weights_are_those_of_two_sources():
  assert mixed_config(loss_weights=(0.8, 0.2)).mixture.loss_weights == (0.8, 0.2)
  for weights in ((0.8,), (0.5, 0.3, 0.2)):
    with pytest.raises(UsageError, match="expected two: real and external"):
      mixed_config(loss_weights=weights)


def test_parts_of_a_batch_are_checked_at_the_start_for_the_chosen_recognizers():
  given = default_config()
  given.recognition.lora.recipe.accumulate = 5
  make_config(given)  # has no `lora`
  given.recognition.recognizers = ("linear_probe", "lora")
  with pytest.raises(
    UsageError, match=r"recognition\.lora\.recipe: a batch of 32 can't .* 5 equal"
  ):
    make_config(given)


@pytest.mark.parametrize("name", ["vpt", "lora", "fine_tune", "from_scratch"])
def test_a_recognizer_of_images_needs_images_that_are_kept(name):
  given = default_config()
  given.sources, given.shots = ("generative",), (1, 4, 16)
  given.recognition.recognizers = (name,)
  for kept, needed in (("none", 16), ("4", 16)):
    given.generation.keep_images = kept
    with pytest.raises(UsageError, match=f"`{name}` trains on images.*'all' or '{needed}'"):
      make_config(given)
  if name != "vpt":  # it has no shots of its own
    given.recognition[name].shots = (1, 4)
    make_config(given)
    given.sources = ("generative", "original", "combined")
    with pytest.raises(UsageError, match="'all' or '16'"):
      make_config(given)
