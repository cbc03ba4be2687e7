"""Correlations against SciPy, and on constructed rows."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy import stats

from genbench_jax.analysis import correlation as module
from genbench_jax.analysis.correlation import correlations, within_interval
from genbench_jax.analysis.prediction import leave_one_dataset_out
from genbench_jax.analysis.series import Table
from genbench_jax.analysis.statistics import COEFFICIENTS, bootstrap_weights, holm, permuted_orders
from genbench_jax.errors import UsageError

TESTS = {"pearson": stats.pearsonr, "spearman": stats.spearmanr, "kendall": stats.kendalltau}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([4, 1000]))
def test_resampled_coefficients_equal_those_of_the_resamples(seed, levels):
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
def test_shuffled_coefficients_equal_those_of_the_shuffled_values(method):
  x, y = np.random.default_rng(0).integers(0, 5, (2, 12)).astype(float)
  orders = np.stack([np.random.default_rng(s).permutation(12) for s in range(5)])
  found = permuted_orders(x, y, method, orders)
  expected = [TESTS[method](x, y[order]).statistic for order in orders]
  np.testing.assert_allclose(found, expected, atol=1e-9)


def test_holm():
  np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.5])), [0.04, 0.09, 0.09, 0.5])


def row(dataset, strategy, shots, quantity, value, source="generative"):
  return {
    "dataset": dataset, "source": source, "strategy": strategy, "shots": shots, "seed": 0,
    "protocol": "strict", "encoder": "tiny", "quantity": quantity, "value": value,
  }  # fmt: skip


def cell_rows(datasets=4, seed=0):
  """Return rows: `cler` follows accuracy at both levels, `fid` opposes it within datasets, `vendi`
  neither."""
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


def values_of(quantity, dataset=None, shots=None):
  chosen = [
    r
    for r in cell_rows()
    if r["source"] != "control"
    and dataset in (None, r["dataset"])
    and shots in (None, r["shots"])
    and r["quantity"] == quantity
  ]
  return np.array([r["value"] for r in chosen])


@pytest.mark.parametrize("method", list(TESTS))
def test_agrees_with_scipy_at_equal_budget(found, method):
  for quantity in ("cler", "fid", "vendi"):
    expected = TESTS[method](values_of(quantity), values_of("linear_probe"))
    pooled = found[quantity, method, "pooled", None]
    assert pooled.value == pytest.approx(expected.statistic)
    assert pooled.n == 48 and pooled.p_value is None and "comparison" in pooled.reason
    each = [
      np.mean([
        TESTS[method](
          values_of(quantity, f"set{d}", shots), values_of("linear_probe", f"set{d}", shots)
        ).statistic
        for shots in (1, 2, 4, 8)
      ])
      for d in range(4)
    ]  # fmt: skip
    assert found[quantity, method, "within_dataset", None].value == pytest.approx(np.mean(each))
    assert found[quantity, method, "within_dataset", "set2"].value == pytest.approx(each[2])
    means = [[values_of(q, f"set{d}").mean() for d in range(4)] for q in (quantity, "linear_probe")]
    over = found[quantity, method, "over_datasets", None]
    assert over.value == pytest.approx(TESTS[method](*means).statistic)
    assert over.n == 4


def test_few_units_have_no_interval_and_no_small_p_value(found):
  for correlation in found.values():
    if correlation.units and correlation.units < 5:
      assert correlation.ci_low is None
    if correlation.p_value is not None:
      assert correlation.p_value <= correlation.p_corrected <= 1
  # 3 series: 3! orders, of which two or more are as extreme; 4 datasets: 4! of them.
  assert found["cler", "spearman", "within_dataset", "set0"].p_value >= 1 / 6
  assert found["cler", "spearman", "over_datasets", None].p_value >= 2 / 24


@pytest.mark.parametrize("method", list(TESTS))
def test_three_datasets_allow_one_third(method):
  rows = []
  for d, (metric, accuracy) in enumerate(((0.2, 0.5), (0.4, 0.6), (0.7, 0.9))):
    rows += [row(f"d{d}", "a", 1, "cler", metric), row(f"d{d}", "a", 1, "linear_probe", accuracy)]
  over = next(c for c in correlations(rows, methods=[method]) if c.level == "over_datasets")
  assert over.p_value == pytest.approx(1 / 3)
  assert over.ci_low is None and "fewer than 5 datasets" in over.reason


def series_rows(random, metric, datasets=2, series=6, shots=(1, 2, 4)):
  """Return rows whose accuracy grows with the budget and slightly with `metric(quality,
  budget)`."""
  rows = []
  for d in range(datasets):
    quality = random.normal(size=series)
    for i in range(series):
      for budget, number in enumerate(shots):
        accuracy = budget + 0.3 * quality[i] + 0.1 * random.normal()
        rows.append(row(f"d{d}", f"s{i}", number, "linear_probe", accuracy))
        rows.append(row(f"d{d}", f"s{i}", number, "m", metric(quality[i], budget)))
  return rows


def within(rows, method="spearman"):
  return next(c for c in correlations(rows, resamples=100, methods=[method]))


@pytest.mark.slow
def test_a_metric_of_budget_and_noise_is_rarely_significant():
  random = np.random.default_rng(0)
  found = [
    within(series_rows(random, lambda _, budget: budget + 0.3 * random.normal())) for _ in range(40)
  ]
  assert np.mean([c.p_value < 0.05 for c in found]) < 0.15
  assert abs(np.mean([c.value for c in found])) < 0.1
  rows = series_rows(random, lambda _, budget: budget + 0.3 * random.normal())
  pooled = next(c for c in correlations(rows, methods=["spearman"]) if c.level == "pooled")
  assert pooled.value > 0.7


@pytest.mark.slow
def test_intervals_contain_the_expected_coefficient():
  random = np.random.default_rng(1)
  found = [
    within(series_rows(random, lambda quality, budget: quality + random.normal()))
    for _ in range(40)
  ]
  expected = np.mean([c.value for c in found])
  held = np.mean([c.ci_low <= expected <= c.ci_high for c in found])
  assert held > 0.85
  assert 0.3 < np.mean([c.ci_high - c.ci_low for c in found]) < 1.3


def test_protocols_and_encoders_are_not_mixed():
  rows = []
  for protocol, offset in (("strict", 0.0), ("reference", -0.3)):
    for s in range(6):
      base = row("d", f"s{s}", 16, "fid", 1 - 0.1 * s + 3 * offset) | {"protocol": protocol}
      rows += [base, base | {"quantity": "linear_probe", "value": 0.5 + 0.05 * s + offset}]
  each = [c for c in correlations(rows, methods=["spearman"]) if c.level == "pooled"]
  assert [(c.protocol, c.n, c.value) for c in each] == [("strict", 6, -1), ("reference", 6, -1)]
  other = [r | {"encoder": "dino", "value": -r["value"]} for r in rows if r["quantity"] == "fid"]
  each = [c for c in correlations([*rows, *other], methods=["spearman"]) if c.level == "pooled"]
  assert {(c.encoder, c.is_independent) for c in each} == {("tiny", False), ("dino", True)}


def test_metrics_with_the_same_order_are_tested_once():
  random = np.random.default_rng(0)
  rows = series_rows(random, lambda quality, _: quality + 0.5 * random.normal())
  twin = [r | {"quantity": "twin", "value": -3 * r["value"]} for r in rows if r["quantity"] == "m"]
  noise = [
    r | {"quantity": "noise", "value": random.normal()} for r in rows if r["quantity"] == "m"
  ]
  alone = {
    (c.quantity, c.level, c.dataset): c for c in correlations([*rows, *noise], methods=["kendall"])
  }
  both = {
    (c.quantity, c.level, c.dataset): c
    for c in correlations([*rows, *twin, *noise], methods=["kendall"])
  }
  assert both["twin", "within_dataset", None].same_as == "m"
  assert both["noise", "within_dataset", None].same_as == ""
  for place, one in alone.items():
    assert both[place].p_corrected == one.p_corrected


def test_large_values_do_not_overflow():
  random = np.random.default_rng(0)
  rows = series_rows(random, lambda quality, _: 1e250 * (quality + 0.1 * random.normal()))
  for method in TESTS:
    assert within(rows, method).value > 0.5


def test_undefined_coefficients_have_a_reason(found):
  constant = found["zero_shot", "pearson", "within_dataset", "set0"]
  assert constant.value is None and constant.reason == "the metric is constant"
  assert (
    found["zero_shot", "pearson", "within_dataset", None].reason == "not defined in any dataset"
  )
  two = correlations(cell_rows(datasets=2), quantities=["cler"], resamples=10)
  over = next(c for c in two if c.level == "over_datasets")
  assert over.reason == "fewer than 3 pairs"


def test_invalid_rows_are_rejected():
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


def perfect(units, budgets):
  x = np.arange(units * budgets, dtype=float).reshape(budgets, units)
  return Table("d", tuple(range(budgets)), x, 2 * x)


@pytest.mark.parametrize(
  ("method", "scale"), [("pearson", 1.0), ("spearman", 1.06), ("kendall", 0.437)]
)
@pytest.mark.parametrize("sizes", [[(6, 1)], [(6, 3), (9, 2)], [(3, 1), (8, 1)]])
def test_a_perfect_order_has_the_interval_of_independent_cells(method, scale, sizes):
  """Nothing varies over resamples, so the least deviation on Fisher's scale remains."""
  tables = [perfect(*size) for size in sizes]
  low, high = within_interval(tables, method, 1.0, 50, np.random.default_rng(0))
  units, count = np.array([n for n, _ in sizes]), len(sizes)
  variance = sum(scale / (max(n - 3, 1) * budgets) for n, budgets in sizes) / count**2
  half = stats.t.ppf(0.975, units.sum() - count) * np.sqrt(variance)
  center = np.arctanh(1 - 1 / (2 * units.mean() ** 2))
  assert (low, high) == pytest.approx((np.tanh(center - half), np.tanh(center + half)))


def test_the_interval_has_the_deviation_of_resampled_series():
  random = np.random.default_rng(0)
  x = random.normal(size=(1, 40))
  table = Table("d", (1,), x, 0.3 * x + random.normal(size=(1, 40)))
  (value,) = COEFFICIENTS["pearson"](table.x[0], table.y[0], np.ones((1, 40), int))
  low, high = within_interval([table], "pearson", value, 300, np.random.default_rng(5))
  drawn = np.random.default_rng(5).integers(0, 40, (300, 40))
  resampled = [np.corrcoef(table.x[0, rows], table.y[0, rows])[0, 1] for rows in drawn]
  deviation = max(np.std(np.arctanh(resampled)), np.sqrt(1 / 37))
  half = stats.t.ppf(0.975, 39) * deviation
  assert np.arctanh(high) - np.arctanh(low) == pytest.approx(2 * half)
  assert np.tanh((np.arctanh(high) + np.arctanh(low)) / 2) == pytest.approx(value)


def test_equal_orders_over_datasets_are_those_of_the_metrics_means():
  random = np.random.default_rng(3)
  rows = series_rows(random, lambda quality, _: quality + 0.5 * random.normal(), datasets=4)
  own = [r for r in rows if r["quantity"] == "m"]
  order = sorted(
    ("d0", "d1", "d2", "d3"), key=lambda d: np.mean([r["value"] for r in own if r["dataset"] == d])
  )
  scale = dict(zip(order, (1, 0, 2, 3), strict=True))
  twin = [r | {"quantity": "twin", "value": 5 - 3 * r["value"]} for r in own]
  other = [r | {"quantity": "other", "value": scale[r["dataset"]]} for r in own]
  found = {
    c.quantity: c for c in correlations([*rows, *twin, *other], methods=["pearson"], resamples=10)
    if c.level == "over_datasets"
  }  # fmt: skip
  assert {name: c.same_as for name, c in found.items()} == {"m": "", "twin": "m", "other": ""}
  assert {c.n for c in found.values()} == {c.units for c in found.values()} == {4}


@pytest.mark.parametrize(("series", "has_interval"), [(4, False), (5, True)])
def test_five_series_are_the_fewest_for_an_interval(series, has_interval):
  random = np.random.default_rng(0)
  found = within(series_rows(random, lambda quality, _: quality, series=series))
  assert (found.ci_low is not None) == has_interval
  assert ("fewer than 5 series" in found.reason) != has_interval
  assert found.n == 2 * 3 * series and found.units == 2 * series


@pytest.mark.parametrize(("datasets", "has_interval"), [(4, False), (5, True)])
def test_five_datasets_are_the_fewest_for_an_interval_over_them(datasets, has_interval):
  found = correlations(cell_rows(datasets), quantities=["cler"], methods=["spearman"], resamples=20)
  (over,) = (c for c in found if c.level == "over_datasets")
  assert (over.ci_low is not None) == has_interval == (over.reason == "")
  assert over.value is not None and over.p_value is not None


def test_what_is_constant_is_named():
  rows = cell_rows()
  for quantity, reason in (
    ("cler", "the metric is constant"),
    ("linear_probe", "the accuracy is constant"),
  ):
    flat = [r | {"value": 0.5} if r["quantity"] == quantity else r for r in rows]
    found = correlations(flat, quantities=["cler"], methods=["pearson"], resamples=5)
    assert {c.reason for c in found if c.dataset == "set1" or c.level == "pooled"} == {reason}


def test_quantities_keep_the_given_order_and_defaults_leave_out_trained_ones():
  rows = cell_rows()
  found = correlations(
    rows, quantities=["vendi", "fid", "absent"], methods=["kendall"], resamples=5
  )
  assert list(dict.fromkeys(c.quantity for c in found)) == ["vendi", "fid"]
  coop = [
    r | {"quantity": "coop"} for r in rows if r["quantity"] == "cler" and r["source"] != "control"
  ]
  usual = correlations([*rows, *coop], methods=["kendall"], resamples=5)
  assert "coop" not in {c.quantity for c in usual}
  assert correlations(rows, resamples=7) == correlations(rows, resamples=7, seed=0)


def test_the_constants_of_correlations():
  assert (module.FEWEST, module.FEWEST_FOR_INTERVAL) == (3, 5)
  assert module.SCALES == {"pearson": 1.0, "spearman": 1.06, "kendall": 0.437}
