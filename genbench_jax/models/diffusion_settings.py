"""Helpers for reading U-Net and autoencoder configurations: per-level lists, and a check for unknown settings."""

from collections.abc import Collection, Mapping
from typing import Any

from genbench_jax.models.configuration import MOST_WIDTH, Settings

# Our networks, or the stock Flax classes of diffusers below 0.40.
OURS = "ours"
IMPLEMENTATIONS = (OURS, "diffusers")
MOST_LEVELS = 8


def refuse_unknown(
  settings: Settings, fixed: Mapping[str, Collection[Any]], understood: Collection[str]
) -> None:
  """Reject settings that our networks do not implement.

  Args:
    settings: the configuration. Keys that begin with `_` are comments; null means the default.
    fixed: key -> supported values.
    understood: keys that other code reads.

  Raises:
    RunError: a setting in `fixed` has another value, or an unknown setting has a value.
  """
  for key, value in settings.values.items():
    if key.startswith("_") or value is None or key in understood:
      continue
    if key not in fixed and value is not False:
      raise settings.error(key, "unknown setting")
    if key in fixed and (isinstance(value, list | dict) or value not in fixed[key]):
      allowed = " or ".join(repr(each) for each in fixed[key])
      raise settings.error(key, f"only {allowed} is supported")


def widths(settings: Settings, key: str, usual: tuple[int, ...]) -> tuple[int, ...]:
  """Return one width per level, from the highest resolution to the lowest.

  Args:
    settings: the configuration.
    key: name of the setting.
    usual: widths if it is missing or null.

  Raises:
    RunError: there are no widths, too many, or one is out of bounds.
  """
  value = settings.values.get(key)
  value = list(usual) if value is None else value
  if not isinstance(value, list | tuple) or not 1 <= len(value) <= MOST_LEVELS:
    raise settings.error(key, f"expected a list of 1 to {MOST_LEVELS} whole numbers")
  return tuple(_item(settings, key, width, MOST_WIDTH) for width in value)


def each_level(
  settings: Settings, key: str, usual: int, levels: int, most: int = 1024
) -> tuple[int, ...]:
  """Return one integer per level, from a list or from a single number for all levels.

  Args:
    settings: the configuration.
    key: name of the setting.
    usual: number if it is missing or null.
    levels: number of levels.
    most: upper bound of each number.

  Raises:
    RunError: the value is neither, or out of bounds.
  """
  value = settings.values.get(key)
  value = usual if value is None else value
  each = list(value) if isinstance(value, list | tuple) else [value] * levels
  if len(each) != levels:
    raise settings.error(key, f"expected one number for each of the {levels} levels")
  return tuple(_item(settings, key, item, most) for item in each)


def _item(settings: Settings, key: str, value: Any, most: int) -> int:
  return Settings({key: value}, settings.path, settings.part).integer(key, 1, 1, most)
