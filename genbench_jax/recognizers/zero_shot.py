"""Zero-shot recognition: nearest text prototype, without training."""

import functools

import jax
from jaxtyping import Array, Float

from genbench_jax.metrics.inputs import unit_rows

CLIP_LOGIT_SCALE = 100.0


def log_odds(logits: Float[Array, "b k"]) -> Float[Array, "b k"]:
  """Subtract the mean over the classes, for images with several labels.

  A softmax ignores what all logits of an image have in common, a sigmoid does not. CLIP's scaled
  cosines are 20 to 30 for every class, where a float32 sigmoid is exactly 1 and ranks nothing.
  """
  return logits - logits.mean(axis=-1, keepdims=True)


@functools.partial(jax.jit, static_argnames="multi_label")
def zero_shot_scores(
  test_features: Float[Array, "n d"],
  text_features: Float[Array, "k d"],
  logit_scale: float | Float[Array, ""] = CLIP_LOGIT_SCALE,
  multi_label: bool = False,
) -> Float[Array, "n k"]:
  """Compute class probabilities softmax(logit_scale * cos(f, t_c)).

  Args:
    test_features: image features, not necessarily unit-norm.
    text_features: one text prototype per class, the normalized mean over templates.
    logit_scale: CLIP's inverse temperature. It does not change the ranking of classes within an
      image, but that of images within a class, so average precision and ROC areas depend on it.
    multi_label: sigmoids of `log_odds` instead of the softmax, for texts learned with them.

  Reference:
    Radford et al., "Learning transferable visual models from natural language supervision", 2021,
    section 3.1.
  """
  with jax.default_matmul_precision("highest"):
    cosines = unit_rows(test_features) @ unit_rows(text_features).T
  logits = logit_scale * cosines
  return jax.nn.sigmoid(log_odds(logits)) if multi_label else jax.nn.softmax(logits, axis=-1)
