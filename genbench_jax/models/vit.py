"""Vision transformers with timm's names: ViT-S/16, and a small one for small images.

Reference:
  Dosovitskiy et al., "An image is worth 16x16 words", 2021 (arXiv 2010.11929).
  Touvron et al., "Training data-efficient image transformers", 2021 (arXiv 2012.12877), for the small size.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genbench_jax.models import weights
from genbench_jax.models.classifier_shapes import VitConfig
from genbench_jax.models.layers import Conv, LayerNorm, Linear, attend, gelu

# timm's value; PyTorch's default is 1e-5.
LAYER_NORM_EPS = 1e-6


class Vit(nn.Module):
  """A vision transformer with a class token. timm's `VisionTransformer`.

  Attributes:
    config: architecture.
    num_classes: number of outputs; 0 returns the features.
    dtype: dtype of the computation; None uses the input's.
    remat: whether to recompute each layer's activations in the backward pass.
  """

  config: VitConfig
  num_classes: int
  dtype: Any = None
  remat: bool = False

  @nn.compact
  def __call__(self, pixels: Float[Array, "b h w 3"], train: bool = False) -> Float[Array, "b k"]:
    config, patch = self.config, self.config.patch_size
    dtype = self.dtype or pixels.dtype
    patches = Conv(config.width, patch, patch, dtype=dtype, name="patch_embed.proj")(pixels)
    # [b, rows, columns, width] -> [b, patches, width].
    tokens = patches.reshape(len(pixels), -1, config.width)
    start = self.param("cls_token", nn.initializers.normal(0.02), (1, 1, config.width))
    places = self.param(
      "pos_embed", nn.initializers.normal(0.02), (1, tokens.shape[1] + 1, config.width)
    )
    # As in timm, the class token has a position, too: [b, 1 + patches, width].
    first = jnp.broadcast_to(jnp.asarray(start, dtype), (len(pixels), 1, config.width))
    hidden = jnp.concatenate([first, tokens], axis=1) + jnp.asarray(places, dtype)
    layer = nn.remat(VitBlock) if self.remat else VitBlock
    for number in range(config.depth):
      hidden = layer(config, dtype, name=f"blocks.{number}")(hidden)
    # The norm acts per token, and only the class token is used.
    wide = jnp.promote_types(hidden.dtype, jnp.float32)
    features = LayerNorm(LAYER_NORM_EPS, name="norm")(hidden[:, 0]).astype(wide)
    if not self.num_classes:
      return features
    return Linear(self.num_classes, dtype=wide, name="head")(features)


class VitBlock(nn.Module):
  """A pre-norm layer: x + attention(norm(x)), then x + mlp(norm(x))."""

  config: VitConfig
  dtype: Any

  @nn.compact
  def __call__(self, x: Float[Array, "b t w"]) -> Float[Array, "b t w"]:
    width, heads = self.config.width, self.config.heads
    normed = LayerNorm(LAYER_NORM_EPS, name="norm1")(x)
    # [b, t, 3 w]: queries, keys and values one after another, each with its heads side by side.
    qkv = Linear(3 * width, dtype=self.dtype, name="attn.qkv")(normed)
    query, key, value = jnp.moveaxis(qkv.reshape(*x.shape[:2], 3, heads, width // heads), 2, 0)
    attended = attend(query, key, value).reshape(x.shape)
    x = x + Linear(width, dtype=self.dtype, name="attn.proj")(attended)
    normed = LayerNorm(LAYER_NORM_EPS, name="norm2")(x)
    hidden = Linear(self.config.mlp_ratio * width, dtype=self.dtype, name="mlp.fc1")(normed)
    return x + Linear(width, dtype=self.dtype, name="mlp.fc2")(gelu(hidden))


def initial_vit(network: Vit, key: Array, image_size: int) -> Any:
  """Return random parameters as timm draws them: normal with deviation 0.02, truncated at two; zero biases.

  The patch projection is scaled by its fan-in, since 0.02 is too small for 4 x 4 patches. The head is zero.

  Args:
    network: the architecture.
    key: random key.
    image_size: side of the images, in pixels.
  """
  pixels = jax.ShapeDtypeStruct((1, image_size, image_size, 3), np.float32)
  shapes = jax.eval_shape(network.init, key, pixels)["params"]
  names = [name for name, _ in weights.leaves(shapes)]
  keys = dict(zip(names, jax.random.split(key, len(names)), strict=True))

  def first(name: str, shape: tuple[int, ...]) -> Array:
    module, _, leaf = name.rpartition(".")
    if "norm" in module:
      return jnp.ones(shape) if leaf == "weight" else jnp.zeros(shape)
    if leaf == "bias" or module == "head":
      return jnp.zeros(shape)
    deviation = math.prod(shape[:3]) ** -0.5 if len(shape) == 4 else 0.02
    return deviation * jax.random.truncated_normal(keys[name], -2, 2, shape)

  return weights.tree_of(shapes, lambda name, leaf: first(name, leaf.shape))


def resized_positions(positions: Float[np.ndarray, "1 t w"], places: int) -> Float[Array, "1 u w"]:
  """Interpolate the position embeddings of the patches to another grid; the class token's stays unchanged."""
  start, grid = positions[:, :1], positions[:, 1:]
  old, new = math.isqrt(grid.shape[1]), math.isqrt(places)
  if old == new:
    return jnp.asarray(positions)
  square = jnp.asarray(grid).reshape(1, old, old, -1)
  wanted = jax.image.resize(square, (1, new, new, square.shape[-1]), "cubic", antialias=new < old)
  return jnp.concatenate([jnp.asarray(start), wanted.reshape(1, places, -1)], axis=1)
