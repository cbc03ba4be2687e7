"""Checks and layout shared by all metrics."""

import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics import inputs


@pytest.mark.parametrize(
  ("size", "devices", "rows"),
  [(1, 1, 1024), (1024, 8, 1024), (1025, 8, 4096), (4097, 8, 8192), (5, 7, 1029)],
)  # fmt: skip
def test_rows_are_padded_to_few_sizes_divisible_by_the_devices(size, devices, rows):
  assert inputs.bucket_rows(size, devices) == rows


def test_features_are_real_matrices_of_one_width():
  with pytest.raises(UsageError, match=r"x must be a matrix .* got \(3,\)"):
    inputs.feature_rows("x", np.ones(3))
  with pytest.raises(UsageError, match=r"at least one row and column, got \(0, 4\)"):
    inputs.feature_rows("x", np.ones((0, 4)))
  with pytest.raises(UsageError, match="x must be real numbers, got complex128"):
    inputs.feature_rows("x", np.ones((2, 2), complex))
  with pytest.raises(UsageError, match="x must be 3 wide"):
    inputs.feature_rows("x", np.ones((2, 2)), width=3)
  for dtype in (np.float16, np.int8, jnp.bfloat16):
    assert inputs.feature_rows("x", jnp.ones((2, 3), dtype), width=3).shape == (2, 3)


def test_a_memory_map_is_not_read_into_memory(tmp_path):
  rows = np.memmap(tmp_path / "rows", np.float32, "w+", shape=(4, 2))
  assert inputs.feature_rows("x", rows) is rows


@pytest.mark.parametrize("largest", [1e-20, 3e15, 1e30])
def test_a_scale_is_a_power_of_two_that_brings_the_largest_value_near_one(largest):
  rows = np.array([[0.0, -largest], [largest / 3, 0.0]])
  scale = inputs.common_scale(rows[:1], rows[1:])
  assert np.log2(scale) == int(np.log2(scale))
  assert 1 <= largest / scale < 2


@pytest.mark.parametrize("largest", [0.0, 1.0, 1e12, 1e-8])
def test_usual_sizes_are_not_scaled(largest):
  assert inputs.common_scale(np.full((2, 2), largest)) == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_metric_is_defined_for_nonfinite_features(value):
  rows = np.array([[1.0, value]])
  with pytest.raises(UsageError, match="NaN or infinite"):
    inputs.common_scale(rows)
  with pytest.raises(UsageError, match="x hold NaN or infinite"):
    inputs.check_finite("x", rows)


def test_class_names_become_indices():
  names = ("cat", "dog")
  found = inputs.named_labels("labels", ["dog", "cat", "dog"], names)
  assert found.tolist() == [1, 0, 1] and found.dtype == np.int32
  indices = np.array([1, 0])
  assert inputs.named_labels("labels", indices, ()) is indices
  with pytest.raises(UsageError, match=r"'dgo'\. Did you mean 'dog'"):
    inputs.named_labels("labels", ["dgo"], names)
  with pytest.raises(UsageError, match="give class_names"):
    inputs.named_labels("labels", ["dog"], ())
  with pytest.raises(UsageError, match="lists a class twice"):
    inputs.named_labels("labels", ["dog"], ("dog", "dog"))


def test_labels_are_indices_or_a_matrix_of_zeros_and_ones():
  assert inputs.label_rows("y", [0, 2], 2, 3).dtype == np.int32
  hot = inputs.label_rows("y", [[0, 1, 1], [0, 0, 0]], 2, 3)
  assert hot.dtype == bool and hot.sum() == 2
  for labels, message in (
    ([0, 1], r"must be \[3\] or \[3, 3\], got \(2,\)"),
    ([0.0, 1.0, 2.0], "must be whole numbers"),
    ([0, 1, 3], r"must lie in 0\.\.2, got 0\.\.3"),
    ([-1, 1, 2], r"got -1\.\.2"),
    ([[0, 1]] * 3, r"0 or 1 of shape \[3, 3\]"),
    ([[0, 1, 2]] * 3, "must be 0 or 1"),
  ):
    with pytest.raises(UsageError, match=message):
      inputs.label_rows("y", np.asarray(labels), 3, 3)


def test_rows_of_classes_in_both_forms():
  by_index = inputs.rows_of_classes([2, 0, 2])
  assert {c: rows.tolist() for c, rows in by_index.items()} == {0: [1], 2: [0, 2]}
  by_matrix = inputs.rows_of_classes(np.array([[1, 0, 1], [1, 0, 0]]))
  assert {c: rows.tolist() for c, rows in by_matrix.items()} == {0: [0, 1], 2: [0]}
  with pytest.raises(UsageError, match="class indices or multi-hot"):
    inputs.rows_of_classes([0.5])


@pytest.mark.parametrize("unit", [inputs.unit_rows, inputs.host_unit_rows])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_rows_of_any_size_get_unit_length_and_zeros_stay(unit, size):
  """Squares of 1e30 and 1e-30 do not fit float32."""
  rows = np.array([[3, -4], [0, 0], [1e-3, 1]], np.float32) * np.float32(size)
  found = np.asarray(unit(jnp.asarray(rows) if unit is inputs.unit_rows else rows))
  expected = [[0.6, -0.8], [0, 0], [1e-3, 1]]
  np.testing.assert_allclose(found, expected, rtol=2e-6, atol=0)


def test_sets_are_cut_into_blocks_of_few_sizes():
  assert inputs.blocks(5) == [slice(0, 5)]
  assert inputs.blocks(9000) == [slice(0, 4096), slice(4096, 8192), slice(8192, 9000)]
  assert inputs.blocks(50_000) == [slice(0, 50_000)]
  assert inputs.blocks(70_000) == [slice(0, 65_536), slice(65_536, 70_000)]


def test_blocks_of_a_small_set_are_placed_once(monkeypatch):
  monkeypatch.setattr(inputs, "BLOCK_ROWS", 4)
  for size, times in ((4, 1), (6, 4)):
    placed: list[slice] = []
    others = inputs.placed_once(lambda cut, placed=placed: placed.append(cut) or cut.start, size)
    assert list(others()) == list(others()) == list(range(0, size, 4))
    assert len(placed) == times


def test_values_of_all_blocks_come_back_in_order(mesh, monkeypatch):
  monkeypatch.setattr(inputs, "BLOCK_ROWS", 300)
  features = np.arange(1400, dtype=np.float64).reshape(700, 2)
  sums = inputs.by_block(lambda rows, mask: rows.sum(1) * mask, "x", mesh, features)
  np.testing.assert_array_equal(sums, features.sum(1))


@pytest.mark.parametrize(
  ("size", "count", "first"),
  [
    (4096, 1, 4096),
    (4097, 2, 4096),
    (32_768, 8, 4096),
    (32_769, 1, 32_769),
    (65_536, 1, 65_536),
    (65_537, 2, 65_536),
  ],
)
def test_small_sets_have_small_blocks(size, count, first):
  found = inputs.blocks(size)
  assert (len(found), found[0].stop, found[-1].stop) == (count, first, size)


@pytest.mark.parametrize(
  ("largest", "scaled"),
  [(1e13, True), (9.9e12, False), (1e-9, True), (1.1e-9, False), (0.0, False)],
)
def test_sizes_at_the_limits_of_what_is_safe(largest, scaled):
  assert (inputs.common_scale(np.array([[largest]])) != 1) == scaled


def test_the_largest_value_may_be_in_any_block(monkeypatch):
  monkeypatch.setattr(inputs, "BLOCK_ROWS", 2)
  rows = np.ones((5, 2))
  rows[4, 1] = -(2.0**50)
  assert inputs.common_scale(np.ones((1, 2)), rows) == 2.0**50


def test_labels_of_other_kinds():
  assert inputs.named_labels("labels", [], ()) == []
  objects = np.array(["dog", "cat"], object)
  assert inputs.named_labels("labels", objects, ["cat", "dog"]).tolist() == [1, 0]
  table = inputs.named_labels("labels", [["dog"], ["cat"]], ["cat", "dog"])
  assert table.tolist() == [[1], [0]]
  assert inputs.label_rows("y", np.zeros(0, int), 0, 3).shape == (0,)
  assert inputs.label_rows("y", [2, 0], 2, 3).tolist() == [2, 0]
  with pytest.raises(UsageError, match=r"must be \[2\]"):
    inputs.label_rows("y", np.zeros((2, 3, 1)), 2, 3)
  with pytest.raises(UsageError, match="class indices or multi-hot"):
    inputs.rows_of_classes(np.zeros((2, 2, 2), int))


@pytest.mark.parametrize("size", [1e38, 3e38, 1e-37])
def test_unit_rows_at_the_ends_of_float32(size):
  row = np.array([[size, -size / 2]], np.float32)
  expected = np.array([[1, -0.5]]) / np.sqrt(1.25)
  for unit in (inputs.unit_rows, inputs.host_unit_rows):
    np.testing.assert_allclose(unit(row), expected, rtol=1e-5)


def test_padded_rows_become_zero():
  rows = jnp.asarray([[1.0, 2], [np.nan, 3]])
  found = inputs.masked_rows(rows, jnp.asarray([True, False]))
  assert found.tolist() == [[1, 2], [0, 0]]


def test_features_need_a_row_and_a_column():
  for shape in ((1, 0), (0, 0), (2, 1, 1)):
    with pytest.raises(UsageError, match="matrix with at least one row and column"):
      inputs.feature_rows("x", np.ones(shape))
  for dtype in (bool, object, "datetime64[s]"):
    with pytest.raises(UsageError, match="must be real numbers"):
      inputs.feature_rows("x", np.ones((1, 1)).astype(dtype))
  assert inputs.feature_rows("x", [[1, 2]]).shape == (1, 2)


def test_placed_rows_are_float32_with_a_mask(one_device_mesh):
  rows, labels, mask = inputs.place("x", one_device_mesh, np.ones((3, 2)), np.array([5, 6, 7]))
  assert rows.dtype == np.float32 and rows.shape == (1024, 2)
  assert np.asarray(mask).sum() == 3 and np.asarray(labels)[:3].tolist() == [5, 6, 7]
  with pytest.raises(UsageError, match="x hold NaN or infinite"):
    inputs.place("x", one_device_mesh, np.full((1, 1), np.inf))
