"""The solver against scikit-learn, and its exact changes of variables."""

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from genbench_jax.recognizers import logistic

RANDOM = np.random.default_rng(0)
ROWS, WIDTH, CLASSES = 60, 6, 4
INPUTS = RANDOM.normal(size=(ROWS, WIDTH)).astype(np.float32)
LABELS = RANDOM.integers(0, CLASSES - 1, ROWS)  # the last class has no image
TARGETS = np.eye(CLASSES, dtype=np.float32)[LABELS]


def _solve(inputs, targets, weights, penalty, **options):
  axes = logistic.principal_axes(jnp.asarray(inputs), jnp.float32(weights.sum()))
  start = jnp.zeros((targets.shape[1], axes.basis.shape[1]))
  offsets = jnp.zeros(targets.shape)
  found = logistic.solve(
    axes,
    offsets,
    jnp.asarray(targets),
    jnp.asarray(weights),
    jnp.float32(penalty),
    start,
    **options,
  )
  return np.asarray(found.departure @ axes.basis.T), found


@pytest.mark.parametrize("penalty", [0.1, 3.0])
def test_the_optimum_equals_that_of_scikit_learn(penalty):
  """An unseen class keeps its zero prior, so scikit-learn gets only the other three."""
  weights = RANDOM.integers(0, 3, ROWS).astype(np.float32)
  found, solution = _solve(INPUTS, TARGETS, weights, penalty, tolerance=1e-5)
  theirs = LogisticRegression(C=1 / penalty, fit_intercept=False, tol=1e-8, max_iter=10_000)
  theirs.fit(INPUTS, LABELS, sample_weight=weights)
  assert bool(solution.converged)
  np.testing.assert_allclose(found[: CLASSES - 1], theirs.coef_, atol=2e-3)
  np.testing.assert_allclose(found[CLASSES - 1], 0, atol=1e-6)


def test_several_labels_are_independent_problems():
  hot = (RANDOM.random((ROWS, 2)) < 0.4).astype(np.float32)
  weights = np.ones(ROWS, np.float32)
  found, _ = _solve(INPUTS, hot, weights, 1.0, multi_label=True, tolerance=1e-5)
  for column in range(2):
    theirs = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-8).fit(INPUTS, hot[:, column])
    np.testing.assert_allclose(found[column], theirs.coef_[0], atol=2e-3)


@pytest.mark.parametrize("rows", [4, 60])
def test_axes_are_an_orthonormal_rotation_that_keeps_the_inputs(rows):
  axes = logistic.principal_axes(jnp.asarray(INPUTS[:rows]), jnp.float32(rows))
  rank = min(rows, WIDTH)
  assert axes.rotated.shape == (rows, rank)
  np.testing.assert_allclose(axes.basis.T @ axes.basis, np.eye(rank), atol=1e-5)
  np.testing.assert_allclose(axes.rotated @ axes.basis.T, INPUTS[:rows], atol=1e-5)
  np.testing.assert_allclose(axes.eigenvalues, np.mean(axes.rotated**2, 0), rtol=1e-3, atol=1e-6)


def test_the_cross_entropy_leaves_out_unseen_classes_and_keeps_its_accuracy_when_tiny():
  logits = jnp.array([[1.0, 2.0, 50.0], [100.0, 60.0, 0.0]])
  targets = jnp.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
  active = jnp.array([True, True, False])
  losses = logistic.row_losses(logits, targets, active, multi_label=False)
  np.testing.assert_allclose(losses, [np.log1p(np.e), np.exp(-40)], rtol=1e-5)


def test_classes_of_held_out_rows_are_not_active():
  weights = jnp.asarray((LABELS != 1).astype(np.float32))
  active = logistic.active_classes(jnp.asarray(TARGETS), weights)
  assert active.tolist() == [True, False, True, False]


def test_a_solution_is_found_within_the_allowed_iterations():
  weights = np.ones(ROWS, np.float32)
  _, found = _solve(INPUTS, TARGETS, weights, 0.1, max_iterations=2)
  assert int(found.iterations) == 2 and not bool(found.converged)


def test_a_single_active_class_is_no_error():
  """A single class has no others to be told from."""
  only = np.eye(CLASSES, dtype=np.float32)[np.zeros(ROWS, int)]
  found, solution = _solve(INPUTS, only, np.ones(ROWS, np.float32), 1.0)
  assert np.isfinite(found).all() and bool(solution.converged)
  np.testing.assert_allclose(found, 0, atol=1e-5)


def test_binary_losses_are_summed_over_active_classes():
  logits, targets = jnp.array([[0.0, 2.0, 50.0]]), jnp.array([[1.0, 0.0, 1.0]])
  active = jnp.array([True, True, False])
  found = logistic.row_losses(logits, targets, active, multi_label=True)
  np.testing.assert_allclose(found, [np.log(2) + np.log1p(np.exp(2))], rtol=1e-6)


def test_the_tolerance_is_that_of_three_digits():
  assert logistic.TOLERANCE == 3e-4 and logistic.NO_LOGIT == -1e9
