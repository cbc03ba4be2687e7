"""Settings of a network from the JSON of its checkpoint, checked before anything is built.

A checkpoint is a stranger's file: a width of 10^9 or 200,000 layers must be one clear line, not an hour of tracing or all of the
memory. So each setting is read with its type and bounds, and settings that would change the result and are not
implemented are refused by name.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.errors import RunError

# Far above every published model, and small enough to trace.
MOST_LAYERS, MOST_HEADS, MOST_WIDTH = 256, 1024, 1 << 16
MOST_TOKENS, MOST_VOCABULARY, MOST_PIXELS = 1 << 20, 1 << 22, 4096


@dataclasses.dataclass(frozen=True)
class Settings:
  """The JSON object of a configuration, or a part of it.

  Attributes:
    values: what the file says.
    path: of the file, for messages.
    part: which part of it this is, for messages; empty for the whole.
  """

  values: Mapping[str, Any]
  path: Path
  part: str = ""

  def error(self, name: str, wanted: str) -> RunError:
    """What to raise about a setting."""
    return RunError(f"{self.path}: {self.part}{name} is {_short(self.values.get(name))}; {wanted}.")

  def section(self, name: str) -> "Settings":
    """A part of the configuration that is an object itself; empty where it is missing.

    Raises:
      RunError: it is something else.
    """
    value = self.values.get(name)
    if value is not None and not isinstance(value, Mapping):
      raise self.error(name, "wanted a JSON object")
    return Settings(value or {}, self.path, f"{self.part}{name}.")

  def integer(
    self, name: str, default: int | None = None, low: int = 1, high: int = MOST_WIDTH
  ) -> int:
    """A whole number within bounds; `default` where it is missing or null.

    Raises:
      RunError: it is missing without default, no whole number, or out of bounds.
    """
    value = self._value(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
      raise self.error(name, f"wanted a whole number from {low} to {high}")
    return value

  def number(
    self, name: str, default: float | None = None, low: float = 0.0, high: float = 1e6
  ) -> float:
    """A finite number within bounds; `default` where it is missing or null.

    Raises:
      RunError: it is missing without default, no number, or out of bounds.
    """
    value = self._value(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
      raise self.error(name, f"wanted a number from {low:g} to {high:g}")
    if not math.isfinite(value) or not low <= value <= high:
      raise self.error(name, f"wanted a number from {low:g} to {high:g}")
    return float(value)

  def flag(self, name: str, default: bool) -> bool:
    """True or false.

    Raises:
      RunError: it is something else.
    """
    value = self._value(name, default)
    if not isinstance(value, bool):
      raise self.error(name, "wanted true or false")
    return value

  def choice(self, name: str, default: str, allowed: Sequence[str]) -> str:
    """One of some words.

    Raises:
      RunError: it is something else.
    """
    value = self._value(name, default)
    if not isinstance(value, str) or value not in allowed:
      raise self.error(name, f"supported are {', '.join(allowed)}")
    return value

  def refuse_all_but(self, supported: Mapping[str, Any]) -> None:
    """Admits each named setting only with the value that the network implements, or missing.

    Raises:
      RunError: another value is given.
    """
    for name, value in supported.items():
      if self.values.get(name, value) != value:
        raise self.error(name, f"only {value!r} is supported")

  def heads(self, width: int, name: str = "num_attention_heads", default: int | None = None) -> int:
    """A number of attention heads that divides the width.

    Raises:
      RunError: it is out of bounds or does not divide.
    """
    heads = self.integer(name, default, 1, MOST_HEADS)
    if width % heads:
      raise self.error(name, f"wanted a divisor of the width, {width}")
    return heads

  def _value(self, name: str, default: Any) -> Any:
    value = self.values.get(name)
    return default if value is None else value


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 60 else f"{text[:57]}..."


def refuse_other_models(settings: Settings, kinds: Sequence[str]) -> None:
  """Refuses the configuration of another kind of model.

  Raises:
    RunError: `model_type` is none of `kinds`.
  """
  kind = settings.values.get("model_type")
  if kind not in kinds:
    wanted = " or ".join(repr(name) for name in kinds)
    raise RunError(f"{settings.path.parent} holds a model of type {_short(kind)}, not {wanted}.")
