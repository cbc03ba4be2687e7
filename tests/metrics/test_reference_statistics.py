"""Files of reference statistics at the limits of what is accepted."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.metrics import reference_statistics
from genbench_jax.metrics.reference_statistics import read_statistics, statistics_of


def written(path, mean, covariance):
  np.savez(path, mu=np.asarray(mean, float), sigma=np.asarray(covariance, float))
  return path


def test_rounding_does_not_make_a_covariance_asymmetric(tmp_path):
  almost = np.array([[4.0, 1.0], [1.0 + 3e-6, 2.0]])  # 4e-6 are allowed beside a 4
  found = read_statistics(written(tmp_path / "a.npz", [0, 0], almost))
  np.testing.assert_array_equal(found.covariance, almost)
  almost[1, 0] = 1 + 5e-6
  with pytest.raises(UsageError, match="not symmetric"):
    read_statistics(written(tmp_path / "a.npz", [0, 0], almost))
  zeros = read_statistics(written(tmp_path / "a.npz", [0, 0], np.zeros((2, 2))))
  assert not zeros.covariance.any()


@pytest.mark.parametrize(
  ("mean", "covariance"),
  [(np.zeros((2, 2)), np.eye(2)), (np.zeros(2), np.eye(3)), (np.zeros(2), np.zeros(2))],
)
def test_shapes_that_do_not_fit_are_rejected(tmp_path, mean, covariance):
  with pytest.raises(UsageError, match=r"expected \[d\] and \[d, d\]"):
    read_statistics(written(tmp_path / "a.npz", mean, covariance))


def test_the_width_has_a_limit(tmp_path, monkeypatch):
  path = written(tmp_path / "a.npz", np.zeros(3), np.eye(3))
  monkeypatch.setattr(reference_statistics, "MOST_WIDTH", 3)
  assert read_statistics(path).mean.shape == (3,)
  monkeypatch.setattr(reference_statistics, "MOST_WIDTH", 2)
  with pytest.raises(UsageError, match="with d up to 2"):
    read_statistics(path)


def test_a_huge_archive_is_not_read(tmp_path, monkeypatch):
  """mu and sigma of d columns have 8 d (d + 1) bytes."""
  path = written(tmp_path / "a.npz", np.zeros(3), np.eye(3))
  assert reference_statistics._MOST_BYTES == 8 * 16_384 * 16_385
  monkeypatch.setattr(reference_statistics, "_MOST_BYTES", 50)
  with pytest.raises(UsageError, match="can't be read"):
    read_statistics(path)


def test_a_covariance_needs_two_images():
  two = statistics_of(np.array([[0.0, 0], [2, 4]]))
  np.testing.assert_allclose(two.mean, [1, 2])
  np.testing.assert_allclose(two.covariance, [[2, 4], [4, 8]], rtol=1e-6)
  with pytest.raises(UsageError, match="at least 2 images, got 1"):
    statistics_of(np.ones((1, 2)))


@pytest.mark.parametrize(
  "covariance",
  [-np.eye(2), [[1, 0], [0, -0.1]], [[1, 3], [3, 4]], [[0, 1], [1, 0]]],
)
def test_entries_that_no_covariance_has_are_rejected(tmp_path, covariance):
  """The distance would drop their negative eigenvalues, and be 0 for the first."""
  with pytest.raises(UsageError, match="entries that its variances rule out"):
    read_statistics(written(tmp_path / "a.npz", [0, 0], covariance))


def test_a_covariance_in_half_precision_is_read(tmp_path):
  x = np.random.default_rng(0).normal(size=(9, 64)) * np.logspace(-3, 3, 64)
  read_statistics(written(tmp_path / "a.npz", x[0], np.float16(np.cov(x, rowvar=False) / 1e3)))


def test_complex_numbers_are_rejected(tmp_path):
  with pytest.raises(UsageError, match="sigma is complex128, not real numbers"):
    np.savez(tmp_path / "a.npz", mu=np.zeros(2), sigma=np.eye(2) * (1 + 1j))
    read_statistics(tmp_path / "a.npz")
