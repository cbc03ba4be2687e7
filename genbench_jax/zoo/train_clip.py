"""The zoo's CLIP: a vision tower for 32 x 32 pixels with patch size 8, trained contrastively."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, UInt8

from genbench_jax.models.clip import read_network
from genbench_jax.models.clip_network import ClipText, TextSizes, end_positions
from genbench_jax.models.configuration import Settings
from genbench_jax.zoo.data import TrainingSet, batches
from genbench_jax.zoo.tokenizer import MAX_TOKENS
from genbench_jax.zoo.training import fit

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def clip_config(vocabulary: int) -> dict[str, Any]:
  """Return the architecture in the form of `config.json`."""
  text = {
    "model_type": "clip_text_model", "vocab_size": vocabulary, "hidden_size": 64, "intermediate_size": 256,
    "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": MAX_TOKENS, "projection_dim": 64,
    "bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1,
  }  # fmt: skip
  vision = {
    "model_type": "clip_vision_model", "hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 3,
    "num_attention_heads": 6, "image_size": 32, "patch_size": 8, "projection_dim": 64,
  }  # fmt: skip
  return {"model_type": "clip", "projection_dim": 64, "text_config": text, "vision_config": vision}


def train_clip(data: TrainingSet, tokenizer: Any, folder: Path, steps: int, seed: int = 0) -> Any:
  """Train the model and return its averaged parameters.

  Args:
    data: images and the sources of their captions.
    tokenizer: the zoo's tokenizer.
    folder: folder for checkpoints, from which a stopped training resumes.
    steps: number of steps, with 256 pairs each.
    seed: seed of the weights and of sampling.
  """
  settings = Settings(clip_config(len(tokenizer)), Path("the zoo's CLIP"))
  network = read_network(settings)
  draw = batches(data, tokenizer, size=256, seed=seed)

  def batch_of(step: int) -> dict[str, np.ndarray]:
    batch = draw(step)
    return {**batch, "images": data.images[batch["index"]]}

  def loss(params: Any, batch: dict[str, Array], key: Array) -> Array:
    pixels = to_clip_pixels(shift(batch["images"], key))
    ends = end_positions(batch["tokens"], tokenizer.eos_token_id)
    towers: Any = network.apply({"params": params}, pixels, batch["tokens"], ends)
    images, texts, scale = towers
    return contrastive_loss(scale * unit(images) @ unit(texts).T, batch["caption_id"])

  # Layers keep their initial deviation of 1 / sqrt(fan-in); Hugging Face's 0.01 suits wide towers only.
  pixels, tokens = jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, MAX_TOKENS), jnp.int32)
  params = jax.jit(network.init)(jax.random.key(seed), pixels, tokens, jnp.zeros(1, jnp.int32))
  return fit(loss, params["params"], batch_of, steps, folder, learning_rate=1.5e-3)


def text_encoder(config: Mapping[str, Any], params: Any) -> Callable[[Int[Array, "b l"]], Array]:
  """Return a trained CLIP's text encoder: token ids -> hidden states [b, l, w] after the final norm."""
  settings = Settings(config, Path("the zoo's CLIP")).section("text_config")
  network, text = ClipText(TextSizes.read(settings)), {"text_model": params["text_model"]}

  def encode(tokens: Int[Array, "b l"]) -> Array:
    states: Any = network.apply({"params": text}, tokens)
    return states.last

  return jax.jit(encode)


def unit(features: Float[Array, "n d"]) -> Float[Array, "n d"]:
  """Scale features to unit norm."""
  return features / jnp.linalg.norm(features, axis=-1, keepdims=True)


def contrastive_loss(logits: Float[Array, "b b"], caption_id: Int[Array, "b"]) -> Array:
  """Compute CLIP's loss, with every image that has the same caption counted as a match."""
  same = (caption_id[:, None] == caption_id[None, :]).astype(logits.dtype)
  targets = same / same.sum(-1, keepdims=True)
  by_image = optax.softmax_cross_entropy(logits, targets)
  by_text = optax.softmax_cross_entropy(logits.T, targets)
  return (by_image.mean() + by_text.mean()) / 2


def shift(images: UInt8[Array, "b 32 32 3"], key: Array, most: int = 2) -> Array:
  """Shift each image randomly by up to `most` pixels, repeating its border.

  Args:
    images: a batch of images.
    key: random key.
    most: maximum shift along each axis, in pixels.
  """
  padded = jnp.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
  starts = jax.random.randint(key, (len(images), 2), 0, 2 * most + 1)
  crop = lambda image, start: jax.lax.dynamic_slice(image, (*start, 0), images.shape[1:])  # noqa: E731
  return jax.vmap(crop)(padded, starts)


def to_clip_pixels(images: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
  """Normalize images for CLIP."""
  return (images.astype(jnp.float32) / 255 - MEAN) / STD
