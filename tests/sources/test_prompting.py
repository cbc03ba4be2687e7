"""Prompts from a configuration: protocol, sentences and checks."""

import dataclasses
import json

import pytest

from genbench_jax.benchmark.registry import dataset_spec
from genbench_jax.cells import image_sets
from genbench_jax.config import Config, Generation, Prompts
from genbench_jax.errors import NotPreparedError, UsageError
from genbench_jax.models.checkpoints import ZOO
from genbench_jax.models.tokenizer import load_tokenizer
from genbench_jax.run import Run
from genbench_jax.sources.prompting import (
  class_sentences,
  lint,
  made_from,
  prompt_limit,
  prompts_of_set,
  tell_lint,
  within,
  write_class_sentences,
)

NAMES = dataset_spec("digits").names


def _config(strategy="category_enhancement", **prompts):
  generation = Generation(strategies=(strategy,))
  return Config(
    sources=("generative",), shots=(4,), generation=generation, prompts=Prompts(**prompts)
  )


def _run(tmp_path, *args, **kwargs):
  run = Run(_config(*args, **kwargs), tmp_path)
  return run, image_sets(run.config)[0]


def test_the_protocol_changes_the_prompts_and_the_sets_name(tmp_path):
  for protocol in ("strict", "reference"):
    run, key = _run(tmp_path, "restrictive_description", protocol=protocol)
    prompts = prompts_of_set(run.config, key, 4, lambda text: True)
    glued = [".,highly" in prompt.text for prompt in prompts[0]]
    assert any(glued) == (protocol == "reference")
    assert made_from(run, key)["prompts"]
  run, key = _run(tmp_path, "defined_template")
  assert made_from(run, key) == {}


def test_sentences_come_from_the_users_file(tmp_path):
  file = tmp_path / "digits.json"
  file.write_text(json.dumps({name: [f"{name} on paper", f"a {name}"] for name in NAMES}))
  run, key = _run(tmp_path, sentence_file=str(tmp_path / "{dataset}.json"))
  prompts = prompts_of_set(run.config, key, 3, lambda text: True, class_sentences(run, key))
  assert [prompt.text for prompt in prompts[2]] == ["two on paper", "a two", "two on paper"]
  before = made_from(run, key)
  file.write_text(json.dumps({name: [f"{name}!"] for name in NAMES}))
  assert made_from(run, key) != before
  assert lint(run.config) == []


def test_a_file_without_a_class_is_rejected_by_name(tmp_path):
  file = tmp_path / "some.json"
  file.write_text(json.dumps({name: ["x"] for name in NAMES[1:]}))
  run, key = _run(tmp_path, sentence_file=str(file))
  with pytest.raises(UsageError, match="for 1 of 10 classes, the first being 'zero'"):
    class_sentences(run, key)
  with pytest.raises(UsageError, match="does not exist"):
    made_from(*_run(tmp_path, sentence_file="none.json"))


def test_sentences_of_a_model_are_written_once_in_the_format_of_a_users_file(tmp_path, monkeypatch):
  from genbench_jax.models import t5
  from genbench_jax.zoo.tiny import write_tiny_t5

  model = str(write_tiny_t5(tmp_path / "t5"))
  run, key = _run(tmp_path / "out", sentence_model=model)
  with pytest.raises(NotPreparedError, match="Run the stage `images` first"):
    class_sentences(run, key)
  write_class_sentences(run, key)
  sentences = class_sentences(run, key)
  assert len(sentences) == 10
  assert all(name in text for name, texts in zip(NAMES, sentences, strict=True) for text in texts)
  monkeypatch.setattr(t5, "load_sentence_model", None)
  write_class_sentences(run, key)
  assert class_sentences(Run(run.config, run.workdir), key) == sentences
  (file,) = (tmp_path / "out" / "sentences").iterdir()
  run, key = _run(tmp_path / "out", sentence_file=str(file))
  assert class_sentences(run, key) == sentences


def test_lint_uses_the_models_length_and_reports_each_problem_once(tmp_path, capsys):
  config = _config("negative_prompts", protocol="reference")
  found = lint(config)
  assert len(found) == 1
  assert "digits generative-negative_prompts-seed0: 10 negative prompts are too long" in found[0]
  run = Run(config, tmp_path)
  assert tell_lint(run) == tell_lint(run) == found
  assert capsys.readouterr().err.count("are too long") == 1
  strict = dataclasses.replace(config, prompts=Prompts())
  assert lint(strict) == []


def test_duplicates_are_found_if_classes_share_a_name():
  config = dataclasses.replace(_config("simple_template"), datasets=("imagenet2012",), shots=(1,))
  (found,) = lint(config)
  assert "2 prompts are shared by several classes" in found
  assert "'missile (classes 657, 744, same name)'" in found


@pytest.mark.parametrize(
  "text",
  [
    "a photo of a 7.,highly detailed,hires,8k",
    "((b&w)), weird colors,\tblurry",
    "x's  don't ? \xe9",
    "",
  ],
)
def test_the_tokens_of_a_text_are_the_tokens_of_its_words(text):
  tokenizer = load_tokenizer(ZOO / "clip")
  count = len(tokenizer(text)["input_ids"])
  assert within(tokenizer, count)(text)
  assert not within(tokenizer, count - 1)(text)


def test_the_limit_comes_from_the_model():
  limit = prompt_limit(_config())
  assert limit("seven")
  assert not limit("q" * 500)
