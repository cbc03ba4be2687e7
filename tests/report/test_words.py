"""The sentences of the answer match the numbers."""

import json

import pytest

from genbench_jax.report.agreement import Agreement, agreements
from genbench_jax.report.gains import average_gain
from genbench_jax.report.headline import head_lines, text_start
from genbench_jax.report.number_words import points
from genbench_jax.report.results import results_of, views, with_control
from genbench_jax.report.words import agreement_words, answer, control_words


@pytest.fixture
def results(rows):
  return results_of(rows, views(rows)[0])


def test_a_probe_with_text_is_compared_with_zero_shot(results):
  line, alone = head_lines(results, probe_knows_text=True)
  assert (line.quantity, line.baseline, line.shots) == ("linear_probe", "zero-shot", 16)
  assert [finding.figure for finding in line.findings] == ["+5.0", "+13.6"]
  assert (alone.quantity, alone.baseline) == ("cler_image", "as many original images")


def test_a_probe_without_text_is_compared_with_original_images(results):
  """Zero-shot uses the class names, so a probe without them is compared with originals."""
  line, alone = head_lines(results, probe_knows_text=False)
  assert (line.quantity, line.baseline) == ("cler", "zero-shot")
  assert (alone.quantity, alone.baseline) == ("linear_probe", "as many original images")
  generated, original = alone.findings
  assert (generated.unit, original.interval) == ("%", "the baseline: real training images")
  assert generated.interval == "−8.6 points from as many original images"


def test_the_config_says_whether_the_probe_uses_text():
  without = {"config": json.dumps({"recognition": {"language_init": False}})}
  assert not text_start(without)
  assert text_start({}) and text_start({"config": "no JSON"}) and text_start({"config": "[]"})


def test_answer_names_gain_and_range(results):
  generated, original = answer(results, head_lines(results, probe_knows_text=True))
  assert generated.startswith(
    "Generated images put the linear probe 5.0 points above zero-shot with 16 images per class, "
  )
  assert "on average over 3 datasets: from +0.9 on digits to +10.5 on digits_hard" in generated
  assert "13.6 points above zero-shot" in original
  assert "By themselves, without text" in generated
  assert "By themselves" not in original


def test_a_gain_within_its_interval_is_not_claimed(rows):
  """Generated images that equal zero-shot are reported as not distinguishable."""
  zero = {r["dataset"]: r for r in rows if r["quantity"] == "zero_shot"}
  keys = ("value", "ci_low", "ci_high")
  level = [
    r | {k: zero[r["dataset"]][k] for k in keys} if r["quantity"] == "linear_probe" else r for r in rows
  ]  # fmt: skip
  results = results_of(level, views(level)[0])
  words = answer(results, head_lines(results, probe_knows_text=True)[:1])
  assert all("can’t be told apart" in text for text in words)


def test_the_wider_interval_decides(rows):
  """A gain that other images of the generator could reverse is not reported as a gain."""
  wide = [
    r | {"generator_low": r["value"] - 0.3, "generator_high": r["value"] + 0.3}
    if r["quantity"] == "linear_probe" and r["source"] == "generative"
    else r
    for r in rows
  ]
  results = results_of(wide, views(wide)[0])
  lines = head_lines(results, probe_knows_text=True)
  assert "for this generator" in lines[0].findings[0].interval
  assert "for these images" in lines[0].findings[1].interval
  assert "can’t be told apart" in answer(results, lines)[0]


def test_findings_name_the_datasets_left_out(rows):
  cut = [r for r in rows if not (r["dataset"] == "digits" and r["source"] == "original")]
  results = results_of(cut, views(cut)[0])
  generated, original = head_lines(results, probe_knows_text=True)[0].findings
  assert generated.missing == ()
  assert original.missing == ("digits",)
  assert original.count == "above zero-shot on 2 of 2 datasets"


def test_control_is_reported_with_cler(results):
  generated, control = with_control(results, results.headline_series()[:1], "cler")
  expected = [average_gain(results, one, 16, "cler").estimate.value for one in (generated, control)]
  assert expected[0] > 0 > expected[1]
  words = control_words(results)
  assert (
    f"With 16 images per class, CLER on generated images differs from zero-shot by {points(expected[0])} points"
    in words
  )
  assert f"with shuffled labels, by {points(expected[1])}." in words


def test_agreement_is_described_by_its_size(results):
  words = agreement_words(agreements(results, "linear_probe"))
  assert "as the linear probe does: mean rank correlation" in words
  assert "within 15 groups with equal dataset and number of images" in words


@pytest.mark.parametrize(
  ("rho", "interval", "words"),
  [(0.3, (-0.2, 0.6), "no better than chance"), (0.6, (0.4, 0.8), "roughly as"), (0.2, (0.1, 0.3), "hardly as")],
)  # fmt: skip
def test_weak_agreement_is_described_as_weak(rho, interval, words):
  item = Agreement("cler", "linear_probe", {"d": ()}, {("d", 1): rho}, rho, interval)
  assert words in agreement_words([item])
