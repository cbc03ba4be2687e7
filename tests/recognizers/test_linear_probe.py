"""Parts of the linear probe that both protocols share."""

import jax.numpy as jnp
import numpy as np
import pytest

from genbench_jax.errors import UsageError
from genbench_jax.recognizers.linear_probe import (
  ProbeData,
  _class_count,
  _first_head,
  _first_phase,
  _fit_summary,
  _mean_one,
  _taken,
  _two_phases,
  checked,
  external_summary,
  linear_probes,
  probe_scores,
  score_summary,
)
from genbench_jax.recognizers.strict_probe import PENALTIES, StrictFit, TrainingSet

FEATURES = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0, 1, 2])


def test_classes_are_given_or_counted():
  cells = [ProbeData(FEATURES, LABELS), ProbeData(FEATURES, LABELS + 2)]
  assert _class_count(cells, [1], None, None) == 5
  assert _class_count(cells, [7], None, None) == 8
  assert _class_count(cells, [1], None, 9) == 9
  assert (
    _class_count(cells, [1], np.ones((6, 4)), None)
    == 6
    == _class_count(cells, [1], np.ones((6, 4)), 6)
  )
  hot = [ProbeData(FEATURES, np.zeros((6, 3), bool))]
  assert _class_count(hot, np.zeros((2, 3)), None, None) == 3
  with pytest.raises(UsageError, match="num_classes is 5, but there are 6 prototypes"):
    _class_count(cells, [1], np.ones((6, 4)), 5)


def test_images_of_one_phase_have_no_second():
  later = np.array([True, False, True])
  assert _two_phases(later, 3) is later
  for alike in (None, np.ones(3, bool), np.zeros(3, bool)):
    assert _two_phases(alike, 3) is None


def test_a_phase_has_its_images_with_weights_of_mean_one():
  weights = np.array([1, 1, 2, 2, 4, 4], np.float32)
  cell = TrainingSet(FEATURES, np.eye(3, dtype=np.float32)[LABELS], 7, weights)
  later = np.array([0, 0, 1, 0, 1, 0], bool)
  taken = _taken(cell, later)
  np.testing.assert_array_equal(taken.features, FEATURES[[2, 4]])
  np.testing.assert_allclose(taken.weights, [2 / 3, 4 / 3])
  assert taken.seed == 7 and _first_phase(cell, None) is cell
  np.testing.assert_array_equal(_first_phase(cell, later).targets, cell.targets[~later])
  assert _taken(cell._replace(weights=None), later).weights is None is _mean_one(None, 6)


def data_of(text=None, labels=LABELS):
  return checked([ProbeData(FEATURES, labels)], FEATURES, labels, text, None, "accuracy")


def test_the_first_head_is_the_text_or_pytorchs():
  text = np.array([[3.0, 4, 0, 0], [0, 0, 2, 0], [1, 0, 0, 0]])
  head = _first_head(data_of(text), 0)
  np.testing.assert_allclose(
    head.weights, [[0.6, 0.8, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]], rtol=1e-6
  )
  assert not np.asarray(head.bias).any() and head.bias.shape == (3,)
  drawn = [_first_head(data_of(), seed) for seed in range(40)]
  numbers = np.concatenate([np.append(np.ravel(each.weights), each.bias) for each in drawn])
  # Uniform within 1 / sqrt(4).
  assert 0.49 < np.abs(numbers).max() <= 0.5
  assert numbers.std() == pytest.approx(0.5 / np.sqrt(3), rel=0.06)


def test_cells_have_one_kind_of_labels():
  hot = np.eye(3, dtype=bool)[LABELS]
  cells = [ProbeData(FEATURES, LABELS), ProbeData(FEATURES, hot)]
  with pytest.raises(UsageError, match="seed is -1, expected at least 0"):
    checked([ProbeData(FEATURES, LABELS, -1)], FEATURES, LABELS, None, None, "accuracy")
  with pytest.raises(UsageError, match="in every cell"):
    checked(cells, FEATURES, LABELS, None, 3, "accuracy")
  found = checked(cells[1:], FEATURES, hot, None, None, "map_11_point")
  assert found.multi_label and found.num_classes == 3 and found.later == [None]
  with pytest.raises(UsageError, match="4 wide"):
    checked(cells[:1], FEATURES, LABELS, np.ones((3, 5)), None, "accuracy")


@pytest.mark.parametrize("multi_label", [False, True])
def test_probabilities_of_a_probe(multi_label):
  weights, bias = np.arange(12.0).reshape(3, 4) / 10, np.array([0.5, 0, -0.5])
  logits = FEATURES @ weights.T + bias
  found = probe_scores(FEATURES, np.float32(weights), np.float32(bias), multi_label)
  expected = 1 / (1 + np.exp(-logits))
  if not multi_label:
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_summaries_are_plain_numbers():
  scores = np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2]])
  found = score_summary(scores, np.array([0, 1, 1]), "accuracy", 0)
  assert found["score"] == pytest.approx(2 / 3) and found["n_test"] == 3
  assert found["predictions"].tolist() == [0, 1, 0]
  assert found["ci_low"] < found["score"] < found["ci_high"]
  summary = external_summary(np.array([[1.0, 0, 0], [1, 0, 1]]))
  assert summary == {"n_external": 2, "missing_classes": [1]}
  losses = jnp.arange(float(len(PENALTIES)))
  fit = StrictFit(jnp.ones((2, 3)), jnp.zeros(2), jnp.float32(0.5), jnp.float32(10), losses, jnp.int32(7), jnp.asarray(True))  # fmt: skip
  cell = TrainingSet(FEATURES, np.eye(3, dtype=np.float32)[LABELS], 0)
  about = _fit_summary(fit, cell)
  assert about["weight_decay"] == pytest.approx(10 / 6) and about["penalty"] == 10
  assert about["validation_losses"] == dict(zip(PENALTIES, range(len(PENALTIES)), strict=True))
  assert (about["prior_scale"], about["iterations"], about["converged"], about["lr"]) == (
    0.5,
    7,
    True,
    None,
  )


def test_no_cells_have_no_probes_and_unknown_names_are_rejected_all_the_same():
  assert linear_probes([], FEATURES, LABELS) == []
  with pytest.raises(UsageError, match="unknown protocol"):
    linear_probes([], FEATURES, LABELS, protocol="other")
