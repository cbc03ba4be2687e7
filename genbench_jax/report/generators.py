"""Settings of the generators and the cost of their images."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from genbench_jax.report.results import Results, Series


@dataclasses.dataclass(frozen=True)
class Cost:
  """Cost of the images of a generator.

  Attributes:
    images: number of images.
    chip_seconds: total time of all devices, including compilation.
    rate: images per second and device, excluding compilation; 0 if unknown.
  """

  images: int
  chip_seconds: float
  rate: float

  @property
  def chip_hours(self) -> float:
    return self.chip_seconds / 3600

  @property
  def chip_seconds_per_image(self) -> float:
    """Device-seconds per image, excluding compilation if the rate is known."""
    if self.rate > 0:
      return 1 / self.rate
    return self.chip_seconds / self.images if self.images else 0.0


def settings_of(run: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
  """Return generator -> its settings; the single generator of a plain config has the name ""."""
  try:
    config = json.loads(run.get("config") or "{}")
  except (TypeError, ValueError):
    return {}
  if not isinstance(config, Mapping):
    return {}
  table, found = config.get("generators"), {}
  if isinstance(table, Mapping):
    found = {str(name): dict(value) for name, value in table.items() if isinstance(value, Mapping)}
  elif isinstance(table, Sequence) and not isinstance(table, str):
    entries = [entry for entry in table if isinstance(entry, Mapping) and entry.get("name")]
    found = {
      str(entry["name"]): {k: v for k, v in entry.items() if k != "name"} for entry in entries
    }
  plain = config.get("generation")
  base = dict(plain) if isinstance(plain, Mapping) else {}
  return {name: {**base, **own} for name, own in found.items()} or ({"": base} if base else {})


def costs_of(run: Mapping[str, Any], results: Results) -> dict[str, Cost]:
  """Return generator -> cost of its images over all datasets and strategies.

  Images that generators with equal settings share were made once; each of these generators gets their cost.
  """
  settings = settings_of(run)
  names = {series.generator for series in results.series if series.source == "generative"}
  # A generator without results must not count for one whose name its own begins with.
  names |= set(filter(None, settings))
  sums: dict[str, list[Mapping[str, Any]]] = {}
  for label, cost in dict(run.get("costs") or {}).items():
    name = _generator_of(label, names)
    if name is not None and isinstance(cost, Mapping):
      sums.setdefault(name, []).append(cost)
  for name in names - sums.keys():
    twins = (other for other in sums if name in settings and settings.get(other) == settings[name])
    if (twin := next(twins, None)) is not None:
      sums[name] = sums[twin]
  return {name: _cost(costs) for name, costs in sums.items()}


def cost_of(costs: Mapping[str, Cost], series: Series) -> Cost | None:
  """Return the cost of the images of a series; real and retrieved images have none."""
  return costs.get(series.generator) if series.source == "generative" else None


def _generator_of(label: str, names: set[str]) -> str | None:
  """Return the generator of a ledger entry; the longest matching name wins.

  An entry is named like `digits generative-NAME-defined_template-seed0`.
  """
  _, _, image_set = label.partition(" ")
  if not image_set.startswith("generative-"):
    return None
  rest = image_set.removeprefix("generative-")
  fitting = [name for name in names if name and rest.startswith(f"{name}-")]
  if fitting:
    return max(fitting, key=len)
  return next(iter(names)) if len(names) == 1 else None


def _cost(costs: Sequence[Mapping[str, Any]]) -> Cost:
  def total(name: str) -> float:
    return sum(float(cost.get(name) or 0) for cost in costs)

  chip_seconds = sum(float(c.get("seconds") or 0) * int(c.get("chips") or 1) for c in costs)
  warm = sum(float(c.get("warm_seconds") or 0) * int(c.get("chips") or 1) for c in costs)
  rate = total("warm_images") / warm if warm > 0 else 0.0
  return Cost(int(total("images")), chip_seconds, rate)
