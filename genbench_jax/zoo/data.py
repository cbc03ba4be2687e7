"""The zoo's training images, in memory, with randomly drawn captions."""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Int, UInt8

from genbench_jax.benchmark.captions import caption
from genbench_jax.benchmark.worlds import (
  SHAPE_NAMES,
  SIDE,
  UNSEEN_SHAPE,
  WorldExample,
  world_example,
  world_size,
)
from genbench_jax.zoo.tokenizer import MAX_TOKENS

# Variants of each of the few real digits: rotated, shifted, and under other conditions.
VARIANTS = {"digits": 8, "digits_hard": 12, "shapes": 1}
# Sampling probability of each world.
SHARES = {"digits": 0.2, "digits_hard": 0.3, "shapes": 0.5}


@dataclasses.dataclass(frozen=True)
class TrainingSet:
  """Training images of all worlds, with the sampling weight of each."""

  images: UInt8[np.ndarray, "n 32 32 3"]
  examples: list[tuple[str, WorldExample]]
  weights: np.ndarray


def training_set(with_unseen_shape: bool) -> TrainingSet:
  """Return all training images; the diffusion model is trained without the unseen shape."""
  examples, weights = [], []
  for world, variants in VARIANTS.items():
    drawn = [
      world_example(world, "zoo", index, variant)
      for index in range(world_size(world, "zoo"))
      if with_unseen_shape or world != "shapes" or SHAPE_NAMES[index % 8] != UNSEEN_SHAPE
      for variant in range(variants)
    ]
    examples += [(world, example) for example in drawn]
    weights += [SHARES[world] / len(drawn)] * len(drawn)
  images = np.stack([example.image for _, example in examples])
  assert images.shape[1:] == (SIDE, SIDE, 3)
  return TrainingSet(images, examples, np.asarray(weights))


def batches(
  data: TrainingSet, tokenizer: Callable, size: int, seed: int, empty_share: float = 0.0
) -> Callable[[int], dict[str, Int[np.ndarray, "b ..."]]]:
  """Return a function from step to a batch {index [b], tokens [b, l], mask [b, l], caption_id [b]}.

  Args:
    data: training images.
    tokenizer: tokenizer of the zoo.
    size: batch size b.
    seed: random seed; a batch depends only on seed and step.
    empty_share: fraction of captions to replace by the empty text, for classifier-free guidance.
  """
  cumulative = np.cumsum(data.weights)

  def batch_of(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng([seed, step])
    index = np.searchsorted(cumulative, rng.random(size) * cumulative[-1])
    texts = [_caption(data, int(row), rng, empty_share) for row in index]
    encoded = tokenize(tokenizer, texts)
    caption_ids = np.unique(texts, return_inverse=True)[1]
    return {"index": index.astype(np.int32), "caption_id": caption_ids.astype(np.int32), **encoded}

  return batch_of


def _caption(data: TrainingSet, row: int, rng: np.random.Generator, empty_share: float) -> str:
  world, example = data.examples[row]
  return caption(world, example, rng) if rng.random() >= empty_share else ""


def tokenize(tokenizer: Callable, texts: list[str]) -> dict[str, Int[np.ndarray, "b l"]]:
  """Return padded token ids and their mask."""
  encoded = tokenizer(
    texts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="np"
  )
  return {
    "tokens": encoded.input_ids.astype(np.int32),
    "mask": encoded.attention_mask.astype(np.int32),
  }
