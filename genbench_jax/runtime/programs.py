"""Bound the host memory of compiled programs, some megabytes each, which JAX keeps."""

import ctypes
import gc
import os
from pathlib import Path

import jax

# Growth of the process at which programs are dropped, in bytes. Each budget has some twenty programs
# of its own shapes, which take about 80 MB.
MOST_GROWTH = 160 << 20


class ProgramMemory:
  """Drops JAX's compiled programs once the process has grown by so much.

  Args:
    most_growth: bytes of resident memory since the start, or since programs were last dropped.
  """

  def __init__(self, most_growth: int = MOST_GROWTH) -> None:
    self._most_growth, self._before = most_growth, resident_bytes()

  def drop_if_large(self) -> bool:
    """Drop all compiled programs if the process has grown too large; return whether they were dropped.

    Programs that are needed again are compiled again, or read from the cache on disk.
    """
    if resident_bytes() - self._before <= self._most_growth:
      return False
    jax.clear_caches()
    gc.collect()
    _return_freed_memory()
    self._before = resident_bytes()
    return True


def resident_bytes() -> int:
  """Return the memory that the process has now; 0 where the system has no `/proc`."""
  try:
    pages = Path("/proc/self/statm").read_text().split()[1]
  except OSError:
    return 0
  return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _return_freed_memory() -> None:
  """Return freed memory to the system, which glibc would keep for later allocations."""
  trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
  if trim is not None:
    trim(0)
