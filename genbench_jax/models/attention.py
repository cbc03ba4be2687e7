"""Attention with the fastest kernel of the platform, and plain einsums as the fallback.

All layouts are `[batch, length, heads, width]`, as in `jax.nn.dot_product_attention`.
"""

import functools
import logging
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from genbench_jax.models import tpu_kernels

logger = logging.getLogger(__name__)

# Queries per block on CPU, where one of them divides the sequence length. A block's scores then stay
# in the cache: measured on 2 cores with 64-wide heads, 3 to 4 times faster than einsums over all
# heads and queries, from 256 to 4,096 tokens.
CPU_QUERIES = (512, 256)
# JAX's flash attention for TPUs needs blocks of 128 rows and pays off from about 1,024 tokens.
FLASH_BLOCK, FLASH_MIN_TOKENS = 128, 1024
# The platform name for which no kernel is chosen: attention is written out as einsums.
PLAIN = "plain"


def attention(
  query: Float[Array, "b q h d"],
  key: Float[Array, "b k h d"],
  value: Float[Array, "b k h d"],
  platform: str | None = None,
) -> Float[Array, "b q h d"]:
  """Compute softmax(query key^T / sqrt(d)) value for each head, with the softmax in float32.

  Args:
    query, key, value: projections, already split into heads.
    platform: `cpu`, `gpu` or `tpu`, where the computation runs; JAX's default backend if None.
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
  """Compute all scores at once. The reference that every faster form must agree with.

  Args:
    query: of q positions and h heads.
    key, value: of k positions.
  """
  scores = jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
  weights = jax.nn.softmax(scores * query.shape[-1] ** -0.5, axis=-1).astype(value.dtype)
  return jnp.einsum("bhqk,bkhd->bqhd", weights, value)


def by_query_blocks(
  query: Float[Array, "b q h d"], key: Float[Array, "b k h d"], value: Float[Array, "b k h d"]
) -> Float[Array, "b q h d"]:
  """Attend one head and one block of `CPU_QUERIES` queries at a time, as two matrix products.

  Args:
    query: of q positions and h heads.
    key, value: of k positions.
  """
  batch, length, heads, width = query.shape
  at_once = next(count for count in CPU_QUERIES if length % count == 0)
  # [b, l, h, d] -> [b h, l, d]: each head of each image is one matrix.
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
  # Dividing after the product with the values touches d columns; the scores have k.
  mixed = weights.astype(value.dtype) @ value
  return (mixed / weights.sum(axis=-1, keepdims=True)).astype(value.dtype)


def _suits_cudnn(query: Float[Array, "b q h d"]) -> bool:
  # cuDNN's fused kernel takes 16-bit inputs only, and head widths that are multiples of 8 up to 128.
  return query.dtype in (jnp.bfloat16, jnp.float16) and query.shape[-1] in range(8, 129, 8)


@functools.cache
def cudnn_works() -> bool:
  """Return whether cuDNN's attention runs here and agrees with einsums. Tested once, on a small input."""

  def fast(*arrays: Array) -> Array:
    return jax.nn.dot_product_attention(*arrays, implementation="cudnn")

  # bfloat16 keeps 8 significant bits, so outputs of order one differ by up to 0.02.
  return _agree("cuDNN's attention", fast, by_einsum, _drawn(3, (1, 128, 2, 64)), 0.05)


@functools.cache
def tpu_kernels_work() -> bool:
  """Return whether our TPU kernels run on this TPU and agree with the plain forms. Tested once, on a few rows.

  Not every kind of TPU has run these kernels. Without a TPU (ahead-of-time compilation for a described
  chip, or Pallas in interpret mode) there is nothing to test, and the answer is True.
  """
  if jax.default_backend() != "tpu":
    return True
  layer = _drawn(1, (1, 64, 256), (256,), (256,), (256, 2048), (2048,), (1024, 256), (256,))
  kernels = tpu_kernels
  projected = _query(kernels.projections), _query(kernels.projections_written_out)
  feeding = (
    functools.partial(kernels.feed_forward, eps=1e-5),
    functools.partial(kernels.feed_forward_written_out, eps=1e-5),
  )
  # All sum up to 1,024 products in bfloat16; inputs are scaled so that the sums are of order one. Outputs
  # of the last two reach 5, where bfloat16 has steps of 0.03.
  return (
    _agree("our TPU attention", kernels.attention, by_einsum, _drawn(3, (1, 128, 2, 64)), 0.05)
    and _agree("our TPU projections", *projected, _drawn(1, (1, 64, 256), (256,), (256, 256)), 0.1)
    and _agree("our TPU feed-forward layer", *feeding, layer, 0.1)
  )


def _query(form: Callable[..., tuple[Array, ...]]) -> Callable[..., Array]:
  """Return a form of `tpu_kernels.projections` for one kernel, without the norm's bias."""
  return lambda hidden, weight, kernel: form(hidden, weight, 0 * weight, (kernel,), 1e-5)[0]


def _drawn(copies: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
  """Return random arrays; matrices are scaled so that products over their first axis are of order one."""
  draw = np.random.default_rng(0)
  every = [shape for shape in shapes for _ in range(copies)]
  scales = [shape[0] ** -0.5 if len(shape) == 2 else 1.0 for shape in every]
  return [s * draw.standard_normal(shape) for s, shape in zip(scales, every, strict=True)]


def _agree(
  name: str,
  fast: Callable[..., Array],
  plain: Callable[..., Array],
  drawn: Sequence[np.ndarray],
  tolerance: float,
) -> bool:
  """Return whether two forms agree in bfloat16 on this device; log a warning if they do not."""
  try:
    # Attention may be traced under jit; the test itself must run on concrete arrays.
    with jax.ensure_compile_time_eval():
      arrays = [jnp.asarray(array, jnp.bfloat16) for array in drawn]
      error = float(jnp.abs(fast(*arrays) - plain(*arrays)).max())
  except Exception as failure:  # every library and old device raises its own type
    logger.warning("%s is not used: %s", name, str(failure).splitlines()[0])
    return False
  if not error < tolerance:  # not `>=`, so that NaN counts as disagreement
    logger.warning("%s is not used: it is off by %.3g.", name, error)
    return False
  return True


@jax.custom_vjp
def _on_tpu(
  query: Float[Array, "b q h d"], key: Float[Array, "b k h d"], value: Float[Array, "b k h d"]
) -> Float[Array, "b q h d"]:
  """Attend with all keys of a head in VMEM. Our kernel has no gradient, so another form supplies it."""
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
