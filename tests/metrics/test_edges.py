"""Every metric is finite for empty classes, one image per class, few images and several labels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from genbench_jax.metrics.authenticity import auth_pct, near_copies
from genbench_jax.metrics.cler import cler, measure_cler
from genbench_jax.metrics.clip_score import measure_clip_score
from genbench_jax.metrics.discriminative_span import discriminative_span
from genbench_jax.metrics.frechet import measure_frechet_distance
from genbench_jax.metrics.guides import guide_ridge
from genbench_jax.metrics.kernels import measure_cmmd, measure_kernel_distance
from genbench_jax.metrics.manifold import measure_manifold
from genbench_jax.metrics.vendi import measure_vendi

CLASSES, WIDTH, RESAMPLES = 5, 24, 20


@st.composite
def cells(draw):
  """Draw external and test images of some classes, fewer than dimensions, one or several per
  class."""
  random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
  present = draw(st.sets(st.integers(0, CLASSES - 1), min_size=1))
  per_class = draw(st.integers(1, 4))
  labels = np.repeat(sorted(present), per_class)
  test_labels = random.integers(0, CLASSES, 12)
  text = random.normal(size=(CLASSES, WIDTH))
  images, tests = (
    text[each] + random.normal(size=(len(each), WIDTH)) for each in (labels, test_labels)
  )
  if draw(st.booleans()):  # all the same image
    images[:] = images[0]
  if draw(st.booleans()):  # several labels an image, and images without any
    labels, test_labels = (
      np.eye(CLASSES, dtype=bool)[each] ^ (random.random((len(each), CLASSES)) < 0.2)
      for each in (labels, test_labels)
    )
    labels[0, min(present)] = test_labels[0, 0] = True
  return images, labels, text, tests, test_labels


def _measurements(images, labels, text, tests, test_labels):
  options = {"resamples": RESAMPLES}
  metric = "map_11_point" if test_labels.ndim == 2 else "mean_per_class"
  result = measure_cler(images, labels, text, tests, test_labels, metric, **options)
  assert result.missing_classes == tuple(np.flatnonzero(~_hot(labels).any(0)))
  yield from result.scores.values()
  yield from result.control.values()
  clip, vendi = (
    measure_clip_score(images, text, labels, **options),
    measure_vendi(images, labels, **options),
  )
  yield clip.score
  yield vendi.score
  by_class = [*result.per_class.values(), clip.per_class, vendi.per_class]
  if len(images) >= 4:
    yield measure_frechet_distance(images, tests, **options)
    yield measure_kernel_distance(images, tests, **options)
    yield measure_cmmd(images, tests, **options)
    manifold = measure_manifold(tests, images, 3, (test_labels, labels), **options)
    yield from manifold.scores.values()
    by_class.append(manifold.per_class)
  assert all(math.isfinite(value) for values in by_class for value in values.values())


def _hot(labels):
  return labels if labels.ndim == 2 else np.eye(CLASSES, dtype=bool)[labels]


@pytest.mark.slow
@given(cells())
@settings(max_examples=5, deadline=None, derandomize=True)
def test_every_number_is_finite_and_inside_its_interval(cell):
  for one in _measurements(*cell):
    assert math.isfinite(one.value)
    assert math.isfinite(one.ci_low) and math.isfinite(one.ci_high)
    # With few resamples of few images, the value may be slightly outside, but not by an interval's
    # width.
    slack = 1e-6 + one.ci_high - one.ci_low
    assert one.ci_low - slack <= one.value <= one.ci_high + slack


def test_an_image_without_a_class_does_not_change_scores():
  random = np.random.default_rng(0)
  images, tests, text = (random.normal(size=(rows, WIDTH)) for rows in (6, 9, CLASSES))
  labels = np.eye(CLASSES, dtype=bool)[[0, 1, 2, 3, 4, 0]]
  test_labels = np.arange(9) % CLASSES
  with_one = (
    np.concatenate([images, tests[:1]]),
    np.concatenate([labels, np.zeros((1, CLASSES), bool)]),
  )
  alone = measure_cler(images, labels, text, tests, test_labels, top_k=None, resamples=10)
  found = measure_cler(*with_one, text, tests, test_labels, top_k=None, resamples=10)
  assert {name: one.value for name, one in found.scores.items()} == pytest.approx(
    {name: one.value for name, one in alone.scores.items()}
  )


@pytest.mark.parametrize("power", [-100, 50, 83, 124])
def test_scores_do_not_depend_on_the_scale_of_the_features(power):
  """Powers of two do not round. Squares overflow float32 beyond 2^63, reciprocals underflow beyond
  2^126."""
  random = np.random.default_rng(0)
  images, tests = random.normal(size=(2, 40, 8)).astype(np.float32).clip(-3, 3)
  labels, text = np.arange(40) % 4, random.normal(size=(4, 8))

  def numbers(scale):
    first, second = images * np.float32(scale), tests * np.float32(scale)
    yield from cler(first, labels, text, second, labels).values()
    yield near_copies(first, second, second)
    yield auth_pct(first, second)
    yield guide_ridge(first, labels, second, labels)
    yield discriminative_span(first, second, text[0])

  assert list(numbers(2.0**power)) == pytest.approx(list(numbers(1.0)))
