"""Batch normalization as PyTorch computes it, over the whole batch of all devices."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class BatchNorm(nn.Module):
  """Batch normalization: (x - mean) / sqrt(variance + eps) * weight + bias, per channel.

  In training, mean and variance are those of the batch. Under `jit` this is the global batch: a mean
  over a sharded axis becomes one collective, so the number of devices changes the result by rounding
  only. The collection `batch_stats` holds the running averages used outside of training, under
  PyTorch's names.

  Attributes:
    eps: added to the variance.
    momentum: weight of the new batch in the running averages (PyTorch's convention, 1 - Flax's).

  Reference:
    Ioffe and Szegedy, "Batch normalization", 2015 (arXiv 1502.03167).
  """

  eps: float = 1e-5
  momentum: float = 0.1

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
    channels = x.shape[-1:]
    weight = self.param("weight", nn.initializers.ones, channels)
    bias = self.param("bias", nn.initializers.zeros, channels)
    mean = self.variable("batch_stats", "running_mean", jnp.zeros, channels)
    variance = self.variable("batch_stats", "running_var", jnp.ones, channels)
    if not train:
      return _normalized(x, mean.value, variance.value, weight, bias, self.eps)
    batch_mean, batch_variance = moments(x)
    if not self.is_initializing():
      count = x.size // x.shape[-1]
      # PyTorch normalizes with the biased variance but averages the unbiased one.
      unbiased = batch_variance * (count / max(1, count - 1))
      mean.value += self.momentum * (jax.lax.stop_gradient(batch_mean) - mean.value)
      variance.value += self.momentum * (jax.lax.stop_gradient(unbiased) - variance.value)
    return _normalized(x, batch_mean, batch_variance, weight, bias, self.eps)


def moments(x: Float[Array, "b h w c"]) -> tuple[Float[Array, "c"], Float[Array, "c"]]:
  """Return mean and biased variance per channel, in float32 or wider."""
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  mean = wide.mean(axis=(0, 1, 2))
  if wide.dtype == x.dtype:
    # Two passes: E[x^2] - E[x]^2 cancels half the digits if the mean is large.
    return mean, jnp.square(wide - mean).mean(axis=(0, 1, 2))
  # bfloat16 has too few digits for cancellation to matter, and one pass over memory is saved.
  return mean, jnp.maximum(jnp.square(wide).mean(axis=(0, 1, 2)) - jnp.square(mean), 0)


def _normalized(
  x: Float[Array, "b h w c"],
  mean: Float[Array, "c"],
  variance: Float[Array, "c"],
  weight: Float[Array, "c"],
  bias: Float[Array, "c"],
  eps: float,
) -> Float[Array, "b h w c"]:
  wide = jnp.promote_types(x.dtype, jnp.float32)
  scale = jax.lax.rsqrt(variance + eps) * jnp.asarray(weight, wide)
  if x.dtype == wide:
    # Subtract the mean first: folding it into the shift would cancel digits if it is large.
    return (x - mean) * scale + jnp.asarray(bias, wide)
  # One multiply-add per element: a x + b with a and b per channel.
  shift = jnp.asarray(bias, wide) - mean * scale
  return (x.astype(wide) * scale + shift).astype(x.dtype)
