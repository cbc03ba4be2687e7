"""SigLIP and SigLIP 2: CLIP's layers with an attention-pooled image feature and a sigmoid loss.

Follows transformers' `SiglipModel`. The text feature is read at the last position.

Reference:
  Zhai et al., "Sigmoid loss for language image pre-training", 2023 (arXiv 2303.15343).
  Tschannen et al., "SigLIP 2", 2025 (arXiv 2502.14786).
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from genbench_jax.models.clip_network import VisionSizes
from genbench_jax.models.configuration import MOST_TOKENS, MOST_VOCABULARY, Settings
from genbench_jax.models.layers import Dtype, Embed, LayerNorm, Linear, attend
from genbench_jax.models.transformer import Encoder, Mlp, PatchEmbedding, encoder_layers

# Defaults for settings that a configuration omits, for both towers: those of transformers.
DEFAULTS = Encoder(768, 12, 12, 3072, "gelu_pytorch_tanh", 1e-6)


@dataclasses.dataclass(frozen=True)
class SiglipTextSizes:
  """Architecture of a text tower.

  Attributes:
    encoder: its transformer.
    vocabulary: number of token ids.
    positions: length of every text, in tokens. Shorter texts are padded, and padding is attended to.
    projection: width of the features.
  """

  encoder: Encoder
  vocabulary: int
  positions: int
  projection: int

  @classmethod
  def read(cls, settings: Settings) -> "SiglipTextSizes":
    """Read the architecture from the configuration of a text tower.

    Raises:
      RunError: a setting is out of bounds.
    """
    encoder = Encoder.read(settings, DEFAULTS)
    return cls(
      encoder=encoder,
      vocabulary=settings.integer("vocab_size", 32000, high=MOST_VOCABULARY),
      positions=settings.integer("max_position_embeddings", 64, high=MOST_TOKENS),
      projection=settings.integer("projection_size", encoder.width),
    )


def read_vision(settings: Settings) -> VisionSizes:
  """Read the architecture from the configuration of a vision tower.

  Raises:
    RunError: a setting is out of bounds, or the tower has no pooling head.
  """
  settings.refuse_all_but({"vision_use_head": True})
  return VisionSizes.read(settings, DEFAULTS, patch=16)


class SiglipNetwork(nn.Module):
  """Both towers. An image matches a text with probability sigmoid(exp(`logit_scale`) cosine + `logit_bias`).

  Attributes:
    text: architecture of the text tower.
    vision: architecture of the vision tower.
    dtype: dtype of the computation.
    remat: whether to recompute each layer's activations in the backward pass.
  """

  text: SiglipTextSizes
  vision: VisionSizes
  dtype: Dtype = jnp.float32
  remat: bool = False

  def setup(self) -> None:
    self.text_model = SiglipText(self.text, self.dtype, self.remat)
    self.vision_model = SiglipVision(self.vision, self.dtype, self.remat)
    # The initial values of the paper: scale 10 = exp(2.3), bias -10.
    self.logit_scale = self.param("logit_scale", nn.initializers.constant(2.3), (1,))
    self.logit_bias = self.param("logit_bias", nn.initializers.constant(-10.0), (1,))

  def __call__(
    self, pixels: Float[Array, "b h w 3"], tokens: Int[Array, "k l"]
  ) -> tuple[Float[Array, "b d"], Float[Array, "k d"]]:
    """Return unnormalized image and text features."""
    return self.image_features(pixels), self.text_features(tokens)

  def image_features(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
    """Compute unnormalized image features."""
    return self.vision_model(pixels).astype(jnp.float32)

  def text_features(self, tokens: Int[Array, "k l"]) -> Float[Array, "k d"]:
    """Compute unnormalized text features."""
    return self.text_model(tokens).astype(jnp.float32)


class SiglipText(nn.Module):
  """The text tower. Attention is neither causal nor masked for padding; the last position is read."""

  sizes: SiglipTextSizes
  dtype: Dtype = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(self, tokens: Int[Array, "k l"]) -> Float[Array, "k d"]:
    sizes, width = self.sizes, self.sizes.encoder.width
    words = Embed(sizes.vocabulary, width, self.dtype, name="embeddings.token_embedding")
    places = Embed(sizes.positions, width, self.dtype, name="embeddings.position_embedding")
    hidden = words(tokens) + places.table[: tokens.shape[1]]
    for layer in encoder_layers(sizes.encoder, self.dtype, self.remat):
      hidden = layer(hidden)
    pooled = LayerNorm(sizes.encoder.eps, name="final_layer_norm")(hidden[:, -1])
    return Linear(sizes.projection, dtype=self.dtype, name="head")(pooled)


class SiglipVision(nn.Module):
  """The vision tower: patches without a class token, pooled by attention from a learned query."""

  sizes: VisionSizes
  dtype: Dtype = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
    sizes, width = self.sizes, self.sizes.encoder.width
    patches = PatchEmbedding(
      width, sizes.patch_size, dtype=self.dtype, name="embeddings.patch_embedding"
    )(pixels)
    places = Embed(sizes.patches, width, self.dtype, name="embeddings.position_embedding")
    # No class token: there is one position per patch.
    hidden = patches + places.table
    for layer in encoder_layers(sizes.encoder, self.dtype, self.remat):
      hidden = layer(hidden)
    hidden = LayerNorm(sizes.encoder.eps, name="post_layernorm")(hidden)
    return AttentionPooling(sizes.encoder, self.dtype, name="head")(hidden)


class AttentionPooling(nn.Module):
  """Pooling by attention from one learned query to all patches, followed by an MLP (MAP head).

  As in PyTorch's `MultiheadAttention`, one tensor [3 out, in] holds the projections of queries, keys and
  values.
  """

  sizes: Encoder
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, hidden: Float[Array, "b n d"]) -> Float[Array, "b d"]:
    width, heads = self.sizes.width, self.sizes.heads
    probe = self.param("probe", nn.initializers.normal(0.02), (1, 1, width))
    # Stored as [out, in], PyTorch's layout: the loader transposes only tensors named `weight`.
    noise = nn.initializers.lecun_normal(in_axis=1, out_axis=0)
    weight = self.param("attention.in_proj_weight", noise, (3 * width, width))
    bias = self.param("attention.in_proj_bias", nn.initializers.zeros, (3 * width,))
    weights = jnp.split(jnp.asarray(weight, self.dtype), 3)
    biases = jnp.split(jnp.asarray(bias, self.dtype), 3)
    query = jnp.broadcast_to(jnp.asarray(probe, self.dtype), (len(hidden), 1, width))
    q, k, v = (
      (x @ w.T + b).reshape(len(hidden), -1, heads, width // heads)
      for x, w, b in zip((query, hidden, hidden), weights, biases, strict=True)
    )
    # [b, 1, heads, d / heads] -> [b, 1, d].
    mixed = attend(q, k, v).reshape(len(hidden), 1, width)
    pooled = Linear(width, dtype=self.dtype, name="attention.out_proj")(mixed)
    normed = LayerNorm(self.sizes.eps, name="layernorm")(pooled)
    mlp = Mlp(self.sizes.mlp_width, self.sizes.activation, self.dtype, name="mlp")
    return (pooled + mlp(normed))[:, 0]
