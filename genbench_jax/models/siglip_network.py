"""SigLIP and SigLIP 2: CLIP's layers, a sigmoid loss, an image feature pooled by attention, and text read at its last place.

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

# What a configuration means where it is silent: transformers' own defaults, for both towers.
DEFAULTS = Encoder(768, 12, 12, 3072, "gelu_pytorch_tanh", 1e-6)


@dataclasses.dataclass(frozen=True)
class SiglipTextSizes:
  """Sizes of a text tower.

  Attributes:
    encoder: of its transformer.
    vocabulary: token ids.
    positions: length of every text, in tokens: shorter ones are padded, and padding is seen.
    projection: width of the features.
  """

  encoder: Encoder
  vocabulary: int
  positions: int
  projection: int

  @classmethod
  def read(cls, settings: Settings) -> "SiglipTextSizes":
    """The sizes in the configuration of a text tower.

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
  """The sizes in the configuration of a vision tower.

  Raises:
    RunError: a setting is out of bounds, or the tower has no pooling head.
  """
  settings.refuse_all_but({"vision_use_head": True})
  return VisionSizes.read(settings, DEFAULTS, patch=16)


class SiglipNetwork(nn.Module):
  """Both towers. An image matches a text with probability sigmoid(`scale` cosine + `bias`).

  Attributes:
    text: sizes of the text tower.
    vision: sizes of the vision tower.
    dtype: of the computation.
    remat: whether each layer's activations are computed again in the backward pass.
  """

  text: SiglipTextSizes
  vision: VisionSizes
  dtype: Dtype = jnp.float32
  remat: bool = False

  def setup(self) -> None:
    self.text_model = SiglipText(self.text, self.dtype, self.remat)
    self.vision_model = SiglipVision(self.vision, self.dtype, self.remat)
    self.logit_scale = self.param("logit_scale", nn.initializers.constant(2.3), (1,))
    self.logit_bias = self.param("logit_bias", nn.initializers.constant(-10.0), (1,))

  def __call__(
    self, pixels: Float[Array, "b h w 3"], tokens: Int[Array, "k l"]
  ) -> tuple[Float[Array, "b d"], Float[Array, "k d"]]:
    """Image and text features, not normalized."""
    return self.image_features(pixels), self.text_features(tokens)

  def image_features(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
    """Image features, not normalized."""
    return self.vision_model(pixels).astype(jnp.float32)

  def text_features(self, tokens: Int[Array, "k l"]) -> Float[Array, "k d"]:
    """Text features, not normalized."""
    return self.text_model(tokens).astype(jnp.float32)


class SiglipText(nn.Module):
  """The text tower: every token sees every other, padding too, and the last place is the text's."""

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
  """The vision tower: patches without a class token, pooled by a learned query."""

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
    hidden = patches + places.table
    for layer in encoder_layers(sizes.encoder, self.dtype, self.remat):
      hidden = layer(hidden)
    hidden = LayerNorm(sizes.encoder.eps, name="post_layernorm")(hidden)
    return AttentionPooling(sizes.encoder, self.dtype, name="head")(hidden)


class AttentionPooling(nn.Module):
  """One learned query looks at all patches; a perceptron follows.

  Its projections stand in one tensor, as in PyTorch's `MultiheadAttention`: queries, keys and values, each [out, in].
  """

  sizes: Encoder
  dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, hidden: Float[Array, "b n d"]) -> Float[Array, "b d"]:
    width, heads = self.sizes.width, self.sizes.heads
    probe = self.param("probe", nn.initializers.normal(0.02), (1, 1, width))
    # Drawn as [out, in]; PyTorch's layout is kept, because the name does not end in `weight`.
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
    mixed = attend(q, k, v).reshape(len(hidden), 1, width)
    pooled = Linear(width, dtype=self.dtype, name="attention.out_proj")(mixed)
    normed = LayerNorm(self.sizes.eps, name="layernorm")(pooled)
    mlp = Mlp(self.sizes.mlp_width, self.sizes.activation, self.dtype, name="mlp")
    return (pooled + mlp(normed))[:, 0]
