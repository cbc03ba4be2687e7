"""Startup of JAX for a command."""

import os
from pathlib import Path

CACHE = Path("~/.cache/genbench_jax/compiled")


def start_jax() -> None:
  """Start JAX with a compilation cache on disk, unless the environment names one."""
  # If they are installed, transformers would take half a minute to import them.
  os.environ.setdefault("USE_TF", "0")
  os.environ.setdefault("USE_TORCH", "0")
  import jax

  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    jax.config.update("jax_compilation_cache_dir", str(CACHE.expanduser()))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
