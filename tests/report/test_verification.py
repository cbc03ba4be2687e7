"""Agreement of submissions with the same inputs."""

import pytest

from genbench_jax.report.results import Estimate
from genbench_jax.report.verification import (
  ACCURACY_TOLERANCE,
  RELATIVE_TOLERANCE,
  Measurement,
  Verdict,
  agree,
  disagreement,
  tolerance_words,
  verdict,
)

KEY = ("digits", "original", "", "", 4, "strict", "zoo/clip")


def measured(entry, key=KEY, inputs=("a", "b"), **values):
  estimates = {name: Estimate(value, None, None) for name, value in values.items()}
  return Measurement(entry, key, frozenset(inputs), estimates)


def judged(*others, runs=("x", "y", "z", "w"), inputs=("a", "b"), **values):
  mine = measured(0, inputs=inputs, **values)
  return verdict(mine, [mine, *others], runs)


@pytest.mark.parametrize("name", ["linear_probe", "cler_gain"])
@pytest.mark.parametrize(("difference", "equal"), [(0, True), (1, True), (1.01, False)])
def test_accuracies_may_differ_by_half_a_point(name, difference, equal):
  assert agree(name, 0.5, 0.5 + difference * ACCURACY_TOLERANCE) is equal
  assert agree(name, 0.5 + difference * ACCURACY_TOLERANCE, 0.5) is equal


@pytest.mark.parametrize(("share", "equal"), [(0, True), (0.99, True), (1.05, False)])
def test_other_quantities_may_differ_by_a_share_of_the_larger(share, equal):
  smaller = 40 * (1 - share * RELATIVE_TOLERANCE)
  assert agree("fid", 40, smaller) is agree("fid", smaller, 40) is equal
  assert agree("fid", -40, -smaller) is equal


def test_values_near_zero_have_an_absolute_tolerance():
  limit = 0.05 * RELATIVE_TOLERANCE
  assert agree("fid", 0, 0.99 * limit) and not agree("fid", 0, 1.01 * limit)


def test_the_first_disagreement_is_told_in_the_units_of_the_page():
  mine = measured(0, zero_shot=0.5, linear_probe=0.7, fid=10.0)
  assert disagreement(mine, measured(1, zero_shot=0.5, linear_probe=0.7, fid=10.1)) == ""
  told = disagreement(mine, measured(1, zero_shot=0.5, linear_probe=0.72, fid=20.0))
  assert told.endswith("70.0 here, 72.0 elsewhere")
  assert disagreement(mine, measured(1, vendi=3.0)) == ""


def test_one_run_alone_verifies_nothing():
  assert judged(linear_probe=0.7) == Verdict(0, "")
  assert judged(linear_probe=0.7).text == "one run"


def test_runs_that_agree_are_counted():
  found = judged(measured(1, linear_probe=0.7), measured(2, linear_probe=0.702), linear_probe=0.7)
  assert found == Verdict(2, "")
  assert found.text == "verified, 3 runs"


def test_one_objection_disputes_a_value_whatever_the_others_say():
  found = judged(measured(1, linear_probe=0.9), measured(2, linear_probe=0.7), linear_probe=0.7)
  assert found.agreeing == 1
  assert found.text.startswith("disputed: ") and "90.0 elsewhere" in found.text


def test_a_run_that_is_submitted_twice_verifies_nothing():
  same = judged(measured(1, linear_probe=0.7), runs=("x", "x"), linear_probe=0.7)
  assert same.text == "one run"
  twice = judged(measured(1, fid=1.0), measured(2, fid=1.0), runs=("x", "y", "y"), fid=1.0)
  assert twice == Verdict(1, "")


@pytest.mark.parametrize(
  "other",
  [
    measured(1, (*KEY[:4], 16, *KEY[5:]), linear_probe=0.9),
    measured(1, inputs=("a",), linear_probe=0.9),
    measured(1, inputs=(), linear_probe=0.9),
  ],
)
def test_other_cells_and_other_inputs_are_not_compared(other):
  assert judged(other, linear_probe=0.7).text == "one run"


def test_unknown_inputs_are_equal_to_nothing():
  assert judged(measured(1, inputs=(), fid=1.0), inputs=(), fid=1.0).text == "one run"


def test_the_page_names_the_tolerances():
  assert tolerance_words() == (
    "accuracies within 0.5 points of each other, other quantities within 2.0 %"
  )
