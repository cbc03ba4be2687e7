"""DINOv3's vision transformers: DINOv2's layers, with rotary instead of learned positions.

Follows transformers' `DINOv3ViTModel`.

Reference:
  Siméoni et al., "DINOv3", 2025 (arXiv 2508.10104).
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genbench_jax.models.configuration import MOST_LAYERS, MOST_PIXELS, Settings
from genbench_jax.models.dinov2_network import ScaledLayer, behind_tokens
from genbench_jax.models.layers import (
  ACTIVATIONS,
  Dtype,
  LayerNorm,
  Linear,
  activation,
  attend,
)
from genbench_jax.models.transformer import PatchEmbedding


@dataclasses.dataclass(frozen=True)
class Dinov3Sizes:
  """Architecture of a DINOv3.

  Attributes:
    width: width of the hidden states and the features.
    layers: number of layers.
    heads: attention heads per layer.
    mlp_width: width of the MLP's hidden layer.
    gated: whether the MLP is gated, act(a) b, instead of act(a).
    activation: name of the activation.
    eps: epsilon of the layer norms.
    biases: whether queries, keys, values, attention outputs and the MLP have biases.
    image_size: side of the images, in pixels; any multiple of the patch size works.
    patch_size: side of a patch, in pixels.
    registers: number of register tokens, between the class token and the patches.
    theta: base of the rotary frequencies.
  """

  width: int
  layers: int
  heads: int
  mlp_width: int
  gated: bool
  activation: str
  eps: float
  biases: tuple[bool, bool, bool, bool, bool]
  image_size: int
  patch_size: int
  registers: int
  theta: float

  @classmethod
  def read(cls, settings: Settings) -> "Dinov3Sizes":
    """Read the architecture from a configuration.

    Raises:
      RunError: a setting is out of bounds.
    """
    settings.refuse_all_but({"num_channels": 3, "apply_layernorm": True})
    width = settings.integer("hidden_size", 384)
    size = settings.integer("image_size", 224, high=MOST_PIXELS)
    heads = settings.heads(width, default=6)
    if width // heads % 4:  # rotation takes pairs of channels, and half of the pairs per image axis
      raise settings.error("num_attention_heads", "the width of a head must be a multiple of 4")
    # No key bias by default: it shifts all scores of a query equally, which the softmax cancels.
    defaults = {"query_bias": True, "key_bias": False, "value_bias": True, "proj_bias": True}
    biases = [settings.flag(name, value) for name, value in defaults.items()]
    return cls(
      width=width,
      layers=settings.integer("num_hidden_layers", 12, high=MOST_LAYERS),
      heads=heads,
      mlp_width=settings.integer("intermediate_size", 1536),
      gated=settings.flag("use_gated_mlp", False),
      activation=settings.choice("hidden_act", "gelu", tuple(ACTIVATIONS)),
      eps=settings.number("layer_norm_eps", 1e-5, high=1.0),
      biases=(biases[0], biases[1], biases[2], biases[3], settings.flag("mlp_bias", True)),
      image_size=size,
      patch_size=settings.integer("patch_size", 16, high=size),
      registers=settings.integer("num_register_tokens", 0, low=0),
      theta=settings.number("rope_theta", 100.0, low=1.0, high=1e9),
    )


class Dinov3Network(nn.Module):
  """DINOv3's vision transformer; returns the class token after the final norm.

  Attributes:
    sizes: architecture.
    dtype: dtype of the computation.
  """

  sizes: Dinov3Sizes
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
    """Compute unnormalized image features of preprocessed images."""
    sizes = self.sizes
    # [b, h, w, 3] -> [b, 1 + registers + patches, d]. Positions are not added here: layers rotate by them.
    hidden = self._embedded(pixels)
    rows, columns = (side // sizes.patch_size for side in pixels.shape[1:3])
    turns = rotary_angles(rows, columns, sizes.width // sizes.heads, sizes.theta)
    for index in range(sizes.layers):
      hidden = _Layer(sizes, self.dtype, name=f"layer.{index}")(hidden, turns)
    return LayerNorm(sizes.eps, name="norm")(hidden[:, 0]).astype(jnp.float32)

  def _embedded(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b l d"]:
    sizes, noise = self.sizes, nn.initializers.normal(0.02)
    patches = PatchEmbedding(
      sizes.width, sizes.patch_size, dtype=self.dtype, name="embeddings.patch_embeddings"
    )(pixels)
    first = self.param("embeddings.cls_token", noise, (1, 1, sizes.width))
    # The mask token replaces masked patches in pretraining. Declared because checkpoints contain it.
    self.param("embeddings.mask_token", nn.initializers.zeros, (1, 1, sizes.width))
    shape = (1, sizes.registers, sizes.width)
    return behind_tokens([first, self.param("embeddings.register_tokens", noise, shape)], patches)


def rotary_angles(
  rows: int, columns: int, width: int, theta: float
) -> Float[np.ndarray, "n width"]:
  """Return the rotation angle of each pair of a head's channels at each patch, in radians.

  A patch's center lies in (-1, 1) along both axes. Each axis has width / 4 frequencies,
  2 pi / theta^(4 i / width). The angles of both axes are repeated, because channel c is paired with
  channel c + width / 2. Computed in float64, since angles enter a cosine.

  Args:
    rows, columns: patches along each axis.
    width: channels of a head, a multiple of 4.
    theta: base of the frequencies.
  """
  centers = [(np.arange(count) + 0.5) / count * 2 - 1 for count in (rows, columns)]
  grid = np.stack(np.meshgrid(*centers, indexing="ij"), axis=-1).reshape(-1, 2)
  frequencies = 2 * np.pi / theta ** (np.arange(width // 4) * 4 / width)
  angles = (grid[:, :, None] * frequencies).reshape(len(grid), -1)
  return np.tile(angles, 2).astype(np.float32)


def turned(
  heads: Float[Array, "b l h e"], angles: Float[np.ndarray, "n e"]
) -> Float[Array, "b l h e"]:
  """Rotate the patch tokens (the last n) of queries or keys; class and register tokens stay unchanged.

  (a, b) -> (a cos - b sin, b cos + a sin) for each pair of channels (c, c + width / 2).
  """
  prefix = heads.shape[1] - len(angles)
  # In float32: bfloat16 would round the rotated channels twice.
  patches = heads[:, prefix:].astype(jnp.float32)
  first, second = jnp.split(patches, 2, axis=-1)
  cosine, sine = (jnp.asarray(table)[None, :, None] for table in (np.cos(angles), np.sin(angles)))
  rotated = patches * cosine + jnp.concatenate([-second, first], axis=-1) * sine
  return jnp.concatenate([heads[:, :prefix], rotated.astype(heads.dtype)], axis=1)


class _Layer(ScaledLayer):
  """A layer of DINOv3, which rotates queries and keys by the angles of their patches."""

  sizes: Dinov3Sizes

  def _attention(self, hidden: Float[Array, "b l d"], *positions: Any) -> Float[Array, "b l d"]:
    sizes, (angles,) = self.sizes, positions

    def project(name: str, use_bias: bool) -> Float[Array, "b l h e"]:
      linear = Linear(sizes.width, use_bias, self.dtype, name=f"attention.{name}_proj")
      return linear(hidden).reshape(*hidden.shape[:2], sizes.heads, -1)

    query, key, value = (project(name, sizes.biases[i]) for i, name in enumerate("qkv"))
    mixed = attend(turned(query, angles), turned(key, angles), value)
    out = Linear(sizes.width, sizes.biases[3], self.dtype, name="attention.o_proj")
    return out(mixed.reshape(hidden.shape))

  def _mlp(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
    sizes, act = self.sizes, activation(self.sizes.activation)

    def linear(width: int, name: str) -> Linear:
      return Linear(width, sizes.biases[4], self.dtype, name=f"mlp.{name}_proj")

    # Gated variants (such as ViT-S+ and ViT-H+) use SwiGLU (arXiv 2002.05202), here with two separate matrices.
    inner = linear(sizes.mlp_width, "up")(hidden)
    gated = act(linear(sizes.mlp_width, "gate")(hidden)) * inner if sizes.gated else act(inner)
    return linear(sizes.width, "down")(gated)
