"""Batch normalization against its formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.models.batch_norm import BatchNorm, moments

AXES = (0, 1, 2)


@pytest.fixture(scope="module")
def images():
  return np.random.default_rng(0).normal(3, 2, (4, 3, 3, 5)).astype(np.float32)


def apply(images, train, weight=None, bias=None, stats=None, **settings):
  """Return the output and the statistics after it."""
  norm = BatchNorm(**settings)
  variables = norm.init(jax.random.key(0), images, False)
  if weight is not None:
    variables["params"] = {"weight": weight, "bias": bias}
  if stats is not None:
    variables["batch_stats"] = stats
  found, changed = norm.apply(variables, images, train, mutable=["batch_stats"])
  return np.asarray(found), changed.get("batch_stats", variables["batch_stats"])


def test_training_normalizes_by_the_biased_variance_of_the_batch(images):
  weight, bias = np.arange(1.0, 6), np.arange(5.0)
  found, _ = apply(images, True, jnp.asarray(weight), jnp.asarray(bias))
  normal = (images - images.mean(AXES)) / np.sqrt(images.var(AXES) + 1e-5)
  np.testing.assert_allclose(found, normal * weight + bias, rtol=1e-4, atol=1e-5)


def test_testing_normalizes_by_the_running_statistics(images):
  stats = {"running_mean": jnp.full(5, 2.0), "running_var": jnp.full(5, 9.0)}
  found, after = apply(images, False, stats=stats, eps=7.0)
  np.testing.assert_allclose(found, (images - 2) / 4, rtol=1e-5, atol=1e-6)
  assert after == stats


def test_running_averages_take_the_unbiased_variance(images):
  _, stats = apply(images, True, momentum=0.3)
  np.testing.assert_allclose(stats["running_mean"], 0.3 * images.mean(AXES), rtol=1e-5)
  expected = 0.7 + 0.3 * images.var(AXES, ddof=1)
  np.testing.assert_allclose(stats["running_var"], expected, rtol=1e-5)


def test_a_single_value_per_channel_has_no_unbiased_variance():
  _, stats = apply(np.full((1, 1, 1, 5), 2.0, np.float32), True)
  np.testing.assert_allclose(stats["running_var"], np.full(5, 0.9), rtol=1e-6)


def test_initialization_leaves_the_averages_alone(images):
  variables = BatchNorm().init(jax.random.key(0), images, True)["batch_stats"]
  np.testing.assert_array_equal(variables["running_mean"], np.zeros(5))
  np.testing.assert_array_equal(variables["running_var"], np.ones(5))


def test_a_large_mean_costs_no_digits():
  """E[x^2] - E[x]^2 in float32 would be off by more than the variance itself."""
  small = np.random.default_rng(1).normal(0, 0.01, (8, 4, 4, 2)).astype(np.float32)
  mean, variance = moments(jnp.asarray(small + 1000))
  exact = (small + 1000).astype(np.float32).astype(np.float64)
  np.testing.assert_allclose(mean, exact.mean(AXES), rtol=1e-6)
  np.testing.assert_allclose(variance, exact.var(AXES), rtol=1e-2)


def test_half_precision_is_normalized_in_float32(images):
  half = jnp.asarray(images, jnp.bfloat16)
  found, _ = apply(half, True)
  assert found.dtype == jnp.bfloat16
  exact = np.asarray(half, np.float32)
  normal = (exact - exact.mean(AXES)) / np.sqrt(exact.var(AXES) + 1e-5)
  # bfloat16 has 8 bits: values up to 4 are rounded by at most 2^-7.
  np.testing.assert_allclose(found.astype(np.float32), normal, atol=2**-6)


def test_constant_values_in_half_precision_have_no_negative_variance():
  _, variance = moments(jnp.full((4, 7, 7, 1), 3.140625, jnp.bfloat16))
  assert float(variance[0]) == pytest.approx(0, abs=1e-5) and float(variance[0]) >= 0


def test_no_gradient_reaches_the_running_averages(images):
  norm = BatchNorm()
  variables = norm.init(jax.random.key(0), images, False)

  def total(x):
    _, changed = norm.apply(variables, x, True, mutable=["batch_stats"])
    return changed["batch_stats"]["running_mean"].sum()

  np.testing.assert_array_equal(jax.grad(total)(jnp.asarray(images)), np.zeros_like(images))
