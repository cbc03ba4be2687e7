"""Zero-shot scores are the softmax of scaled cosines."""

import numpy as np
from scipy.special import softmax

from genbench_jax.recognizers.zero_shot import zero_shot_scores


def test_scores_are_the_softmax_of_scaled_cosines():
  generator = np.random.default_rng(0)
  features, text = generator.normal(size=(7, 12)), generator.normal(size=(3, 12))
  cosines = (features / np.linalg.norm(features, axis=1, keepdims=True)) @ (
    text / np.linalg.norm(text, axis=1, keepdims=True)
  ).T
  scores = zero_shot_scores(np.float32(7 * features), np.float32(text))
  np.testing.assert_allclose(scores, softmax(100 * cosines, axis=1), rtol=2e-4, atol=1e-30)
