"""Startup of JAX for a command."""

import os
from collections.abc import Mapping
from pathlib import Path

from genbench_jax.runtime.devices import declared_devices

CACHE = Path("~/.cache/genbench_jax/compiled")


def start_jax() -> None:
  """Start JAX with a compilation cache on disk, unless the environment names one."""
  # If they are installed, transformers would take half a minute to import them.
  os.environ.setdefault("USE_TF", "0")
  os.environ.setdefault("USE_TORCH", "0")
  os.environ.update(thread_settings(os.environ))
  import jax

  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update("jax_compilation_cache_dir", str(CACHE.expanduser()))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def thread_settings(environment: Mapping[str, str]) -> dict[str, str]:
  """Return variables that keep several CPU devices in one process from waiting for each other forever.

  A program occupies one thread of XLA's pools on each device, and waits there for work that it has given to
  the same pools. XLA makes one thread per core (or as many as `NPROC` says), so that with as many devices
  as cores nobody is left to do that work. Two threads per device are always enough.
  """
  devices = declared_devices(environment)
  if devices.kind != "cpu" or devices.count < 2 or "NPROC" in environment:
    return {}
  return {"NPROC": str(max(os.cpu_count() or 1, 2 * devices.count))}
