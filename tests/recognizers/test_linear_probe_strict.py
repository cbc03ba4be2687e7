"""The strict probe against scikit-learn, and its edge cases."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss

from genbench_jax.errors import UsageError
from genbench_jax.metrics.inputs import unit_rows
from genbench_jax.recognizers import strict_probe
from genbench_jax.recognizers.linear_probe import ProbeData, linear_probe, linear_probes
from genbench_jax.recognizers.splits import stratified_folds
from genbench_jax.recognizers.zero_shot import zero_shot_scores

CLASSES, WIDTH = 5, 16


class World:
  """Return images near their text prototypes, with a common direction and a shift."""

  def __init__(self, seed=0):
    self.generator = np.random.default_rng(seed)
    prototypes = self.generator.normal(size=(CLASSES, WIDTH))
    self.prototypes = (prototypes / np.linalg.norm(prototypes, axis=1, keepdims=True)).astype("f4")
    self.centers = 0.5 * self.prototypes + 0.1 * self.generator.normal(size=(CLASSES, WIDTH)) + 0.1

  def images(self, count):
    labels = np.arange(count) % CLASSES
    noise = 0.15 * self.generator.normal(size=(count, WIDTH))
    return (self.centers[labels] + noise).astype(np.float32), labels


@pytest.fixture(scope="module")
def world():
  return World()


@pytest.fixture(scope="module")
def test_set(world):
  return world.images(1000)


def with_constant(features):
  features = np.asarray(unit_rows(features), np.float64)
  return np.append(features, np.ones((len(features), 1)), axis=1)


def objective(weights, bias, features, labels, penalty, prior=0.0):
  """Compute the summed loss with its penalty in float64."""
  logits = np.asarray(unit_rows(features), np.float64) @ np.float64(weights).T + bias
  log_partition = np.logaddexp.reduce(logits, axis=1)
  loss = np.sum(log_partition - logits[np.arange(len(labels)), labels])
  return loss + penalty / 2 * (np.sum((weights - prior) ** 2) + np.sum(np.square(bias)))


@pytest.mark.slow
def test_agrees_with_scikit_learn_at_the_same_regularization(world, test_set):
  features, labels = world.images(60)
  result = linear_probe(features, labels, *test_set)
  assert result["converged"]
  peer = LogisticRegression(
    C=1 / result["penalty"], fit_intercept=False, tol=1e-8, max_iter=10_000
  ).fit(with_constant(features), labels)
  ours = objective(result["weights"], result["bias"], features, labels, result["penalty"])
  theirs = objective(peer.coef_[:, :-1], peer.coef_[:, -1], features, labels, result["penalty"])
  assert ours == pytest.approx(theirs, rel=1e-4)
  assert log_loss(test_set[1], result["scores"]) == pytest.approx(
    log_loss(test_set[1], peer.predict_proba(with_constant(test_set[0]))), abs=1e-3
  )
  peer_score = peer.score(with_constant(test_set[0]), test_set[1])
  assert result["score"] == pytest.approx(peer_score, abs=0.002)
  assert result["weight_decay"] == pytest.approx(result["penalty"] / 60)


@pytest.mark.slow
def test_multi_label_is_one_binary_regression_per_class(world):
  def images(count):
    hot = world.generator.random((count, CLASSES)) < 0.35
    noise = 0.3 * world.generator.normal(size=(count, WIDTH))
    return (hot @ world.centers + noise + 0.1).astype(np.float32), hot

  features, labels = images(64)
  result = linear_probe(features, labels, *images(200), metric="map_11_point")
  for c in range(CLASSES):
    peer = LogisticRegression(C=1 / result["penalty"], fit_intercept=False, tol=1e-8)
    peer.fit(with_constant(features), labels[:, c])
    ours = np.append(result["weights"][c], result["bias"][c])
    np.testing.assert_allclose(ours, peer.coef_[0], atol=2e-2 * np.abs(peer.coef_).max())
  assert result["score"] > 0.7
  assert result["ci_low"] < result["score"] < result["ci_high"]


def test_the_prior_is_the_zero_shot_classifier(world, test_set):
  features, labels = world.images(CLASSES)
  result = linear_probe(features, labels, *test_set, text_features=world.prototypes)
  assert result["penalty"] == strict_probe.DEFAULT_PENALTY
  assert np.isnan(list(result["validation_losses"].values())).all()
  prior = 100 * world.prototypes
  step = 1e-3 * world.generator.normal(size=prior.shape)
  at_optimum = objective(result["weights"], result["bias"], features, labels, 1.0, prior)
  for sign in (-1, 1):
    moved = result["weights"] + sign * step
    assert objective(moved, result["bias"], features, labels, 1.0, prior) > at_optimum - 1e-5


def test_one_bad_image_per_class_does_not_ruin_zero_shot(world, test_set):
  """Zero-shot must survive five images with permuted labels."""
  features, labels = world.images(CLASSES)
  zero_shot = np.mean(np.argmax(zero_shot_scores(test_set[0], world.prototypes), 1) == test_set[1])
  with_text = linear_probe(
    features, (labels + 1) % CLASSES, *test_set, text_features=world.prototypes
  )
  without = linear_probe(features, (labels + 1) % CLASSES, *test_set)
  assert zero_shot > 0.8
  assert with_text["score"] > zero_shot - 0.2
  assert without["score"] < 0.2


def test_an_overconfident_prior_is_scaled_down_first(world, test_set):
  """With poor prototypes the scale falls, and the probe learns from the images."""
  noise = world.generator.normal(size=world.prototypes.shape)
  vague = (world.prototypes + noise).astype(np.float32)
  result = linear_probe(*world.images(60), *test_set, text_features=vague)
  zero_shot = np.mean(np.argmax(zero_shot_scores(test_set[0], vague), 1) == test_set[1])
  assert result["prior_scale"] < 0.2
  assert result["score"] > zero_shot + 0.1


def test_a_class_without_images(world, test_set):
  features, labels = world.images(60)
  kept = labels != 3
  with_text = linear_probe(features[kept], labels[kept], *test_set, text_features=world.prototypes)
  kept_weights = with_text["prior_scale"] * 100 * world.prototypes[3]
  np.testing.assert_allclose(with_text["weights"][3], kept_weights, rtol=1e-5)
  assert with_text["missing_classes"] == [3]
  without = linear_probe(features[kept], labels[kept], *test_set, metric="mean_per_class")
  assert not np.any(without["predictions"] == 3)
  assert without["score"] == pytest.approx(
    balanced_accuracy_score(test_set[1], without["predictions"])
  )


@pytest.mark.slow
def test_cells_are_independent_and_one_program_serves_a_shape(world, test_set, traces):
  cells = [
    ProbeData(*world.images(CLASSES * shots), seed=seed) for shots in (1, 2, 4) for seed in (0, 1)
  ]
  before = traces["fit_cells"]
  together = linear_probes(cells, *test_set, world.prototypes)
  # One shot, where none is held out, joins the others.
  assert traces["fit_cells"] == before + 1
  linear_probes(cells[:5], *test_set, world.prototypes)  # padded to as many cells
  assert traces["fit_cells"] == before + 1
  for cell, result in zip(cells, together, strict=True):
    alone = linear_probe(cell.features, cell.labels, *test_set, world.prototypes, seed=cell.seed)
    assert result["penalty"] == alone["penalty"]
    # Within the solver's tolerance: with more padded rows, it takes other steps to the same optimum.
    np.testing.assert_allclose(result["scores"], alone["scores"], atol=1e-2)


@pytest.mark.slow
def test_devices_do_not_matter(world, test_set, mesh):
  cells = [ProbeData(*world.images(40), seed=seed) for seed in range(3)]
  expected = linear_probes(cells, *test_set, world.prototypes)
  split_by_cells = linear_probes(cells, *test_set, world.prototypes, mesh=mesh)
  split_by_rows = linear_probes(cells[:1], *test_set, world.prototypes, mesh=mesh)
  for result, other in zip(expected, split_by_cells + split_by_rows, strict=False):
    np.testing.assert_allclose(result["scores"], other["scores"], atol=5e-3)
  np.testing.assert_allclose(expected[0]["scores"], split_by_rows[0]["scores"], atol=5e-3)


@pytest.mark.slow
def test_more_images_score_higher_and_the_interval_contains_the_score(world, test_set):
  cells = [ProbeData(*world.images(CLASSES * shots)) for shots in (1, 12)]
  few, many = linear_probes(cells, *test_set, world.prototypes)
  assert many["score"] > few["score"] + 0.02
  spread = np.sqrt(many["score"] * (1 - many["score"]) / 1000)
  assert many["ci_high"] - many["ci_low"] == pytest.approx(2 * 1.96 * spread, rel=0.15)


def test_folds_keep_every_class_in_training():
  targets = np.eye(4)[np.array([0, 0, 1, 1, 1, 1, 1, 2])]
  folds = stratified_folds(targets, 3, seed=1)
  assert folds[7] == -1
  assert folds[0] != folds[1]
  assert sorted(np.bincount(folds[2:7], minlength=3)) == [1, 2, 2]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"protocol": "strikt"}, "Did you mean 'strict'"),
    ({"metric": "acuracy"}, "Did you mean 'accuracy'"),
    ({"num_classes": 7, "text_features": np.ones((5, 16))}, "num_classes is 7"),
    ({"labels": np.arange(3)}, "labels must be"),
    ({"features": np.full((4, 16), np.nan)}, "NaN"),
  ],
)
def test_bad_input_is_one_line(world, test_set, change, message):
  arguments = {
    "features": np.ones((4, 16)), "labels": np.arange(4),
    "test_features": test_set[0], "test_labels": test_set[1],
  }  # fmt: skip
  with pytest.raises(UsageError, match=message) as error:
    linear_probe(**(arguments | change))
  assert "\n" not in str(error.value)


def test_the_scales_of_the_prior_halve_every_second_step():
  scales = np.array(strict_probe.PRIOR_SCALES)
  np.testing.assert_allclose(scales, 2.0 ** -np.arange(0, 6.5, 0.5))


def test_the_chosen_penalty_is_one_of_the_given_ones(world):
  """In float32: rounded to half precision, a penalty of 0.001 is off by 0.04 %."""
  features, labels = world.images(60)
  targets = np.eye(CLASSES, dtype=np.float32)[labels]
  [fit] = strict_probe.fit_strict(
    [strict_probe.TrainingSet(np.asarray(unit_rows(features)), targets, seed=0)],
    np.zeros((CLASSES, WIDTH), np.float32),
    multi_label=False,
    has_text=False,
    penalties=(1e-3,),
  )
  assert float(fit.penalty) == pytest.approx(1e-3, rel=1e-6)
