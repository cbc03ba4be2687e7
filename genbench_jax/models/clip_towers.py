"""CLIP's towers as pure functions of trainable inputs: token embeddings (CoOp) or prompt tokens (VPT)."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from genbench_jax.models.clip_network import ClipNetwork
from genbench_jax.models.weights import Params


def token_embeddings(
  params: Params, tokens: Int[Array | np.ndarray, "k l"]
) -> Float[Array | np.ndarray, "k l w"]:
  """Look up the embeddings of token ids, without positions."""
  return params["text_model"]["embeddings.token_embedding"]["weight"][tokens]


def text_features(
  module: ClipNetwork,
  params: Params,
  embeddings: Float[Array, "k l w"],
  ends: Int[Array, "k"],
  remat: bool = True,
) -> Float[Array, "k d"]:
  """Compute unit-norm text features of token embeddings.

  Args:
    module: the network.
    params: its parameters.
    embeddings: token embeddings, without positions.
    ends: position of the end-of-text token, where the feature is read.
    remat: whether to recompute each layer's activations in the backward pass.
  """
  network = module.clone(remat=remat)
  found = network.apply({"params": params}, embeddings, ends, method="text_features")
  return _unit(jnp.asarray(found))


def image_features(
  module: ClipNetwork,
  params: Params,
  pixels: Float[Array, "b h w 3"],
  prompts: Float[Array, "j m width"],
  remat: bool = True,
  normalize: bool = True,
) -> Float[Array, "b d"]:
  """Compute image features, with prompt tokens between the class token and the patches.

  Args:
    module: the network.
    params: its parameters.
    pixels: preprocessed images.
    prompts: m tokens for each of the first j layers, see `clip_network.VisionTransformer`.
    remat: whether to recompute each layer's activations in the backward pass.
    normalize: whether to return unit-norm features.
  """
  network = module.clone(remat=remat)
  found = jnp.asarray(network.apply({"params": params}, pixels, prompts, method="image_features"))
  return _unit(found) if normalize else found


def _unit(features: Float[Array, "b d"]) -> Float[Array, "b d"]:
  return features / jnp.linalg.norm(features, axis=-1, keepdims=True)
