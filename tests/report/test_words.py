"""The answer in words says what the numbers say."""

import pytest

from genbench_jax.report.agreement import Agreement, agreements
from genbench_jax.report.gains import average_gain
from genbench_jax.report.quantities import points
from genbench_jax.report.results import results_of, views, with_control
from genbench_jax.report.words import agreement_words, answer, control_words, findings


@pytest.fixture
def results(rows):
  return results_of(rows, views(rows)[0])


def test_answer_names_gain_range_and_worth(results):
  generated, original = answer(results, "linear_probe")
  assert generated.startswith(
    "Generated images put the linear probe 5.0 points above zero-shot with 16 images a class, "
  )
  assert "on average over 3 datasets: from +0.9 on digits to +10.5 on digits_hard" in generated
  assert generated.endswith("They are worth between 1 and 2 original images a class.")
  assert "13.6 points above zero-shot" in original


def test_a_gain_within_its_interval_is_not_sold_as_one(rows):
  """Generated images that equal zero-shot are said to make no difference that can be told."""
  zero = {r["dataset"]: r for r in rows if r["quantity"] == "zero_shot"}
  keys = ("value", "ci_low", "ci_high")
  level = [
    r | {k: zero[r["dataset"]][k] for k in keys} if r["quantity"] == "linear_probe" else r for r in rows
  ]  # fmt: skip
  words = answer(results_of(level, views(level)[0]), "linear_probe")
  assert all("make no difference to the linear probe" in text for text in words)


def test_findings_name_the_datasets_left_out(rows):
  cut = [r for r in rows if not (r["dataset"] == "digits" and r["source"] == "original")]
  generated, original = findings(results_of(cut, views(cut)[0]), "linear_probe")
  assert generated.missing == ()
  assert original.missing == ("digits",)
  assert original.count == "above zero-shot on 2 of 2 datasets"


def test_control_stands_beside_cler(results):
  generated, control = with_control(results, results.headline_series()[:1], "cler")
  expected = [average_gain(results, one, 16, "cler").estimate.value for one in (generated, control)]
  assert expected[0] > 0 > expected[1]
  words = control_words(results)
  assert (
    f"With 16 images a class, CLER on generated images stands {points(expected[0])} points" in words
  )
  assert f"with their labels shuffled, {points(expected[1])}." in words


def test_agreement_is_named_by_its_size(results):
  words = agreement_words(agreements(results, "linear_probe"))
  assert "largely as the linear probe does: mean rank correlation 0.89 (95 % interval" in words


@pytest.mark.parametrize(
  ("rho", "interval", "words"),
  [(0.3, (-0.2, 0.6), "told from chance"), (0.6, (0.4, 0.8), "roughly as"), (0.2, (0.1, 0.3), "hardly as")],
)  # fmt: skip
def test_weak_agreement_is_called_that(rho, interval, words):
  item = Agreement("cler", "linear_probe", {"d": ()}, {"d": rho}, rho, interval)
  assert words in agreement_words([item])
