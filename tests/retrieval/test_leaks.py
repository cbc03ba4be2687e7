"""The audit of images that may be copies of test images."""

import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.retrieval.leaks import audit


@pytest.fixture(scope="module")
def features():
  random = np.random.default_rng(0)
  return random.normal(size=(9, 6)).astype(np.float32), random.normal(size=(7, 6)).astype(
    np.float32
  )


def cosines(external, test):
  external, test = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (external, test))
  return external @ test.T


def test_every_image_has_its_nearest_test_image(features):
  found = audit(*features, 0.5)
  expected = cosines(*features)
  np.testing.assert_allclose(found.cosine, expected.max(1), atol=1e-5)
  np.testing.assert_array_equal(found.test_row, expected.argmax(1))


def test_an_image_is_flagged_from_the_threshold_on(features):
  cosine = audit(*features, 0.0).cosine
  threshold = float(np.sort(cosine)[4])
  np.testing.assert_array_equal(audit(*features, threshold).flagged, cosine >= threshold)
  assert audit(*features, threshold).flagged.sum() == 5


def test_a_copy_is_flagged_whatever_its_length(features):
  external, test = features
  found = audit(np.concatenate([external, 3 * test[2:3]]), test, 0.999)
  assert found.flagged.tolist() == [False] * 9 + [True]
  assert found.test_row[-1] == 2 and found.cosine[-1] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("threshold", [-1, 1])
def test_a_threshold_is_a_cosine(features, threshold):
  assert audit(*features, threshold).flagged.all() == (threshold == -1)
  for wrong in (threshold * 1.01, float("nan")):
    with pytest.raises(UsageError, match="expected a cosine: -1 to 1"):
      audit(*features, wrong)


def test_features_must_have_one_width(features):
  with pytest.raises(UsageError, match="features"):
    audit(features[0][:, :5], features[1], 0.5)
