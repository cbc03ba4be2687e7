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


@pytest.mark.parametrize(("x", "y"), [([1, 2, 3], [1, 2, 3]), ([1, 1, 1, 1], [1, 2, 3, 4])])
def test_spearman_is_not_defined_for_few_or_constant_values(x, y):
  assert spearman(x, y) is None


def test_within_datasets_against_numpy_and_without_controls(rows):
  results = results_of(rows, views(rows)[0])
  found = agreement(results, "cler", "linear_probe")
  assert found.count == 3 * 5 * 5
  for dataset, cells in found.cells.items():
    assert all(cell.series.source != "control" for cell in cells)
    cler = [cell.estimates["cler"].value for cell in cells]
    probe = [cell.estimates["linear_probe"].value for cell in cells]
    expected = np.corrcoef(rankdata(cler), rankdata(probe))[0, 1]
    assert found.within[dataset] == pytest.approx(expected)
  assert found.mean == pytest.approx(np.mean(list(found.within.values())))


def test_lower_is_better_turns_the_sign(rows):
  results = results_of(rows, views(rows)[0])
  items = {item.metric: item for item in agreements(results, "linear_probe")}
  assert next(iter(items)) == "cler"
  assert not items.keys() & {"linear_probe", "zero_shot", "cler_gain"}
  assert items["fid"].mean < 0 < agrees(items["fid"], items["fid"].mean)


def test_ranks_run_from_zero_to_one_with_ties_at_their_mean():
  assert ranks([3.0, 1.0, 1.0, 9.0]) == pytest.approx([2 / 3, 1 / 6, 1 / 6, 1.0])
  assert ranks([4.0]) == [0.5]


def test_interval_of_the_mean_agrees_with_the_analysis(rows):
  from genbench_jax.analysis.correlation import correlations

  results = results_of(rows, views(rows)[0])
  found = agreement(results, "cler", "linear_probe")
  expected = next(
    c
    for c in correlations(rows, quantities=("cler",), resamples=1000)
    if (c.level, c.dataset, c.method) == ("within_dataset", None, "spearman")
  )
  assert found.mean == pytest.approx(expected.value)
  assert found.interval == pytest.approx((expected.ci_low, expected.ci_high), abs=0.03)
