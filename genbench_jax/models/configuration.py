"""Read a network's settings from its checkpoint's JSON, and check them before anything is built.

Checkpoints are untrusted: a width of 10^9 or 200,000 layers must give one clear error, not an hour of
tracing or exhausted memory. So each setting is read with its type and bounds. Settings that would change
the result but are not implemented are rejected by name.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genbench_jax.errors import RunError

# Far above every published model, yet small enough to trace.
MOST_LAYERS, MOST_HEADS, MOST_WIDTH = 256, 1024, 1 << 16
MOST_TOKENS, MOST_VOCABULARY, MOST_PIXELS = 1 << 20, 1 << 22, 4096


@dataclasses.dataclass(frozen=True)
class Settings:
  """A JSON object of a configuration, or of a part of it.

  Attributes:
    values: the JSON object.
    path: its file, for messages.
    part: prefix of the setting names in messages, such as `text_config.`; empty at the top level.
  """

  values: Mapping[str, Any]
  path: Path
  part: str = ""

  def error(self, name: str, wanted: str) -> RunError:
    """Return the error to raise about a setting."""
    return RunError(f"{self.path}: {self.part}{name} is {_short(self.values.get(name))}; {wanted}.")

  def section(self, name: str) -> "Settings":
    """Return a nested object; an empty one if it is missing.

    Raises:
      RunError: the value is not an object.
    """
    value = self.values.get(name)
    if value is not None and not isinstance(value, Mapping):
      raise self.error(name, "expected a JSON object")
    return Settings(value or {}, self.path, f"{self.part}{name}.")

  def integer(
    self, name: str, default: int | None = None, low: int = 1, high: int = MOST_WIDTH
  ) -> int:
    """Return an integer within bounds; `default` if it is missing or null.

    Args:
      name: name of the setting.
      default: value if it is missing or null; None requires a value.
      low, high: inclusive bounds.

    Raises:
      RunError: the value is out of bounds, not an integer, or missing without a default.
    """
    value = self._value(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
      raise self.error(name, f"expected a whole number from {low} to {high}")
    return value

  def number(
    self, name: str, default: float | None = None, low: float = 0.0, high: float = 1e6
  ) -> float:
    """Return a finite number within bounds; `default` if it is missing or null.

    Args:
      name: name of the setting.
      default: value if it is missing or null; None requires a value.
      low, high: inclusive bounds.

    Raises:
      RunError: the value is out of bounds, not a number, or missing without a default.
    """
    value = self._value(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
      raise self.error(name, f"expected a number from {low:g} to {high:g}")
    if not low <= value <= high:  # also rejects NaN; integers may be too large for a float
      raise self.error(name, f"expected a number from {low:g} to {high:g}")
    return float(value)

  def flag(self, name: str, default: bool) -> bool:
    """Return a boolean.

    Raises:
      RunError: the value is not a boolean.
    """
    value = self._value(name, default)
    if not isinstance(value, bool):
      raise self.error(name, "expected true or false")
    return value

  def choice(self, name: str, default: str, allowed: Sequence[str]) -> str:
    """Return one of the allowed words.

    Args:
      name: name of the setting.
      default: word if it is missing or null.
      allowed: supported words.

    Raises:
      RunError: the value is not allowed.
    """
    value = self._value(name, default)
    if not isinstance(value, str) or value not in allowed:
      raise self.error(name, f"supported: {', '.join(allowed)}")
    return value

  def refuse_all_but(self, supported: Mapping[str, Any]) -> None:
    """Check that each named setting is missing or has the one value that the network implements.

    Raises:
      RunError: a setting has another value.
    """
    for name, value in supported.items():
      if self.values.get(name, value) != value:
        raise self.error(name, f"only {value!r} is supported")

  def heads(self, width: int, name: str = "num_attention_heads", default: int | None = None) -> int:
    """Return a number of attention heads that divides the width.

    Args:
      width: width of the layer.
      name: name of the setting.
      default: number if it is missing or null; None requires a value.

    Raises:
      RunError: the number is out of bounds or does not divide the width.
    """
    heads = self.integer(name, default, 1, MOST_HEADS)
    if width % heads:
      raise self.error(name, f"it must divide the width, {width}")
    return heads

  def _value(self, name: str, default: Any) -> Any:
    value = self.values.get(name)
    return default if value is None else value


def _short(value: Any) -> str:
  text = repr(value)
  return text if len(text) <= 60 else f"{text[:57]}..."


def refuse_other_models(settings: Settings, kinds: Sequence[str]) -> None:
  """Reject the configuration of another kind of model.

  Raises:
    RunError: `model_type` is not in `kinds`.
  """
  kind = settings.values.get("model_type")
  if kind not in kinds:
    wanted = " or ".join(repr(name) for name in kinds)
    raise RunError(f"{settings.path.parent} contains a model of type {_short(kind)}, not {wanted}.")
