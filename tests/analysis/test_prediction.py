"""Prediction of accuracy on a held-out dataset."""

import numpy as np
import pytest

from genbench_jax.analysis.correlation import TARGET, TRAINED
from genbench_jax.analysis.prediction import leave_one_dataset_out


def rows_of(dataset, metric, accuracy, quantity="fid", protocol="strict", encoder="e"):
  """Rows of a metric and of the target for each series."""
  about = {"dataset": dataset, "source": "generative", "generator": "", "seed": 0, "shots": 4, "protocol": protocol, "encoder": encoder}  # fmt: skip
  return [
    {**about, "strategy": str(i), "quantity": name, "value": values[i]}
    for name, values in ((quantity, metric), (TARGET, accuracy))
    for i in range(len(values))
  ]


def test_an_exact_line_predicts_without_error():
  line = lambda x: 0.9 - 0.01 * np.array(x)  # noqa: E731
  rows = [
    row
    for dataset, x in (("a", [1, 2, 3]), ("b", [4, 8, 9]), ("c", [5, 6, 20]))
    for row in rows_of(dataset, x, line(x))
  ]
  *each, mean = leave_one_dataset_out(rows)
  assert [found.dataset for found in each] == ["a", "b", "c"] and mean.dataset is None
  assert all(found.error == pytest.approx(0, abs=1e-12) for found in (*each, mean))
  assert mean.n == 9 and {found.n for found in each} == {3}


def test_the_baseline_is_the_mean_of_the_other_datasets():
  rows = rows_of("a", [1, 2], [0.5, 0.7]) + rows_of("b", [3, 5], [0.1, 0.3])
  first, second, mean = leave_one_dataset_out(rows)
  assert first.baseline == pytest.approx(np.mean([0.3, 0.5]))
  assert second.baseline == pytest.approx(np.mean([0.5, 0.3]))
  assert mean.baseline == pytest.approx((first.baseline + second.baseline) / 2)


def test_the_line_is_fitted_to_the_other_datasets_only():
  rows = rows_of("a", [1, 2], [0.5, 0.7]) + rows_of("b", [3, 5], [0.1, 0.3])
  first, second, _ = leave_one_dataset_out(rows)
  # Through (3, .1) and (5, .3): -.1 at 1 and 0 at 2. Through (1, .5) and (2, .7): .9 at 3, 1.3 at 5.
  assert first.error == pytest.approx(np.mean([0.6, 0.7]))
  assert second.error == pytest.approx(np.mean([0.8, 1.0]))


def test_a_constant_metric_predicts_the_mean():
  rows = rows_of("a", [2, 2], [0.5, 0.7]) + rows_of("b", [2, 2], [0.1, 0.3])
  for found in leave_one_dataset_out(rows):
    assert found.error == pytest.approx(found.baseline)


def test_each_dataset_counts_once_however_large():
  rows = rows_of("a", [1, 2], [0.5, 0.7]) + rows_of("b", [*range(20)], [0.4] * 20)
  first, second, mean = leave_one_dataset_out(rows)
  assert mean.error == pytest.approx((first.error + second.error) / 2)
  assert mean.n == 22


def test_one_dataset_is_not_enough():
  assert leave_one_dataset_out(rows_of("a", [1, 2], [0.5, 0.7])) == []


def test_protocols_and_encoders_are_not_mixed():
  rows = [
    *rows_of("a", [1, 2], [0.5, 0.7]),
    *rows_of("b", [1, 2], [0.5, 0.7], protocol="reference"),
    *rows_of("c", [1, 2], [0.5, 0.7], encoder="other"),
  ]
  assert leave_one_dataset_out(rows) == []
  rows += rows_of("d", [1, 2], [0.5, 0.7], encoder="other")
  assert {(p.protocol, p.encoder) for p in leave_one_dataset_out(rows)} == {("strict", "other")}


def test_trained_quantities_are_not_metrics_unless_asked_for():
  rows = [
    row
    for name in (TRAINED[0], "vendi")
    for dataset in ("a", "b")
    for row in rows_of(dataset, [1, 2], [0.5, 0.7], name)
    if name == "vendi" or row["quantity"] != TARGET
  ]
  assert {found.quantity for found in leave_one_dataset_out(rows)} == {"vendi"}
  asked = leave_one_dataset_out(rows, quantities=[TRAINED[0]])
  assert {found.quantity for found in asked} == {TRAINED[0]}
