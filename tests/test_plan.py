"""Cells and shots."""

import dataclasses

import numpy as np

from genbench_jax import plan
from genbench_jax.config import Config, Generation


def test_cells_are_the_product_of_the_config():
  config = Config(
    datasets=("digits", "shapes"),
    shots=(4, 1),
    seeds=(0, 1),
    generation=Generation(strategies=("simple_template", "defined_template")),
  )
  sets = plan.image_sets(config)
  assert len(sets) == 2 * (2 + 1) * 2
  cells = plan.cells(config)
  assert len(cells) == len(set(cells)) == 2 * len(sets)
  assert [cell.shots for cell in cells[:2]] == [1, 4]
  assert {cell.strategy for cell in cells if cell.source == "original"} == {""}


def test_the_label_of_an_image_set_names_all_of_it():
  key = plan.image_sets(dataclasses.replace(Config(), datasets=("digits",)))[0]
  assert key.label == "generative-defined_template-seed0"


def test_rows_of_shots_take_the_first_of_each_class_in_order():
  labels = np.array([2, 0, 0, 1, 2, 0, 2])
  np.testing.assert_array_equal(plan.rows_of_shots(labels, 1), [0, 1, 3])
  np.testing.assert_array_equal(plan.rows_of_shots(labels, 2), [0, 1, 2, 3, 4])
  np.testing.assert_array_equal(plan.rows_of_shots(labels, 9), range(7))
