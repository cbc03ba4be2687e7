"""FID, KID and Inception score against float64 formulas, and the files of reference statistics."""

import itertools

import numpy as np
import pytest
import scipy.linalg

import genbench_jax as gb
from genbench_jax.errors import UsageError
from genbench_jax.metrics.inception import fid_inception, inception_score, kid_inception
from genbench_jax.metrics.reference_statistics import (
  ReferenceStatistics,
  read_statistics,
  statistics_of,
  write_statistics,
)


@pytest.fixture(scope="module")
def sets():
  rng = np.random.default_rng(0)
  mix = rng.normal(size=(12, 12))
  x = rng.normal(size=(300, 12)) @ mix
  return x.astype(np.float32), (1.2 * rng.normal(size=(260, 12)) @ mix + 0.3).astype(np.float32)


def by_scipy(x, y):
  """pytorch-fid's formula: a matrix square root of the product of the covariances."""
  x, y = (rows.astype(np.float64) for rows in (x, y))
  first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
  root = scipy.linalg.sqrtm(first @ second).real
  return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(first + second - 2 * root)


def test_fid_is_its_formula_from_features_statistics_and_files(sets, tmp_path):
  x, y = sets
  wanted = by_scipy(x, y)
  assert fid_inception(x, y) == pytest.approx(wanted, rel=1e-5)
  assert fid_inception(x, statistics_of(y)) == pytest.approx(wanted, rel=1e-5)
  write_statistics(tmp_path / "y.npz", statistics_of(y))
  assert fid_inception(x, tmp_path / "y.npz") == pytest.approx(wanted, rel=1e-5)
  assert fid_inception(x, x) == pytest.approx(0, abs=1e-6 * wanted)
  assert gb.fid_inception is fid_inception


def test_statistics_replace_a_link_and_make_their_folder(tmp_path):
  (tmp_path / "other").write_text("kept")
  (tmp_path / "link.npz").symlink_to(tmp_path / "other")
  statistics = ReferenceStatistics(np.zeros(2), np.eye(2))
  for path in (tmp_path / "link.npz", tmp_path / "new" / "folder" / "a.npz"):
    write_statistics(path, statistics)
    np.testing.assert_array_equal(read_statistics(path).covariance, np.eye(2))
  assert (tmp_path / "other").read_text() == "kept"


def test_files_have_the_format_of_pytorch_fid_and_clean_fid(sets, tmp_path):
  x, y = sets
  covariance = np.cov(y.astype(np.float64), rowvar=False)
  np.savez(tmp_path / "theirs.npz", mu=y.astype(np.float64).mean(0), sigma=covariance)
  assert fid_inception(x, str(tmp_path / "theirs.npz")) == pytest.approx(by_scipy(x, y), rel=1e-5)
  own = statistics_of(y)
  np.testing.assert_allclose(own.covariance, covariance, rtol=1e-4, atol=1e-4)
  write_statistics(tmp_path / "ours.npz", own)
  with np.load(tmp_path / "ours.npz") as file:
    assert set(file.files) == {"mu", "sigma"} and file["mu"].dtype == np.float64
  assert [path.name for path in tmp_path.glob(".*")] == []


def write(path, **arrays):
  np.savez(path, **arrays)


@pytest.mark.parametrize(
  "make,message",
  [
    (lambda p: write(p, mu=np.zeros(3)), "has no sigma"),
    (lambda p: write(p, other=np.zeros(3)), "has no mu and no sigma"),
    (lambda p: write(p, mu=np.zeros(3), sigma=np.zeros((2, 2))), r"shape \(2, 2\)"),
    (lambda p: write(p, mu=np.full(2, np.nan), sigma=np.eye(2)), "NaN"),
    (lambda p: write(p, mu=np.zeros(2), sigma=np.array([[1, 2], [0, 1.0]])), "not symmetric"),
    (lambda p: write(p, mu=np.array([{}], object), sigma=np.eye(1)), "can't be read"),
    (lambda p: p.write_bytes(b"PK\x03\x04"), "can't be read"),
    (lambda p: None, "can't be read"),
  ],
)
def test_other_files_give_one_clear_line(tmp_path, make, message):
  make(tmp_path / "statistics.npz")
  with pytest.raises(UsageError, match=message):
    read_statistics(tmp_path / "statistics.npz")


def test_inconsistent_sets_are_rejected(sets):
  x, y = sets
  with pytest.raises(UsageError, match="12 and of 5 features"):
    fid_inception(x, ReferenceStatistics(np.zeros(5), np.eye(5)))
  with pytest.raises(UsageError, match="at least 2 images, got 1"):
    fid_inception(x[:1], y)
  with pytest.raises(UsageError, match="subsets of at least 2 images, got 1"):
    kid_inception(x, y[:1])


def test_kid_is_its_formula_over_subsets(sets):
  x, y = sets
  found = kid_inception(x, y, subsets=3, subset_size=50, seed=1)
  rng = np.random.default_rng(1)
  values = []
  for _ in range(3):
    a, b = (rows[rng.choice(len(rows), 50, replace=False)].astype(np.float64) for rows in (x, y))
    k = lambda p, q: (p @ q.T / 12 + 1) ** 3  # noqa: E731
    off = 1 - np.eye(50)
    within = ((k(a, a) + k(b, b)) * off).sum() / (50 * 49)
    values.append(within - 2 * k(a, b).mean())
  assert found.mean == pytest.approx(np.mean(values), rel=1e-4)
  assert found.std == pytest.approx(np.std(values), rel=1e-3)


def test_inception_score_is_its_formula():
  logits = np.random.default_rng(0).normal(size=(40, 7)) * 3
  found = inception_score(logits, splits=4)
  scores = []
  for part in logits.reshape(4, 10, 7):
    p = np.exp(part) / np.exp(part).sum(1, keepdims=True)
    scores.append(np.exp((p * np.log(p / p.mean(0))).sum(1).mean()))
  assert found.mean == pytest.approx(np.mean(scores), rel=1e-9)
  assert found.std == pytest.approx(np.std(scores), rel=1e-9)


def test_inception_score_at_its_limits():
  sure = 1e4 * np.eye(10)
  assert inception_score(np.tile(sure, (5, 1)), splits=1).mean == pytest.approx(10)
  assert inception_score(np.zeros((20, 10)), splits=2).mean == pytest.approx(1)
  with pytest.raises(UsageError, match="3 images can't be split into 10 parts"):
    inception_score(np.zeros((3, 10)))


def test_the_smallest_subsets_have_two_images(sets):
  x, y = sets
  found = kid_inception(x, y, subsets=1, subset_size=2, seed=3)
  assert np.isfinite(found.mean) and found.std == 0
  with pytest.raises(UsageError, match="at least 2 images, got 1"):
    kid_inception(x, y, subset_size=1)
  with pytest.raises(UsageError, match="subsets"):
    kid_inception(x, y, subsets=0, subset_size=2)
  for bad in ((x * np.nan, y), (x, y * np.inf)):
    with pytest.raises(UsageError, match="NaN or infinite"):
      kid_inception(*bad)


def test_subsets_are_no_larger_than_the_smaller_set(sets):
  x, y = sets
  few = kid_inception(x, y[:20], 2)
  assert few == kid_inception(x, y[:20], 2, 20, 0) == kid_inception(x, y[:20], 2, 1000, seed=0)
  assert kid_inception(x[:20], y, 2) == kid_inception(x[:20], y, 2, 20)
  assert kid_inception(x[:9], y[:9]) == kid_inception(x[:9], y[:9], 100, 9)


def test_the_inception_score_has_ten_parts_of_any_sizes():
  logits = np.random.default_rng(0).normal(size=(23, 4))
  assert inception_score(logits) == inception_score(logits, 10)
  bounds = [23 * part // 10 for part in range(11)]
  scores = []
  for start, stop in itertools.pairwise(bounds):
    p = np.exp(logits[start:stop])
    p /= p.sum(1, keepdims=True)
    scores.append(np.exp(np.sum(p * np.log(p / p.mean(0)), axis=1).mean()))
  found = inception_score(logits)
  assert (found.mean, found.std) == pytest.approx((np.mean(scores), np.std(scores)))


@pytest.mark.parametrize(("images", "splits"), [(3, 3), (3, 1), (1, 1)])
def test_as_many_parts_as_images_are_possible(images, splits):
  assert inception_score(np.eye(4)[:images], splits).mean >= 1
  for wrong in (0, images + 1):
    with pytest.raises(UsageError, match=f"can't be split into {wrong} parts"):
      inception_score(np.eye(4)[:images], wrong)
  with pytest.raises(UsageError, match="logits hold NaN"):
    inception_score(np.full((2, 2), np.nan), 1)
