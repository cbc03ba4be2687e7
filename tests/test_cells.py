"""Cells and shots."""

import dataclasses

import numpy as np
import pytest

from genbench_jax.benchmark.few_shot import rows_of_shots
from genbench_jax.cells import (
  all_cells,
  cells_of,
  image_sets,
  measured_sets,
  mixture_budget,
  mixtures,
)
from genbench_jax.config import Config, Generation, Mixture
from genbench_jax.errors import UsageError


def test_cells_are_the_product_of_the_config():
  config = Config(
    datasets=("digits", "shapes"),
    shots=(4, 1),
    seeds=(0, 1),
    generation=Generation(strategies=("simple_template", "defined_template")),
  )
  sets = image_sets(config)
  assert len(sets) == 2 * (2 + 1) * 2
  cells = all_cells(config)
  assert len(cells) == len(set(cells)) == 2 * len(sets)
  assert [cell.shots for cell in cells[:2]] == [1, 4]
  assert {cell.strategy for cell in cells if cell.source == "original"} == {""}


def test_the_label_of_an_image_set_contains_its_key():
  key = image_sets(dataclasses.replace(Config(), datasets=("digits",)))[0]
  assert key.label == "generative-defined_template-seed0"


def test_rows_of_shots_are_the_first_of_each_class_in_order():
  labels = np.array([2, 0, 0, 1, 2, 0, 2])
  np.testing.assert_array_equal(rows_of_shots(labels, 1), [0, 1, 3])
  np.testing.assert_array_equal(rows_of_shots(labels, 2), [0, 1, 2, 3, 4])
  np.testing.assert_array_equal(rows_of_shots(labels, 9), range(7))


MIXED = Config(
  sources=("generative", "original", "combined"),
  shots=(1, 2, 4, 8),
  generation=Generation(strategies=("simple_template", "defined_template")),
)


@pytest.mark.parametrize(
  ("budget", "ratio", "expected"),
  [
    ("added", 1.0, {1: (1, 1), 2: (2, 2), 4: (4, 4), 8: (8, 8)}),
    ("added", 4.0, {1: (1, 4), 2: (2, 8)}),
    ("added", 0.5, {1: (1, 1), 2: (2, 1), 4: (4, 2), 8: (8, 4)}),
    ("equal", 1.0, {2: (1, 1), 4: (2, 2), 8: (4, 4)}),
    ("equal", 3.0, {2: (0, 2), 4: (1, 3), 8: (2, 6)}),
  ],
)
def test_a_mixture_has_images_of_both_kinds_at_every_possible_budget(budget, ratio, expected):
  config = dataclasses.replace(MIXED, mixture=Mixture(budget=budget, ratio=ratio))
  for shots, both in expected.items():
    assert mixture_budget(shots, config.mixture) == both
  key = next(iter(mixtures(config)))
  held = [shots for shots, both in expected.items() if min(both)]
  assert [cell.shots for cell in cells_of(key, config)] == held


def test_there_is_a_mixture_for_every_external_image_set():
  found = mixtures(MIXED)
  assert [key.label for key in found] == [
    "combined-simple_template-seed0",
    "combined-defined_template-seed0",
  ]
  assert [[part.source for part in parts] for parts in found.values()] == [
    ["original", "generative"]
  ] * 2
  assert len(measured_sets(MIXED)) == len(image_sets(MIXED)) + 2 == 5


def test_a_ratio_without_a_possible_budget_is_a_usage_error():
  config = dataclasses.replace(MIXED, mixture=Mixture(budget="added", ratio=9.0))
  with pytest.raises(UsageError, match="gives no number of shots"):
    mixtures(config)
