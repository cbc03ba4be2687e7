"""Parsers of generation options that a config gives as text: LoRAs, scheduler settings."""

import json
from collections.abc import Sequence
from typing import Any

from genbench_jax.errors import UsageError


def parse_loras(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
  """Parse `FILE:WEIGHT` texts into pairs of file and weight; the default weight is 1.

  Raises:
    UsageError: a weight is not a number.
  """
  found = []
  for text in texts:
    file, colon, weight = text.rpartition(":")
    if not colon or weight.endswith(".safetensors"):
      file, weight = text, "1"
    try:
      found.append((file, float(weight)))
    except ValueError as error:
      raise UsageError(
        f"LoRA {text!r}: expected FILE:WEIGHT, such as style.safetensors:0.8."
      ) from error
  return tuple(found)


def parse_scheduler_settings(text: str) -> dict[str, Any]:
  """Parse a JSON object with keys of `scheduler_config.json`.

  Raises:
    UsageError: the text is not a JSON object.
  """
  try:
    settings = json.loads(text) if text else {}
  except (ValueError, RecursionError) as error:
    raise UsageError(f"scheduler_settings {text[:60]!r} is not valid JSON: {error}.") from error
  if not isinstance(settings, dict):
    raise UsageError(
      f'scheduler_settings is {text[:60]!r}; expected a JSON object such as {{"timestep_spacing": "trailing"}}.'
    )
  return settings
