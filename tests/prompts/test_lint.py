"""Faults of prompts, each found and none invented."""

from genbench_jax.prompts.lint import lint_prompts
from genbench_jax.prompts.strategies import Prompt

NAMES = ("missile", "dog", "missile")


def _found(prompts, negatives_wanted=False, most=20):
  found = lint_prompts(prompts, NAMES, lambda text: len(text) <= most, negatives_wanted)
  return {one.kind: one for one in found}


def test_good_prompts_have_no_faults():
  prompts = [[Prompt(f"{shot} {label}", "no") for shot in range(4)] for label in range(3)]
  assert _found(prompts, negatives_wanted=True) == {}


def test_a_prompt_of_two_classes_is_a_duplicate_and_of_one_class_is_not():
  prompts = [[Prompt("a missile")] * 2, [Prompt("a dog")] * 2, [Prompt("a missile")] * 2]
  found = _found(prompts)
  assert list(found) == ["duplicate"]
  assert str(found["duplicate"]) == (
    "1 prompts are shared by several classes: 'a missile (classes 0, 2, same name)'"
  )


def test_prompts_that_are_cut_are_counted_once_each():
  long = "a" * 21
  prompts = [[Prompt(long, "b" * 30)] * 3, [Prompt("c", "d" * 31)], [Prompt("e", "f")]]
  found = _found(prompts)
  assert (found["cut"].count, found["cut_negative"].count) == (1, 2)
  assert found["cut"].examples == (repr(long),)


def test_an_empty_negative_is_a_fault_where_the_strategy_gives_negatives():
  prompts = [[Prompt("a", "x")], [Prompt("b")], [Prompt("c", "x")]]
  assert _found(prompts) == {}
  assert _found(prompts, negatives_wanted=True)["empty_negative"].examples == ("'dog'",)


def test_control_characters_do_not_reach_the_terminal():
  assert "\x1b" not in str(_found([[Prompt("\x1b[31m" + "a" * 30)], [], []])["cut"])
