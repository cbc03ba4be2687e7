"""Compiled programs take memory on the host: some megabytes each, for as long as JAX remembers them."""

import ctypes
import gc
import os
from pathlib import Path

import jax

# What may come together before it is dropped. Budgets of different sizes have some twenty programs each, which no other
# budget can use; the programs of one budget take about 80 MB.
MOST_GROWTH = 160 << 20


class ProgramMemory:
  """Drops JAX's compiled programs once the process has grown by so much.

  Args:
    most_growth: bytes of resident memory since the beginning, or since programs were last dropped.
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
  """Give freed memory back to the system: glibc keeps it for the next program, as large as the largest."""
  trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
  if trim is not None:
    trim(0)
