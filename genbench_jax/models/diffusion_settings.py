"""What the readers of UNet and autoencoder configurations share: lists by level, and nothing dropped unread."""

from collections.abc import Collection, Mapping
from typing import Any

from genbench_jax.models.configuration import MOST_WIDTH, Settings

MOST_LEVELS = 8


def refuse_unknown(
  settings: Settings, fixed: Mapping[str, Collection[Any]], understood: Collection[str]
) -> None:
  """Refuse settings that ask for what a network here doesn't do.

  Args:
    settings: the file's; keys that begin with `_` are notes, and null is the default.
    fixed: key -> the values that are supported.
    understood: keys that are read elsewhere.

  Raises:
    RunError: a fixed setting has another value, or a key that nobody understands has a value.
  """
  for key, value in settings.values.items():
    if key.startswith("_") or value is None or key in understood:
      continue
    if key not in fixed and value is not False:
      raise settings.error(key, "this setting is not known here")
    if key in fixed and (isinstance(value, list | dict) or value not in fixed[key]):
      allowed = " or ".join(repr(each) for each in fixed[key])
      raise settings.error(key, f"only {allowed} is supported")


def widths(settings: Settings, key: str, usual: tuple[int, ...]) -> tuple[int, ...]:
  """One width for each level, from the largest images to the smallest.

  Raises:
    RunError: there are none, too many, or they are no sensible numbers.
  """
  value = settings.values.get(key)
  value = list(usual) if value is None else value
  if not isinstance(value, list | tuple) or not 1 <= len(value) <= MOST_LEVELS:
    raise settings.error(key, f"wanted a list of 1 to {MOST_LEVELS} whole numbers")
  return tuple(_item(settings, key, width, MOST_WIDTH) for width in value)


def each_level(
  settings: Settings, key: str, usual: int, levels: int, most: int = 1024
) -> tuple[int, ...]:
  """One whole number for each level, from a list or from one for all.

  Raises:
    RunError: it is neither, or out of bounds.
  """
  value = settings.values.get(key)
  value = usual if value is None else value
  each = list(value) if isinstance(value, list | tuple) else [value] * levels
  if len(each) != levels:
    raise settings.error(key, f"wanted one for each of {levels} levels")
  return tuple(_item(settings, key, item, most) for item in each)


def _item(settings: Settings, key: str, value: Any, most: int) -> int:
  return Settings({key: value}, settings.path, settings.part).integer(key, 1, 1, most)
