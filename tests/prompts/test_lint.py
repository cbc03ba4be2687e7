"""Problems of prompts are found, without false alarms."""

from genbench_jax.prompts.lint import lint_prompts
from genbench_jax.prompts.strategies import Prompt

NAMES = ("missile", "dog", "missile")


def _found(prompts, negatives_wanted=False, most=20):
  found = lint_prompts(prompts, NAMES, lambda text: len(text) <= most, negatives_wanted)
  return {problem.kind: problem for problem in found}


def test_good_prompts_have_no_problems():
  prompts = [[Prompt(f"{shot} {label}", "no") for shot in range(4)] for label in range(3)]
  assert _found(prompts, negatives_wanted=True) == {}


def test_only_a_prompt_of_two_classes_is_a_duplicate():
  prompts = [[Prompt("a missile")] * 2, [Prompt("a dog")] * 2, [Prompt("a missile")] * 2]
  found = _found(prompts)
  assert list(found) == ["duplicate"]
  assert str(found["duplicate"]) == (
    "1 prompts are shared by several classes: 'a missile (classes 0, 2, same name)'"
  )


def test_truncated_prompts_are_counted_once():
  long = "a" * 21
  prompts = [[Prompt(long, "b" * 30)] * 3, [Prompt("c", "d" * 31)], [Prompt("e", "f")]]
  found = _found(prompts)
  assert (found["cut"].count, found["cut_negative"].count) == (1, 2)
  assert found["cut"].examples == (repr(long),)


def test_an_empty_negative_is_a_problem_if_the_strategy_has_negatives():
  prompts = [[Prompt("a", "x")], [Prompt("b")], [Prompt("c", "x")]]
  assert _found(prompts) == {}
  assert _found(prompts, negatives_wanted=True)["empty_negative"].examples == ("'dog'",)


def test_control_characters_do_not_reach_the_terminal():
  assert "\x1b" not in str(_found([[Prompt("\x1b[31m" + "a" * 30)], [], []])["cut"])
