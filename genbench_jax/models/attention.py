"""Attention by whatever does it fastest on the device, and by plain einsums where that does not apply."""

import functools
import logging
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genbench_jax.models import tpu_kernels

logger = logging.getLogger(__name__)

# On CPU, queries that attend at once, where they divide the sequence: their scores stay in the cache. Measured on 2 cores,
# 64-wide heads: 3 to 4 times faster than einsums over all heads and queries, from 256 tokens to 4,096.
CPU_QUERIES = (512, 256)
# JAX's flash attention for TPUs works on blocks of 128 rows, and pays from about here on.
FLASH_BLOCK, FLASH_MIN_TOKENS = 128, 1024
# A platform that nothing is chosen for: attention written out.
PLAIN = "plain"


def attention(
  query: Float[Array, "b q h d"],
  key: Float[Array, "b k h d"],
  value: Float[Array, "b k h d"],
  platform: str | None = None,
) -> Float[Array, "b q h d"]:
  """softmax(query key^T / sqrt(d)) value, for each head; softmax in float32.

  Args:
    query, key, value: heads apart.
    platform: `cpu`, `gpu` or `tpu`, of the device that runs it; by default JAX's default backend.
  """
  platform = jax.default_backend() if platform is None else platform
  if platform == "cpu" and query.shape[1] % min(CPU_QUERIES) == 0:
    return by_query_blocks(query, key, value)
  if platform == "gpu" and _suits_cudnn(query) and cudnn_works():
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
  if platform == "tpu" and tpu_kernels.attention_fits(query, key) and tpu_kernels_work():
    return _on_tpu(query, key, value)
  if platform == "tpu" and _suits_flash(query, key):
    return _flash(query, key, value)
  return by_einsum(query, key, value)


def by_einsum(
  query: Float[Array, "b q h d"], key: Float[Array, "b k h d"], value: Float[Array, "b k h d"]
) -> Float[Array, "b q h d"]:
  """All scores at once: what everything else must agree with."""
  scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
  weights = jax.nn.softmax(scores * query.shape[-1] ** -0.5, axis=-1).astype(value.dtype)
  return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def by_query_blocks(
  query: Float[Array, "b q h d"], key: Float[Array, "b k h d"], value: Float[Array, "b k h d"]
) -> Float[Array, "b q h d"]:
  """One head and one of `CPU_QUERIES` queries at a time, as products of two matrices each."""
  batch, length, heads, width = query.shape
  at_once = next(count for count in CPU_QUERIES if length % count == 0)
  rows = [x.transpose(0, 2, 1, 3).reshape(batch * heads, -1, width) for x in (query, key, value)]
  blocks = rows[0].reshape(batch * heads, -1, at_once, width)

  def one_head(
    arguments: tuple[Float[Array, "n m d"], Float[Array, "k d"], Float[Array, "k d"]],
  ) -> Float[Array, "n m d"]:
    blocks, key, value = arguments
    return jax.lax.map(lambda block: _one_block(block, key, value), blocks)

  mixed = jax.lax.map(one_head, (blocks, rows[1], rows[2]))
  return mixed.reshape(batch, heads, length, width).transpose(0, 2, 1, 3)


def _one_block(
  query: Float[Array, "m d"], key: Float[Array, "k d"], value: Float[Array, "k d"]
) -> Float[Array, "m d"]:
  scores = (query @ key.T).astype(jnp.float32) * query.shape[-1] ** -0.5
  weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
  # Divided after the product with the values, which has fewer columns than the scores.
  mixed = weights.astype(value.dtype) @ value
  return (mixed / weights.sum(axis=-1, keepdims=True)).astype(value.dtype)


def _suits_cudnn(query: Float[Array, "b q h d"]) -> bool:
  return query.dtype in (jnp.bfloat16, jnp.float16) and query.shape[-1] in range(8, 129, 8)


@functools.cache
def cudnn_works() -> bool:
  """Whether cuDNN's attention runs here and agrees with einsums; asked once, on a small input."""

  def fast(*arrays: Array) -> Array:
    return jax.nn.dot_product_attention(*arrays, implementation="cudnn")

  # bfloat16 keeps 8 bits: the outputs, of size one, are off by up to 0.02.
  return _agree("cuDNN's attention", fast, by_einsum, _drawn(3, (1, 128, 2, 64)), 0.05)


@functools.cache
def tpu_kernels_work() -> bool:
  """Whether our TPU kernels run on the TPU that is here and agree with the plain forms; asked once, on a few rows.

  They have not run on every kind of TPU. Where there is none, as when the compiler works for chips that are only described,
  or Pallas interprets, there is nothing to ask.
  """
  if jax.default_backend() != "tpu":
    return True
  layer = _drawn(1, (1, 64, 256), (256, 2048), (2048,), (1024, 256), (256,))
  plain = tpu_kernels.feed_forward_written_out
  # Sums of 256 and 1,024 products of size one, in bfloat16: relative to their own size.
  return _agree(
    "our TPU attention", tpu_kernels.attention, by_einsum, _drawn(3, (1, 128, 2, 64)), 0.05
  ) and _agree("our TPU feed-forward layer", tpu_kernels.feed_forward, plain, layer, 0.05)


def _drawn(copies: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
  """Random arrays, scaled so that products over their first axis are of size one."""
  draw = np.random.default_rng(0)
  every = [shape for shape in shapes for _ in range(copies)]
  scales = [1.0 if len(shape) > 2 else shape[0] ** -0.5 for shape in every]
  return [s * draw.standard_normal(shape) for s, shape in zip(scales, every, strict=True)]


def _agree(
  name: str,
  fast: Callable[..., Array],
  plain: Callable[..., Array],
  drawn: Sequence[np.ndarray],
  tolerance: float,
) -> bool:
  """Whether two forms give the same in bfloat16 on this device; if not, a line says so."""
  try:
    with jax.ensure_compile_time_eval():
      arrays = [jnp.asarray(array, jnp.bfloat16) for array in drawn]
      error = float(jnp.abs(fast(*arrays) - plain(*arrays)).max())
  except Exception as failure:  # each library and each too old device says so in its own way
    logger.warning("%s is not used: %s", name, str(failure).splitlines()[0])
    return False
  if not error < tolerance:  # NaN fails, too
    logger.warning("%s is not used: it is off by %.3g.", name, error)
    return False
  return True


@jax.custom_vjp
def _on_tpu(
  query: Float[Array, "b q h d"], key: Float[Array, "b k h d"], value: Float[Array, "b k h d"]
) -> Float[Array, "b q h d"]:
  """Whole keys on the chip; its gradient is that of another implementation."""
  return tpu_kernels.attention(query, key, value)


def _backward_on_tpu(
  arrays: tuple[Float[Array, "b _ h d"], ...], gradient: Float[Array, "b q h d"]
) -> tuple[Float[Array, "b _ h d"], ...]:
  with_gradient = _flash if _suits_flash(*arrays[:2]) else by_einsum
  return jax.vjp(with_gradient, *arrays)[1](gradient)


_on_tpu.defvjp(lambda *arrays: (_on_tpu(*arrays), arrays), _backward_on_tpu)


def _suits_flash(query: Float[Array, "b q h d"], key: Float[Array, "b k h d"]) -> bool:
  lengths = (query.shape[1], key.shape[1])
  long = min(lengths) >= FLASH_MIN_TOKENS
  return long and not any(length % FLASH_BLOCK for length in lengths) and query.shape[-1] <= 128


def _flash(
  query: Float[Array, "b q h d"], key: Float[Array, "b k h d"], value: Float[Array, "b k h d"]
) -> Float[Array, "b q h d"]:
  from jax.experimental.pallas.ops.tpu.flash_attention import flash_attention

  heads_first = [x.transpose(0, 2, 1, 3) for x in (query, key, value)]
  mixed = flash_attention(*heads_first, sm_scale=query.shape[-1] ** -0.5)
  return mixed.transpose(0, 2, 1, 3)
