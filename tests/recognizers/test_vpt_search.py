"""The search of VPT for its rate and decay, with trainings that only say what they were given."""

import numpy as np
import pytest

from genbench_jax.errors import ModelError, UsageError
from genbench_jax.recognizers import vpt_search
from genbench_jax.recognizers.settings import VptSettings
from genbench_jax.recognizers.vpt_search import held_out, searched

SHARES = np.eye(2)[np.arange(20) % 2]
SETTINGS = VptSettings(batch_size=128)


@pytest.fixture
def grid(monkeypatch):
  monkeypatch.setattr(vpt_search, "VPT_RATES", (4.0, 2.0))
  monkeypatch.setattr(vpt_search, "VPT_DECAYS", (0.1, 0.0))


def search(share_right):
  """Search with a trial whose scores are right for a share of the held-out images, by its number."""
  asked = []

  def trial(number, tried, rest, held):
    asked.append((number, tried.learning_rate, tried.weight_decay))
    assert sorted([*rest, *held]) == list(range(20)) and len(held) == 4
    if share_right[number] is None:
      raise ModelError("diverged")
    wrong = np.arange(4) >= 4 * share_right[number]
    return np.where(wrong[:, None], -SHARES[held], SHARES[held])

  return searched(SETTINGS, SHARES, 0, trial), asked


def test_all_pairs_are_tried_with_rates_for_batches_of_256(grid):
  found, asked = search([0.25, 0.5, 1.0, 0.75])
  assert asked == [(0, 2.0, 0.1), (1, 2.0, 0.0), (2, 1.0, 0.1), (3, 1.0, 0.0)]
  assert (found.learning_rate, found.weight_decay) == (1.0, 0.1)
  assert found.batch_size == 128


def test_the_first_of_equal_pairs_is_chosen(grid):
  found, _ = search([0.25, 0.75, 0.75, 0.5])
  assert (found.learning_rate, found.weight_decay) == (2.0, 0.0)


def test_diverged_trials_are_left_out_unless_all_diverge(grid):
  found, _ = search([None, None, 0.0, None])
  assert (found.learning_rate, found.weight_decay) == (1.0, 0.1)
  with pytest.raises(ModelError, match="every learning rate"):
    search([None] * 4)


@pytest.mark.parametrize(
  ("counts", "held"), [([10, 5, 4], [2, 1, 0]), ([9, 9], [1, 1]), ([15], [3]), ([5], [1])]
)
def test_a_fifth_of_each_class_is_held_out(counts, held):
  labels = np.repeat(np.arange(len(counts)), counts)
  rows = held_out(np.eye(len(counts))[labels], 0)
  assert np.bincount(labels[rows], minlength=len(counts)).tolist() == held
  assert (np.diff(rows) > 0).all()


@pytest.mark.parametrize(("images", "held"), [(2, 1), (9, 1), (10, 2)])
def test_a_fifth_of_all_images_is_held_out_if_classes_are_small(images, held):
  shares = np.eye(images)
  assert len(held_out(shares, 0)) == held
  chosen = {tuple(held_out(shares, seed)) for seed in range(9)}
  assert len(chosen) > 1


def test_one_image_is_not_enough():
  with pytest.raises(UsageError, match="at least 2 images"):
    held_out(np.eye(1), 0)
