"""Rank correlations of metrics with accuracy."""

import numpy as np
import pytest
from scipy.stats import rankdata

from genbench_jax.report.agreement import agreement, agreements, agrees, spearman
from genbench_jax.report.results import results_of, views
from genbench_jax.report.scatter import ranks


def test_spearman_is_pearson_of_ranks():
  rng = np.random.default_rng(1)
  x, y = rng.integers(0, 9, 30), rng.normal(size=30)
  expected = np.corrcoef(rankdata(x), rankdata(y))[0, 1]
  assert spearman(x.tolist(), y.tolist()) == pytest.approx(expected)


@pytest.mark.parametrize(("x", "y"), [([1, 2], [1, 2]), ([1, 1, 1, 1], [1, 2, 3, 4])])
def test_spearman_is_not_defined_for_few_or_constant_values(x, y):
  assert spearman(x, y) is None


def test_within_dataset_and_shots_against_numpy_and_without_controls(rows):
  results = results_of(rows, views(rows)[0])
  found = agreement(results, "cler", "linear_probe")
  assert found.count == 3 * 5 * 5
  for (dataset, shots), rho in found.within.items():
    cells = [cell for cell in found.cells[dataset] if cell.shots == shots]
    assert len(cells) == 5
    assert all(cell.series.source != "control" for cell in cells)
    cler = [cell.estimates["cler"].value for cell in cells]
    probe = [cell.estimates["linear_probe"].value for cell in cells]
    assert rho == pytest.approx(np.corrcoef(rankdata(cler), rankdata(probe))[0, 1])
  assert len(found.within) == 15
  assert found.mean == pytest.approx(np.mean(list(found.within.values())))
  low, high = found.interval
  assert low < found.mean < high <= 1


def test_a_metric_of_only_the_number_of_images_predicts_nothing():
  """Pooled over numbers of images it seems to, because both grow. Within a number it is noise."""
  random = np.random.default_rng(3)
  rows = [
    {"dataset": d, "source": "generative", "generator": f"g{g}", "strategy": "", "shots": shots, "seed": 0,
     "protocol": "strict", "encoder": "e", "quantity": name, "value": 0.1 * np.log2(shots) + 0.02 * random.normal()}
    for d in "abc" for g in range(8) for shots in (1, 2, 4, 8, 16) for name in ("linear_probe", "vendi")
  ]  # fmt: skip
  found = agreement(results_of(rows, views(rows)[0]), "vendi", "linear_probe")
  assert found.pooled > 0.8
  assert abs(found.mean) < 0.3
  assert found.p > 0.05
  assert found.interval[0] < 0 < found.interval[1]


def test_few_series_have_no_interval(rows):
  few = [r for r in rows if r["source"] == "generative"]  # four series
  found = agreement(results_of(few, views(few)[0]), "cler", "linear_probe")
  assert found.mean is not None
  assert found.interval is None


def test_a_distance_is_used_as_its_excess_over_the_floor(rows):
  floored = [r | {"floor": 0.5 / r["shots"]} if r["quantity"] == "fid" else r for r in rows]
  names = [
    item.metric for item in agreements(results_of(floored, views(floored)[0]), "linear_probe")
  ]
  assert "fid_excess" in names and "fid" not in names


def test_lower_is_better_reverses_the_sign(rows):
  results = results_of(rows, views(rows)[0])
  items = {item.metric: item for item in agreements(results, "linear_probe")}
  assert next(iter(items)) == "cler"
  assert not items.keys() & {"linear_probe", "zero_shot", "cler_gain"}
  assert items["fid"].mean < 0 < agrees(items["fid"], items["fid"].mean)


def test_ranks_are_scaled_to_zero_one_with_mean_ties():
  assert ranks([3.0, 1.0, 1.0, 9.0]) == pytest.approx([2 / 3, 1 / 6, 1 / 6, 1.0])
  assert ranks([4.0]) == [0.5]


def test_interval_and_p_equal_those_of_the_analysis(rows):
  from genbench_jax.analysis.correlation import correlations

  results = results_of(rows, views(rows)[0])
  found = agreement(results, "cler", "linear_probe")
  expected = next(
    c
    for c in correlations(rows, quantities=("cler",), resamples=500)
    if (c.level, c.dataset, c.method) == ("within_dataset", None, "spearman")
  )
  assert found.mean == pytest.approx(expected.value)
  assert found.interval == pytest.approx((expected.ci_low, expected.ci_high), abs=0.05)
  assert found.p == pytest.approx(expected.p_value, abs=0.01)


def test_metrics_with_the_same_order_are_tested_once(rows):
  """KID and CMMD of unit-norm features are multiples of the same number."""
  double = [
    r | {"quantity": "kid", "value": 3 * r["value"] - 1} for r in rows if r["quantity"] == "fid"
  ]
  items = {
    i.metric: i for i in agreements(results_of([*rows, *double], views(rows)[0]), "linear_probe")
  }
  assert (items["kid"].same_as, items["fid"].same_as) == ("fid", "")
  assert items["kid"].p is None and items["fid"].p is not None


def test_p_values_are_corrected_for_all_metrics(rows):
  results = results_of(rows, views(rows)[0])
  alone = agreement(results, "cler", "linear_probe")
  shown = next(i for i in agreements(results, "linear_probe") if i.metric == "cler")
  assert shown.p >= alone.p
