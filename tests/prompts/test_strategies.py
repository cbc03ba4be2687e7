"""The five strategies, word for word."""

from collections import Counter

import pytest
from hypothesis import given, settings, strategies as st

from genbench_jax.prompts.strategies import (
  QUALITY_WORDS,
  SHARP_FOCUS,
  STRATEGIES,
  negative_prompt,
  prompts_of_class,
)

NAMES = ("cat", "dog", "bird", "fish")
TEMPLATES = ("a photo of a {}.", "a drawing of a {}.", "the {}.")


def _prompts(strategy, count=6, **options):
  return prompts_of_class(strategy, 1, NAMES, TEMPLATES, count, seed=0, **options)


def test_simple_template_is_the_name():
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
  assert all(
    prompt.text.endswith("." + SHARP_FOCUS) for prompt in _prompts("restrictive_description")
  )


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


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_prompts_are_seeded(strategy):
  assert _prompts(strategy) == _prompts(strategy)


def test_braces_in_a_class_name_are_left_alone():
  prompts = prompts_of_class("defined_template", 0, ("{0.x}", "b"), ("a {}.",), 1, seed=0)
  assert prompts[0].text == "a {0.x}."
