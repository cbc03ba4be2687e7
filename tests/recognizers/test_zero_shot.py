"""Zero-shot scores are the softmax of scaled cosines."""

import numpy as np
from scipy.special import softmax

from genbench_jax.recognizers.zero_shot import log_odds, zero_shot_scores


def test_scores_are_the_softmax_of_scaled_cosines():
  generator = np.random.default_rng(0)
  features, text = generator.normal(size=(7, 12)), generator.normal(size=(3, 12))
  cosines = (features / np.linalg.norm(features, axis=1, keepdims=True)) @ (
    text / np.linalg.norm(text, axis=1, keepdims=True)
  ).T
  scores = zero_shot_scores(np.float32(7 * features), np.float32(text))
  np.testing.assert_allclose(scores, softmax(100 * cosines, axis=1), rtol=2e-4, atol=1e-30)


def test_log_odds_have_mean_zero_and_sigmoids_rank_several_labels():
  features = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
  text = np.eye(2, dtype=np.float32)
  np.testing.assert_allclose(log_odds(np.array([[30.0, 20.0, 25.0]])), [[5, -5, 0]])
  found = zero_shot_scores(features, text, 10.0, multi_label=True)
  logits = 10 * features - 10 * features.mean(axis=1, keepdims=True)
  np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), rtol=1e-5)
  usual = zero_shot_scores(features, text)
  np.testing.assert_allclose(usual, softmax(100 * features, axis=1), rtol=1e-4, atol=1e-30)
