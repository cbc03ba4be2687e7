"""Diffusers' Flax modules put right, in the one place where they are called.

Flax interceptors replace single methods while a module is applied; nothing upstream is changed.

1. GEGLU takes the tanh approximation of gelu; PyTorch, and so every checkpoint, the exact one.
2. The transformer's GroupNorm has epsilon 1e-5; PyTorch 1e-6. Every GroupNorm takes its variance by
   cancellation, which costs two digits where the mean is large.
3. The VAE guesses the layout of latents from their last axis, and fails where side and channels are equal:
   its decoder is called directly, channels last.
4. Attention is this package's own; so are, on CPU, the convolutions that XLA is slow at, on GPU layer norms, and on
   TPU the feed-forward layers.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32

from genbench_jax.models import tpu_kernels
from genbench_jax.models.attention import attention
from genbench_jax.models.checkpoints import Params
from genbench_jax.models.convolution import suits_winograd, winograd


def _geglu(module: Any, hidden: Float[Array, "b l d"]) -> Float[Array, "b l m"]:
  linear, gate = jnp.split(module.proj(hidden), 2, axis=-1)
  return linear * tpu_kernels.gelu(gate.astype(jnp.float32)).astype(linear.dtype)


def _feed_forward_on_tpu(
  module: Any, method: Callable[..., Any], hidden: Float[Array, "b l d"]
) -> Float[Array, "b l d"]:
  params = module.variables["params"]
  inner, outer = params["net_0"]["proj"], params["net_2"]
  if not tpu_kernels.feed_forward_fits(hidden, inner["kernel"]):
    return method(hidden)  # no dropout: nothing here is trained through upstream's layers
  weights = (inner["kernel"], inner["bias"], outer["kernel"], outer["bias"])
  return tpu_kernels.feed_forward(hidden, *weights)


def _group_norm(module: Any, hidden: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
  from diffusers.models.attention_flax import FlaxTransformer2DModel

  epsilon = 1e-6 if isinstance(module.parent, FlaxTransformer2DModel) else module.epsilon
  params = module.variables["params"]
  groups = hidden.astype(jnp.float32).reshape(
    hidden.shape[0], -1, module.num_groups, hidden.shape[-1] // module.num_groups
  )
  mean = groups.mean(axis=(1, 3), keepdims=True)
  if hidden.dtype == jnp.float32:
    variance = jnp.square(groups - mean).mean(axis=(1, 3), keepdims=True)
  else:  # saves a pass over memory; bfloat16 has no digits that the cancellation could eat
    variance = jnp.square(groups).mean(axis=(1, 3), keepdims=True) - jnp.square(mean)
  normed = ((groups - mean) * jax.lax.rsqrt(variance + epsilon)).reshape(hidden.shape)
  return (normed * params["scale"] + params["bias"]).astype(hidden.dtype)


def _layer_norm_on_gpu(module: Any, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
  """Variance after the mean: XLA then reads its input once, where upstream's two moments take a kernel each."""
  params = module.variables["params"]
  wide = hidden.astype(jnp.float32)
  centered = wide - wide.mean(axis=-1, keepdims=True)
  variance = jnp.square(centered).mean(axis=-1, keepdims=True)
  normed = centered * jax.lax.rsqrt(variance + module.epsilon)
  return (normed * params["scale"] + params["bias"]).astype(hidden.dtype)


def _unet_attention(
  module: Any,
  platform: str | None,
  hidden: Float[Array, "b q d"],
  context: Float[Array, "b k e"] | None = None,
) -> Float[Array, "b q d"]:
  context = hidden if context is None else context
  heads = (module.query(hidden), module.key(context), module.value(context))
  query, key, value = (x.reshape(*x.shape[:2], module.heads, module.dim_head) for x in heads)
  return module.proj_attn(attention(query, key, value, platform).reshape(*hidden.shape[:2], -1))


def _vae_attention(
  module: Any, platform: str | None, hidden: Float[Array, "b h w c"]
) -> Float[Array, "b h w c"]:
  batch, height, width, channels = hidden.shape
  rows = module.group_norm(hidden).reshape(batch, height * width, channels)
  heads = (module.query(rows), module.key(rows), module.value(rows))
  query, key, value = (x.reshape(batch, height * width, module.num_heads, -1) for x in heads)
  mixed = attention(query, key, value, platform).reshape(batch, height * width, channels)
  return module.proj_attn(mixed).reshape(hidden.shape) + hidden


def _conv_on_cpu(
  module: Any, method: Callable[..., Any], hidden: Float[Array, "b h w c"]
) -> Float[Array, "b h w d"]:
  kernel = module.variables["params"]["kernel"]
  same_type = hidden.dtype == kernel.dtype == module.dtype
  plain = module.strides in (1, (1, 1), None) and module.use_bias and same_type
  if plain and kernel.shape[:2] == (1, 1):
    convolved = hidden @ kernel[0, 0]
  elif plain and module.padding == ((1, 1), (1, 1)) and suits_winograd(hidden, kernel):
    convolved = winograd(hidden, kernel)
  else:
    return method(hidden)
  return convolved + module.variables["params"]["bias"]


def corrections(platform: str | None = None) -> AbstractContextManager[Any]:
  """Context in which upstream's modules compute what PyTorch's do, with attention for a platform."""
  from diffusers.models import attention_flax, vae_flax

  platform = platform or jax.default_backend()

  def intercept(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
    module = context.module
    if context.method_name != "__call__" or module.is_initializing():
      return method(*args, **kwargs)
    if isinstance(module, attention_flax.FlaxGEGLU):
      return _geglu(module, args[0])
    if isinstance(module, attention_flax.FlaxFeedForward) and platform == "tpu":
      return _feed_forward_on_tpu(module, method, args[0])
    if isinstance(module, attention_flax.FlaxAttention):
      return _unet_attention(module, platform, *args)
    if isinstance(module, vae_flax.FlaxAttentionBlock):
      return _vae_attention(module, platform, args[0])
    if isinstance(module, nn.GroupNorm):
      return _group_norm(module, args[0])
    if isinstance(module, nn.LayerNorm) and platform == "gpu":
      return _layer_norm_on_gpu(module, args[0])
    if isinstance(module, nn.Conv) and platform == "cpu":
      return _conv_on_cpu(module, method, args[0])
    return method(*args, **kwargs)

  return nn.intercept_methods(intercept)


def apply_unet(
  unet: Any,
  params: Params,
  latents: Float[Array, "b h w c"],
  timestep: Float[Array, ""] | Float[Array, "b"],
  text: Float[Array, "b l d"],
  platform: str | None = None,
) -> Float[Array, "b h w c"]:
  """The UNet's output: noise or velocity, as it was trained. Channels last, in the module's dtype."""
  timestep = jnp.atleast_1d(jnp.asarray(timestep, jnp.float32))
  with corrections(platform):
    # Upstream takes and gives channels first, and transposes inside: the pairs cancel in the compiler.
    sample = latents.transpose(0, 3, 1, 2)
    output = unet.apply({"params": params}, sample, timestep, text, return_dict=False)[0]
  return output.transpose(0, 2, 3, 1)


def apply_decoder(
  vae: Any, params: Params, latents: Float[Array, "b h w c"], platform: str | None = None
) -> Float[Array, "b H W 3"]:
  """Images, about -1 to 1, of latents at the autoencoder's own scale."""

  def decode(module: Any, latents: Float[Array, "b h w c"]) -> Float[Array, "b H W 3"]:
    return module.decoder(module.post_quant_conv(latents))

  with corrections(platform):
    return vae.apply({"params": params}, latents, method=decode)


def apply_encoder(
  vae: Any, params: Params, images: Float[Array, "b H W 3"]
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w c"]]:
  """Mean and log variance of the latents of images in -1 to 1, at the autoencoder's own scale."""

  def encode(module: Any, images: Float[Array, "b H W 3"]) -> Float[Array, "b h w 2c"]:
    return module.quant_conv(module.encoder(images))

  with corrections():
    mean, log_variance = jnp.split(vae.apply({"params": params}, images, method=encode), 2, axis=-1)
  return mean, jnp.clip(log_variance, -30.0, 20.0)


def apply_text_encoder(
  text_encoder: Any,
  params: Params,
  tokens: Int32[Array, "b l"],
  learned: Float[Array, "n d"] | None = None,
) -> Float[Array, "b l d"]:
  """The text tower's last hidden states, after its final norm.

  Args:
    learned: embeddings of new tokens, whose ids follow those of the vocabulary.
  """
  positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
  with _new_tokens(text_encoder.config.vocab_size, learned):
    output = text_encoder.apply({"params": params}, tokens, jnp.ones_like(tokens), positions)
  return output.last_hidden_state


def _new_tokens(
  vocabulary: int, learned: Float[Array, "n d"] | None
) -> AbstractContextManager[Any]:
  """Context in which ids from `vocabulary` on are embedded by the rows of `learned`.

  The checkpoint's table is neither copied nor changed, so that a gradient reaches the new rows alone.
  """

  def intercept(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
    module = context.module
    if learned is None or context.method_name != "__call__" or module.name != "token_embedding":
      return method(*args, **kwargs)
    (tokens,) = args
    known = method(jnp.minimum(tokens, vocabulary - 1))
    new = jnp.asarray(learned)[jnp.clip(tokens - vocabulary, 0, len(learned) - 1)]
    return jnp.where((tokens >= vocabulary)[..., None], new.astype(known.dtype), known)

  return nn.intercept_methods(intercept)
