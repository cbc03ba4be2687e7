"""Correlations against SciPy, and what they say of rows made on purpose."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from genbench_jax.analysis.correlation import correlations
from genbench_jax.analysis.prediction import leave_one_dataset_out
from genbench_jax.analysis.statistics import COEFFICIENTS, bootstrap_weights, holm, permuted
from genbench_jax.errors import UsageError

TESTS = {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([4, 1000]))
def test_resampled_coefficients_are_those_of_the_images_drawn(seed, levels):
  random = np.random.default_rng(seed)
  x, y = random.integers(0, levels, (2, 25)) / levels
  weights = bootstrap_weights(25, 4, random)
  for name, coefficient in COEFFICIENTS.items():
    for row, found in zip(weights, coefficient(x, y, weights), strict=True):
      drawn = np.repeat(np.arange(25), row)
      assert found == pytest.approx(TESTS[name](x[drawn], y[drawn]).statistic, abs=1e-9)


def test_a_constant_side_has_no_coefficient():
  for coefficient in COEFFICIENTS.values():
    weights = np.array([[1, 1, 1, 0], [1, 1, 1, 1]])
    found = coefficient(np.array([1.0, 1, 1, 2]), np.arange(4.0), weights)
    assert np.isnan(found[0]) and found[1] > 0


@pytest.mark.parametrize("method", list(TESTS))
def test_shuffled_coefficients_are_those_of_the_shuffled_values(method):
  x, y = np.random.default_rng(0).integers(0, 5, (2, 12)).astype(float)
  found = permuted(x, y, method, 5, np.random.default_rng(1))
  random = np.random.default_rng(1)
  expected = [TESTS[method](x, random.permutation(y)).statistic for _ in range(5)]
  np.testing.assert_allclose(found, expected, atol=1e-9)


def test_holm():
  np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.5])), [0.04, 0.09, 0.09, 0.5])


def row(dataset, strategy, shots, quantity, value, source="generative"):
  return {
    "dataset": dataset, "source": source, "strategy": strategy, "shots": shots, "seed": 0,
    "protocol": "strict", "encoder": "tiny", "quantity": quantity, "value": value,
  }  # fmt: skip


def cell_rows(datasets=4, seed=0):
  """`cler` follows accuracy within datasets and over them; `fid` against it within; `vendi` not at all."""
  random = np.random.default_rng(seed)
  rows = []
  for d in range(datasets):
    for strategy in ("a", "b", "c"):
      for shots in (1, 2, 4, 8):
        accuracy = 0.2 * d + 0.1 * np.log2(shots) / 3 + 0.01 * random.normal()
        values = {
          "linear_probe": accuracy,
          "cler": accuracy + 0.01 * random.normal(),
          "fid": 1 + 5 * d - accuracy + 0.01 * random.normal(),
          "vendi": random.normal(),
          "zero_shot": 0.1 * d,
        }
        rows += [row(f"set{d}", strategy, shots, *item) for item in values.items()]
        rows.append(row(f"set{d}", strategy, shots, "cler", 9, source="control"))
  return rows


@pytest.fixture(scope="module")
def found():
  return {
    (c.quantity, c.method, c.level, c.dataset): c for c in correlations(cell_rows(), resamples=300)
  }


def values_of(quantity, dataset=None):
  chosen = [r for r in cell_rows() if r["source"] != "control" and dataset in (None, r["dataset"])]
  return np.array([r["value"] for r in chosen if r["quantity"] == quantity])


@pytest.mark.parametrize("method", list(TESTS))
def test_agrees_with_scipy(found, method):
  for quantity in ("cler", "fid", "vendi"):
    expected = TESTS[method](values_of(quantity), values_of("linear_probe"))
    pooled = found[quantity, method, "pooled", None]
    assert pooled.value == pytest.approx(expected.statistic)
    assert pooled.p_value == pytest.approx(expected.pvalue)
    assert pooled.n == 48
    each = [
      TESTS[method](values_of(quantity, f"set{d}"), values_of("linear_probe", f"set{d}")).statistic
      for d in range(4)
    ]
    assert found[quantity, method, "within_dataset", None].value == pytest.approx(np.mean(each))
    assert found[quantity, method, "within_dataset", "set2"].value == pytest.approx(each[2])
    means = [[values_of(q, f"set{d}").mean() for d in range(4)] for q in (quantity, "linear_probe")]
    over = found[quantity, method, "over_datasets", None]
    assert over.value == pytest.approx(TESTS[method](*means).statistic)
    assert over.n == 4


def test_levels_tell_what_pooling_hides(found):
  assert found["fid", "spearman", "pooled", None].value > 0.5
  within = found["fid", "spearman", "within_dataset", None]
  assert within.value < -0.5 and within.ci_high < 0 and within.p_corrected < 0.01
  chance = found["vendi", "spearman", "within_dataset", None]
  assert chance.ci_low < 0 < chance.ci_high and chance.p_corrected > 0.05


def test_corrected_intervals_and_p_values_are_wider(found):
  for correlation in found.values():
    if correlation.value is not None:
      assert correlation.corrected_low <= correlation.ci_low <= correlation.ci_high
      assert correlation.ci_high <= correlation.corrected_high
      assert correlation.p_value <= correlation.p_corrected <= 1


def test_what_has_no_coefficient_says_why(found):
  constant = found["zero_shot", "pearson", "within_dataset", "set0"]
  assert constant.value is None and constant.reason == "the metric is the same everywhere"
  assert found["zero_shot", "pearson", "within_dataset", None].reason == "in no dataset defined"
  two = correlations(cell_rows(datasets=2), quantities=["cler"], resamples=10)
  over = next(c for c in two if c.level == "over_datasets")
  assert over.reason == "fewer than 3 pairs"


def test_rows_that_cannot_be_used_are_refused():
  rows = cell_rows()
  with pytest.raises(UsageError, match="two rows of quantity 'cler'"):
    correlations([*rows, row("set0", "a", 1, "cler", 0.5)])
  with pytest.raises(UsageError, match="no row of quantity 'coop'"):
    correlations(rows, target="coop")


def test_leave_one_dataset_out():
  predictions = {(p.quantity, p.dataset): p for p in leave_one_dataset_out(cell_rows())}
  x = np.concatenate([values_of("cler", f"set{d}") for d in (0, 1, 3)])
  y = np.concatenate([values_of("linear_probe", f"set{d}") for d in (0, 1, 3)])
  line = stats.linregress(x, y)
  expected = line.intercept + line.slope * values_of("cler", "set2")
  held_out = predictions["cler", "set2"]
  assert held_out.error == pytest.approx(
    np.abs(expected - values_of("linear_probe", "set2")).mean()
  )
  assert held_out.baseline == pytest.approx(
    np.abs(y.mean() - values_of("linear_probe", "set2")).mean()
  )
  overall = predictions["cler", None]
  assert overall.error < 0.02 < overall.baseline and overall.n == 48
  assert predictions["vendi", None].error > overall.baseline / 2
  assert leave_one_dataset_out(cell_rows(datasets=1)) == []
