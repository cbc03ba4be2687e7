"""Tables of generators: read from a config, or swept over settings."""

import itertools
import re
from typing import Any

from genbench_jax.diffusion.settings import Generation
from genbench_jax.errors import UsageError
from genbench_jax.runtime.settings import read_table

# Settings of the benchmark rather than of one generator.
_SHARED = ("strategies", "keep_images", "shard_size")
# Settings that backends do not heed. A base may have them for other entries, so only an entry's own are rejected.
_NOT_FOR_BACKENDS = ("scheduler", "implementation")
_NOT_FOR_FUNCTIONS = (*_NOT_FOR_BACKENDS, "steps", "guidance_scale")


def read_generators(base: Generation, table: Any) -> dict[str, Generation]:
  """Return name -> generator, sorted by name; `base` has the settings that an entry does not give.

  Raises:
    UsageError: a name that cannot be part of a file name, a wrong setting, one that all generators
      share, or one that the entry's backend would ignore.
  """
  generators = read_table(base, table, "config.generators")
  for name, generator in generators.items():
    for key in _SHARED:
      if getattr(generator, key) != getattr(base, key):
        raise UsageError(
          f"config.generators.{name}.{key} can't be set: set config.generation.{key}, which all"
          " generators share."
        )
    for key in _ignored(generator.backend):
      if key in table[name] and getattr(generator, key) != getattr(base, key):
        raise UsageError(
          f"config.generators.{name}.{key} has no effect with backend {generator.backend!r}: remove it."
        )
  return generators


def _ignored(backend: str) -> tuple[str, ...]:
  """Return settings that have no effect with a backend; `Generation.check` rejects those of our own model."""
  if not backend:
    return ()
  return _NOT_FOR_FUNCTIONS if ":" in backend else _NOT_FOR_BACKENDS  # `module:function`


def generator_sweep(name: str, **settings: Any) -> dict[str, dict[str, Any]]:
  """Return an entry of `config.generators` for every combination of the swept settings.

  `generator_sweep("sd21", guidance_scale=(1.5, 4), steps=(10, 25))` returns four entries, the first
  of which is `sd21-guidance_scale1_5-steps10`.

  Args:
    name: prefix of the names.
    **settings: settings of every entry; a list or tuple is swept. Of settings that are lists
      themselves (`loras`, `timesteps`), a list of lists is.

  Raises:
    UsageError: a list is empty, or two entries would have the same name.
  """
  swept = {key: value for key, value in settings.items() if _is_swept(key, value)}
  empty = [key for key, value in swept.items() if not value]
  if empty:
    raise UsageError(f"generator_sweep({name!r}): {empty[0]} has no values to sweep.")
  fixed = {key: value for key, value in settings.items() if key not in swept}
  table: dict[str, dict[str, Any]] = {}
  for values in itertools.product(*swept.values()):
    chosen = dict(zip(swept, values, strict=True))
    entry = "-".join((name, *(f"{key}{_in_name(value)}" for key, value in chosen.items())))
    if entry in table:
      raise UsageError(
        f"generator_sweep({name!r}): two entries would be named {entry!r}; write entries with names"
        " of your own."
      )
    table[entry] = fixed | chosen
  return table


def _is_swept(key: str, value: Any) -> bool:
  """Return whether a value holds several values of a setting, which may be a list itself."""
  if not isinstance(value, list | tuple):
    return False
  return not isinstance(getattr(Generation(), key, None), tuple) or any(
    isinstance(item, list | tuple) for item in value
  )


def _in_name(value: Any) -> str:
  """Return a value as part of a generator's name, which has no dots."""
  text = str(value)
  # The short form, such as 4 for 4.0, unless it drops digits.
  if isinstance(value, float) and float(f"{value:g}") == value:
    text = f"{value:g}"
  return re.sub(r"[^A-Za-z0-9_-]", "_", text)
