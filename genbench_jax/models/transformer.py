"""The pre-norm transformer encoder shared by both towers of CLIP and SigLIP.

Follows `CLIPEncoder` and `SiglipEncoder` of transformers, whose layers have the same names.
"""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from genbench_jax.models.configuration import MOST_LAYERS, Settings
from genbench_jax.models.layers import ACTIVATIONS, Dtype, LayerNorm, Linear, activation, attend


@dataclasses.dataclass(frozen=True)
class Encoder:
  """Architecture of a transformer encoder.

  Attributes:
    width: width of the hidden states.
    layers: number of layers.
    heads: attention heads per layer.
    mlp_width: width of the MLP's hidden layer.
    activation: name of the activation, a key of `layers.ACTIVATIONS`.
    eps: epsilon of the layer norms.
  """

  width: int
  layers: int
  heads: int
  mlp_width: int
  activation: str
  eps: float

  @classmethod
  def read(cls, settings: Settings, defaults: "Encoder") -> "Encoder":
    """Read the architecture from a configuration; `defaults` fill in missing settings.

    Raises:
      RunError: a setting is out of bounds.
    """
    width = settings.integer("hidden_size", defaults.width)
    return cls(
      width=width,
      layers=settings.integer("num_hidden_layers", defaults.layers, high=MOST_LAYERS),
      heads=settings.heads(width, default=defaults.heads),
      mlp_width=settings.integer("intermediate_size", defaults.mlp_width),
      activation=settings.choice("hidden_act", defaults.activation, tuple(ACTIVATIONS)),
      eps=settings.number("layer_norm_eps", defaults.eps, high=1.0),
    )


class Attention(nn.Module):
  """Multi-head self-attention with biases."""

  heads: int
  dtype: Dtype = None

  @nn.compact
  def __call__(
    self, hidden: Float[Array, "b l d"], bias: Float[Array, "#b #h q l"] | None = None
  ) -> Float[Array, "b l d"]:
    width = hidden.shape[-1]

    def project(name: str) -> Float[Array, "b l h e"]:
      projected = Linear(width, dtype=self.dtype, name=f"{name}_proj")(hidden)
      return projected.reshape(*hidden.shape[:2], self.heads, width // self.heads)

    mixed = attend(project("q"), project("k"), project("v"), bias)
    return Linear(width, dtype=self.dtype, name="out_proj")(mixed.reshape(hidden.shape))


class Mlp(nn.Module):
  """Two linear layers with an activation in between."""

  width: int
  activation: str
  dtype: Dtype = None

  @nn.compact
  def __call__(self, hidden: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    inner = Linear(self.width, dtype=self.dtype, name="fc1")(hidden)
    return Linear(hidden.shape[-1], dtype=self.dtype, name="fc2")(
      activation(self.activation)(inner)
    )


class EncoderLayer(nn.Module):
  """A pre-norm layer: x + attention(norm(x)), then x + mlp(norm(x))."""

  sizes: Encoder
  dtype: Dtype = None

  @nn.compact
  def __call__(
    self, hidden: Float[Array, "b l d"], bias: Float[Array, "#b #h l l"] | None = None
  ) -> Float[Array, "b l d"]:
    sizes = self.sizes
    normed = LayerNorm(sizes.eps, name="layer_norm1")(hidden)
    hidden = hidden + Attention(sizes.heads, self.dtype, name="self_attn")(normed, bias)
    normed = LayerNorm(sizes.eps, name="layer_norm2")(hidden)
    return hidden + Mlp(sizes.mlp_width, sizes.activation, self.dtype, name="mlp")(normed)


def encoder_layers(sizes: Encoder, dtype: Dtype, remat: bool) -> list[EncoderLayer]:
  """Return the layers, under the names of the published checkpoints.

  Args:
    sizes: architecture of the encoder.
    dtype: dtype of the computation.
    remat: whether to recompute each layer's activations in the backward pass.
  """
  layer = nn.remat(EncoderLayer) if remat else EncoderLayer
  return [layer(sizes, dtype, name=f"encoder.layers.{index}") for index in range(sizes.layers)]


class PatchEmbedding(nn.Module):
  """Embed the patches of an image: a convolution whose stride is its kernel size, as one matrix product.

  XLA's CPU convolution with such strides is many times slower than the product.

  Attributes:
    width: width of the embeddings.
    side: side of a patch, in pixels.
    use_bias: whether to add a bias.
    dtype: dtype of the computation.
  """

  width: int
  side: int
  use_bias: bool = True
  dtype: Dtype = None

  @nn.compact
  def __call__(self, pixels: Float[Array, "b h w c"]) -> Float[Array, "b n d"]:
    dtype = self.dtype or pixels.dtype
    batch, height, width, channels = pixels.shape
    rows, columns, side = height // self.side, width // self.side, self.side
    shape = (side, side, channels, self.width)
    weight = self.param("weight", nn.initializers.lecun_normal(), shape)
    # As in PyTorch's convolution, pixels that do not fill a patch are ignored.
    pixels = pixels[:, : rows * side, : columns * side].astype(dtype)
    # [b, rows, side, columns, side, c] -> [b, patches, side side c], in the order of the kernel's axes.
    patches = pixels.reshape(batch, rows, side, columns, side, channels)
    patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, -1)
    embedded = patches @ jnp.asarray(weight, dtype).reshape(-1, self.width)
    if not self.use_bias:
      return embedded
    bias = self.param("bias", nn.initializers.zeros, (self.width,))
    return embedded + jnp.asarray(bias, dtype)
