"""The largest batch that fits into device memory, by the compiler's own estimate."""

import logging
import os
from collections.abc import Callable

import jax
from jax.sharding import Mesh

logger = logging.getLogger(__name__)

# Usable share of the memory: the rest is for the next batch's inputs and for fragmentation.
USABLE = 0.85
# Larger batches gain no throughput and only delay the first image.
LARGEST = 32


def batch_that_fits(lower: Callable[[int], jax.stages.Lowered], mesh: Mesh) -> int:
  """Return the largest power of two of images per device, at most 32, that fits into memory.

  Memory is extrapolated linearly from programs for one and two images.

  Args:
    lower: lowers the program for a number of images per device.
    mesh: devices of the same kind.
  """
  limit = USABLE * memory_of(mesh.devices.flat[0], mesh.size)
  single, double = (_bytes(lower(size)) for size in (1, 2))
  # Linear extrapolation: bytes(n) = single + (n - 1) (double - single).
  fitting = 1 + int(max(0.0, limit - single) // max(1, double - single))
  batch = min(LARGEST, 1 << (fitting.bit_length() - 1))
  logger.info(
    "%d images per device: %.2f GB for one, %.2f GB for two", batch, single / 1e9, double / 1e9
  )
  return batch


def memory_of(device: jax.Device, sharers: int) -> int:
  """Return a device's memory in bytes; a CPU device has its share of half of the host's."""
  stats = device.memory_stats() if device.platform != "cpu" else None
  if stats:
    return stats["bytes_limit"]
  return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 // sharers


def _bytes(lowered: jax.stages.Lowered) -> int:
  memory = lowered.compile().memory_analysis()
  parts = ("argument", "output", "temp", "generated_code")
  return sum(getattr(memory, f"{part}_size_in_bytes") for part in parts)
