"""Tables of generators: read from a config, or swept over settings."""

import itertools
import re
from typing import Any

from genbench_jax.diffusion.settings import Generation
from genbench_jax.errors import UsageError
from genbench_jax.runtime.settings import read_table

# Settings of the benchmark rather than of one generator.
_SHARED = ("strategies", "keep_images", "shard_size")


def read_generators(base: Generation, table: Any) -> dict[str, Generation]:
  """Return name -> generator, sorted by name; `base` has the settings that an entry does not give.

  Raises:
    UsageError: a name that cannot be part of a file name, a wrong setting, or one that all
      generators share.
  """
  generators = read_table(base, table, "config.generators")
  for name, generator in generators.items():
    for key in _SHARED:
      if getattr(generator, key) != getattr(base, key):
        raise UsageError(
          f"config.generators.{name}.{key} can't be set: set config.generation.{key}, which all"
          " generators share."
        )
  return generators


def generator_sweep(name: str, **settings: Any) -> dict[str, dict[str, Any]]:
  """Return an entry of `config.generators` for every combination of the swept settings.

  `generator_sweep("sd21", guidance_scale=(1.5, 4), steps=(10, 25))` returns four entries, the first
  of which is `sd21-guidance_scale1_5-steps10`.

  Args:
    name: prefix of the names.
    **settings: settings of every entry; a list or tuple (other than `loras`) is swept.
  """
  swept = {k: v for k, v in settings.items() if isinstance(v, list | tuple) and k != "loras"}
  fixed = {key: value for key, value in settings.items() if key not in swept}
  table = {}
  for values in itertools.product(*swept.values()):
    chosen = dict(zip(swept, values, strict=True))
    parts = [f"{key}{_in_name(value)}" for key, value in chosen.items()]
    table["-".join((name, *parts))] = fixed | chosen
  return table


def _in_name(value: Any) -> str:
  """Return a value as part of a generator's name, which has no dots."""
  text = f"{value:g}" if isinstance(value, float) else str(value)
  return re.sub(r"[^A-Za-z0-9_-]", "_", text)
