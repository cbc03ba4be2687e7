"""Intervals of recognition scores over test images."""

import numpy as np
import pytest

from genbench_jax.recognizers.intervals import bootstrap_interval


@pytest.mark.parametrize("metric", ["accuracy", "mean_per_class"])
def test_the_interval_has_the_binomial_width_and_empty_classes_are_ignored(metric):
  """Class 1 of four has no test image: its recall is undefined and excluded from the mean."""
  labels = np.repeat([0, 2, 3], 200)
  hits = np.random.default_rng(0).random(600) < np.repeat([0.9, 0.5, 0.7], 200)
  scores = np.eye(4)[np.where(hits, labels, 1)]
  low, high = bootstrap_interval(scores, labels, metric)
  rates = hits.reshape(3, 200).mean(1)
  spread = {
    "accuracy": np.sqrt(hits.mean() * (1 - hits.mean()) / 600),
    "mean_per_class": np.sqrt((rates * (1 - rates) / 200).sum()) / 3,
  }[metric]
  assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.08)
  assert (low + high) / 2 == pytest.approx(hits.mean(), abs=0.01)


def test_the_seed_decides_resampled_intervals_and_is_0_by_default():
  """Average precisions of several labels have no closed form, so images are drawn again."""
  random = np.random.default_rng(2)
  scores, labels = random.random((30, 3)), random.random((30, 3)) < 0.4
  default, first, second = (
    bootstrap_interval(scores, labels, "map_11_point", *seed) for seed in ((), (0,), (1,))
  )
  assert default == first != second
  assert first[0] < first[1]
