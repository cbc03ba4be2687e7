"""The options of commands that take a config, and overrides of its settings."""

import pytest

from genbench_jax.cli.flags import add_config, with_config
from genbench_jax.cli.subcommand import Parser
from genbench_jax.config import STAGES, make_config
from genbench_jax.errors import UsageError
from genbench_jax.main import run


def parsed(*words):
  return run.parse(words)


def of_config(*words):
  parser = Parser(prog="genbench try")
  add_config(parser)
  return with_config(parser, words)


@pytest.mark.parametrize("words", [("demo",), ("--config", "demo"), ("--config=demo",)])
def test_a_config_has_a_place_and_a_name(words):
  assert make_config(of_config(*words).config).datasets


def test_two_configs_are_one_too_many():
  with pytest.raises(UsageError, match="unexpected argument 'full'"):
    of_config("full", "--config", "demo")


def test_a_config_is_needed():
  with pytest.raises(UsageError, match=r"no config given\. Try --config demo\. Built in: demo, "):
    of_config()


@pytest.mark.parametrize("name", ["none", "configs/none.py", "/none.py"])
def test_an_unknown_config_is_named(name):
  with pytest.raises(UsageError, match=f"there is no config file '.*{name}.*Built in: "):
    of_config(name)


@pytest.mark.parametrize(
  ("word", "path", "value"),
  [
    ("--config.shots=(2, 8)", "shots", (2, 8)),
    ("--config.generation.steps=7", "generation.steps", 7),
    ("--config.generation.guidance_scale=3", "generation.guidance_scale", 3.0),
    ("--config.datasets=('digits',)", "datasets", ("digits",)),
    ("--config.encoder.checkpoint=other", "encoder.checkpoint", "other"),
    ("--config.recognition.language_init=False", "recognition.language_init", False),
  ],
)
def test_a_setting_is_overridden_with_its_type(word, path, value):
  found = make_config(of_config("demo", word).config)
  for name in path.split("."):
    found = getattr(found, name)
  assert found == value and type(found) is type(value)


def test_the_value_may_be_the_next_word_and_the_last_one_wins():
  words = ("demo", "--config.generation.steps", "3", "--config.generation.steps=5")
  assert of_config(*words).config.generation.steps == 5
  words = ("--config.shots=(1, 2)", "demo", "--config.shots=(4,)")
  assert of_config(*words).config.shots == (4,)


@pytest.mark.parametrize(
  ("word", "message"),
  [
    ("--config.generation.step=3", "Did you mean 'config.generation.steps'"),
    ("--config.generatoin.steps=3", "generation"),
    ("--config.generation.steps=many", "steps"),
    ("--config.shots=(1,", "shots"),
    ("--config.=3", "config"),
  ],
)
def test_a_mistaken_setting_is_one_line(word, message):
  with pytest.raises(UsageError, match=message) as caught:
    make_config(of_config("demo", word).config)
  assert "\n" not in str(caught.value)


def test_a_run_has_defaults():
  options = parsed("demo", "--workdir", "w")
  assert options.stages == list(STAGES)
  assert not (options.plan or options.keep_going or options.debug)
  assert (options.coordinator, options.num_processes, options.process_id) == ("", -1, -1)


def test_stages_are_separated_by_commas():
  assert parsed("demo", "--stages=score,report").stages == ["score", "report"]


@pytest.mark.parametrize("word", ["--keep-going", "--keep_going"])
def test_options_are_written_with_dashes_or_underscores(word):
  assert parsed("demo", word).keep_going


@pytest.mark.parametrize("word", ["--keep", "--work", "--workdri=x"])
def test_options_are_not_abbreviated(word):
  with pytest.raises(UsageError, match="unexpected argument"):
    parsed("demo", word)


def test_the_command_is_kept_as_it_could_be_typed_again():
  options = parsed("demo", "--workdir", "my folder", "--config.shots=(1, 2)")
  assert options.command == "genbench run demo --workdir 'my folder' '--config.shots=(1, 2)'"


def test_an_error_in_the_code_of_a_config_is_one_line(tmp_path):
  (tmp_path / "mine.py").write_text("def get_config():\n  return 1 / 0\n")
  with pytest.raises(UsageError, match="ZeroDivisionError: division by zero"):
    of_config(str(tmp_path / "mine.py"))


def test_a_config_file_must_return_a_config(tmp_path):
  (tmp_path / "mine.py").write_text("def get_config():\n  return {'shots': (1,)}\n")
  with pytest.raises(UsageError):
    of_config(str(tmp_path / "mine.py"))
