"""Options of generation as a config writes them, in text: LoRAs with weights, settings of the scheduler."""

import json
from collections.abc import Sequence
from typing import Any

from genbench_jax.errors import UsageError


def parse_loras(texts: Sequence[str]) -> tuple[tuple[str, float], ...]:
  """Files and weights of `FILE:WEIGHT`; without a weight it is 1.

  Raises:
    UsageError: a weight is no number.
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
        f"LoRA {text!r}: wanted FILE:WEIGHT, such as style.safetensors:0.8."
      ) from error
  return tuple(found)


def parse_scheduler_settings(text: str) -> dict[str, Any]:
  """Keys of `scheduler_config.json` as a JSON object.

  Raises:
    UsageError: it is none.
  """
  try:
    settings = json.loads(text) if text else {}
  except (ValueError, RecursionError) as error:
    raise UsageError(
      f"scheduler_settings {text[:60]!r} is not readable as JSON: {error}."
    ) from error
  if not isinstance(settings, dict):
    raise UsageError(
      f'scheduler_settings is {text[:60]!r}; wanted a JSON object such as {{"timestep_spacing": "trailing"}}.'
    )
  return settings
