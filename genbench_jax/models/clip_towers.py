"""CLIP's two towers with learnable tokens put in, made of transformers' own Flax layers.

Pure functions of a parameter tree and the tokens; the layers are applied one by one, so that each can be
rematerialized and, in the vision tower, given fresh prompt tokens.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

Params = Mapping[str, Any]


def token_embeddings(params: Params, tokens: Int[Array, "k l"]) -> Float[Array, "k l w"]:
  """Embeddings of token ids, without positions."""
  return params["text_model"]["embeddings"]["token_embedding"]["embedding"][tokens]


def text_features(
  module: Any,
  params: Params,
  embeddings: Float[Array, "k l w"],
  ends: Int[Array, "k"],
  remat: bool = True,
) -> Float[Array, "k d"]:
  """Unit-norm text features of token embeddings.

  Args:
    module: a `FlaxCLIPModule`.
    params: its parameters.
    embeddings: of the tokens, without positions.
    ends: position of the end-of-text token, where the feature is read.
    remat: whether each layer's activations are computed again in the backward pass.
  """
  config, tower = module.config.text_config, params["text_model"]
  positions = tower["embeddings"]["position_embedding"]["embedding"][: embeddings.shape[1]]
  hidden = (embeddings + positions).astype(module.dtype)
  for layer in range(config.num_hidden_layers):
    hidden = _layer(module, config, tower["encoder"], layer, hidden, remat)
  hidden = _layer_norm(config, tower["final_layer_norm"], hidden)
  # Not indexed by row numbers: that would send indices and features around the devices that share the texts.
  pooled = jnp.take_along_axis(hidden, ends[:, None, None], axis=1)[:, 0]
  return _projected(pooled, params["text_projection"])


def image_features(
  module: Any,
  params: Params,
  pixels: Float[Array, "b h w 3"],
  prompts: Float[Array, "j m w"],
  remat: bool = True,
) -> Float[Array, "b d"]:
  """Unit-norm image features, with prompt tokens between the class token and the patches.

  Args:
    module: a `FlaxCLIPModule`.
    params: its parameters.
    pixels: preprocessed images.
    prompts: m tokens for each of the first j layers: j = 1 is the shallow form, where the tokens of the
      first layer flow on; each further layer gets its own in place of what came out of the one before.
    remat: whether each layer's activations are computed again in the backward pass.
  """
  config, tower = module.config.vision_config, params["vision_model"]
  hidden = _patch_embeddings(module, params, pixels)
  hidden = _layer_norm(config, tower["pre_layrnorm"], hidden)
  count = prompts.shape[1]
  tokens = jnp.broadcast_to(prompts[0], (len(hidden), *prompts.shape[1:])).astype(hidden.dtype)
  hidden = jnp.concatenate([hidden[:, :1], tokens, hidden[:, 1:]], axis=1)
  for layer in range(config.num_hidden_layers):
    if 0 < layer < len(prompts):
      hidden = hidden.at[:, 1 : 1 + count].set(prompts[layer].astype(hidden.dtype))
    hidden = _layer(module, config, tower["encoder"], layer, hidden, remat)
  pooled = _layer_norm(config, tower["post_layernorm"], hidden[:, 0])
  return _projected(pooled, params["visual_projection"])


def _patch_embeddings(
  module: Any, params: Params, pixels: Float[Array, "b h w 3"]
) -> Float[Array, "b t w"]:
  """Class token and patches with their positions."""

  def embed(module: Any, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b t w"]:
    return module.vision_model.embeddings(pixels)

  return module.apply({"params": params}, pixels, method=embed)


def _layer(
  module: Any, config: Any, encoder: Params, index: int, hidden: Float[Array, "b t w"], remat: bool
) -> Float[Array, "b t w"]:
  """One layer of the encoder. The text tower's is causal by its config."""
  from transformers.models.clip.modeling_flax_clip import FlaxCLIPEncoderLayer

  layer = FlaxCLIPEncoderLayer(config, dtype=module.dtype)

  def apply(params: Params, hidden: Float[Array, "b t w"]) -> Float[Array, "b t w"]:
    return layer.apply({"params": params}, hidden, None)[0]

  return (jax.checkpoint(apply) if remat else apply)(encoder["layers"][str(index)], hidden)


def _layer_norm(config: Any, params: Params, hidden: Float[Array, "*b w"]) -> Float[Array, "*b w"]:
  norm = nn.LayerNorm(epsilon=config.layer_norm_eps, dtype=hidden.dtype)
  return jnp.asarray(norm.apply({"params": params}, hidden))


def _projected(pooled: Float[Array, "b w"], params: Params) -> Float[Array, "b d"]:
  features = (pooled @ params["kernel"]).astype(jnp.float32)
  return features / jnp.linalg.norm(features, axis=-1, keepdims=True)
