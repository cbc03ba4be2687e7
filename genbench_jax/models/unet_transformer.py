"""The U-Net's transformer: self-attention, cross-attention to the text, and a gated feed-forward layer.

Modules have diffusers' names (`Transformer2DModel`, `BasicTransformerBlock`).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from genbench_jax.models import tpu_kernels
from genbench_jax.models.attention import attention, tpu_kernels_work
from genbench_jax.models.convolution import Conv
from genbench_jax.models.layers import GroupNorm, LayerNorm, Linear, gelu


class Attention(nn.Module):
  """Attention of normed hidden states to a context, or to themselves. diffusers' `Attention`."""

  heads: int
  platform: str | None = None

  @nn.compact
  def __call__(
    self,
    hidden: Float[Array, "b q d"],
    norm: LayerNorm,
    context: Float[Array, "b k e"] | None = None,
  ) -> Float[Array, "b q d"]:
    width = hidden.shape[-1]
    # To themselves, keys and values are projections of the same normed states.
    of_hidden = ("to_q", "to_k", "to_v") if context is None else ("to_q",)
    projected = dict(zip(of_hidden, self._of_normed(hidden, norm, of_hidden), strict=True))
    if context is not None:
      projected |= {name: self._linear(width, name)(context) for name in ("to_k", "to_v")}
    query, key, value = (
      projected[name].reshape(*projected[name].shape[:2], self.heads, width // self.heads)
      for name in ("to_q", "to_k", "to_v")
    )
    mixed = attention(query, key, value, self.platform).reshape(hidden.shape)
    # In diffusers, `to_out` is a sequence of this layer and a dropout.
    return Linear(width, name="to_out.0")(mixed)

  def _of_normed(
    self, hidden: Float[Array, "b q d"], norm: LayerNorm, names: Sequence[str]
  ) -> Sequence[Float[Array, "b q d"]]:
    """Return projections of the normed states. A single kernel on TPUs if the weights fit into VMEM."""
    if self.platform == "tpu" and not self.is_initializing() and tpu_kernels_work():
      # The kernel takes the parameters of the submodules below, which `init` declares.
      kernels = tuple(self.variables["params"][name]["weight"] for name in names)
      if tpu_kernels.projections_fit(hidden, kernels):
        own = norm.variables["params"]
        return tpu_kernels.projections(hidden, own["weight"], own["bias"], kernels, norm.eps)
    normed = norm(hidden)
    return [self._linear(hidden.shape[-1], name)(normed) for name in names]

  def _linear(self, width: int, name: str) -> Linear:
    return Linear(width, use_bias=False, name=name)


class _Gate(nn.Module):
  """GEGLU (arXiv 2002.05202): one half of a projection times the exact GELU of the other half."""

  features: int

  @nn.compact
  def __call__(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l m"]:
    linear, gate = jnp.split(Linear(2 * self.features, name="proj")(hidden), 2, axis=-1)
    # PyTorch uses erf here, not the tanh approximation that is Flax's default.
    return linear * gelu(gate)


class FeedForward(nn.Module):
  """A pre-norm feed-forward layer with four times the width and a residual connection.

  A single kernel on TPUs if the weights fit into VMEM.
  """

  platform: str | None = None

  @nn.compact
  def __call__(self, hidden: Float[Array, "b l d"], norm: LayerNorm) -> Float[Array, "b l d"]:
    if self.platform == "tpu" and not self.is_initializing() and tpu_kernels_work():
      # The kernel takes the parameters of the submodules below, which `init` declares.
      params, own = self.variables["params"], norm.variables["params"]
      inner, outer = params["net.0"]["proj"], params["net.2"]
      if tpu_kernels.feed_forward_fits(hidden, inner["weight"]):
        layers = (own, inner, outer)
        weights = [layer[name] for layer in layers for name in ("weight", "bias")]
        return tpu_kernels.feed_forward(hidden, *weights, norm.eps)
    inner = _Gate(4 * hidden.shape[-1], name="net.0")(norm(hidden))
    return hidden + Linear(hidden.shape[-1], name="net.2")(inner)


class TransformerBlock(nn.Module):
  """Self-attention, cross-attention and the feed-forward layer, each with a pre-norm and a residual."""

  heads: int
  platform: str | None = None

  @nn.compact
  def __call__(
    self, hidden: Float[Array, "b q d"], text: Float[Array, "b l e"]
  ) -> Float[Array, "b q d"]:
    own, cross = (Attention(self.heads, self.platform, name=name) for name in ("attn1", "attn2"))
    hidden = hidden + own(hidden, LayerNorm(1e-5, name="norm1"))
    hidden = hidden + cross(hidden, LayerNorm(1e-5, name="norm2"), text)
    return FeedForward(self.platform, name="ff")(hidden, LayerNorm(1e-5, name="norm3"))


class Transformer(nn.Module):
  """Transformer blocks over the pixels of an image.

  Attributes:
    heads: attention heads.
    layers: number of transformer blocks.
    groups: groups of the first norm.
    linear_projection: whether projections are matrices (Stable Diffusion 2 and XL) or 1 x 1 convolutions.
    platform: `cpu`, `gpu` or `tpu`, for the choice of kernels; JAX's default backend if None.
  """

  heads: int
  layers: int
  groups: int
  linear_projection: bool
  platform: str | None = None

  @nn.compact
  def __call__(
    self, hidden: Float[Array, "b h w c"], text: Float[Array, "b l e"]
  ) -> Float[Array, "b h w c"]:
    batch, height, width, channels = hidden.shape
    # This norm has epsilon 1e-6, unlike the U-Net's other group norms with 1e-5.
    inner = self._projection("proj_in", channels)(GroupNorm(self.groups, 1e-6, name="norm")(hidden))
    # [b, h, w, c] -> [b, h w, c]. With linear projections, diffusers reshapes first; the result is the same.
    inner = inner.reshape(batch, height * width, channels)
    for layer in range(self.layers):
      block = TransformerBlock(self.heads, self.platform, name=f"transformer_blocks.{layer}")
      inner = block(inner, text)
    inner = inner.reshape(batch, height, width, channels)
    return hidden + self._projection("proj_out", channels)(inner)

  def _projection(self, name: str, channels: int) -> nn.Module:
    if self.linear_projection:
      return Linear(channels, name=name)
    return Conv(channels, 1, padding=0, platform=self.platform, name=name)
