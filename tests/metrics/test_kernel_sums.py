"""The frame in which kernels are evaluated without cancellation, and sums of them by row."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics.kernel_sums import (
  APART,
  TYPICAL_ROWS,
  KernelRows,
  KernelSums,
  _cubic,
  _mean,
  _root_mean_square,
  _row_tiles,
  _unit,
  frame_of,
  kernel_sums,
)

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(12, 5)) + 2, 3 * RANDOM.normal(size=(9, 5)) - 1


def cubic(a, b):
  return (a @ b.T / a.shape[1] + 1) ** 3


def test_constants_that_keep_pairs_apart():
  assert TYPICAL_ROWS == 256 and APART == 2**30


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
@pytest.mark.parametrize("standardize", [False, True])
def test_numbers_of_a_frame_are_about_one(scale, standardize):
  """A / T and the mean square of u / sqrt(d T) add up to 1, of the features that set the scale."""
  x, y = scale * X, scale * Y
  frame = frame_of(x, y, "polynomial", standardize)
  squares = [np.sum(frame.host_rows(rows)[0] ** 2, axis=1).mean() for rows in (x, y)]
  assert frame.constant + (squares[0] if standardize else np.mean(squares)) == pytest.approx(1)
  if standardize:
    assert frame.factor == pytest.approx(frame.constant**-3) and not frame.has_offset
    np.testing.assert_allclose(frame.center, y.mean(axis=0))
    # The test images have a mean square of one before the division by T.
    assert squares[1] == pytest.approx(frame.constant)
  else:
    assert frame.has_offset
    np.testing.assert_allclose(frame.center, (x.mean(axis=0) + y.mean(axis=0)) / 2)
    square = np.sum(frame.center**2) / 5
    assert frame.constant * np.cbrt(frame.factor) == pytest.approx(1 + square)


@pytest.mark.parametrize("standardize", [False, True])
def test_summands_of_a_frame_are_the_kernel_less_terms_of_one_image(standardize):
  """Centered over rows and columns, both have the same values."""
  frame = frame_of(X, Y, "polynomial", standardize)
  found = frame.factor * frame.host_values(X, Y)
  given = [X, Y]
  if standardize:
    center = Y.mean(axis=0)
    size = np.sqrt(np.mean((Y - center) ** 2))
    given = [(rows - center) / size for rows in given]
  expected = cubic(*given)

  def centered(values):
    return values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()

  np.testing.assert_allclose(centered(found), centered(expected), rtol=1e-9, atol=1e-9)
  assert frame.host_values(X, Y).mean() == pytest.approx(
    0, abs=1e-12
  )  # the typical one is subtracted


def test_gaussian_summands_are_the_kernel_less_one():
  frame = frame_of(X, Y, "gaussian", False)
  a, b = _unit(X), _unit(Y)
  squares = np.sum((a[:, None] - b) ** 2, axis=-1)
  np.testing.assert_allclose(frame.host_values(X, Y) + frame.typical, np.exp(-squares / 200) - 1)
  assert (frame.factor, frame.scale, frame.constant, frame.has_offset) == (1, 1, 1, False)
  assert not frame.host_rows(X)[1].any()


def test_equal_images_cannot_be_standardized_by():
  with pytest.raises(UsageError, match="all images to compare with have the same features"):
    frame_of(X, np.ones((4, 5)), "polynomial", True)
  frame_of(np.ones((4, 5)), Y, "polynomial", True)


def test_the_cubic_kernel_is_expanded_without_terms_of_one_image():
  inner, p, q, constant = 0.3, 0.2, -0.4, 0.7
  whole = (constant + p + q + inner) ** 3
  alone = (constant + p) ** 3 + (constant + q) ** 3 - constant**3
  assert _cubic(inner, p, q, constant) == pytest.approx(whole - alone)


def test_means_and_lengths_of_blocks_are_those_of_all_rows(monkeypatch):
  monkeypatch.setattr("genbench_jax.metrics.kernel_sums.BLOCK_ROWS", 5)
  np.testing.assert_allclose(_mean(X), X.mean(axis=0))
  center = np.arange(5.0)
  assert _root_mean_square(X, center) == pytest.approx(np.sqrt(np.mean((X - center) ** 2)))
  with pytest.raises(UsageError, match="NaN or infinite"):
    _mean(np.full((2, 2), np.nan))
  np.testing.assert_allclose(_unit(np.array([[3e200, 4e200], [0, 0]])), [[0.6, 0.8], [0, 0]])


@pytest.mark.parametrize("kernel", ["polynomial", "gaussian"])
def test_sums_leave_out_a_row_with_itself_only_within_its_set(kernel, mesh):
  frame = frame_of(X, Y, kernel, False)
  across, within = frame.host_values(X, Y), frame.host_values(X, X)
  found = kernel_sums(X, Y, frame, False, mesh).sums
  np.testing.assert_allclose(found, across.sum(axis=1), atol=1e-4)
  # Equal sets have equal row numbers; only `skip_self` makes them one set.
  found = kernel_sums(X, X, frame, False, mesh).sums
  np.testing.assert_allclose(found, within.sum(axis=1), atol=1e-4)
  found = kernel_sums(X, X, frame, True, mesh)
  others = within.sum(axis=1) - np.diag(within)
  np.testing.assert_allclose(found.sums, others, atol=1e-4)
  np.testing.assert_allclose(found.compute(11), found.sums / 11)
  merged = found.merge(KernelSums(np.ones(12)))
  np.testing.assert_allclose(merged.sums, found.sums + 1)


def test_tiles_are_filled_with_rows_that_count_nowhere():
  rows = KernelRows(np.ones((5, 2)), np.ones(5), np.arange(5))
  found = _row_tiles(rows, 3)
  assert np.asarray(found.number).tolist() == [[0, 1, 2], [3, 4, -1]]
  assert found.features.shape == (2, 3, 2) and float(found.offset[1, 2]) == 0
