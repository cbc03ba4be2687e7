"""The five prompt strategies give the published texts."""

from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st

from genbench_jax.prompts.strategies import (
  QUALITY_WORDS,
  SHARP_FOCUS,
  STRATEGIES,
  negative_prompt,
  prompts_of_class,
  reference_negative_prompt,
)

NAMES = ("cat", "dog", "bird", "fish")
TEMPLATES = ("a photo of a {}.", "a drawing of a {}.", "the {}.")


def _prompts(strategy, count=6, **options):
  return prompts_of_class(strategy, 1, NAMES, TEMPLATES, count, seed=0, **options)


def test_the_simple_template_is_the_name():
  assert {prompt.text for prompt in _prompts("simple_template")} == {"dog"}


@pytest.mark.parametrize("count", [1, 3, 7, 80])
def test_templates_are_used_equally_often(count):
  counts = Counter(prompt.text for prompt in _prompts("defined_template", count))
  assert set(counts) <= {template.format("dog") for template in TEMPLATES}
  assert sum(counts.values()) == count
  assert max(counts.values()) - min([*counts.values(), *[0] * (3 - len(counts))]) <= 1


def test_the_order_of_templates_is_the_same_for_every_class_and_prefix():
  longer = prompts_of_class("defined_template", 0, NAMES, TEMPLATES, 9, seed=3)
  shorter = prompts_of_class("defined_template", 2, NAMES, TEMPLATES, 4, seed=3)
  assert [p.text.replace("cat", "bird") for p in longer[:4]] == [p.text for p in shorter]


def test_restrictive_description_appends_the_published_words():
  strict = {prompt.text for prompt in _prompts("restrictive_description")}
  assert "a photo of a dog, highly detailed, hires, 8k, sharp focus" in strict
  reference = {p.text for p in _prompts("restrictive_description", 16, protocol="reference")}
  assert "a photo of a dog.,highly detailed,hires,8k,sharp focus" in reference
  assert all(text.endswith("." + SHARP_FOCUS) for text in reference)


@pytest.mark.parametrize(
  ("templates", "most", "distinct"),
  [(1, 16, (1, 1)), (5, 4, (4, 5)), (16, 2, (8, 16)), (80, 1, (16, 16))],
)
@pytest.mark.parametrize("seed", range(5))
def test_the_reference_repeats_shuffles_and_truncates_templates_to_16(
  templates, most, distinct, seed
):
  """By hand: 1 gives 16 equal prompts, 5 are repeated 4 times and truncated from 20 to 16, 80 give 16 distinct ones."""
  given = [f"photo {index} of a {{}}" for index in range(templates)]
  options = {"seed": seed, "protocol": "reference"}
  cat = prompts_of_class("defined_template", 0, NAMES, given, 64, **options)
  counts = Counter(prompt.text for prompt in cat[:16])
  assert max(counts.values()) <= most
  assert distinct[0] <= len(counts) <= distinct[1]
  assert cat[16:32] == cat[:16]
  dog = prompts_of_class("defined_template", 1, NAMES, given, 64, **options)
  assert [p.text.replace("dog", "cat") for p in dog] == [p.text for p in cat]


def test_reference_negatives_are_other_classes_then_fixed_words_up_to_the_limit():
  everything = reference_negative_prompt(1, NAMES, 0, lambda text: True)
  assert everything.startswith("cat, bird, fish, ((disfigured)), ((bad art)), ((deformed)), ")
  assert everything.endswith(
    "jpeg artifacts, signature, watermark, username, blurry, out of focus, censorship"
  )
  assert everything.count("blurry") == 2
  cut = reference_negative_prompt(1, NAMES, 0, lambda text: len(text) <= 20)
  assert cut == "cat, bird, fish, ((disfigured))"
  assert everything.startswith(cut)


def test_the_truncated_negative_prompt_has_the_tokens_of_the_full_one():
  from genbench_jax.models.checkpoints import ZOO
  from genbench_jax.models.tokenizer import load_tokenizer, tokenize

  tokenizer = load_tokenizer(ZOO / "clip")
  length = tokenizer.model_max_length
  fits = lambda text: len(tokenizer(text, verbose=False)["input_ids"]) <= length  # noqa: E731
  cut, everything = (
    reference_negative_prompt(1, NAMES, 0, room) for room in (fits, lambda text: True)
  )
  assert len(cut) < len(everything)
  tokens = tokenize(tokenizer, [cut, everything], length)
  assert (tokens[0] == tokens[1]).all()


def test_negative_prompts_name_other_classes_first_then_quality_words():
  prompt = _prompts("negative_prompts")[0]
  words = prompt.negative.split(", ")
  assert set(words[:3]) == {"cat", "bird", "fish"}
  assert words[3:] == list(QUALITY_WORDS)
  assert prompt.text in {template.format("dog") for template in TEMPLATES}


@settings(max_examples=50, deadline=None)
@given(room=st.integers(0, 400), label=st.integers(0, 3), seed=st.integers(0, 1000))
def test_negative_prompts_fit_and_leave_room_for_quality_words(room, label, seed):
  text = negative_prompt(label, NAMES, seed, lambda text: len(text) <= room)
  assert len(text) <= room
  assert NAMES[label] not in text.split(", ")
  if room > 40:
    assert set(text.split(", ")) & set(QUALITY_WORDS)


def test_category_enhancement_is_a_sentence_about_the_class():
  texts = [prompt.text for prompt in _prompts("category_enhancement", 20)]
  assert all("dog" in text and len(text.split()) > 4 for text in texts)
  assert len(set(texts)) > 5


def test_given_sentences_are_used_in_turn():
  prompts = _prompts("category_enhancement", 3, sentences=("a dog runs", "a dog sleeps"))
  assert [prompt.text for prompt in prompts] == ["a dog runs", "a dog sleeps", "a dog runs"]


@pytest.mark.parametrize("protocol", ["strict", "reference"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_prompts_are_seeded(strategy, protocol):
  assert _prompts(strategy, protocol=protocol) == _prompts(strategy, protocol=protocol)


def test_braces_in_a_class_name_are_kept():
  prompts = prompts_of_class("defined_template", 0, ("{0.x}", "b"), ("a {}.",), 1, seed=0)
  assert prompts[0].text == "a {0.x}."


def test_names_with_the_same_meaning_are_reported():
  from genbench_jax.prompts.lint import alike_names

  names = [
    "missile",
    "sunglasses",
    "A jail cell",
    "Missile",
    "cell, jail",
    "737-200",
    "737-300",
    "cars",
    "car",
  ]
  found = alike_names(names)
  assert found == [
    "classes 0, 3 are named 'missile' and 'Missile', which mean the same",
    "classes 2, 4 are named 'A jail cell' and 'cell, jail', which mean the same",
    "classes 7, 8 are named 'cars' and 'car', which mean the same",
  ]
  assert alike_names(["the", "a"]) == []


def test_the_grammar_has_its_own_name():
  both = [
    prompts_of_class(strategy, 0, ("cat", "dog"), ("a {}.",), 4, 0)
    for strategy in ("category_grammar", "category_enhancement")
  ]
  assert both[0] == both[1]
