"""Peak arithmetic throughput of devices and operations of programs: their ratio is utilization."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Dense bfloat16 FLOP/s by JAX's device kind, as published. The longest matching prefix wins.
PUBLISHED = {
  "TPU v3": 61.5e12,
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5": 459e12,
  "TPU v6 lite": 918e12,
  "NVIDIA A100": 312e12,
  "NVIDIA H100": 989e12,
  "NVIDIA H100 PCIe": 756e12,
  "NVIDIA H200": 989e12,
  "NVIDIA GH200": 989e12,
  "NVIDIA B200": 2250e12,
  "NVIDIA L4": 121e12,
  "NVIDIA L40S": 362e12,
}
SIDE, REPEATS = 1024, 5


class Peak(NamedTuple):
  """FLOP/s of one device, `published` or `measured`."""

  flops: float
  origin: str


def peak_of(device: jax.Device) -> Peak:
  """Return the peak of a device: published if known, else the best of a few matrix products.

  A CPU device is measured in float32. Devices that share one CPU divide its peak.
  """
  known = [kind for kind in PUBLISHED if _begins(device.device_kind, kind)]
  if known:
    return Peak(PUBLISHED[max(known, key=len)], "published")
  sharers = len(jax.local_devices()) if device.platform == "cpu" else 1
  return Peak(_measured(device) / sharers, "measured")


def operations_of(function: Callable[..., Any], *arguments: Any) -> float:
  """Return the floating-point operations of a function, as XLA counts them before it compiles.

  They are counted for the CPU, whose backend always counts; 0 without one.

  Args:
    function: the function.
    arguments: trees of arrays or of their shapes.
  """
  shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
  try:
    host = jax.local_devices(backend="cpu")[0]
  except RuntimeError:
    return 0.0
  with jax.default_device(host):
    counted: Any = jax.jit(function).lower(*shapes).cost_analysis()
  return float(counted["flops"])


def _begins(name: str, kind: str) -> bool:
  """Return whether the words of `kind` begin `name`; `A100-SXM4-40GB` is an `A100`."""
  return f"{name.replace('-', ' ')} ".startswith(f"{kind} ")


@functools.cache
def _measured(device: jax.Device) -> float:
  dtype = jnp.float32 if device.platform == "cpu" else jnp.bfloat16
  matrix = jax.device_put(jnp.ones((SIDE, SIDE), dtype), device)
  multiply = jax.jit(jnp.matmul)
  multiply(matrix, matrix).block_until_ready()
  seconds = []
  for _ in range(REPEATS):
    began = time.perf_counter()
    multiply(matrix, matrix).block_until_ready()
    seconds.append(time.perf_counter() - began)
  return 2 * SIDE**3 / min(seconds)
