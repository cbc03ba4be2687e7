"""DINOv2, with and without register tokens: a pre-norm vision transformer with LayerScale.

Follows transformers' `Dinov2Model` and `Dinov2WithRegistersModel`.

Reference:
  Oquab et al., "DINOv2: Learning robust visual features without supervision", 2023 (arXiv 2304.07193).
  Darcet et al., "Vision transformers need registers", 2023 (arXiv 2309.16588).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from genbench_jax.models.configuration import MOST_LAYERS, MOST_PIXELS, Settings
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
class Dinov2Sizes:
  """Architecture of a DINOv2.

  Attributes:
    width: width of the hidden states and the features.
    layers: number of layers.
    heads: attention heads per layer.
    mlp_width: width of the MLP's hidden layer; if gated, of each of its two halves.
    gated: whether the MLP is gated, silu(a) b (SwiGLU), instead of act(a).
    activation: name of the plain MLP's activation.
    eps: epsilon of the layer norms.
    qkv_bias: whether queries, keys and values have biases.
    image_size: side in pixels of the images that the stored positions are for.
    patch_size: side of a patch, in pixels.
    registers: number of register tokens, between the class token and the patches.
  """

  width: int
  layers: int
  heads: int
  mlp_width: int
  gated: bool
  activation: str
  eps: float
  qkv_bias: bool
  image_size: int
  patch_size: int
  registers: int

  @classmethod
  def read(cls, settings: Settings) -> "Dinov2Sizes":
    """Read the architecture from a configuration.

    Raises:
      RunError: a setting is out of bounds.
    """
    settings.refuse_all_but({"num_channels": 3, "apply_layernorm": True})
    width = settings.integer("hidden_size", 768)
    gated = settings.flag("use_swiglu_ffn", False)
    inner = int(width * settings.number("mlp_ratio", 4, high=64))
    size = settings.integer("image_size", 224, high=MOST_PIXELS)
    with_registers = settings.values.get("model_type") == "dinov2_with_registers"
    return cls(
      width=width,
      layers=settings.integer("num_hidden_layers", 12, high=MOST_LAYERS),
      heads=settings.heads(width, default=12),
      # SwiGLU has three matrices instead of two: 2/3 of the width, rounded up to a multiple of 8 as in
      # the original code, keeps the number of parameters.
      mlp_width=(inner * 2 // 3 + 7) // 8 * 8 if gated else inner,
      gated=gated,
      activation=settings.choice("hidden_act", "gelu", tuple(ACTIVATIONS)),
      eps=settings.number("layer_norm_eps", 1e-6, high=1.0),
      qkv_bias=settings.flag("qkv_bias", True),
      image_size=size,
      patch_size=settings.integer("patch_size", 16 if with_registers else 14, high=size),
      registers=settings.integer("num_register_tokens", 4, low=0) if with_registers else 0,
    )

  @property
  def patches(self) -> int:
    """Number of patches whose positions are stored."""
    return (self.image_size // self.patch_size) ** 2


class Dinov2Network(nn.Module):
  """DINOv2's vision transformer; returns the class token after the final norm.

  Attributes:
    sizes: architecture.
    dtype: dtype of the computation.
  """

  sizes: Dinov2Sizes
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
    """Compute unnormalized image features of preprocessed images.

    The stored positions must fit the images' patches; `load_dinov2` resamples them once.
    """
    hidden = self._embedded(pixels)
    for index in range(self.sizes.layers):
      hidden = _Layer(self.sizes, self.dtype, name=f"encoder.layer.{index}")(hidden)
    normed = LayerNorm(self.sizes.eps, name="layernorm")(hidden[:, 0])
    return normed.astype(jnp.float32)

  def _embedded(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b l d"]:
    sizes, noise = self.sizes, nn.initializers.normal(0.02)
    patches = PatchEmbedding(
      sizes.width,
      sizes.patch_size,
      dtype=self.dtype,
      name="embeddings.patch_embeddings.projection",
    )(pixels)
    first = self.param("embeddings.cls_token", noise, (1, 1, sizes.width))
    # The mask token replaces masked patches in pretraining. Declared because checkpoints contain it.
    self.param("embeddings.mask_token", nn.initializers.zeros, (1, sizes.width))
    # After resampling, positions fit the images; `init` declares the shape that is stored.
    count = sizes.patches if self.is_initializing() else patches.shape[1]
    positions = self.param("embeddings.position_embeddings", noise, (1, count + 1, sizes.width))
    positions = jnp.asarray(positions, self.dtype)
    # Registers have no positions and follow the class token: [class, registers, patches].
    tokens = [jnp.asarray(first, self.dtype) + positions[:, :1]]
    if sizes.registers:
      shape = (1, sizes.registers, sizes.width)
      tokens.append(self.param("embeddings.register_tokens", noise, shape))
    return behind_tokens(tokens, patches + positions[:, 1:])


def behind_tokens(
  tokens: Sequence[Float[Array, "1 _ d"]], patches: Float[Array, "b n d"]
) -> Float[Array, "b l d"]:
  """Prepend the same tokens, class token and registers, to the patches of each image."""
  before = jnp.concatenate([jnp.asarray(token, patches.dtype) for token in tokens], axis=1)
  repeated = jnp.broadcast_to(before, (len(patches), *before.shape[1:]))
  return jnp.concatenate([repeated, patches], axis=1)


class ScaledLayer(nn.Module):
  """A pre-norm layer with LayerScale: x + scale attention(norm(x)), then x + scale mlp(norm(x)).

  LayerScale: Touvron et al., "Going deeper with image transformers", 2021 (arXiv 2103.17239).

  Attributes:
    sizes: sizes of the network.
    dtype: data type of the computation; parameters stay float32.
  """

  sizes: Any
  dtype: Dtype

  @nn.compact
  def __call__(self, hidden: Float[Array, "b l d"], *positions: Any) -> Float[Array, "b l d"]:
    """Apply the layer; `positions` are passed to `_attention`."""
    attended = self._attention(LayerNorm(self.sizes.eps, name="norm1")(hidden), *positions)
    hidden = hidden + self._scaled("layer_scale1", attended)
    mixed = self._mlp(LayerNorm(self.sizes.eps, name="norm2")(hidden))
    return hidden + self._scaled("layer_scale2", mixed)

  def _scaled(self, name: str, branch: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
    scale = self.param(f"{name}.lambda1", nn.initializers.ones, branch.shape[-1:])
    return branch * jnp.asarray(scale, branch.dtype)

  def _attention(self, hidden: Float[Array, "b l d"], *positions: Any) -> Float[Array, "b l d"]:
    raise NotImplementedError

  def _mlp(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
    raise NotImplementedError


class _Layer(ScaledLayer):
  """A layer of DINOv2, whose position embeddings were added to the hidden states."""

  sizes: Dinov2Sizes

  def _attention(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
    sizes = self.sizes

    def project(name: str) -> Float[Array, "b l h e"]:
      linear = Linear(sizes.width, sizes.qkv_bias, self.dtype, name=f"attention.attention.{name}")
      return linear(hidden).reshape(*hidden.shape[:2], sizes.heads, -1)

    mixed = attend(project("query"), project("key"), project("value"))
    out = Linear(sizes.width, dtype=self.dtype, name="attention.output.dense")
    return out(mixed.reshape(hidden.shape))

  def _mlp(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
    sizes = self.sizes
    if not sizes.gated:
      inner = Linear(sizes.mlp_width, dtype=self.dtype, name="mlp.fc1")(hidden)
      return Linear(sizes.width, dtype=self.dtype, name="mlp.fc2")(
        activation(sizes.activation)(inner)
      )
    both = Linear(2 * sizes.mlp_width, dtype=self.dtype, name="mlp.weights_in")(hidden)
    # SwiGLU (arXiv 2002.05202): gate and value are computed by one matrix, gate first.
    gate, value = jnp.split(both, 2, axis=-1)
    return Linear(sizes.width, dtype=self.dtype, name="mlp.weights_out")(jax.nn.silu(gate) * value)
