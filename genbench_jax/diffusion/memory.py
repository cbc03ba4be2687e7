"""The batch that fits into a device's memory, from the compiler's own account."""

import logging
import os
from collections.abc import Callable

import jax
from jax.sharding import Mesh

logger = logging.getLogger(__name__)

# Share of the memory that a program may take: the rest is for the next batch's inputs and for fragmentation.
USABLE = 0.85
# More images at once make nothing faster, and a longer wait for the first.
LARGEST = 32


def batch_that_fits(lower: Callable[[int], jax.stages.Lowered], mesh: Mesh) -> int:
  """The largest power of two of images a device, at most 32, whose program fits into its memory.

  Memory is taken to grow evenly with the batch, by what it grows from one image to two.

  Args:
    lower: makes the program for a number of images a device.
    mesh: its devices are alike.
  """
  limit = USABLE * memory_of(mesh.devices.flat[0], mesh.size)
  one, two = (_bytes(lower(size)) for size in (1, 2))
  fitting = 1 + int(max(0.0, limit - one) // max(1, two - one))
  batch = min(LARGEST, 1 << (fitting.bit_length() - 1))
  logger.info("%d images a device: %.2f GB for one, %.2f for two", batch, one / 1e9, two / 1e9)
  return batch


def memory_of(device: jax.Device, sharers: int) -> int:
  """Bytes of a device's memory; of a CPU device, its share of half of the machine's."""
  stats = device.memory_stats() if device.platform != "cpu" else None
  if stats:
    return stats["bytes_limit"]
  return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2 // sharers


def _bytes(lowered: jax.stages.Lowered) -> int:
  memory = lowered.compile().memory_analysis()
  parts = ("argument", "output", "temp", "generated_code")
  return sum(getattr(memory, f"{part}_size_in_bytes") for part in parts)
