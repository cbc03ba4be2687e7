"""Attention and feed-forward layers in Pallas for TPUs, which keep intermediate results on the chip.

Images are small enough that all keys and values of one image fit into a core's memory (VMEM), and so do the
weights of the wide layers. Each is read once, no online softmax is needed, and heads are split inside the
kernel without a copy.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float, Float32

from genbench_jax.models.layers import layer_norm

# A kernel has 16 MiB of VMEM on every TPU so far; 2 MiB are left for the compiler's own use.
VMEM_BYTES = 14 * 2**20
# Rows per block, and columns of the feed-forward layer's inner width per step: the largest that leave room
# for keys or weights.
QUERIES, ROWS, INNER = 128, 256, 512
# Shape of a vector register.
SUBLANES, LANES = 8, 128


def attention_fits(query: Float[Array, "b q h d"], key: Float[Array, "b k h d"]) -> bool:
  """Return whether keys and values of one image, and the scores of `QUERIES` queries, fit into VMEM."""
  keys, columns = key.shape[1], query.shape[2] * query.shape[3]
  rows, size = math.gcd(query.shape[1], QUERIES), query.dtype.itemsize
  # In bytes. Queries and outputs are double-buffered; scores and weights are kept in both precisions.
  needed = 2 * keys * columns * size + 4 * rows * columns * size + rows * keys * (4 + 4 + size)
  return rows % SUBLANES == 0 and needed <= VMEM_BYTES


def attention(
  query: Float[Array, "b q h d"],
  key: Float[Array, "b k h d"],
  value: Float[Array, "b k h d"],
) -> Float[Array, "b q h d"]:
  """Compute softmax(query key^T / sqrt(d)) value for each head, with the softmax in float32.

  Requires `attention_fits`. It has no gradient.

  Args:
    query: of q positions and h heads.
    key, value: of k positions.
  """
  batch, length, heads, width = query.shape
  keys, columns = key.shape[1], heads * width
  rows = math.gcd(length, QUERIES)
  # [b, l, h, d] -> [b, l, h d]: the heads of a row stay contiguous, so nothing is transposed.
  by_rows = pl.BlockSpec((None, rows, columns), lambda image, block: (image, block, 0))
  whole = _once((None, keys, columns), lambda image, block: (image, 0, 0))
  mixed = pl.pallas_call(
    functools.partial(_attend, heads=heads),
    grid=(batch, length // rows),
    in_specs=[by_rows, whole, whole],
    out_specs=by_rows,
    out_shape=jax.ShapeDtypeStruct((batch, length, columns), query.dtype),
    cost_estimate=pl.CostEstimate(
      flops=4 * batch * length * keys * columns,
      transcendentals=batch * heads * length * keys,
      bytes_accessed=2 * (query.size + key.size) * query.dtype.itemsize,
    ),
  )(*(x.reshape(batch, -1, columns) for x in (query, key, value)))
  return mixed.reshape(query.shape)


def _attend(query_ref: Any, key_ref: Any, value_ref: Any, out_ref: Any, *, heads: int) -> None:
  width = query_ref.shape[-1] // heads
  for head in range(heads):
    columns = slice(head * width, (head + 1) * width)
    query, key, value = (ref[:, columns] for ref in (query_ref, key_ref, value_ref))
    scores = _product(query, key, ((1,), (1,))) * width**-0.5
    weights = jnp.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = _product(weights.astype(value.dtype), value, ((1,), (0,)))
    out_ref[:, columns] = (mixed / weights.sum(axis=-1, keepdims=True)).astype(out_ref.dtype)


def projections_fit(hidden: Float[Array, "b l d"], kernels: Sequence[Float[Array, "d _"]]) -> bool:
  """Return whether the kernels, and the inputs and outputs of some rows, fit into VMEM."""
  return _projected_rows(hidden, kernels) > 0


def _projected_rows(hidden: Float[Array, "b l d"], kernels: Sequence[Float[Array, "d _"]]) -> int:
  """Return the number of rows per block, the largest divisor up to `ROWS` that fits; 0 if none does."""
  width, size = hidden.shape[-1], hidden.dtype.itemsize
  outputs = [kernel.shape[1] for kernel in kernels]
  # In bytes per row: inputs and outputs are double-buffered; the norm and one product are in float32.
  per_row = 2 * (width + sum(outputs)) * size + (2 * width + max(outputs)) * 4
  room = VMEM_BYTES - width * sum(outputs) * size
  possible = (math.gcd(math.prod(hidden.shape[:-1]), ROWS >> halved) for halved in range(4))
  return next((n for n in possible if n % SUBLANES == 0 and n * per_row <= room), 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def projections(
  hidden: Float[Array, "b l d"],
  weight: Float[Array, "d"],
  bias: Float[Array, "d"],
  kernels: tuple[Float[Array, "d _"], ...],
  eps: float,
) -> tuple[Float[Array, "b l _"], ...]:
  """Compute layer_norm(hidden, weight, bias, eps) times each of the kernels, without storing the norm.

  Queries, keys and values of an attention layer read the hidden states once instead of five times.
  Requires `projections_fit`.
  """
  width = hidden.shape[-1]
  count, rows = math.prod(hidden.shape[:-1]), _projected_rows(hidden, kernels)
  widths = [kernel.shape[1] for kernel in kernels]
  arrays = (weight[None], bias[None], *kernels)
  made = pl.pallas_call(
    functools.partial(_project, eps=eps),
    grid=(count // rows,),
    in_specs=[
      pl.BlockSpec((rows, width), lambda block: (block, 0)),
      *(_once(array.shape, lambda block: (0, 0)) for array in arrays),
    ],
    out_specs=[pl.BlockSpec((rows, columns), lambda block: (block, 0)) for columns in widths],
    out_shape=[jax.ShapeDtypeStruct((count, columns), hidden.dtype) for columns in widths],
    cost_estimate=pl.CostEstimate(
      flops=2 * count * width * sum(widths),
      transcendentals=count,
      bytes_accessed=(hidden.size + count * sum(widths)) * hidden.dtype.itemsize
      + sum(array.nbytes for array in arrays),
    ),
  )(hidden.reshape(count, width), *arrays)
  return tuple(array.reshape(*hidden.shape[:-1], -1) for array in made)


def projections_written_out(
  hidden: Float[Array, "b l d"],
  weight: Float[Array, "d"],
  bias: Float[Array, "d"],
  kernels: tuple[Float[Array, "d _"], ...],
  eps: float,
) -> tuple[Float[Array, "b l _"], ...]:
  """Compute the same in plain JAX, as reference for the kernel and for its gradient."""
  normed = layer_norm(hidden, weight, bias, eps)
  return tuple(normed @ kernel for kernel in kernels)


projections.defvjp(
  lambda *given: (projections(*given), given[:4]),
  lambda eps, arrays, gradients: jax.vjp(
    functools.partial(projections_written_out, eps=eps), *arrays
  )[1](gradients),
)


def _project(hidden_ref: Any, weight_ref: Any, bias_ref: Any, *refs: Any, eps: float) -> None:
  kernel_refs, out_refs = refs[: len(refs) // 2], refs[len(refs) // 2 :]
  normed = _normed(hidden_ref, weight_ref, bias_ref, eps)
  for kernel_ref, out_ref in zip(kernel_refs, out_refs, strict=True):
    out_ref[...] = _product(normed, kernel_ref[...], ((1,), (0,))).astype(out_ref.dtype)


def feed_forward_fits(hidden: Float[Array, "*b d"], inner_kernel: Float[Array, "d both"]) -> bool:
  """Return whether the weights, and the intermediate results of `ROWS` rows, fit into VMEM."""
  width, inner = inner_kernel.shape[0], inner_kernel.shape[1] // 2
  rows, size = math.gcd(math.prod(hidden.shape[:-1]), ROWS), hidden.dtype.itemsize
  # In bytes. Rows and outputs are double-buffered; `INNER` inner columns at a time are kept in float32.
  needed = 3 * width * inner * size + rows * width * (4 * size + 8) + rows * min(INNER, inner) * 16
  return rows % SUBLANES == 0 and inner % LANES == 0 and needed <= VMEM_BYTES


@functools.partial(jax.custom_vjp, nondiff_argnums=(7,))
def feed_forward(
  hidden: Float[Array, "*b d"],
  weight: Float[Array, "d"],
  bias: Float[Array, "d"],
  inner_kernel: Float[Array, "d both"],
  inner_bias: Float[Array, "both"],
  outer_kernel: Float[Array, "m d"],
  outer_bias: Float[Array, "d"],
  eps: float,
) -> Float[Array, "*b d"]:
  """Compute hidden + (linear * gelu(gate)) outer_kernel + outer_bias.

  linear, gate = layer_norm(hidden, weight, bias, eps) inner_kernel + inner_bias. Neither the norm nor the
  inner states are stored. Requires `feed_forward_fits`.
  """
  width, inner = hidden.shape[-1], outer_kernel.shape[0]
  count = math.prod(hidden.shape[:-1])
  rows = math.gcd(count, ROWS)
  by_rows = pl.BlockSpec((rows, width), lambda block: (block, 0))
  arrays = (
    weight[None],
    bias[None],
    inner_kernel,
    inner_bias[None],
    outer_kernel,
    outer_bias[None],
  )
  columns = LANES * math.gcd(inner // LANES, INNER // LANES)
  made = pl.pallas_call(
    functools.partial(_feed, columns=columns, eps=eps),
    grid=(count // rows,),
    in_specs=[by_rows, *(_once(array.shape, lambda block: (0, 0)) for array in arrays)],
    out_specs=by_rows,
    out_shape=jax.ShapeDtypeStruct((count, width), hidden.dtype),
    cost_estimate=pl.CostEstimate(
      flops=6 * count * width * inner,
      transcendentals=count * inner,
      bytes_accessed=2 * hidden.nbytes + sum(array.nbytes for array in arrays),
    ),
  )(hidden.reshape(count, width), *arrays)
  return made.reshape(hidden.shape)


def feed_forward_written_out(
  hidden: Float[Array, "*b d"],
  weight: Float[Array, "d"],
  bias: Float[Array, "d"],
  inner_kernel: Float[Array, "d both"],
  inner_bias: Float[Array, "both"],
  outer_kernel: Float[Array, "m d"],
  outer_bias: Float[Array, "d"],
  eps: float,
) -> Float[Array, "*b d"]:
  """Compute the same in plain JAX, as reference for the kernel and for its gradient."""
  normed = layer_norm(hidden, weight, bias, eps)
  linear, gate = jnp.split(normed @ inner_kernel + inner_bias, 2, axis=-1)
  gated = linear * gelu(gate.astype(jnp.float32)).astype(linear.dtype)
  return hidden + gated @ outer_kernel + outer_bias


feed_forward.defvjp(
  lambda *given: (feed_forward(*given), given[:7]),
  lambda eps, arrays, gradient: jax.vjp(
    functools.partial(feed_forward_written_out, eps=eps), *arrays
  )[1](gradient),
)


def _feed(
  hidden_ref: Any,
  weight_ref: Any,
  bias_ref: Any,
  inner_ref: Any,
  inner_bias_ref: Any,
  outer_ref: Any,
  outer_bias_ref: Any,
  out_ref: Any,
  *,
  columns: int,
  eps: float,
) -> None:
  normed = _normed(hidden_ref, weight_ref, bias_ref, eps)
  inner = outer_ref.shape[0]
  total = hidden_ref[...].astype(jnp.float32) + outer_bias_ref[...].astype(jnp.float32)
  for start in range(0, inner, columns):
    linear, gate = (
      _product(normed, inner_ref[:, at : at + columns], ((1,), (0,)))
      + inner_bias_ref[:, at : at + columns].astype(jnp.float32)
      for at in (start, inner + start)
    )
    gated = (linear * gelu(gate)).astype(normed.dtype)
    total += _product(gated, outer_ref[start : start + columns], ((1,), (0,)))
  out_ref[...] = total.astype(out_ref.dtype)


def gelu(x: Float32[Array, "..."]) -> Float32[Array, "..."]:
  """Return the exact GELU by erf, as PyTorch does; `jax.nn.gelu` uses erfc, which costs more."""
  return x * (1 + jax.lax.erf(x * math.sqrt(0.5))) / 2


def _normed(hidden_ref: Any, weight_ref: Any, bias_ref: Any, eps: float) -> Float[Array, "n d"]:
  """Return the layer norm of a block of rows."""
  wide = hidden_ref[...].astype(jnp.float32)
  # Not `mean`, which divides by an array: a kernel must not capture any.
  share = 1 / wide.shape[-1]
  centered = wide - wide.sum(axis=-1, keepdims=True) * share
  variance = (centered * centered).sum(axis=-1, keepdims=True) * share
  scaled = centered * jax.lax.rsqrt(variance + eps)
  weight, bias = (ref[...].astype(jnp.float32) for ref in (weight_ref, bias_ref))
  return (scaled * weight + bias).astype(hidden_ref.dtype)


def _product(left: Array, right: Array, contracted: Any) -> Float[Array, "m n"]:
  """Return the matrix product over one axis of each operand, accumulated in float32."""
  return jax.lax.dot_general(
    left, right, (contracted, ((), ())), preferred_element_type=jnp.float32
  )


def _once(shape: tuple[int | None, ...], index: Any) -> pl.BlockSpec:
  """Return the spec of a block that stays for many grid steps, and so needs no second buffer."""
  return pl.BlockSpec(shape, index, pipeline_mode=pl.Buffered(1))
