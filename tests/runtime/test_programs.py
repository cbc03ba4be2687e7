"""Compiled programs are dropped once they take much memory, and only then."""

import jax
import jax.numpy as jnp

from genbench_jax.runtime import programs
from genbench_jax.runtime.programs import ProgramMemory, resident_bytes


def test_programs_are_dropped_only_once_the_process_has_grown(monkeypatch):
  double = jax.jit(lambda x: 2 * x)
  double(jnp.ones(3))
  resident = 100
  monkeypatch.setattr(programs, "resident_bytes", lambda: resident)
  memory = ProgramMemory(most_growth=10)
  resident = 110
  assert not memory.drop_if_large()
  assert double._cache_size() == 1
  resident = 111
  assert memory.drop_if_large()
  assert double._cache_size() == 0
  assert not memory.drop_if_large()  # growth counts from there
  assert double(jnp.ones(3)).tolist() == [2, 2, 2]


def test_the_memory_of_this_process_is_known():
  before = resident_bytes()
  block = bytearray(64 << 20)
  block[::4096] = bytes(len(block[::4096]))
  assert resident_bytes() - before > 32 << 20
