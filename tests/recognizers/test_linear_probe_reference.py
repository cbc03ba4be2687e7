"""The reference protocol: single runs against PyTorch's, the search by its rules."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.metrics.accuracy import recognition_score
from genbench_jax.recognizers import reference_search
from genbench_jax.recognizers.linear_probe import ProbeData, linear_probe, linear_probes
from genbench_jax.recognizers.reference_probe import (
  BATCH_SIZE,
  Head,
  Norm,
  TrainingRows,
  _loss_gradients,
  _most_steps,
  _normalize,
  batch_order,
  class_results,
  head_logits,
  run_final,
  train,
)
from genbench_jax.recognizers.reference_search import (
  LEARNING_RATES,
  WEIGHT_DECAYS,
  best_epoch,
  best_setting,
  epoch_scores,
  folded_head,
  search_weight_decays,
)
from genbench_jax.recognizers.splits import first_fifth
from genbench_jax.recognizers.strict_probe import TrainingSet

GOLDEN = Path(__file__).parents[1] / "data" / "probe" / "reference_runs.npz"


def padded_order(order):
  """Return the golden order of the rows as batches, with one extra batch."""
  epochs, rows = order.shape
  steps = -(-rows // BATCH_SIZE) + 1
  padded = np.full((epochs, steps * BATCH_SIZE), -1)
  padded[:, :rows] = order
  return padded.reshape(epochs, steps, BATCH_SIZE)


@pytest.mark.parametrize("name", ["single", "multi"])
def test_a_run_agrees_with_pytorch(name):
  with np.load(GOLDEN) as arrays:
    golden = {key.removeprefix(f"{name}_"): arrays[key] for key in arrays if key.startswith(name)}
  rows = TrainingRows(
    *(jnp.asarray(array)[None] for array in (golden["features"], golden["targets"])),
    jnp.asarray(padded_order(golden["order"]))[None],
  )
  head = Head(jnp.asarray(golden["text"])[None], jnp.zeros((1, 4)))
  rate, decay = (jnp.float32(golden[key])[None] for key in ("learning_rate", "weight_decay"))
  heads, norms = run_final(rows, head, rate, decay, multi_label=name == "multi")
  for ours, theirs in (
    (heads.weights, "weights"), (heads.bias, "bias"), (norms.mean, "mean"), (norms.variance, "variance"),
  ):  # fmt: skip
    np.testing.assert_allclose(ours[0], golden[theirs], atol=1e-4)


def surface(score_of):
  """Return an `evaluate` that looks up scores, and the list of its calls."""
  asked = []

  def evaluate(indices):
    asked.append(indices.copy())
    rates = np.arange(len(LEARNING_RATES))[None, :, None]
    return score_of(np.broadcast_to(rates, indices.shape), indices)

  return evaluate, asked


def test_the_search_follows_the_reference():
  evaluate, asked = surface(
    lambda rate, index: 1 - np.abs(index - 37) / 100 - np.abs(rate - 4) / 10
  )
  peaks, scores = search_weight_decays(evaluate, 1)
  assert asked[0][0, 0].tolist() == [0, 16, 32, 48, 64, 80, 96]
  assert [step[0, 0].tolist() for step in asked[1:]] == [[24, 40], [36, 44], [34, 38], [35, 37]]
  assert best_setting(peaks[0], scores[0]) == (LEARNING_RATES[4], WEIGHT_DECAYS[37])
  assert sum(step[0].size for step in asked) == 90


def test_equal_scores_keep_the_first_setting_and_zero_scores_none():
  evaluate, asked = surface(lambda rate, index: np.full(index.shape, 0.5))
  assert best_setting(*(x[0] for x in search_weight_decays(evaluate, 1))) == (
    1e-6,
    WEIGHT_DECAYS[0],
  )
  assert asked[1][0, 0].tolist() == [0, 8]
  evaluate, _ = surface(lambda rate, index: np.zeros(index.shape))
  assert best_setting(*(x[0] for x in search_weight_decays(evaluate, 1))) == (0.0, 1e6)


def test_validation_takes_the_first_fifth_of_each_class():
  labels = np.array([0] * 5 + [1] * 5 + [2] * 2)
  assert np.flatnonzero(first_fifth(np.eye(3)[labels])).tolist() == [0, 5, 10]
  hot = np.array([[1, 1], [1, 0], [0, 1], [1, 0], [1, 0], [1, 0], [1, 1]])
  assert np.flatnonzero(first_fifth(hot)).tolist() == [0, 1]


def test_batches_cover_every_row_once_an_epoch():
  order = batch_order(100, epochs=2, steps=3, seed=0)
  for epoch in order:
    assert sorted(epoch[epoch >= 0]) == list(range(100))
  assert not np.array_equal(order[0], order[1])


@pytest.fixture(scope="module")
def world():
  generator = np.random.default_rng(0)
  text = generator.normal(size=(3, 8))
  text /= np.linalg.norm(text, axis=1, keepdims=True)

  def images(count):
    labels = np.arange(count) % 3
    return (text[labels] * 2 + 1 + generator.normal(size=(count, 8))).astype(np.float32), labels

  return text.astype(np.float32), images


@pytest.mark.slow
def test_the_complete_protocol(world, mesh, traces):
  text, images = world
  test_features, test_labels = images(200)
  cells = [ProbeData(*images(48), seed=seed) for seed in (0, 1)]
  before = dict(traces)
  results = linear_probes(cells, test_features, test_labels, text, "reference")
  assert traces["run_trials"] - before.get("run_trials", 0) == 2  # 42 trials, then 12
  assert traces["run_final"] - before.get("run_final", 0) == 1
  for result in results:
    assert result["score"] == result["epoch_scores"][-1] > 0.7
    assert result["best_epoch_score"] == max(result["epoch_scores"]) >= result["score"]
    assert len(result["epoch_scores"]) == 50
    logits = test_features @ result["weights"].T + result["bias"]
    np.testing.assert_array_equal(logits.argmax(axis=1), result["predictions"])
  alone = linear_probe(
    cells[0].features, cells[0].labels, test_features, test_labels, text, "reference", mesh=mesh
  )
  assert (alone["lr"], alone["weight_decay"]) == (results[0]["lr"], results[0]["weight_decay"])
  np.testing.assert_allclose(alone["weights"], results[0]["weights"], atol=1e-4)


def test_one_shot_has_no_search(world):
  text, images = world
  result = linear_probe(*images(3), *images(60), text, "reference")
  assert (result["lr"], result["weight_decay"]) == (1e-6, pytest.approx(1e-6))
  assert result["score"] > 0.5


def test_blocks_of_cells_stay_within_the_memory_for_logits(monkeypatch):
  """400 images of two classes hold out 80, padded to 96; all trials of a cell keep the logits of these."""
  cell = TrainingSet(
    np.zeros((400, 1), np.float32), np.eye(2, dtype=np.float32)[np.arange(400) % 2], 0
  )
  other = TrainingSet(cell.features[:100], cell.targets[:100], 0)
  trials = 6 * 7
  monkeypatch.setattr(reference_search, "MOST_LOGITS", 2 * trials * 96 * 2)
  found = list(reference_search._blocks([cell, other, cell, cell]))
  assert found == [([0, 2], 2), ([3], 2), ([1], 1)]


def test_scores_after_each_epoch_are_zero_if_any_logit_was_not_finite():
  targets = np.eye(2)[[0, 0, 0, 1]]
  predictions = np.array([[0, 0, 1, 1], [0, 0, 0, 0]])
  assert epoch_scores(predictions, targets, "accuracy") == [0.75, 0.75]
  per_class = epoch_scores(predictions, targets, "mean_per_class")
  assert per_class == pytest.approx([5 / 6, 1 / 2])
  assert best_epoch(predictions, targets, "mean_per_class") == pytest.approx(5 / 6)
  broken = np.array([[0, 0, 0, 1], [0, 0, 0, -1]])
  assert (
    epoch_scores(broken, targets, "accuracy") == [0, 0]
    and best_epoch(broken, targets, "accuracy") == 0
  )
  scores = np.array([[[0.1, 0.9], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]]])
  assert epoch_scores(scores, targets, "roc_auc") == pytest.approx([1 / 3])
  assert epoch_scores(scores * np.nan, targets, "roc_auc") == [0]
  several = np.array([[1, 1], [0, 1], [1, 0], [0, 0]], bool)
  expected = recognition_score(scores[0], several, "map_11_point")
  assert epoch_scores(scores, several, "map_11_point") == pytest.approx([expected])


def test_predictions_of_logits_that_are_not_finite_are_marked():
  logits = jnp.asarray([[1.0, 2.0], [jnp.nan, 1.0], [0.0, -jnp.inf]])
  assert class_results(logits, True).tolist() == [1, -1, -1]
  np.testing.assert_allclose(
    class_results(logits[:1], False), [[1 / (1 + np.e), np.e / (1 + np.e)]]
  )


def test_a_folded_head_acts_on_raw_features():
  random = np.random.default_rng(0)
  head = Head(jnp.asarray(random.normal(size=(3, 4))), jnp.asarray(random.normal(size=3)))
  norm = Norm(jnp.asarray(random.normal(size=4)), jnp.asarray(random.uniform(0.5, 2, 4)))
  features = jnp.asarray(random.normal(size=(5, 4)))
  weights, bias = folded_head(head, norm)
  by_hand = (features - norm.mean) / np.sqrt(norm.variance + 1e-5) @ head.weights.T + head.bias
  np.testing.assert_allclose(features @ weights.T + bias, by_hand, atol=1e-5)
  np.testing.assert_allclose(head_logits(head, norm, features), by_hand, atol=1e-5)


@pytest.mark.parametrize("multi_label", [False, True])
def test_gradients_of_losses_with_soft_targets(multi_label):
  logits, targets = np.array([[1.0, -2.0, 0.5]]), np.array([[1.0, 0.0, 1.0]])
  if multi_label:
    expected = (1 / (1 + np.exp(-logits)) - targets) / 3
  else:
    expected = np.exp(logits) / np.exp(logits).sum() * 2 - targets
  np.testing.assert_allclose(_loss_gradients(jnp.asarray(logits), jnp.asarray(targets), multi_label), expected, rtol=1e-5)  # fmt: skip


def test_batches_are_normalized_by_the_biased_variance_and_remember_the_unbiased_one():
  batch = jnp.asarray([[1.0, 4.0], [3.0, 8.0], [9.0, 9.0]])
  mask = jnp.asarray([True, True, False])
  found, norm = _normalize(batch, mask, Norm(jnp.zeros(2), jnp.ones(2)))
  np.testing.assert_allclose(found[:2], [[-1, -1], [1, 1]], rtol=1e-4)
  np.testing.assert_allclose(norm.mean, [0.2, 0.6], rtol=1e-6)
  np.testing.assert_allclose(norm.variance, [0.9 + 0.2, 0.9 + 0.8], rtol=1e-6)


def test_a_batch_of_one_image_is_skipped():
  """Its variance is not defined; 65 images are a batch of 64 and one of one."""
  random = np.random.default_rng(0)
  features = random.normal(size=(65, 2)).astype(np.float32)
  targets = np.eye(2, dtype=np.float32)[np.arange(65) % 2]
  head = Head(jnp.zeros((2, 2)), jnp.zeros(2))
  order = batch_order(65, 1, 2, 0)
  assert order.shape == (1, 2, 64) and (order[0, 1] >= 0).sum() == 1
  state = lambda head, norm: (head.weights, head.bias, norm.mean, norm.variance)  # noqa: E731

  def trained(order, steps):
    rows = TrainingRows(jnp.asarray(features), jnp.asarray(targets), jnp.asarray(order))
    return train(rows, head, jnp.float32(0.1), jnp.float32(0.01), False, jnp.asarray(steps), state)

  both, first = trained(order, 2), trained(order[:, :1], 1)
  for ours, theirs in zip(both, first, strict=True):
    np.testing.assert_array_equal(ours, theirs)
  assert np.abs(both[0]).max() > 1e-3


def test_the_longest_cell_decides_the_number_of_batches():
  order = np.full((2, 3, 4, 64), -1)
  order[0, :, :1] = order[1, :, :2] = 5
  assert int(_most_steps(jnp.asarray(order))) == 2


def test_a_setting_that_scores_nothing_is_not_chosen():
  peaks, scores = np.array([3, 5, 7]), np.array([0.2, 0.6, 0.6])
  assert best_setting(peaks, scores) == (LEARNING_RATES[1], WEIGHT_DECAYS[5])
  assert best_setting(np.array([-1, -1]), np.zeros(2)) == (0.0, WEIGHT_DECAYS[-1])
